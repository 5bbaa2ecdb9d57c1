"""Pooling, and neighborhoods that are told another time and place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xatmorep.objectives.views import displace, pool
from xatmorep.tokens.info import TOKEN_INFO

GRIDS = {"u": (2, 3, 2, 2), "t": (1, 1, 2, 3)}
WIDTHS = {"u": 4, "t": 6}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(batch: int = 5, seed: int = 0, rate: float = 0.5) -> tuple[dict, dict]:
    generator = seeded(seed)
    blank = {n: torch.rand((batch, *g), generator=generator) < rate for n, g in GRIDS.items()}
    features = {
        n: torch.randn(batch, blank[n][0].numel(), WIDTHS[n], generator=generator) for n in GRIDS
    }
    return features, blank


@given(seed=st.integers(0, 1000), rate=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_pooling_equals_its_formula(seed: int, rate: float) -> None:
    features, blank = case(seed=seed, rate=rate)
    found = pool(features, blank)
    for b in range(5):
        parts = []
        for name in ("t", "u"):
            x, seen = features[name][b].double().numpy(), ~blank[name][b].flatten().numpy()
            mean = x[seen].mean(0) if seen.any() else x.mean(0)
            parts.append((mean - mean.mean()) / np.sqrt(mean.var() + 1e-5))
        np.testing.assert_allclose(found[b].numpy(), np.concatenate(parts), atol=2e-4)


def test_what_is_blank_and_the_order_of_fields_have_no_influence() -> None:
    features, blank = case()
    for name in GRIDS:
        blank[name][:, 0, 0, 0, 0] = False
    before = pool(features, blank)
    for name, x in features.items():
        x[blank[name].flatten(1)] = 99.0
    assert torch.equal(pool(features, blank), before)
    assert torch.equal(pool(dict(reversed(features.items())), blank), before)


def test_pooling_has_gradients_for_visible_tokens_only() -> None:
    features, blank = case(rate=0.5)
    blank["u"][0] = True  # whose features are then all used
    for x in features.values():
        x.requires_grad_()
    pool(features, blank).square().cumsum(1).sum().backward()
    for name, x in features.items():
        used = (x.grad != 0).any(2)
        hidden = blank[name].flatten(1)
        assert torch.equal(used, ~hidden | hidden.all(1, keepdim=True))


def test_pooling_of_half_precision_is_in_float32() -> None:
    features, blank = case(rate=0.0)
    many = {n: 300 * x.half().repeat(1, 500, 1) for n, x in features.items()}
    none = {n: torch.zeros(5, 1, 1, 1, x.shape[1], dtype=torch.bool) for n, x in many.items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = pool(many, none)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pool(features, blank), rtol=0, atol=5e-3)


def box(batch: int, seed: int, south: float = 20.0, west: float = 0.0) -> dict[str, Tensor]:
    """Token info of boxes of 30 x 40 degrees and two days, at any time."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 366 * 24, batch)
    year = rng.integers(1979, 2020, batch)
    info = {}
    for name, (levels, times, rows, columns) in GRIDS.items():
        shape = (batch, levels, times, rows, columns)
        hours = start[:, None] + np.linspace(0, 48, times)
        parts = {
            "year": year.reshape(-1, 1, 1, 1, 1),
            "day_of_year": (hours // 24 + 1)[:, None, :, None, None],
            "hour": (hours % 24)[:, None, :, None, None],
            "level": np.linspace(500, 1000, levels)[:, None, None, None],
            "latitude": (south + np.linspace(30, 0, rows))[:, None],
            "longitude": (west + np.linspace(0, 40, columns)) % 360,
            "resolution": np.array(0.25),
        }
        arrays = [np.broadcast_to(parts[part], shape) for part in TOKEN_INFO]
        info[name] = torch.from_numpy(np.stack(arrays, -1).astype(np.float32))
    return info


def part(info: dict[str, Tensor], name: str, key: str) -> np.ndarray:
    return info[name][..., TOKEN_INFO.index(key)].double().numpy()


def clock(info: dict[str, Tensor], name: str) -> np.ndarray:
    """Hours since the beginning of the year."""
    return 24 * (part(info, name, "day_of_year") - 1) + part(info, name, "hour")


@given(seed=st.integers(0, 1000), south=st.floats(-90, 60), west=st.floats(0, 360))
def test_neighborhoods_are_moved_as_a_whole(seed: int, south: float, west: float) -> None:
    info = box(4, seed, south, west)
    moved, _ = displace(info, {}, seeded(seed))
    shifts: dict[str, list] = {}
    for name in GRIDS:
        for key in ("level", "resolution"):
            np.testing.assert_array_equal(part(moved, name, key), part(info, name, key))
        assert (np.abs(part(moved, name, "latitude")) <= 90 + 1e-4).all()
        assert (
            (part(moved, name, "longitude") >= 0) & (part(moved, name, "longitude") < 360)
        ).all()
        assert ((part(moved, name, "hour") >= 0) & (part(moved, name, "hour") < 24.001)).all()
        days = part(moved, name, "day_of_year")
        assert ((days >= 1) & (days <= 366) & (days == np.round(days))).all()
        years = part(moved, name, "year")
        assert ((years >= 1950) & (years <= 2050) & (years == np.round(years))).all()
        for key, shift, period in (
            ("year", years, None),
            ("latitude", part(moved, name, "latitude") - part(info, name, "latitude"), None),
            ("longitude", part(moved, name, "longitude") - part(info, name, "longitude"), 360),
            ("clock", clock(moved, name) - clock(info, name), 8766),
        ):
            shift = shift.reshape(4, -1)
            if period is not None:
                shift = np.exp(2j * np.pi * shift / period)
            shifts.setdefault(key, []).append(shift)
    for per_field in shifts.values():  # one shift for all tokens of all fields of a sample
        together = np.concatenate(per_field, axis=1)
        assert np.ptp(together.real, axis=1).max() < 1e-3
        assert np.ptp(together.imag, axis=1).max() < 1e-3


def test_nothing_is_left_of_the_old_place() -> None:
    one, two = box(6, seed=0, south=-90), box(6, seed=1, south=35)
    moved, again = (displace(info, {}, seeded(3))[0] for info in (one, two))
    for name in GRIDS:
        for key in ("year", "latitude"):
            np.testing.assert_allclose(part(moved, name, key), part(again, name, key), atol=1e-4)


def test_moved_times_and_places_are_spread_evenly() -> None:
    info = {name: x[:1].expand(4000, -1, -1, -1, -1, -1) for name, x in box(1, seed=0).items()}
    moved, _ = displace(info, {}, seeded())
    for values, low, high in (
        (clock(moved, "u")[:, 0, 0, 0, 0], 0, 8766),
        (part(moved, "u", "hour")[:, 0, 0, 0, 0], 0, 24),
        (part(moved, "u", "longitude")[:, 0, 0, 0, 0], 0, 360),
        (part(moved, "u", "latitude")[:, 0, 0, 0, 0], -60, 90),  # the northern row of 30 degrees
        (part(moved, "u", "year")[:, 0, 0, 0, 0], 1950, 2050),
    ):
        ranks = np.sort((values - low) / (high - low))
        # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand times.
        assert np.abs(ranks - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / 4000**0.5 + 0.01


def test_static_fields_change_places() -> None:
    info = box(6, seed=0)
    statics = {name: torch.arange(6.0)[:, None].expand(6, 3) for name in GRIDS}
    orders = set()
    for seed in range(5):
        _, moved = displace(info, statics, seeded(seed))
        assert torch.equal(moved["u"], moved["t"])
        assert sorted(moved["u"][:, 0].tolist()) == list(range(6))
        orders.add(tuple(moved["u"][:, 0].tolist()))
    assert len(orders) == 5
    assert displace(info, {}, seeded())[1] == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_input_is_not_changed_and_the_seed_decides(dtype: torch.dtype) -> None:
    info = {name: x.to(dtype) for name, x in box(3, seed=0).items()}
    before = {name: x.clone() for name, x in info.items()}
    one, two, other = (displace(info, {}, seeded(seed))[0] for seed in (1, 1, 2))
    turned, _ = displace(dict(reversed(info.items())), {}, seeded(1))
    for name in GRIDS:
        assert torch.equal(info[name], before[name])
        assert torch.equal(one[name], two[name])
        assert torch.equal(one[name], turned[name])
        assert not torch.equal(one[name], other[name])
        assert (one[name].dtype, one[name].shape) == (dtype, info[name].shape)
