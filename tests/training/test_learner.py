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


# ---- self-distillation


def taught(accumulate: int = 1, **changes: object) -> PretrainConfig:
    own = {"distillation": runs.DISTILLATION | changes, "batch_size": 8, "accumulate": accumulate}
    return read_config(runs.RUN | EXACT | own)


def plain() -> PretrainConfig:
    return taught().model_copy(update={"distillation": None})


def trained(one: Learner) -> dict[str, torch.Tensor]:
    network = one.state.network.named_parameters()
    head = one.state.distillation.head.named_parameters("head")
    return {name: p.detach().clone() for name, p in (*network, *head)}


@pytest.mark.parametrize("masked_weight", [0.5, 0.0])
def test_the_loss_is_that_of_both_objectives_with_their_weights(masked_weight):
    config = taught(weight=2.0, masked_weight=masked_weight)
    masked = learner(plain()).learn(batch(plain()))["loss"]
    one, two = learner(config), learner(config)
    line = one.learn(batch(config))
    (part,) = batch(config).parts
    distilled = two.state.distillation(
        two.state.network.train(),
        part.views,
        lambda network, view: {n: layers[-1] for n, layers in network.encode(view).items()},
        0,
        config.steps,
    ).item()
    assert line["distillation_loss"] == pytest.approx(distilled, rel=1e-5)
    assert line["loss"] == pytest.approx(masked_weight * masked + 2 * distilled, rel=1e-5)


def test_parts_of_a_batch_teach_what_the_batch_does_by_their_views_too():
    found = []
    for accumulate in (1, 2, 4):
        one = learner(taught(accumulate))
        line = one.learn(batch(taught(accumulate)))
        state = one.state
        grads = [p.grad for p in state.parameters]
        center = state.distillation.center.value.clone()
        found.append((line["distillation_loss"], center, grads))
    (loss, center, expected), *others = found
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for other_loss, other_center, gradients in others:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(other_center, center)
        for one, two in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=2e-5 * scale)


def test_a_step_trains_network_and_head_and_moves_the_teacher():
    config = taught()
    one = learner(config)
    state, before = one.state, trained(one)
    one.learn(batch(config))
    after = trained(one)
    assert not any(torch.equal(x, before[name]) for name, x in after.items() if x.ndim == 2)
    teacher = dict(state.distillation.teacher.named_parameters())
    for name, x in state.network.named_parameters():
        # The momentum of the first step.
        torch.testing.assert_close(teacher[name], 0.9 * before[name] + 0.1 * x)
    assert float(state.distillation.center.value.abs().max()) > 0


def test_gradients_of_network_and_head_are_clipped_together():
    config = taught().model_copy(
        update={"optimizer": plain().optimizer.model_copy(update={"gradient_clip": 1e-3})}
    )
    one = learner(config)
    assert one.learn(batch(config))["gradient_norm"] > 1e-3
    clipped = torch.cat([p.grad.flatten() for p in one.state.parameters])
    assert float(clipped.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_alone_nothing_is_predicted(monkeypatch):
    config = taught(masked_weight=0.0)
    one, data = learner(config), batch(config)
    monkeypatch.setattr(Multiformer, "decode", None)
    before = trained(one)
    one.learn(data)
    line = one.validate([data])
    assert list(line) == ["validation_distillation_loss"]
    after = trained(one)
    for name, x in after.items():
        used = not name.startswith(("decoders", "tails"))
        assert x.ndim < 2 or torch.equal(x, before[name]) != used, name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_validation_of_the_masked_objective_is_that_of_a_run_without_a_teacher(precision):
    config = taught(masked_weight=0.3).model_copy(update={"precision": precision})
    without = plain().model_copy(update={"precision": precision})
    one, other = learner(config), learner(without)
    line = one.validate([batch(config, 1), batch(config, 2)])
    wanted = other.validate([batch(without, 1), batch(without, 2)])
    assert list(line) == [*wanted, "validation_distillation_loss"]
    assert {name: line[name] for name in wanted} == wanted


def test_validation_teaches_nothing_and_repeats():
    config = taught()
    one, two = learner(config), learner(config)
    for number in range(2):
        found = [one.validate([batch(config, 5)]) for _ in range(2)]
        assert found[0] == found[1]
        assert one.learn(batch(config, number)) == two.learn(batch(config, number))
    assert one.teaching.report(2) == two.teaching.report(2)
    states = [run.state.distillation.state_dict() for run in (one, two)]
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())


def test_the_initial_weights_of_the_head_come_from_the_seed():
    def head(seed: int) -> torch.Tensor:
        config = taught().model_copy(update={"seed": seed})
        weights: torch.Tensor = learner(config).state.distillation.head.prototypes
        return weights

    assert torch.equal(head(0), head(0))
    assert not torch.equal(head(0), head(1))


def test_a_loss_of_views_that_is_no_number_is_named():
    config = taught()
    one, bad = learner(config), batch(config, 3)
    bad.parts[0].views[0].tokens["temperature"][0] = torch.inf
    with pytest.raises(TrainingError, match=r"the loss of self-distillation is nan at step 1, in"):
        one.learn(bad)


def collapse(one: Learner) -> None:
    """Make all answers of the teacher equal, whatever is asked."""
    with torch.no_grad():
        for parameter in one.state.distillation.teacher_head.mlp.parameters():
            parameter.fill_(1.0)


def test_a_collapse_is_told_once_each_time():
    config = taught()
    one = learner(config)
    for number in range(6):
        if number in (1, 2, 4):
            collapse(one)
        else:
            head = one.state.distillation.head.state_dict()
            one.state.distillation.teacher_head.load_state_dict(head)
        tally = one.learn(batch(config, number))
        one.state.tally.add(tally, 1.0, 0.0)
        if number in (1, 4):
            text = f"^after step {number + 1}: self-distillation has collapsed: all samples"
            with pytest.warns(UserWarning, match=text):
                line = one.watch()
        else:
            line = one.watch()
        assert one.teaching.collapsed == (number in (1, 2, 4))
        assert (line["teacher_told_apart"] < 0.02) == one.teaching.collapsed


def test_one_neighborhood_at_a_time_can_not_be_told_apart():
    config = taught().model_copy(update={"crops_per_slab": 1, "accumulate": 8})
    one = learner(config)
    one.state.tally.add(one.learn(batch(config)), 1.0, 0.0)
    assert list(one.watch()) == ["training_distillation_loss"]
    assert not one.teaching.collapsed


@pytest.mark.parametrize(
    ("changes", "line", "score"),
    [
        (None, {"validation_loss": 0.5}, 0.5),
        (None, {}, 2.0),
        ({}, {"validation_loss": 0.5}, 0.5),
        ({"weight": 4.0}, {}, 2.0 - 4 * 0.25),
        ({"masked_weight": 0.0}, {"validation_distillation_loss": 0.1}, -7.0),
    ],
)
def test_what_is_least_in_the_best_model(changes, line, score):
    one = learner(plain() if changes is None else taught(**changes))
    one.state.step = 7
    line = {"training_loss": 2.0, "training_distillation_loss": 0.25} | line
    assert one.score(line) == score
    if changes == {"masked_weight": 0.0}:
        one.teaching.collapsed = True
        assert score < one.score(line) < math.inf


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
