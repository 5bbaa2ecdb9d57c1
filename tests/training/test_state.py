from __future__ import annotations

import io

import pytest
import torch

from tests.tasks import small
from tests.training.runs import RUN
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


def test_what_goes_on_from_a_state_is_what_would_have_been():
    with torch.random.fork_rng():
        one = fresh()
        for number in range(3):
            line = one.learn(batch(CONFIG, number))
            one.state.tally.add(line["loss"], 1.0, 0.5)
        one.state.best, one.state.seconds = 0.25, 12.5
        content = stored(one.state.content() | {"step": one.state.step})
        expected = [one.learn(batch(CONFIG, number)) for number in range(3, 6)]

        other = fresh(seed=5)
        other.learn(batch(CONFIG, 7))
        torch.rand(100)
        other.state.restore(content)
        assert (other.state.step, other.state.best, other.state.seconds) == (3, 0.25, 12.5)
        assert other.state.tally == one.state.tally
        assert [other.learn(batch(CONFIG, number)) for number in range(3, 6)] == expected
    for left, right in (
        (one.state.network, other.state.network),
        (one.state.result, other.state.result),
    ):
        for a, b in zip(left.parameters(), right.parameters(), strict=True):
            assert torch.equal(a, b)
    assert one.state.scaler.state_dict() == other.state.scaler.state_dict()


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
