"""The spectral loss against scipy's cosine transform, and what it sees and does not see."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from xatmorep.errors import ConfigError
from xatmorep.objectives.losses import mse_ensemble
from xatmorep.objectives.spectral import spectral, spectrum

SHAPES = [(1, 4, 4), (3, 4, 6), (2, 5, 3), (2, 1, 6), (1, 6, 1)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)

Shape = tuple[int, int, int]


def case(shape: Shape, rows: int = 5, members: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    points = math.prod(shape)
    prediction = torch.randn(rows, members, points, generator=generator, dtype=torch.float64)
    target = torch.randn(rows, points, generator=generator, dtype=torch.float64)
    return prediction, target, torch.rand(rows, points, generator=generator, dtype=torch.float64)


def slow_spectrum(frame: np.ndarray, valid: np.ndarray) -> list[float]:
    mean = frame[valid].mean() if valid.any() else 0.0
    waves = dctn(np.where(valid, frame - mean, 0.0), norm="ortho")
    rows, columns = frame.shape
    squares: dict[int, float] = {}
    for i in range(rows):
        for j in range(columns):
            number = round(max(rows, columns) * math.hypot(i / rows, j / columns))
            squares[number] = squares.get(number, 0.0) + waves[i, j] ** 2
    return [squares[number] / max(valid.sum(), 1) for number in sorted(squares) if number]


def slow_spectral(members: np.ndarray, y: np.ndarray, valid: np.ndarray) -> float:
    """Of one frame, ``(members, a, o)`` and ``(a, o)``."""
    wanted = slow_spectrum(y, valid)
    costs = [
        (math.log((one + 0.01**2) / (two + 0.01**2)) / 2) ** 2
        for member in members
        for one, two in zip(slow_spectrum(member, valid), wanted, strict=True)
    ]
    return sum(costs) / len(costs)


@each_shape
def test_equals_its_formula_written_out(shape: Shape) -> None:
    prediction, target, weight = case(shape)
    weight[1, 2:4] = 0
    members, y = prediction.unflatten(2, shape).numpy(), target.unflatten(1, shape).numpy()
    w = weight.unflatten(1, shape).numpy()
    frames = list(np.ndindex(5, shape[0]))
    costs = [slow_spectral(members[r, :, t], y[r, t], w[r, t] > 0) for r, t in frames]
    wanted = np.average(costs, weights=[w[r, t].sum() for r, t in frames])
    found = spectral(prediction, target, weight, token_shape=shape)
    assert found.item() == pytest.approx(wanted)


@each_shape
def test_spectrum_holds_all_variance(shape: Shape) -> None:
    frames = case(shape)[1].unflatten(1, shape)
    found = spectrum(frames, torch.ones_like(frames, dtype=torch.bool))
    assert torch.allclose(found.sum(-1), frames.var((-2, -1), correction=0))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_wave_has_its_wavenumber(number: int) -> None:
    """A wave of 2 n / kappa points, along and down."""
    place = (torch.arange(12, dtype=torch.float64) + 0.5) / 12
    wave = 2**0.5 * torch.cos(math.pi * number * place)
    wanted = torch.zeros(12, dtype=torch.float64)
    wanted[number - 1] = 1
    for frame in (wave.expand(12, 12), wave[:, None].expand(12, 12)):
        found = spectrum(frame, torch.ones(12, 12, dtype=torch.bool))
        assert torch.allclose(found[:12], wanted)
        assert (found[12:] < 1e-12).all()


@each_shape
@pytest.mark.parametrize("by", ["point", "row"])
def test_gradient_equals_finite_differences(shape: Shape, by: str) -> None:
    prediction, target, weight = case(shape)
    weight = weight if by == "point" else weight[:, :1]
    assert torch.autograd.gradcheck(
        lambda p: spectral(p, target, weight, token_shape=shape), prediction.requires_grad_()
    )


@each_shape
def test_half_the_amplitude_costs_the_same_at_all_lengths(shape: Shape) -> None:
    _, target, _ = case(shape)
    found = spectral(target[:, None] / 2, target, token_shape=shape, floor=1e-9)
    assert found.item() == pytest.approx(math.log(2) ** 2)


@each_shape
def test_does_not_see_signs_means_and_mirror_images(shape: Shape) -> None:
    _, target, _ = case(shape)
    frames = target.unflatten(1, shape)
    others = (-frames, frames + 3.0, frames.flip(2), frames.flip(3))
    prediction = torch.stack([other.flatten(1) for other in others], dim=1)
    assert spectral(prediction, target, token_shape=shape).item() == pytest.approx(0, abs=1e-12)
    assert mse_ensemble(prediction, target) > 1


def tokens(size: int, shift: int = 0, scenes: int = 200) -> Tensor:
    """Square tokens of fields with a spectrum as steep as that of the atmosphere."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(scenes, 48, 48, generator=generator, dtype=torch.float64)
    number = 48 * torch.fft.fftfreq(48, dtype=torch.float64)
    number = torch.hypot(number[:, None], number)
    number[0, 0] = torch.inf
    field = torch.fft.ifft2(torch.fft.fft2(noise) * number**-1.5).real
    field = field / field.std()
    return field[:, shift : shift + size, shift : shift + size].flatten(1)


