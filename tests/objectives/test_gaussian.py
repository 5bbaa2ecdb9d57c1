"""Costs of a Gaussian forecast against their definitions, and at zero spread."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scoringrules
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from xatmorep.objectives import gaussian


def statistical_of_std(target: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return gaussian.statistical(target, mean, std.square())


def nll_of_std(target: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return gaussian.negative_log_likelihood(target, mean, std.square(), floor=0.01)


def divergence_of_std(target: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return gaussian.divergence(target, target.square(), mean, std.square(), floor=0.1)


each_cost = pytest.mark.parametrize(
    "cost", [gaussian.crps, statistical_of_std, nll_of_std, divergence_of_std]
)


def case(size: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target, mean, std = torch.randn(3, size, generator=generator, dtype=torch.float64)
    return target, mean, std.abs() + 0.05


def integrated_crps(target: float, mean: float, std: float) -> float:
    """Definition of the score: squared difference of distribution functions, integrated."""
    below = quad(lambda x: norm.cdf(x, mean, std) ** 2, -np.inf, target)[0]
    above = quad(lambda x: norm.sf(x, mean, std) ** 2, target, np.inf)[0]
    return below + above


def test_crps_is_the_integral_that_defines_it() -> None:
    target, mean, std = case(size=5)
    triples = zip(target.tolist(), mean.tolist(), std.tolist(), strict=True)
    wanted = [integrated_crps(*triple) for triple in triples]
    assert gaussian.crps(target, mean, std).tolist() == pytest.approx(wanted, abs=1e-7)


def test_crps_equals_scoringrules() -> None:
    target, mean, std = case()
    wanted = scoringrules.crps_normal(target.numpy(), mean.numpy(), std.numpy())
    assert gaussian.crps(target, mean, std).numpy() == pytest.approx(wanted, abs=1e-14)


def test_crps_of_expected_targets_is_lowest_for_the_right_mean_and_spread() -> None:
    """Targets from N(0.3, 0.7); the slope of the mean score vanishes there, and only there."""
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    target = torch.distributions.Normal(0.3, 0.7).icdf(grid)

    def slopes(mean: float, std: float) -> list[float]:
        moments = torch.tensor([mean, std], dtype=torch.float64, requires_grad=True)
        gaussian.crps(target, *moments).mean().backward()
        return moments.grad.tolist()

    assert slopes(0.3, 0.7) == pytest.approx([0, 0], abs=1e-3)
    assert slopes(0.2, 0.7)[0] < -0.01
    assert slopes(0.4, 0.7)[0] > 0.01
    assert slopes(0.3, 0.6)[1] < -0.01
    assert slopes(0.3, 0.8)[1] > 0.01


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_statistical_is_its_formula(floor: float) -> None:
    target, mean, std = case()
    wide = np.sqrt(std.numpy() ** 2 + floor**2)
    likely = np.exp(-((target - mean).numpy() ** 2) / (2 * wide**2))
    wanted = (likely - 1) ** 2 + np.sqrt(wide) - math.sqrt(floor)
    assert gaussian.statistical(target, mean, std**2, floor).numpy() == pytest.approx(wanted)


@pytest.mark.parametrize("floor", [0.01, 0.5])
def test_negative_log_likelihood_is_that_of_torch(floor: float) -> None:
    target, mean, std = case()
    wide = (std.square() + floor**2).sqrt()
    density = torch.distributions.Normal(mean, wide).log_prob(target)
    constant = math.log(floor * math.sqrt(2 * math.pi))
    found = gaussian.negative_log_likelihood(target, mean, std.square(), floor)
    assert torch.allclose(found, -density - constant)


@pytest.mark.parametrize("floor", [0.01, 0.5])
def test_divergence_is_that_of_torch(floor: float) -> None:
    wanted_mean, mean, std = case()
    wanted_std = std.flip(0)
    one, two = (
        torch.distributions.Normal(m, (s.square() + floor**2).sqrt())
        for m, s in ((wanted_mean, wanted_std), (mean, std))
    )
    found = gaussian.divergence(wanted_mean, wanted_std.square(), mean, std.square(), floor)
    assert torch.allclose(found, torch.distributions.kl_divergence(one, two))


@pytest.mark.parametrize("floor", [0.01, 0.5])
def test_floor_of_the_divergence_leaves_the_best_prediction_where_it_is(floor: float) -> None:
    wanted_mean, _, wanted_std = case()
    mean = wanted_mean.mean().requires_grad_()
    variance = (wanted_std.square() + (wanted_mean - mean).square()).mean().detach()
    variance.requires_grad_()
    gaussian.divergence(wanted_mean, wanted_std.square(), mean, variance, floor).mean().backward()
    assert mean.grad == pytest.approx(0, abs=1e-12)
    assert variance.grad == pytest.approx(0, abs=1e-12)


@each_cost
def test_gradient_equals_finite_differences(cost: Callable) -> None:
    target, mean, std = case()
    assert torch.autograd.gradcheck(
        lambda m, s: cost(target, m, s), (mean.requires_grad_(), std.requires_grad_())
    )


@pytest.mark.parametrize("error", [-2.0, 0.0, 0.5])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_without_spread(error: float, zero: float) -> None:
    target, mean, std = torch.tensor([error]), torch.zeros(1), torch.tensor([zero])
    assert gaussian.crps(target, mean, std).item() == abs(error)
    assert gaussian.statistical(target, mean, std.square()).item() == (error != 0)
    assert nll_of_std(target, mean, std).item() == pytest.approx(error**2 / (2 * 0.01**2))
    none = gaussian.divergence(target, std.square(), mean, std.square(), floor=0.1)
    assert none.item() == pytest.approx(error**2 / (2 * 0.1**2))


def test_moments_of_members() -> None:
    prediction = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean, std = gaussian.moments(prediction)
    assert torch.allclose(mean, prediction.mean(1))
    assert torch.allclose(std, prediction.std(1))
    equal = torch.ones(4, 5, 3, requires_grad=True)
    for members in (1, 5):
        none = gaussian.moments(equal[:, :members])[1]
        none.sum().backward()
        assert (none == 0).all()
        assert (equal.grad == 0).all()


@each_cost
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("error", [0.0, 1e-12, 1.0, 1e6])
@pytest.mark.parametrize("spread", [0.0, 1e-30, 1e-12, 1.0, 1e6])
def test_value_and_gradient_are_finite(
    cost: Callable, dtype: torch.dtype, error: float, spread: float
) -> None:
    mean = torch.tensor([error], dtype=dtype, requires_grad=True)
    std = torch.tensor([spread], dtype=dtype, requires_grad=True)
    value = cost(torch.zeros(1, dtype=dtype), mean, std)
    value.backward()
    assert value.isfinite()
    assert mean.grad.isfinite()
    assert std.grad.isfinite()


@each_cost
def test_broken_forecasts_are_not_hidden(cost: Callable) -> None:
    one, nan = torch.ones(1), torch.full((1,), torch.nan)
    for target, mean, std in (
        (nan, one, one),
        (one, nan, one),
        (one, one, nan),
        (one, nan, 0 * one),
    ):
        assert cost(target, mean, std).isnan()
