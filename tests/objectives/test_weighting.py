"""Weights of latitudes and levels, and that only their ratios matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from xatmorep.errors import ConfigError
from xatmorep.objectives.losses import LOSSES, total_loss
from xatmorep.objectives.weighting import latitude_weights, level_weights, shares, weighted_mean


def test_latitude_weights_are_the_area_of_the_rows() -> None:
    latitude = torch.linspace(-90, 90, 721)
    weights = latitude_weights(latitude)
    assert weights.dtype == torch.float32
    assert weights.numpy() == pytest.approx(np.cos(np.deg2rad(latitude.numpy())), abs=1e-6)
    assert weights[360] == 1
    assert (weights > 0).all()
    assert torch.equal(weights, weights.flip(0))
    # The mean of the squared sine of latitude over a sphere is 1/3.
    mean = weighted_mean(torch.deg2rad(latitude).sin() ** 2, weights)
    assert mean == pytest.approx(1 / 3, abs=1e-4)
    assert latitude_weights(latitude.double()).dtype == torch.float64


def test_poles_alone_have_weight() -> None:
    weights = latitude_weights(torch.tensor([90.0, -90.0]))
    assert weighted_mean(torch.tensor([1.0, 3.0]), weights) == 2


@pytest.mark.parametrize("bad", [91.0, math.nan])
def test_latitudes_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"-90\.\.90"):
        latitude_weights(torch.tensor([0.0, bad]))


def test_each_hidden_token_has_the_weight_of_its_level() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(2, 3, 2, 3, 4, generator=generator) < 0.4
    factors = (500.0, 0.0, 850.0)
    weights = level_weights(factors, hidden)
    wanted = [[factors[i[1]]] for i in np.ndindex(*hidden.shape) if hidden[i]]
    assert weights.tolist() == wanted
    assert weights.dtype == torch.float32
    assert level_weights(factors, torch.zeros_like(hidden)).shape == (0, 1)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((1.0, -1.0, 1.0), r"finite, not negative: \(1.0, -1.0, 1.0\)"),
        ((1.0, math.nan, 1.0), "finite, not negative"),
        ((1.0, 1.0), "2 weights were given for 3 levels"),
    ],
)
def test_impossible_weights_of_levels_are_refused(factors: tuple[float, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        level_weights(factors, torch.ones(1, 3, 1, 1, 1, dtype=torch.bool))


def case() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    target = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    area = latitude_weights(torch.linspace(20, 90, 6, dtype=torch.float64)).expand(5, 6)
    level = torch.tensor([300.0, 300.0, 500.0, 850.0, 850.0])[:, None]
    return prediction, target, area, level


@pytest.mark.parametrize("name", LOSSES)
def test_only_ratios_of_weights_matter(name: str) -> None:
    """So that a weight needs no normalization, such as to a mean of one."""
    prediction, target, area, level = case()
    loss = total_loss({name: 1.0}, token_shape=(1, 6, 1))
    value = loss(prediction, target, area * level)
    for scale in (1 / area.mean(), 1e-6, 1e6):
        assert torch.allclose(loss(prediction, target, scale * area * level), value, rtol=1e-6)
    assert not torch.allclose(loss(prediction, target, area), value)
    if name != "spectral":  # to which the points of a frame are alike
        assert not torch.allclose(loss(prediction, target, level), value)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_a_batch_is_the_weighted_mean_of_its_parts(name: str) -> None:
    """So that a batch may be computed in parts."""
    prediction, target, area, level = case()
    target[1, 2:] = torch.nan
    weight = area * level * target.isfinite()
    loss = total_loss({name: 1.0}, token_shape=(2, 3, 1))
    parts = [slice(0, 2), slice(2, 5)]
    losses = torch.stack([loss(prediction[p], target[p], weight[p]) for p in parts])
    sums = torch.stack([weight[p].sum() for p in parts])
    assert torch.allclose(weighted_mean(losses, sums), loss(prediction, target, weight))


def test_shares_of_a_token_sum_to_one() -> None:
    weight = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(shares(weight).sum(1), torch.ones(4))
    assert torch.allclose(shares(weight), shares(5 * weight))
