from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tasks import small
from xatmorep.model.multiformer import Multiformer
from xatmorep.testing.parity.losses import learning_rates
from xatmorep.training.config import OptimizerConfig
from xatmorep.training.optimizer import Average, learning_rate, make_optimizer

RECORD = Path(__file__).parents[1] / "atmorep/reference/losses/index.json"


def network() -> Multiformer:
    return Multiformer(small.CONFIG, torch.Generator().manual_seed(0))


def test_warm_up_and_cosine():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=10)
    rates = [learning_rate(step, 110, config) for step in range(110)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11))
    expected = 1 + np.cos(np.pi * np.arange(100) / 100)
    np.testing.assert_allclose(rates[10:], expected)
    assert max(rates) == 2.0
    assert learning_rate(109, 110, config) > 0


@pytest.mark.parametrize("warmup", [0, 5, 50])
def test_short_runs_have_a_schedule_too(warmup):
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=warmup)
    for steps in (1, 2, 5, 6):
        rates = [learning_rate(step, steps, config) for step in range(steps)]
        assert all(0 < rate <= 1 for rate in rates)


def test_the_exponential_schedule_is_that_of_the_original_code():
    """Learning rates of each epoch, as they were recorded."""
    record = json.loads(RECORD.read_text())["learning_rates_per_epoch"]
    published = record["config"]
    schedule = {
        "epoch_steps": 7,
        "warmup_epochs": published["lr_start_epochs"],
        "first": published["lr_start"],
        "decay": published["lr_decay_rate"],
        "lowest": published["lr_min"],
    }
    config = OptimizerConfig(learning_rate=published["lr_max"], exponential=schedule)
    for expected in (
        np.array(record["values"]),
        learning_rates(published | {"num_epochs": 300}),
    ):
        for offset in (0, 6):  # first and last step of an epoch
            found = [learning_rate(7 * e + offset, 10**6, config) for e in range(len(expected))]
            np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert learning_rate(10**9, 10**9, config) == published["lr_min"]


def test_only_matrices_decay():
    net = network()
    optimizer = make_optimizer(
        net.parameters(), OptimizerConfig(weight_decay=0.3, learning_rate=0.1)
    )
    matrices, vectors = optimizer.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert min(p.ndim for p in matrices["params"]) == 2
    assert max(p.ndim for p in vectors["params"]) == 1
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(net.parameters()))
    assert optimizer.defaults["fused"]


def test_the_average_follows_the_weights():
    """Against the sum written out."""
    net = network()
    average = Average(net, decay=0.6)
    own, parameter = next(average.network.parameters()), next(net.parameters())
    expected = parameter.detach().clone().double()
    for step in range(1, 12):
        with torch.no_grad():
            parameter.add_(0.1 * step)
        average.update(net, step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.detach().double()
    torch.testing.assert_close(own, expected.float(), rtol=1e-5, atol=1e-6)
    assert not own.requires_grad
    assert not average.network.training


def test_the_average_soon_forgets_where_it_began():
    net = network()
    average = Average(net, decay=0.999)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    for step in range(1, 201):
        average.update(net, step)
    assert all(float((p - 1).abs().max()) < 1e-6 for p in average.network.parameters())
