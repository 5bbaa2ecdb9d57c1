from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import xatmorep
from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError, TrainingError

RUN = {
    "name": "test-run",
    "description": "For tests.",
    "model": small.CONFIG,
    "steps": 6,
    "batch_size": 4,
    "crops_per_slab": 2,
    "validate_every": 3,
    "validation_batches": 2,
    "masking": {"rate": (0.3, 0.7)},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
}


def _smooth(n_times: int = 8) -> xr.Dataset:
    """Waves that a network can learn."""
    ds = small.dataset(n_times)
    phase = np.deg2rad(ds["longitude"] * 2 + ds["latitude"])
    hours = xr.DataArray(np.arange(n_times), dims="time")
    wave = (phase + 0.3 * hours).pipe(np.sin).transpose("time", "latitude", "longitude")
    ds["2m_temperature"] = (280 + 10 * wave).astype("float32").assign_attrs(units="K")
    ds["temperature"] = (
        (250 + 5 * wave * (ds["level"] / 500))
        .astype("float32")
        .transpose("time", "level", "latitude", "longitude")
    )
    ds["temperature"].attrs = {"units": "K"}
    return ds


VALIDATION = slice("2021-01-01T12", "2021-01-02")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "first"
    model = xatmorep.pretrain(_smooth(), RUN, out, validation=VALIDATION, progress=False)
    return model, out


def test_a_run_leaves_models_log_and_configuration(run):
    model, out = run
    assert sorted(path.name for path in out.iterdir()) == ["best", "config.yaml", "last", "log.csv"]
    assert xatmorep.load(out / "best").digest == model.digest
    assert xatmorep.load(out / "last").card.training.steps == 6
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["optimizer"]["weight_decay"] == 0.01  # defaults are written out
    with (out / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["3", "6"]
    assert float(lines[-1]["validation_loss"]) > 0
    assert float(lines[-1]["rmse_temperature"]) > 0
    assert 0 <= float(lines[-1]["data_wait_share"]) <= 1


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
        _smooth(), out / "config.yaml", tmp_path / "again", validation=VALIDATION, progress=False
    )
    assert xatmorep.load(tmp_path / "again" / "last").digest == xatmorep.load(out / "last").digest
    assert again.digest == run[0].digest


def test_another_seed_gives_another_model(run, tmp_path):
    other = xatmorep.pretrain(
        _smooth(), RUN | {"seed": 1}, tmp_path / "other", validation=VALIDATION, progress=False
    )
    assert other.digest != run[0].digest


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    xatmorep.pretrain(_smooth(), RUN | {"steps": 1}, tmp_path / "run", progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_statistics_come_from_the_training_times_only(tmp_path):
    ds = _smooth()
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
    xatmorep.pretrain(_smooth(), config, tmp_path / "run", validation=VALIDATION, progress=False)
    with (tmp_path / "run" / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert float(lines[-1]["validation_loss"]) < 0.75 * float(lines[0]["validation_loss"])
    assert float(lines[-1]["rmse_2m_temperature"]) < 0.65


@pytest.mark.parametrize(
    "options",
    [{"precision": "bfloat16"}, {"activation_checkpointing": True}, {"latitude_weighted": False}],
)
def test_options_of_the_loop_run(tmp_path, options):
    model = xatmorep.pretrain(
        _smooth(), RUN | {"steps": 1} | options, tmp_path / "r", progress=False
    )
    assert all(bool(p.isfinite().all()) for p in model.network.parameters())


def test_activation_checkpointing_changes_no_number(tmp_path):
    plain, saved = (
        xatmorep.pretrain(
            _smooth(),
            RUN | {"steps": 2, "activation_checkpointing": on},
            tmp_path / str(on),
            progress=False,
        )
        for on in (False, True)
    )
    assert plain.digest == saved.digest


def test_dask_gives_the_same_model(run, tmp_path):
    model = xatmorep.pretrain(
        _smooth().chunk(time=2, latitude=5),
        RUN,
        tmp_path / "run",
        validation=VALIDATION,
        progress=False,
    )
    assert model.digest == run[0].digest


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    config = RUN | {"steps": 40, "optimizer": {"learning_rate": 1e30, "warmup_steps": 0}}
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+: lower the learn"):
        xatmorep.pretrain(_smooth(), config, tmp_path / "run", progress=False)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="exists: name a new folder"):
        xatmorep.pretrain(_smooth(), RUN, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_written_for_data_that_do_not_fit(tmp_path):
    with pytest.raises(ConventionError):
        xatmorep.pretrain(_smooth().drop_vars("temperature"), RUN, tmp_path / "r", progress=False)
    with pytest.raises(ConventionError, match="time"):
        xatmorep.pretrain(_smooth().isel(time=[0, 1, 3, 4, 5]), RUN, tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()


def test_a_file_opened_without_dask_is_not_read_as_a_whole(tmp_path, run):
    _smooth().to_zarr(tmp_path / "ds.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "ds.zarr", chunks=None, consolidated=False)
    arguments = {"validation": VALIDATION, "progress": False}
    model = xatmorep.pretrain(ds, RUN, tmp_path / "run", **arguments)
    assert not ds["temperature"].variable._in_memory
    assert model.digest == run[0].digest