@pytest.mark.parametrize("size", [6, 10])
def test_smooth_forecasts_pay_and_displaced_ones_hardly(size: int) -> None:
    """Where the squared error says the contrary."""
    target, displaced = tokens(size, 4), tokens(size, 6)[:, None]
    smooth = torch.stack([tokens(size, shift) for shift in (2, 3, 4, 5, 6)]).mean(0)[:, None]
    loss = functools.partial(spectral, target=target, token_shape=(1, size, size))
    assert loss(displaced) < 0.5 * loss(smooth)
    assert mse_ensemble(displaced, target) > 2 * mse_ensemble(smooth, target)


def test_members_are_compared_and_not_their_mean() -> None:
    """Members with the waves of the target, whose mean is smooth."""
    prediction, target, _ = case((1, 4, 4))
    members = torch.stack([target, -target], dim=1)
    assert spectral(members, target, token_shape=(1, 4, 4)).item() == pytest.approx(0, abs=1e-12)
    each = [spectral(prediction[:, [k]], target, token_shape=(1, 4, 4)) for k in range(3)]
    assert torch.allclose(spectral(prediction, target, token_shape=(1, 4, 4)), sum(each) / 3)


@each_shape
@pytest.mark.parametrize("members", [1, 3])
def test_forecasts_without_waves(shape: Shape, members: int) -> None:
    """The floor bounds what constant members cost, and they have no gradient."""
    _, target, _ = case(shape)
    flat = torch.zeros(5, members, math.prod(shape), dtype=torch.float64, requires_grad=True)
    value = spectral(flat, target, token_shape=shape, floor=0.1)
    value.backward()
    frames = target.unflatten(1, shape)
    found = spectrum(frames, torch.ones_like(frames, dtype=torch.bool))
    assert torch.allclose(value, ((1 + found / 0.1**2).log() / 2).square().mean())
    assert (flat.grad == 0).all()


def test_best_is_the_mean_logarithm_for_all_members_alike() -> None:
    """So that it is no proper score: the amplitudes that the targets have are not the best."""
    generator = torch.Generator().manual_seed(0)
    strength = 0.2 + torch.rand(2000, 1, generator=generator, dtype=torch.float64)
    wave = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    loss = functools.partial(spectral, target=strength * wave, token_shape=(1, 2, 2), floor=1e-6)
    best = loss((strength.log().mean().exp() * wave).expand(2000, 1, 4))
    for other in (strength.mean(), 0.9 * strength.log().mean().exp(), strength.flip(0)[:, None]):
        assert loss((other * wave).expand(2000, 1, 4)) > best


@each_shape
def test_missing_points_are_left_out_of_both(shape: Shape) -> None:
    prediction, target, weight = case(shape)
    holes = target.clone()
    holes[0, 0] = torch.nan
    holes[2] = torch.inf
    prediction.requires_grad_()
    value = spectral(prediction, holes, weight, token_shape=shape)
    value.backward()
    assert (prediction.grad[0, :, 0] == 0).all()
    assert (prediction.grad[2] == 0).all()
    elsewhere = prediction.detach().clone()
    elsewhere[0, :, 0] = 100.0
    assert torch.allclose(spectral(elsewhere, holes, weight, token_shape=shape), value)
    perfect = holes[:, None].nan_to_num(9.0, posinf=9.0)
    assert spectral(perfect, holes, weight, token_shape=shape) == 0


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (None, "'spectral' needs the shape of a token .time, latitude, longitude.: .*token_shape"),
        ((12, 1, 1), r"tokens of shape \(12, 1, 1\): one point in space has no waves"),
        ((1, 3, 3), r"tokens of shape \(1, 3, 3\) have 9 points, the prediction has 12"),
    ],
)
def test_wrong_shapes_are_refused(shape: Shape | None, words: str) -> None:
    prediction, target, _ = case((1, 3, 4))
    with pytest.raises(ConfigError, match=words):
        spectral(prediction, target, token_shape=shape)
