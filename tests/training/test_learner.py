from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

import xatmorep
from tests.tasks import small
from tests.training import runs
from xatmorep.errors import ConfigError, TrainingError
from xatmorep.model.multiformer import Multiformer
from xatmorep.objectives.losses import LOSSES
from xatmorep.training.batches import Batch, Batches
from xatmorep.training.config import PretrainConfig, read_config
from xatmorep.training.data import open_data
from xatmorep.training.learner import Learner
from xatmorep.training.state import TrainingState

EXACT = {"optimizer": {"warmup_steps": 0, "gradient_clip": 1e9}}


def learner(config: PretrainConfig) -> Learner:
    network = Multiformer(config.model, torch.Generator().manual_seed(3))
    return Learner(TrainingState(network, config), config)


def batch(config: PretrainConfig, number: int = 0, *, gaps: bool = False) -> Batch:
    ds = runs.smooth()
    if gaps:
        ds = ds.where((ds["longitude"] + ds["latitude"]) % 25 != 0)
        for name, field in runs.smooth().items():
            ds[name].attrs = field.attrs
    data = open_data(ds, config, None)
    return Batches(data, small.model().normalizer, config, "training").batch(number)


def gradients(config: PretrainConfig, *, gaps: bool) -> tuple[float, list[torch.Tensor]]:
    one = learner(config)
    line = one.learn(batch(config, gaps=gaps))
    found = [p.grad for p in one.state.network.parameters() if p.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in found]).norm()
    assert line["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
    return line["loss"], found


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_teach_what_the_batch_does(name, accumulate):
    """Though they hide different numbers of tokens, with different weights."""
    changes = EXACT | {
        "batch_size": 8,
        "loss": {name: 1.0},
        "field_weights": {"temperature": 3.0},
        "level_weights": {"temperature": {500: 0.2}},
        "masking": {"rate": (0.05, 0.95)},
    }
    config = read_config(runs.RUN | changes)
    parts = config.model_copy(update={"accumulate": accumulate})
    loss, expected = gradients(config, gaps=True)
    found_loss, found = gradients(parts, gaps=True)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * scale)


def test_the_loss_is_the_weighted_mean_of_the_fields():
    config = read_config(runs.RUN | EXACT | {"loss": {"mse_mean": 1.0}})
    losses = {}
    for name, weights in {
        "surface": {"temperature": 0.0},
        "levels": {"2m_temperature": 0.0},
        "both": {"temperature": 3.0},
    }.items():
        one = config.model_copy(update={"field_weights": weights})
        losses[name] = learner(one).learn(batch(one))["loss"]
    expected = (losses["surface"] + 3 * losses["levels"]) / 4
    assert losses["both"] == pytest.approx(expected, rel=1e-6)


def test_validation_is_the_loss_and_the_error_of_the_mean():
    config = read_config(runs.RUN | {"loss": {"mse_mean": 1.0}})
    one, checks = learner(config), [batch(config, number) for number in range(3)]
    line = one.validate(checks)
    losses, squares = [], dict.fromkeys(config.model.predicted, 0.0)
    sums = dict.fromkeys(config.model.predicted, 0.0)
    for check in checks:
        (part,) = check.parts
        with torch.no_grad():
            predictions = one.state.network.eval()(part.inputs, part.hidden)
        own = []
        for name, prediction in predictions.items():
            error, weight = prediction.mean(1) - part.target[name], part.weight[name]
            own.append(float((error**2 * weight).sum() / weight.sum()))
            squares[name] += float((error**2 * weight).sum())
            sums[name] += float(weight.sum())
        losses.append(np.mean(own))
    assert line["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    for name in config.model.predicted:
        rmse = math.sqrt(squares[name] / sums[name])
        assert line[f"rmse_{name}"] == pytest.approx(rmse, rel=1e-5)


def test_the_average_is_what_is_validated():
    config = read_config(runs.RUN | {"ema": 0.5})
    one, check = learner(config), [batch(config, 1)]
    before = one.validate(check)["validation_loss"]
    with torch.no_grad():
        for parameter in one.state.network.parameters():
            parameter.zero_()
    assert one.validate(check)["validation_loss"] == before
    assert one.state.result is one.state.average.network


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02), ("float32", 1e-6)]
)
def test_precisions_agree_as_far_as_they_go(precision, tolerance):
    config = read_config(runs.RUN | EXACT)
    _, expected = gradients(config, gaps=False)
    loss, found = gradients(config.model_copy(update={"precision": precision}), gaps=False)
    assert math.isfinite(loss)
    whole = torch.cat([gradient.flatten() for gradient in expected])
    error = torch.cat([gradient.flatten() for gradient in found]) - whole
    assert float(error.norm() / whole.norm()) < tolerance
    assert all(gradient.dtype == torch.float32 for gradient in found)
    if precision != "float32":
        assert float(error.abs().max()) > 0  # it did compute in that type


