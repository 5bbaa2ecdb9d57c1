"""Masking against plain loops; the recorded batches are in test_pipeline.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xatmorep.testing.parity.masking import bert, forecast, temporal_interpolation

SHAPE = (2, 3, 2, 2, 2, 3, 4)
N, POINTS = 12, 24


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def draw(rates: tuple[float, ...], seed: int) -> dict[str, Tensor]:
    """Draws as they are recorded: only as many as are used."""
    rng = np.random.default_rng(seed)
    draws: dict[str, Any] = {"masking_ratio_uniform": rng.random(SHAPE[0])}
    n = sum(math.ceil(N * (rates[0] * u)) for u in draws["masking_ratio_uniform"])
    for b in range(SHAPE[0]):
        draws[f"permutation.batch{b}"] = rng.permutation(N)
    for kind in ("mask", "noise", "multires"):
        draws[f"uniform_{kind}"] = rng.random(n)
    if k := int((draws["uniform_noise"] < rates[2]).sum()):
        draws["noise_mix_weight"] = rng.random(k).astype(np.float32)
        draws["noise_normal"] = rng.normal(size=(k, POINTS)).astype(np.float32)
    if (draws["uniform_multires"] < rates[3]).any():
        draws["multires_uniform"] = np.asarray(rng.random())
    return {name: torch.from_numpy(np.asarray(array)) for name, array in draws.items()}


def resized(frame: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear interpolation between cells of equal size, one point after the other."""
    result = np.empty((rows, columns))
    for i in range(rows):
        for k in range(columns):
            y = min(max((i + 0.5) * frame.shape[0] / rows - 0.5, 0), frame.shape[0] - 1)
            x = min(max((k + 0.5) * frame.shape[1] / columns - 0.5, 0), frame.shape[1] - 1)
            j, m = min(int(y), frame.shape[0] - 2), min(int(x), frame.shape[1] - 2)
            (a, b), (c, d) = frame[j : j + 2, m : m + 2]
            v, u = y - j, x - m
            result[i, k] = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
    return result


def slow_twin(
    values: np.ndarray, draws: dict[str, np.ndarray], rates: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    source = values.astype(np.float64).reshape(SHAPE[0] * N, *SHAPE[4:])
    original, spread = source.copy(), source.std(0, ddof=1)
    indices = []
    for b, uniform in enumerate(draws["masking_ratio_uniform"]):
        count = math.ceil(N * (rates[0] * uniform))
        indices.append([b * N + int(token) for token in draws[f"permutation.batch{b}"][:count]])
    noised = 0
    selected = [token for entry in indices for token in entry]
    for place, token in enumerate(selected):
        if draws["uniform_mask"][place] < rates[1]:
            source[token] = 0
        if draws["uniform_noise"][place] < rates[2]:
            weight = draws["noise_mix_weight"][noised]
            normal = draws["noise_normal"][noised].reshape(SHAPE[4:])
            source[token] = (1 - weight) * source[token] + 0.1 * spread * normal
            noised += 1
        if draws["uniform_multires"][place] < rates[3]:
            factor = 2 - draws["multires_uniform"]
            rows, columns = (int(factor * size) for size in SHAPE[5:])
            for frame in source[token]:
                frame[:] = resized(resized(frame, rows, columns), *SHAPE[5:])
    targets = np.stack([original[token].ravel() for token in selected])
    return source.reshape(SHAPE), targets, indices


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rates",
    [(0.9, 0.5, 0.5, 0.5), (0.5, 0.9, 0.1, 0.05), (1.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 1.0)],
)
def test_bert_equals_loops(rates: tuple[float, float, float, float], seed: int) -> None:
    values, draws = tokens(seed), draw(rates, seed)
    before = values.clone()
    masked = bert(values, draws, rates)
    assert torch.equal(values, before)
    numbers = {name: array.numpy() for name, array in draws.items()}
    source, target, indices = slow_twin(values.numpy(), numbers, rates)
    assert [entry.tolist() for entry in masked.indices] == indices
    np.testing.assert_array_equal(masked.target.numpy(), target.astype(np.float32))
    np.testing.assert_allclose(masked.source.numpy(), source, rtol=1e-6, atol=1e-6)
    assert masked.source.dtype == torch.float32


def test_refinement_changes_what_it_should_not_lose() -> None:
    """There and back over a finer grid is no identity, and no mean over blocks either."""
    draws = draw((1.0, 0.0, 0.0, 1.0), 5)
    values = tokens()
    source = bert(values, draws, (1.0, 0.0, 0.0, 1.0)).source
    chosen = torch.cat(bert(values, draws, (1.0, 0.0, 0.0, 1.0)).indices)
    change = (source - values).flatten(0, 3)[chosen].abs().flatten(1).amax(1)
    assert (change > 0.01).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_forecast_equals_loops(n: int) -> None:
    values = tokens()
    masked = forecast(values, n)
    expected, indices = values.clone(), []
    for b in range(SHAPE[0]):
        hidden = []
        for i in range(SHAPE[1] - n, SHAPE[1]):
            for j in range(SHAPE[2]):
                for k in range(SHAPE[3]):
                    expected[b, i, j, k] = 0
                    hidden.append(b * N + (i * SHAPE[2] + j) * SHAPE[3] + k)
        indices.append(hidden)
    assert torch.equal(masked.source, expected)
    assert [entry.tolist() for entry in masked.indices] == indices
    flat = values.flatten(0, 3).flatten(1)
    assert torch.equal(masked.target, flat[[token for entry in indices for token in entry]])


def test_interpolated_times_are_in_the_order_of_the_list() -> None:
    values = tokens()
    masked = temporal_interpolation(values, [2, 0])
    assert masked.indices[0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    assert masked.indices[1].tolist() == [20, 21, 22, 23, 12, 13, 14, 15]
    assert torch.equal(masked.target[:4], values[0, 2].flatten(0, 1).flatten(1))
    assert (masked.source[:, [0, 2]] == 0).all()
    assert torch.equal(masked.source[:, 1], values[:, 1])


def test_one_missing_value_spoils_its_place_in_every_masked_token() -> None:
    values = tokens()
    values[0, 0, 0, 0, 1, 2, 3] = math.nan
    masked = forecast(values, 1)
    hidden = masked.source[:, -1]
    assert hidden[..., 1, 2, 3].isnan().all()
    hidden[..., 1, 2, 3] = 0
    assert (hidden == 0).all()
