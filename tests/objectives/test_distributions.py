"""Likelihood and divergence against torch and loops, and what they are lowest for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from xatmorep.objectives.distributions import gaussian_kl, gaussian_nll


def case(rows: int = 6, members: int = 4, points: int = 5, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(rows, members, points, generator=generator, dtype=torch.float64)
    target = torch.randn(rows, points, generator=generator, dtype=torch.float64)
    return prediction, target, torch.rand(rows, points, generator=generator, dtype=torch.float64)


# ---- likelihood


@pytest.mark.parametrize("floor", [0.01, 0.3])
def test_nll_equals_the_loss_of_torch(floor: float) -> None:
    prediction, target, weight = case()
    wanted = torch.nn.functional.gaussian_nll_loss(
        prediction.mean(1), target, prediction.var(1) + floor**2, reduction="none"
    )
    wanted = (weight * wanted).sum() / weight.sum() - math.log(floor)
    assert torch.allclose(gaussian_nll(prediction, target, weight, floor=floor), wanted)


@pytest.mark.parametrize("members", [1, 4])
def test_nll_without_spread_is_a_squared_error(members: int) -> None:
    prediction, target, _ = case()
    equal = prediction[:, :1].repeat(1, members, 1).requires_grad_()
    value = gaussian_nll(equal, target, floor=0.1)
    value.backward()
    wanted = (equal[:, 0] - target).square().mean() / (2 * 0.1**2)
    assert torch.allclose(value, wanted)
    assert torch.allclose(equal.grad, equal.grad[:, :1].expand_as(equal))


def quantiles(members: int, mean: float, std: float) -> Tensor:
    """Members at the quantiles of a normal distribution, ``(1, members, 1)``."""
    grid = (torch.arange(members, dtype=torch.float64) + 0.5) / members
    return Normal(mean, std).icdf(grid)[None, :, None]


def test_nll_is_proper() -> None:
    """Many members of N(b, s), targets from N(0, 1): the best are b = 0 and s = 1."""
    target = quantiles(400, 0.0, 1.0)[0]

    def score(shift: float, spread: float) -> float:
        return gaussian_nll(quantiles(400, shift, spread).expand(400, -1, 1), target).item()

    spreads, shifts = (0.5, 0.8, 0.95, 1.0, 1.05, 1.25, 2.0), (-0.5, -0.1, 0.0, 0.1, 0.5)
    assert spreads[int(np.argmin([score(0.0, s) for s in spreads]))] == 1
    assert shifts[int(np.argmin([score(b, 1.0) for b in shifts]))] == 0


def test_nll_of_few_members_favors_the_wide() -> None:
    generator = np.random.default_rng(0)
    members = torch.from_numpy(generator.standard_normal((50_000, 8, 1)))
    target = torch.from_numpy(generator.standard_normal((50_000, 1)))
    spreads = (0.7, 0.85, 1.0, 1.2, 1.4, 1.8)
    scores = [gaussian_nll(s * members, target).item() for s in spreads]
    assert 1 < spreads[int(np.argmin(scores))] < 1.8


def test_best_spread_of_the_nll_falls_short_of_the_error_by_the_floor() -> None:
    target = quantiles(400, 0.0, 1.0)[0]
    variance = torch.tensor(1 - 0.3**2, dtype=torch.float64, requires_grad=True)
    unit = quantiles(400, 0.0, 1.0)
    unit = unit / unit.std()
    members = (variance.sqrt() * target.square().mean().sqrt() * unit).expand(400, -1, 1)
    gaussian_nll(members, target, floor=0.3 * target.square().mean().sqrt().item()).backward()
    assert variance.grad == pytest.approx(0, abs=1e-9)


# ---- divergence


def slow_kl(members: np.ndarray, y: np.ndarray, w: np.ndarray, floor: float) -> float:
    def moments(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        mean = np.average(values, weights=weights)
        return float(mean), float(np.average((values - mean) ** 2, weights=weights))

    mean, variance = moments(members.ravel(), np.tile(w, len(members)))
    wanted_mean, wanted_variance = moments(y, w)
    predicted = Normal(mean, math.sqrt(variance + floor**2))
    wanted = Normal(wanted_mean, math.sqrt(wanted_variance + floor**2))
    return float(kl_divergence(wanted, predicted))


@pytest.mark.parametrize("floor", [0.1, 1.0])
def test_kl_equals_its_formula_written_out(floor: float) -> None:
    prediction, target, weight = case()
    weight[1, 2] = 0
    rows = zip(prediction.numpy(), target.numpy(), weight.numpy(), strict=True)
    wanted = np.average([slow_kl(*row, floor) for row in rows], weights=weight.sum(1).numpy())
    found = gaussian_kl(prediction, target, weight, floor=floor)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_kl_is_the_integral_that_defines_it() -> None:
    prediction, target, _ = case(rows=1)
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    p, q = (
        Normal(values.mean(), (values.var(correction=0) + 0.1**2).sqrt()).log_prob(x)
        for values in (target, prediction)
    )
    wanted = torch.trapezoid(p.exp() * (p - q), x)
    assert gaussian_kl(prediction, target).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("weight", [(6, 5), (6, 1)])
@pytest.mark.parametrize("loss", [gaussian_kl, gaussian_nll])
def test_gradient_equals_finite_differences(loss: object, weight: tuple[int, int]) -> None:
    prediction, target, _ = case()
    weights = torch.rand(weight, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, weights), prediction.requires_grad_())


@given(seed=st.integers(0, 1000))
def test_kl_does_not_see_where_in_the_token_the_values_are(seed: int) -> None:
    prediction, target, _ = case(seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(
        gaussian_kl(prediction[..., order], target), gaussian_kl(prediction, target)
    )


@given(seed=st.integers(0, 1000))
def test_kl_is_never_negative(seed: int) -> None:
    prediction, target, weight = case(seed=seed)
    assert gaussian_kl(prediction, target, weight) >= 0
    near = target[:, None] + 1e-5 * prediction
    assert gaussian_kl(near.float(), target.float()) >= -1e-6


def test_kl_of_a_token_of_one_point_and_one_member() -> None:
    prediction, target, _ = case(members=1, points=1)
    wanted = (prediction[:, 0] - target).square().mean() / (2 * 0.1**2)
    assert torch.allclose(gaussian_kl(prediction, target), wanted)


def test_kl_of_constants_is_bounded_by_the_floor() -> None:
    """Neither a constant prediction of a token with structure, nor one of a constant token."""
    target = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    flat = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    value = gaussian_kl(flat, target)
    value.backward()
    assert value.item() == pytest.approx((101 - 1 - math.log(101)) / 2)
    assert (flat.grad == 0).all()
    constant = torch.zeros(1, 2, dtype=torch.float64)
    assert gaussian_kl(target[:, None], constant).item() == pytest.approx(
        (1 / 101 - 1 + math.log(101)) / 2
    )


def test_kl_is_a_likelihood_of_the_points_of_the_target() -> None:
    """Up to what only the target decides; with no floor to speak of."""
    prediction, target, weight = case()
    other = prediction + 0.3 * prediction.flip(0)

    def likelihood(members: Tensor) -> Tensor:
        share = weight / weight.sum(1, keepdim=True)
        mean = (share[:, None] * members).sum(2).mean(1)
        square = (share[:, None] * (members - mean[:, None, None]).square()).sum(2).mean(1)
        density = Normal(mean[:, None], square.sqrt()[:, None]).log_prob(target)
        return -(weight * density).sum() / weight.sum()

    one, two = (gaussian_kl(p, target, weight, floor=1e-6) for p in (prediction, other))
    assert torch.allclose(two - one, likelihood(other) - likelihood(prediction))


def test_kl_is_proper() -> None:
    """Tokens of points that vary together; best are the mean and variance of all points."""
    generator = np.random.default_rng(0)
    target = torch.from_numpy(
        0.8 * generator.standard_normal((20_000, 1)) + 0.6 * generator.standard_normal((20_000, 6))
    )

    def score(shift: float, spread: float) -> float:
        members = quantiles(60, shift, spread).reshape(1, 10, 6).expand(20_000, 10, 6)
        return gaussian_kl(members, target).item()

    spreads, shifts = (0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 2.0), (-0.5, -0.1, 0.0, 0.1, 0.5)
    assert spreads[int(np.argmin([score(0.0, s) for s in spreads]))] == 1
    assert shifts[int(np.argmin([score(b, 1.0) for b in shifts]))] == 0
