from __future__ import annotations

import io

import pytest
import torch

from tests.tasks import small
from tests.training.runs import DISTILLATION, RUN
from tests.training.test_learner import batch
from xatmorep.errors import CheckpointError
from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import read_config
from xatmorep.training.learner import Learner
from xatmorep.training.state import TrainingState

CONFIG = read_config(
    RUN
    | {
        "model": small.CONFIG.model_copy(update={"dropout": 0.2}),
        "ema": 0.9,
        "precision": "float16",
    }
)


def fresh(seed: int = 0, config=CONFIG) -> Learner:
    network = Multiformer(config.model, torch.Generator().manual_seed(seed))
    return Learner(TrainingState(network, config), config)


def stored(content):
    """Through a file, as a checkpoint."""
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


TAUGHT = read_config(CONFIG.model_dump() | {"distillation": DISTILLATION})


@pytest.mark.parametrize("config", [CONFIG, TAUGHT], ids=["masked", "taught"])
def test_what_goes_on_from_a_state_is_what_would_have_been(config):
    with torch.random.fork_rng():
        one = fresh(config=config)
        for number in range(3):
            line = one.learn(batch(config, number))
            one.state.tally.add(line, 1.0, 0.5)
        one.state.best, one.state.seconds = 0.25, 12.5
        content = stored(one.state.content() | {"step": one.state.step})
        expected = [one.learn(batch(config, number)) for number in range(3, 6)]

        other = fresh(seed=5, config=config)
        other.learn(batch(config, 7))
        torch.rand(100)
        other.state.restore(content)
        assert (other.state.step, other.state.best, other.state.seconds) == (3, 0.25, 12.5)
        assert other.state.tally == one.state.tally
        assert [other.learn(batch(config, number)) for number in range(3, 6)] == expected
        assert other.watch() == one.watch()
    for left, right in (
        (one.state.network, other.state.network),
        (one.state.result, other.state.result),
    ):
        for a, b in zip(left.parameters(), right.parameters(), strict=True):
            assert torch.equal(a, b)
    assert one.state.scaler.state_dict() == other.state.scaler.state_dict()
    if config.distillation is not None:
        left, right = (run.state.distillation.state_dict() for run in (one, other))
        assert all(torch.equal(x, right[name]) for name, x in left.items())


def test_a_state_without_a_teacher_is_not_one_with_a_teacher():
    content = stored(fresh().state.content() | {"step": 0})
    with pytest.raises(CheckpointError, match="the checkpoint doesn't fit this run"):
        fresh(config=TAUGHT).state.restore(content)


def test_the_optimizer_has_the_network_and_the_head_once():
    state = fresh(config=TAUGHT).state
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    wanted = {*state.network.parameters(), *state.distillation.head.parameters()}
    assert len(trained) == len(wanted)
    assert set(trained) == wanted == set(state.parameters)
    assert fresh().state.distillation is None


def _drop(content):
    del content["optimizer"]


def _reshape(content):
    name = next(iter(content["network"]))
    content["network"][name] = content["network"][name][:1]


def _rename(content):
    content["network"]["other"] = content["network"].popitem()[1]


@pytest.mark.parametrize("change", [_drop, _reshape, _rename])
def test_what_does_not_fit_is_refused(change):
    state = fresh().state
    content = stored(state.content() | {"step": 0})
    change(content)
    with pytest.raises(CheckpointError, match="the checkpoint doesn't fit this run"):
        state.restore(content)
