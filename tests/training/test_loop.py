from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import xatmorep
from tests.training.runs import DISTILLATION, RUN, VALIDATION, lines, smooth, train
from xatmorep.errors import ConfigError, ConventionError, TrainingError
from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import read_config

EXPONENTIAL = {"epoch_steps": 1, "warmup_epochs": 2, "first": 1e-5, "decay": 1.1, "lowest": 1e-5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "first"
    model = xatmorep.pretrain(smooth(), RUN, out, validation=VALIDATION, progress=False)
    return model, out


def test_a_run_leaves_models_log_and_configuration(run):
    model, out = run
    assert sorted(path.name for path in out.iterdir()) == [
        *("best", "checkpoints", "config.yaml", "last", "ledger.csv", "log.csv", "log.jsonl"),
        *("normalization.safetensors", "run.json"),
    ]
    assert xatmorep.load(out / "best").digest == model.digest
    assert xatmorep.load(out / "last").card.training.steps == 6
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["optimizer"]["weight_decay"] == 0.01  # defaults are written out
    log = lines(out / "log.csv")
    assert [line["step"] for line in log] == ["3", "6"]
    assert float(log[-1]["validation_loss"]) > 0
    assert float(log[-1]["rmse_temperature"]) > 0
    assert 0 <= float(log[-1]["data_wait_share"]) <= 1
    same = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [{key: str(value) for key, value in line.items()} for line in same] == log


def test_the_card_says_how_it_was_trained(run):
    card = run[0].card
    assert card.name == "test-run"
    assert card.period == ("2020-12-31T06:00", "2021-01-01T06:00")
    assert card.training.validation == ("2021-01-01T12:00", "2021-01-02T00:00")
    assert card.training.samples == card.training.steps * 4
    assert card.training.device.startswith("CPU")


def test_the_written_configuration_repeats_the_run_exactly(run, tmp_path):
    _, out = run
    again = xatmorep.pretrain(
        smooth(), out / "config.yaml", tmp_path / "again", validation=VALIDATION, progress=False
    )
    assert xatmorep.load(tmp_path / "again" / "last").digest == xatmorep.load(out / "last").digest
    assert again.digest == run[0].digest


def test_another_seed_gives_another_model(run, tmp_path):
    other = xatmorep.pretrain(
        smooth(), RUN | {"seed": 1}, tmp_path / "other", validation=VALIDATION, progress=False
    )
    assert other.digest != run[0].digest


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    xatmorep.pretrain(smooth(), RUN | {"steps": 1}, tmp_path / "run", progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_statistics_come_from_the_training_times_only(tmp_path):
    ds = smooth()
    held_out = ds.sel(time=VALIDATION)["time"]
    ds["2m_temperature"] = ds["2m_temperature"].where(~ds["time"].isin(held_out), 1000.0)
    model = xatmorep.pretrain(
        ds, RUN | {"steps": 1}, tmp_path / "run", validation=VALIDATION, progress=False
    )
    assert float(model.normalizer.mean["2m_temperature"].max()) < 300


def test_it_learns(tmp_path):
    """The error at hidden tokens of held-out times falls well below one standard deviation."""
    config = RUN | {
        "steps": 300,
        "validate_every": 100,
        "batch_size": 8,
        "crops_per_slab": 4,
        "optimizer": {"learning_rate": 5e-3, "warmup_steps": 10},
    }
    xatmorep.pretrain(smooth(), config, tmp_path / "run", validation=VALIDATION, progress=False)
    log = lines(tmp_path / "run" / "log.csv")
    assert float(log[-1]["validation_loss"]) < 0.75 * float(log[0]["validation_loss"])
    assert float(log[-1]["rmse_2m_temperature"]) < 0.65


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"activation_checkpointing": True},
        {"latitude_weighted": False},
        {"batch_size": 8, "accumulate": 4},
        {"ema": 0.99},
        {"loss": {"spectral": 1.0, "energy": 1.0}},
        {"masking": {"strategies": {"random": 1, "fields": 2}}},
        {"optimizer": {"exponential": EXPONENTIAL}},
        {"distillation": DISTILLATION, "activation_checkpointing": True},
        {"distillation": DISTILLATION | {"displaced": False}, "precision": "bfloat16"},
    ],
    ids=str,
)
def test_options_of_the_loop_run(tmp_path, options):
    model = xatmorep.pretrain(
        smooth(), RUN | {"steps": 1} | options, tmp_path / "r", progress=False
    )
    assert all(bool(p.isfinite().all()) for p in model.network.parameters())


