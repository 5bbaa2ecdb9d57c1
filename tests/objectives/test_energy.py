"""The energy score against scoringrules, its definition, and what makes it proper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xatmorep.objectives.energy import energy
from xatmorep.objectives.losses import crps

each_estimator = pytest.mark.parametrize("fair", [False, True], ids=["plain", "fair"])


def case(rows: int = 6, members: int = 4, points: int = 5, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(rows, members, points, generator=generator, dtype=torch.float64)
    target = torch.randn(rows, points, generator=generator, dtype=torch.float64)
    return prediction, target, torch.rand(rows, points, generator=generator, dtype=torch.float64)


def slow_energy(members: np.ndarray, y: np.ndarray, w: np.ndarray, fair: bool) -> float:
    def norm(x: np.ndarray) -> float:
        return math.sqrt(sum(w[p] * x[p] ** 2 for p in range(len(w))) / sum(w))

    m = len(members)
    pairs = sum(norm(a - b) for a in members for b in members)
    return sum(norm(a - y) for a in members) / m - pairs / (2 * m * (m - 1 if fair else m))


@each_estimator
def test_equals_its_formula_written_out(fair: bool) -> None:
    prediction, target, weight = case()
    weight[1, 2] = 0
    rows = zip(prediction.numpy(), target.numpy(), weight.numpy(), strict=True)
    wanted = np.average([slow_energy(*row, fair) for row in rows], weights=weight.sum(1).numpy())
    assert energy(prediction, target, weight, fair=fair).item() == pytest.approx(wanted)


@pytest.mark.parametrize("members", [2, 3, 16])
@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg")])
def test_equals_scoringrules(members: int, fair: bool, estimator: str) -> None:
    prediction, target, _ = case(members=members)
    scale = math.sqrt(target.shape[1])  # scoringrules has a sum of squares, not a mean
    wanted = scoringrules.es_ensemble(target.numpy(), prediction.numpy(), estimator=estimator)
    found = energy(prediction, target, fair=fair)
    assert found.item() == pytest.approx(wanted.mean() / scale, abs=1e-12)


@each_estimator
def test_is_the_crps_for_tokens_of_one_point(fair: bool) -> None:
    prediction, target, weight = case(points=1)
    found = energy(prediction, target, weight, fair=fair)
    assert torch.allclose(found, crps(prediction, target, weight, fair=fair))


@each_estimator
@pytest.mark.parametrize("weight", [(6, 5), (6, 1)])
def test_gradient_equals_finite_differences(fair: bool, weight: tuple[int, int]) -> None:
    prediction, target, _ = case()
    weights = torch.rand(weight, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: energy(p, target, weights, fair=fair), prediction.requires_grad_()
    )


def test_one_member_gives_the_root_mean_square_error_of_the_token() -> None:
    prediction, target, _ = case(members=1)
    wanted = (prediction[:, 0] - target).square().mean(1).sqrt().mean()
    assert torch.allclose(energy(prediction, target), wanted)
    assert torch.allclose(energy(prediction, target, fair=True), wanted)


@each_estimator
def test_without_spread_it_is_the_error_and_all_members_have_one_gradient(fair: bool) -> None:
    prediction, target, _ = case()
    equal = prediction[:, :1].repeat(1, 4, 1).requires_grad_()
    value = energy(equal, target, fair=fair)
    value.backward()
    assert torch.allclose(value, energy(equal[:, :1], target))
    assert (equal.grad != 0).any()
    assert torch.allclose(equal.grad, equal.grad[:, :1].expand_as(equal))


def test_members_that_are_close_together_are_told_apart() -> None:
    """Products of matrices would lose a spread of 1e-5 beside values of 1 in float32."""
    prediction, target, _ = case()
    near = 1 + 1e-5 * prediction
    spread = energy(near[:, :1], target) - energy(near, target)
    single = energy(near[:, :1].float(), target.float()) - energy(near.float(), target.float())
    assert single.item() == pytest.approx(spread.item(), abs=1e-6)
    apart = near.float().requires_grad_()
    exact = near.clone().requires_grad_()
    energy(apart, target.float()).backward()
    energy(exact, target).backward()
    assert torch.allclose(apart.grad.double(), exact.grad, atol=1e-3)


@given(seed=st.integers(0, 1000))
def test_points_without_weight_do_not_exist(seed: int) -> None:
    prediction, target, weight = case(seed=seed)
    weight[:, 3:] = 0
    fewer = energy(prediction[..., :3], target[:, :3], weight[:, :3])
    assert torch.allclose(energy(prediction, target, weight), fewer)
    target[:, 3:] = torch.nan
    assert torch.allclose(energy(prediction, target, weight), fewer)


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_moves_with_the_data(seed: int, shift: float, scale: float) -> None:
    prediction, target, weight = case(seed=seed)
    moved = energy(scale * prediction + shift, scale * target + shift, weight, fair=True)
    assert torch.allclose(moved, scale * energy(prediction, target, weight, fair=True))


def draws(members: int, correlation: float, rows: int = 40_000) -> tuple[Tensor, Tensor, Tensor]:
    """Noise for members, and targets with unit variance and one correlation of all points."""
    generator = np.random.default_rng(0)
    noise = torch.from_numpy(generator.standard_normal((rows, members, 4)))
    common = torch.from_numpy(generator.standard_normal((rows, members, 1)))
    own = torch.from_numpy(generator.standard_normal((rows, 4)))
    shared = torch.from_numpy(generator.standard_normal((rows, 1)))
    target = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
    return noise, common, target


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.2, 0.0, 2.0]).expand(40_000, 4)])
def test_fair_score_is_proper(weight: Tensor | None) -> None:
    """Few members; the distribution of the targets is the best in scale, place and correlation."""
    noise, common, target = draws(members=3, correlation=0.6)

    def score(correlation: float, scale: float = 1.0, shift: float = 0.0) -> float:
        members = correlation**0.5 * common + (1 - correlation) ** 0.5 * noise
        return energy(scale * members + shift, target, weight, fair=True).item()

    best = score(0.6)
    for other in (0.0, 0.2, 1.0):
        assert score(other) > best + 0.002
    for scale in (0.6, 0.8, 1.25, 1.6):
        assert score(0.6, scale) > best + 0.002
    for shift in (-0.2, 0.2):
        assert score(0.6, shift=shift) > best + 0.002


def test_plain_score_of_few_members_favors_the_narrow() -> None:
    noise, common, target = draws(members=3, correlation=0.6)
    members = 0.6**0.5 * common + 0.4**0.5 * noise
    scales = (0.5, 0.7, 0.85, 1.0, 1.2)
    scores = [energy(s * members, target).item() for s in scales]
    assert scales[int(np.argmin(scores))] < 1


def test_plain_score_of_many_members_is_proper() -> None:
    noise, common, target = draws(members=200, correlation=0.6, rows=300)
    members = (0.6**0.5 * common + 0.4**0.5 * noise)[:1].expand(300, 200, 4)
    scales = (0.6, 0.8, 1.0, 1.25, 1.6)
    scores = [energy(s * members, target).item() for s in scales]
    assert scales[int(np.argmin(scores))] == 1


def test_sees_what_the_crps_does_not() -> None:
    """Members with the right values at each point, but exchanged between members."""
    noise, common, target = draws(members=8, correlation=0.9, rows=5000)
    right = 0.9**0.5 * common + 0.1**0.5 * noise
    mixed = torch.stack([right[..., p].roll(p, dims=1) for p in range(4)], dim=-1)
    assert torch.allclose(crps(mixed, target), crps(right, target))
    assert energy(mixed, target) > energy(right, target) + 0.01
