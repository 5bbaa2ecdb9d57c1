"""Losses against independent implementations, limits, and what their gradients do."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xatmorep.errors import ConfigError
from xatmorep.objectives.losses import (
    LOSSES,
    SHAPED,
    crps,
    gaussian_crps,
    mse_ensemble,
    mse_mean,
    statistical,
    total_loss,
)

# Those that need the shape of a token have it: three points in longitude, as below.
READY: dict[str, Callable] = {
    name: functools.partial(loss, token_shape=(1, 1, 3)) if name in SHAPED else loss
    for name, loss in LOSSES.items()
}

each_loss = pytest.mark.parametrize("loss", READY.values(), ids=READY)


def case(rows: int = 5, members: int = 4, points: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(rows, members, points, generator=generator, dtype=torch.float64)
    target = torch.randn(rows, points, generator=generator, dtype=torch.float64)
    return prediction, target


def slow_mse(members: np.ndarray, y: float) -> float:
    return float(np.mean([(e - y) ** 2 for e in members]))


def slow_statistical(members: np.ndarray, y: float, floor: float = 1e-3) -> float:
    spread = math.sqrt(np.var(members, ddof=1) + floor**2)
    likely = math.exp(-((y - np.mean(members)) ** 2) / (2 * spread**2))
    return (1 - likely) ** 2 + math.sqrt(spread) - math.sqrt(floor)


def slow_crps(members: np.ndarray, y: float, fair: bool = False) -> float:
    m = len(members)
    pairs = sum(abs(a - b) for a in members for b in members)
    return float(np.mean(np.abs(members - y)) - pairs / (2 * m * (m - 1 if fair else m)))


def slow_gaussian_crps(members: np.ndarray, y: float) -> float:
    normal = NormalDist(float(np.mean(members)), float(np.std(members, ddof=1)))
    z = (y - normal.mean) / normal.stdev
    standard = z * (2 * normal.cdf(y) - 1) + 2 * NormalDist().pdf(z) - 1 / math.sqrt(math.pi)
    return normal.stdev * standard


def slow_gaussian_nll(members: np.ndarray, y: float, floor: float = 0.01) -> float:
    spread = math.sqrt(np.var(members, ddof=1) + floor**2)
    density = NormalDist(float(np.mean(members)), spread).pdf(y)
    return -math.log(density * floor * math.sqrt(2 * math.pi))


SLOW: dict[str, Callable[[np.ndarray, float], float]] = {
    "mse_ensemble": slow_mse,
    "mse_mean": lambda members, y: float((np.mean(members) - y) ** 2),
    "statistical": slow_statistical,
    "crps": slow_crps,
    "crps_fair": lambda members, y: slow_crps(members, y, fair=True),
    "gaussian_crps": slow_gaussian_crps,
    "gaussian_nll": slow_gaussian_nll,
}

# Not sums over points: written out in the tests of their modules.
OF_TOKENS = {"gaussian_kl", "energy", "energy_fair", "spectral"}


def test_every_loss_has_a_slow_twin() -> None:
    assert SLOW.keys() ^ OF_TOKENS == LOSSES.keys()


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("weighted", ["not", "by point", "by row"])
def test_equals_its_formula_written_out(name: str, weighted: str) -> None:
    prediction, target = case()
    shape = {"not": None, "by point": (5, 3), "by row": (5, 1)}[weighted]
    weight = (
        None if shape is None else torch.rand(shape, generator=torch.Generator().manual_seed(1))
    )
    values = [
        [SLOW[name](prediction[r, :, p].numpy(), float(target[r, p])) for p in range(3)]
        for r in range(5)
    ]
    weights = None if weight is None else np.broadcast_to(weight.numpy(), (5, 3))
    wanted = np.average(values, weights=weights)
    assert LOSSES[name](prediction, target, weight).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("members", [2, 3, 16])
@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg"), (False, "qd")])
def test_crps_equals_scoringrules(members: int, fair: bool, estimator: str) -> None:
    prediction, target = case(members=members)
    wanted = scoringrules.crps_ensemble(
        target.numpy(), prediction.movedim(1, -1).numpy(), estimator=estimator
    ).mean()
    assert crps(prediction, target, fair=fair).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("members", [2, 3, 16])
def test_gaussian_crps_equals_scoringrules(members: int) -> None:
    prediction, target = case(members=members)
    mean, std = prediction.mean(1).numpy(), prediction.std(1).numpy()
    wanted = scoringrules.crps_normal(target.numpy(), mean, std).mean()
    assert gaussian_crps(prediction, target).item() == pytest.approx(wanted, abs=1e-12)


@each_loss
def test_gradient_equals_finite_differences(loss: Callable) -> None:
    prediction, target = case()
    weight = torch.rand(5, 3, dtype=torch.float64)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, target, weight), prediction)


@each_loss
@pytest.mark.parametrize("members", [1, 2, 5])
def test_perfect_forecast_without_spread_costs_nothing(loss: Callable, members: int) -> None:
    _, target = case()
    prediction = target[:, None].repeat(1, members, 1).requires_grad_()
    value = loss(prediction, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert prediction.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("error", [0.0, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("spread", [0.0, 1e-30, 1e-6, 1.0, 1e4])
def test_value_and_gradient_are_finite(
    loss: Callable, dtype: torch.dtype, error: float, spread: float
) -> None:
    members = torch.tensor([-1.0, 0.0, 2.0], dtype=dtype) * spread + error
    prediction = members[None, :, None].repeat(2, 1, 3).requires_grad_()
    value = loss(prediction, torch.zeros(2, 3, dtype=dtype))
    value.backward()
    assert value.isfinite()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert prediction.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_half_precision_is_computed_in_float32(
    loss: Callable, dtype: torch.dtype, spread: float
) -> None:
    prediction, target = case()
    prediction, target = (spread * prediction).to(dtype).requires_grad_(), target.to(dtype)
    value = loss(prediction, target)
    value.backward()
    assert value.dtype == torch.float32
    assert value == loss(prediction.float(), target.float())
    assert prediction.grad.dtype == dtype
    assert prediction.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert value == loss(prediction, target)


@each_loss
def test_broken_predictions_are_not_hidden(loss: Callable) -> None:
    prediction, target = case()
    prediction[2, 1, 0] = torch.nan
    assert loss(prediction, target).isnan()


def test_one_member() -> None:
    prediction, target = case(members=1)
    error = (prediction[:, 0] - target).abs()
    assert torch.allclose(crps(prediction, target), error.mean())
    assert torch.allclose(crps(prediction, target, fair=True), error.mean())
    assert torch.allclose(gaussian_crps(prediction, target), error.mean())
    assert torch.allclose(mse_ensemble(prediction, target), error.square().mean())
    assert torch.allclose(mse_mean(prediction, target), error.square().mean())
    likely = torch.exp(-error.square() / (2 * 0.1**2))
    assert torch.allclose(statistical(prediction, target, floor=0.1), (1 - likely).square().mean())


def test_squared_error_of_members_is_that_of_their_mean_plus_their_variance() -> None:
    prediction, target = case()
    variance = prediction.var(1, correction=0).mean()
    assert torch.allclose(mse_ensemble(prediction, target), mse_mean(prediction, target) + variance)


def test_mse_mean_is_blind_to_the_spread() -> None:
    prediction, target = case()
    mean = prediction.mean(1, keepdim=True)
    wide = (mean + 5 * (prediction - mean)).requires_grad_()
    value = mse_mean(wide, target)
    value.backward()
    assert torch.allclose(value, mse_mean(prediction, target))
    assert torch.allclose(wide.grad, wide.grad[:, :1].expand_as(wide))


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_statistical_without_floor_is_finite_without_spread(error: float) -> None:
    """The published loss is NaN here; the value is the limit of a floor that goes to zero."""
    prediction = torch.full((1, 3, 1), error, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(1, 1, dtype=torch.float64)
    value = statistical(prediction, target, floor=0.0)
    value.backward()
    assert value.item() == error
    assert (prediction.grad == 0).all()
    assert value.item() == pytest.approx(statistical(prediction, target, floor=1e-8).item())


def test_statistical_is_the_published_loss_where_that_is_finite() -> None:
    prediction, target = case()
    mean, std = prediction.mean(1), prediction.std(1)
    likely = torch.exp(-(target - mean).square() / (2 * std.square()))
    published = (likely - 1).square().mean() + std.sqrt().mean()
    assert torch.allclose(statistical(prediction, target, floor=0.0), published)
    constant = 1e-3**0.5
    assert torch.allclose(statistical(prediction, target) + constant, published, rtol=1e-4)


def test_statistical_widens_where_errors_exceed_the_spread_and_narrows_where_not() -> None:
    members = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    for error, sign in ((1.0, -1), (0.05, 1)):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        prediction = (scale * members).reshape(1, 2, 1)
        statistical(prediction, torch.full((1, 1), error, dtype=torch.float64)).backward()
        assert scale.grad.sign() == sign


def test_gaussian_crps_without_spread_is_the_absolute_error_of_the_mean() -> None:
    prediction, target = case()
    mean = prediction.mean(1, keepdim=True)
    error = (mean[:, 0] - target).abs()
    equal = mean.expand_as(prediction).clone().requires_grad_()
    value = gaussian_crps(equal, target)
    value.backward()
    assert torch.allclose(value, error.mean())
    # Each of 4 members has a quarter of the gradient of the absolute error of the mean.
    assert torch.allclose(equal.grad, ((mean - target[:, None]).sign() / 60).expand_as(equal))
    nearly = mean + 1e-9 * (prediction - mean)
    assert torch.allclose(gaussian_crps(nearly, target), error.mean())


def test_gaussian_crps_is_proper() -> None:
    """Many members of N(b, s), targets from N(0, 1): the best are b = 0 and s = 1."""
    grid = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(grid)

    def score(shift: float, spread: float) -> float:
        members = (shift + spread * quantiles)[None, :, None].expand(400, 400, 1)
        return gaussian_crps(members, quantiles[:, None]).item()

    spreads, shifts = (0.5, 0.8, 0.95, 1.0, 1.05, 1.25, 2.0), (-0.5, -0.1, 0.0, 0.1, 0.5)
    assert spreads[int(np.argmin([score(0.0, s) for s in spreads]))] == 1.0
    assert shifts[int(np.argmin([score(b, 1.0) for b in shifts]))] == 0.0
    # Expected CRPS of the standard normal distribution against itself.
    assert score(0.0, 1.0) == pytest.approx(1 / math.sqrt(math.pi), abs=0.002)


@pytest.mark.parametrize("loss", [crps, LOSSES["crps_fair"], gaussian_crps])
@pytest.mark.parametrize(("spread", "sign"), [(0.2, -1), (5.0, 1)], ids=["narrow", "wide"])
def test_crps_feels_the_spread(loss: Callable, spread: float, sign: int) -> None:
    """A too narrow ensemble is widened by gradient descent, a too wide one narrowed."""
    prediction, target = case(rows=2000, members=8, points=1)
    scale = torch.tensor(spread, dtype=torch.float64, requires_grad=True)
    loss(scale * prediction, target).backward()
    assert scale.grad.sign() == sign
    # The published kernel CRPS detaches the second term and would always narrow.
    detached = torch.tensor(spread, dtype=torch.float64, requires_grad=True)
    (detached * prediction - target[:, None]).abs().mean().backward()
    assert detached.grad > 0


def test_crps_drives_equal_members_apart() -> None:
    prediction = torch.zeros(1, 4, 1, requires_grad=True)
    crps(prediction, torch.tensor([[3.0]])).backward()
    assert len(prediction.grad.unique()) == 4


def trained(fair: bool, steps: int = 800) -> Tensor:
    """Four fixed members fitted to draws from a uniform distribution on 0..1."""
    target = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    members = torch.tensor([0.4, 0.45, 0.55, 0.6], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([members], lr=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / steps)
        optimizer.zero_grad()
        crps(members[None, :, None].expand(201, 4, 1), target, fair=fair).backward()
        optimizer.step()
    return members.detach()


def test_fixed_members_become_quantiles_and_fair_ones_run_to_the_ends() -> None:
    plain = torch.tensor([1 / 8, 3 / 8, 5 / 8, 7 / 8], dtype=torch.float64)
    fair = torch.tensor([0, 1 / 3, 2 / 3, 1], dtype=torch.float64)
    assert torch.allclose(trained(fair=False), plain, atol=0.02)
    assert torch.allclose(trained(fair=True), fair, atol=0.02)


def test_fair_crps_is_proper_and_the_plain_one_favors_the_narrow() -> None:
    """Small ensembles drawn from N(0, s), targets from N(0, 1): the fair one is best at s = 1."""
    generator = np.random.default_rng(0)
    members = torch.from_numpy(generator.standard_normal((200_000, 3, 1)))
    target = torch.from_numpy(generator.standard_normal((200_000, 1)))
    spreads = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
    fair = [crps(s * members, target, fair=True).item() for s in spreads]
    plain = [crps(s * members, target).item() for s in spreads]
    assert spreads[int(np.argmin(fair))] == 1.0
    assert spreads[int(np.argmin(plain))] < 1.0
    shifted = [crps(members + b, target, fair=True).item() for b in (-0.3, 0.0, 0.3)]
    assert int(np.argmin(shifted)) == 1
    # Expected CRPS of the standard normal distribution against itself: 1 / sqrt(pi).
    assert fair[3] == pytest.approx(1 / math.sqrt(math.pi), abs=0.005)


def test_plain_crps_of_many_members_is_proper() -> None:
    grid = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(grid)
    target = quantiles[:, None]
    spreads = (0.5, 0.8, 1.0, 1.25, 2.0)
    scores = [crps((s * quantiles)[None, :, None].expand(400, 400, 1), target) for s in spreads]
    assert spreads[int(torch.stack(scores).argmin())] == 1.0


@pytest.mark.parametrize("name", READY)
@given(seed=st.integers(0, 1000), members=st.integers(1, 6))
def test_order_of_members_does_not_matter(name: str, seed: int, members: int) -> None:
    prediction, target = case(members=members, seed=seed)
    order = torch.randperm(members, generator=torch.Generator().manual_seed(seed))
    one, two = (READY[name](p, target) for p in (prediction, prediction[:, order]))
    assert torch.allclose(one, two)


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_crps_moves_with_the_data(seed: int, shift: float, scale: float) -> None:
    prediction, target = case(seed=seed)
    moved = crps(scale * prediction + shift, scale * target + shift, fair=True)
    assert torch.allclose(moved, scale * crps(prediction, target, fair=True))


@each_loss
def test_weight_makes_a_true_mean(loss: Callable) -> None:
    prediction, target = case()
    weight = torch.tensor([[1.0], [0.0], [0.0], [2.0], [0.0]])
    one, four = (loss(prediction[[i]], target[[i]]) for i in (0, 3))
    assert torch.allclose(loss(prediction, target, weight), (one + 2 * four) / 3)
    assert torch.allclose(loss(prediction, target, 7 * weight), loss(prediction, target, weight))


@each_loss
@pytest.mark.parametrize("weight", [torch.zeros(5, 3), torch.zeros(5, 1)])
def test_no_weight_no_loss_no_gradient(loss: Callable, weight: Tensor) -> None:
    prediction, target = case()
    prediction.requires_grad_()
    value = loss(prediction, target, weight)
    value.backward()
    assert value == 0
    assert (prediction.grad == 0).all()


@each_loss
def test_no_rows_no_loss(loss: Callable) -> None:
    prediction = torch.zeros(0, 4, 3, requires_grad=True)
    value = loss(prediction, torch.zeros(0, 3))
    value.backward()
    assert value == 0


@each_loss
@pytest.mark.parametrize("weight", [None, torch.rand(5, 3), torch.rand(5, 1)])
def test_missing_targets_have_no_weight(loss: Callable, weight: Tensor | None) -> None:
    prediction, target = case()
    holes = target.clone()
    holes[1] = torch.nan
    holes[2, 0] = torch.inf
    prediction.requires_grad_()
    value = loss(prediction, holes, weight)
    value.backward()
    full = torch.ones(5, 3) if weight is None else weight.expand(5, 3)
    assert torch.allclose(value, loss(prediction, target, full * holes.isfinite()))
    assert (prediction.grad[1] == 0).all()
    assert prediction.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize(
    ("prediction", "target", "weight", "words"),
    [
        ((5, 3), (5, 3), None, r"\(tokens, members, points\)"),
        ((5, 0, 3), (5, 3), None, r"\(tokens, members, points\)"),
        ((5, 4, 3), (5, 1), None, r"target has shape \(5, 1\).*\(5, 3\) is needed"),
        ((5, 4, 3), (5, 3), (3,), r"weight has shape \(3,\): \(5, 3\) or \(5, 1\) is needed"),
    ],
)
def test_wrong_shapes_are_refused(
    loss: Callable, prediction: tuple, target: tuple, weight: tuple | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        loss(
            torch.zeros(prediction),
            torch.zeros(target),
            None if weight is None else torch.zeros(weight),
        )


def test_total_loss_is_the_weighted_sum_of_its_terms() -> None:
    prediction, target = case()
    prediction.requires_grad_()
    weight = torch.rand(5, 3)
    loss = total_loss({"mse_ensemble": 2.0, "crps": 0.5, "statistical": 0})
    terms = loss.terms(prediction, target, weight)
    assert list(terms) == ["mse_ensemble", "crps"]
    wanted = 2 * mse_ensemble(prediction, target, weight) + 0.5 * crps(prediction, target, weight)
    value = loss(prediction, target, weight)
    value.backward()
    assert torch.allclose(value, wanted)
    assert (prediction.grad != 0).any()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"crsp": 1.0}, "unknown loss 'crsp'; did you mean 'crps'"),
        ({"kl": 1.0}, f"unknown loss 'kl'; known are {', '.join(sorted(LOSSES))}"),
        ({"crps": -1.0}, "weight of loss 'crps' is -1.0"),
        ({"crps": math.nan}, "weight of loss 'crps' is nan"),
        ({"crps": 0.0}, "no loss has a positive weight"),
        ({}, "no loss has a positive weight"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        total_loss(weights)


def test_total_loss_tells_the_shape_of_a_token_to_those_that_need_it() -> None:
    prediction, target = case(points=12)
    loss = total_loss({"crps": 1.0, "spectral": 2.0}, token_shape=(2, 2, 3))
    spectral = SHAPED["spectral"](prediction, target, token_shape=(2, 2, 3))
    assert torch.allclose(loss(prediction, target), crps(prediction, target) + 2 * spectral)
    other = total_loss({"spectral": 1.0}, token_shape=(1, 2, 6))(prediction, target)
    assert not torch.allclose(other, spectral)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (None, "'spectral' needs the shape of a token .*token_shape"),
        ((3, 1, 1), r"'spectral' can't be used for tokens of shape \(3, 1, 1\)"),
    ],
)
def test_impossible_shapes_are_refused_before_anything_is_computed(
    shape: tuple[int, int, int] | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        total_loss({"crps": 1.0, "spectral": 0.1}, token_shape=shape)
    assert total_loss({"crps": 1.0, "spectral": 0.0}, token_shape=shape).weights == {"crps": 1.0}