def test_activation_checkpointing_changes_no_number(tmp_path):
    plain, saved = (
        xatmorep.pretrain(
            smooth(),
            RUN | {"steps": 2, "activation_checkpointing": on},
            tmp_path / str(on),
            progress=False,
        )
        for on in (False, True)
    )
    assert plain.digest == saved.digest


def test_dask_gives_the_same_model(run, tmp_path):
    model = xatmorep.pretrain(
        smooth().chunk(time=2, latitude=5),
        RUN,
        tmp_path / "run",
        validation=VALIDATION,
        progress=False,
    )
    assert model.digest == run[0].digest


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    config = RUN | {"steps": 40, "optimizer": {"learning_rate": 1e30, "warmup_steps": 0}}
    with pytest.raises(TrainingError, match=r"is (nan|inf) at step \d+, in batch \d+ of epoch"):
        xatmorep.pretrain(smooth(), config, tmp_path / "run", progress=False)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="exists: name a new folder"):
        xatmorep.pretrain(smooth(), RUN, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_written_for_data_that_do_not_fit(tmp_path):
    with pytest.raises(ConventionError):
        xatmorep.pretrain(smooth().drop_vars("temperature"), RUN, tmp_path / "r", progress=False)
    with pytest.raises(ConventionError, match="time"):
        xatmorep.pretrain(smooth().isel(time=[0, 1, 3, 4, 5]), RUN, tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()


def test_a_file_opened_without_dask_is_not_read_as_a_whole(tmp_path, run):
    smooth().to_zarr(tmp_path / "ds.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "ds.zarr", chunks=None, consolidated=False)
    arguments = {"validation": VALIDATION, "progress": False}
    model = xatmorep.pretrain(ds, RUN, tmp_path / "run", **arguments)
    assert not ds["temperature"].variable._in_memory
    assert model.digest == run[0].digest


def test_the_progress_bar_shows_loss_speed_and_waiting(tmp_path, capsys):
    config = RUN | {"steps": 1, "peak_flops": 1e9}
    xatmorep.pretrain(smooth(), config, tmp_path / "run")
    text = capsys.readouterr().err
    assert "test-run: 100%" in text
    assert re.search(r"loss=\d+\.\d{4}, samples/s=[\d.]+, waiting=\d+%, MFU=[\d.]+%", text)
    assert re.search(r"model FLOPs: 3 x \S+ of a forward pass x \S+ neighborhoods/s", text)
    (line,) = lines(tmp_path / "run" / "log.csv")
    share = float(line["flops_per_second"]) / 1e9
    assert float(line["model_flops_utilization"]) == pytest.approx(share)


def test_progress_can_be_turned_off(tmp_path, capsys):
    xatmorep.pretrain(smooth(), RUN | {"steps": 1}, tmp_path / "run", progress=False)
    assert capsys.readouterr() == ("", "")


def test_an_average_of_the_weights_is_what_is_saved(run, tmp_path):
    model = train(tmp_path / "run", RUN | {"ema": 0.9})
    ledgers = [lines(out / "ledger.csv") for out in (run[1], tmp_path / "run")]
    assert ledgers[0] == ledgers[1]  # it changes nothing in the training
    assert model.digest != run[0].digest


def test_the_ledger_has_each_slab_once(run):
    ledger = lines(run[1] / "ledger.csv")
    assert [int(line["step"]) for line in ledger] == [1, 2, 3, 4, 5, 6]
    first, last = ([int(line[key]) for line in ledger] for key in ("first_slab", "last_slab"))
    assert first == [0, 2, 4, 6, 8, 10]
    assert last == [1, 3, 5, 7, 9, 11]
    means = np.mean([float(line["loss"]) for line in ledger[:3]])
    assert float(lines(run[1] / "log.csv")[0]["training_loss"]) == pytest.approx(means)


def test_the_best_model_is_that_with_the_lowest_validation_loss(tmp_path):
    """Such large steps lead away from where they began."""
    config = RUN | {"validate_every": 1, "optimizer": {"learning_rate": 0.1, "warmup_steps": 4}}
    best = train(tmp_path / "run", config)
    losses = [float(line["validation_loss"]) for line in lines(tmp_path / "run" / "log.csv")]
    assert np.argmin(losses) < 5
    assert best.card.training.steps == 1 + np.argmin(losses)
    assert xatmorep.load(tmp_path / "run" / "last").card.training.steps == 6


# ---- self-distillation

SHORT = RUN | {
    "steps": 40,
    "validate_every": 10,
    "batch_size": 8,
    "optimizer": {"learning_rate": 1e-2, "warmup_steps": 5},
}
UNDISPLACED = DISTILLATION | {"displaced": False, "prototypes": 32, "hidden": 32, "bottleneck": 16}
GUARD = ["teacher_entropy", "teacher_mean_entropy", "teacher_told_apart", "feature_spread"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "run"
    return train(out, SHORT | {"distillation": UNDISPLACED}), out


def test_both_objectives_learn_and_nothing_collapses(taught):
    """A collapse would be a warning, which is an error in tests."""
    silent = math.log(32)  # loss of a student that says nothing
    log, ledger = lines(taught[1] / "log.csv"), lines(taught[1] / "ledger.csv")
    assert list(log[0])[-6:] == [
        "validation_distillation_loss",
        "training_distillation_loss",
        *GUARD,
    ]
    assert list(ledger[0])[-3:] == ["loss", "gradient_norm", "distillation_loss"]
    assert float(log[-1]["validation_loss"]) < 0.97 * float(log[0]["validation_loss"])
    assert float(log[-1]["validation_distillation_loss"]) < 0.8 * silent
    assert float(log[-1]["teacher_told_apart"]) > 0.1
    means = [np.mean([float(x["distillation_loss"]) for x in ledger[n - 10 : n]]) for n in (10, 40)]
    found = [float(log[n]["training_distillation_loss"]) for n in (0, -1)]
    assert found == pytest.approx(means)


def test_the_model_of_a_student_is_like_any_other(taught):
    model, out = taught
    assert model.config == read_config(RUN).model
    assert [*model.network.state_dict()] == [*Multiformer(model.config).state_dict()]
    best = min(lines(out / "log.csv"), key=lambda line: float(line["validation_loss"]))
    assert model.card.training.steps == int(best["step"])


def test_alone_the_newest_model_is_the_best_one(tmp_path):
    alone = UNDISPLACED | {"masked_weight": 0.0}
    model = train(tmp_path / "run", RUN | {"distillation": alone})
    log = lines(tmp_path / "run" / "log.csv")
    assert [line["step"] for line in log] == ["3", "6"]
    assert not {"validation_loss", "rmse_temperature"} & set(log[0])
    assert model.card.training.steps == 6
    assert model.digest == xatmorep.load(tmp_path / "run" / "last").digest


def test_after_a_collapse_the_model_before_it_stays_the_best_one(tmp_path):
    """Without centering one prototype has everything soon, if the teacher follows at once."""
    worst = {"center_momentum": 1.0, "teacher_momentum": 0.0, "teacher_temperature": (0.01, 0.01)}
    changes = {"steps": 12, "validate_every": 3, "batch_size": 4}
    config = SHORT | changes | {"distillation": DISTILLATION | worst | {"masked_weight": 0.0}}
    with pytest.warns(UserWarning, match="self-distillation has collapsed") as caught:
        model = train(tmp_path / "run", config)
    log = lines(tmp_path / "run" / "log.csv")
    fine = [int(line["step"]) for line in log if float(line["teacher_told_apart"]) >= 0.02]
    assert model.card.training.steps == max(fine) < 12
    (first,) = [str(one.message) for one in caught]
    assert first.startswith(f"after step {max(fine) + 3}: self-distillation has collapsed: ")
    assert xatmorep.load(tmp_path / "run" / "last").card.training.steps == 12