def test_only_float16_scales():
    for precision in ("float32", "bfloat16", "float16"):
        config = read_config(runs.RUN | {"precision": precision})
        assert learner(config).state.scaler.is_enabled() == (precision == "float16")


def test_a_step_that_overflows_in_float16_is_skipped():
    config = read_config(runs.RUN | {"precision": "float16"})
    one = learner(config)
    scaler = one.state.scaler
    scaler.load_state_dict(scaler.state_dict() | {"scale": 1e38})
    before = [parameter.clone() for parameter in one.state.network.parameters()]
    line = one.learn(batch(config))
    assert not math.isfinite(line["gradient_norm"])
    after = list(one.state.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert scaler.get_scale() == pytest.approx(5e37)
    assert one.state.step == 1


def test_a_loss_that_is_no_number_names_where_it_comes_from():
    config = read_config(runs.RUN | {"loss": {"mse_mean": 1.0}})
    one, bad = learner(config), batch(config, 3)
    bad.parts[0].target["temperature"][0, 0] = 1e30
    before = [parameter.clone() for parameter in one.state.network.parameters()]
    with pytest.raises(TrainingError) as error:
        one.learn(bad)
    message = str(error.value)
    epoch = bad.slabs[0].epoch
    assert message.startswith(
        f"the loss of temperature is inf at step 1, in batch 3 of epoch {epoch}: 202"
    )
    for place in bad.places:
        assert place in message
    after = list(one.state.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_gradient_that_is_no_number_stops_too(monkeypatch):
    config = read_config(runs.RUN)
    one = learner(config)
    next(one.state.network.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    before = [parameter.clone() for parameter in one.state.network.parameters()]
    with pytest.raises(TrainingError, match=r"the gradient is (inf|nan) at step 1, in batch 0"):
        one.learn(batch(config))
    after = list(one.state.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_gradients_are_clipped_to_the_norm():
    config = read_config(runs.RUN | {"optimizer": {"gradient_clip": 1e-3}})
    one = learner(config)
    norm = one.learn(batch(config))["gradient_norm"]
    assert norm > 1e-3
    parts = [p.grad for p in one.state.network.parameters() if p.grad is not None]
    assert float(torch.cat([p.flatten() for p in parts]).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_samples_that_hide_nothing_of_a_field_are_fine():
    config = read_config(runs.RUN | {"masking": {"strategies": {"fields": 1.0}}})
    one = learner(config)
    for number in range(8):
        assert math.isfinite(one.learn(batch(config, number))["loss"])
    assert math.isfinite(one.validate([batch(config, 9)])["validation_loss"])


# ---- compiling


def test_a_network_is_compiled_if_asked_for(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    config = read_config(runs.RUN | {"compile": True})
    one = learner(config)
    assert compiled == [one.state.network]
    assert math.isfinite(one.learn(batch(config))["loss"])


def test_without_a_compiler_nothing_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="compile needs a C\\+\\+ compiler"):
        runs.train(tmp_path / "run", runs.RUN | {"compile": True})
    assert not (tmp_path / "run").exists()


@pytest.mark.full_size
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # the compiler has many, and none is ours
def test_a_compiled_network_learns_the_same(tmp_path):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("there is no C++ compiler on this machine")
    plain = runs.train(tmp_path / "plain", runs.RUN)
    fast = runs.train(tmp_path / "compiled", runs.RUN | {"compile": True})
    for one, other in zip(fast.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert isinstance(fast, xatmorep.Model)
