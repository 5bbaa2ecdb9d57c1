"""Masks that fields have in common, also where their tokens differ."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.objectives.alike import alike
from xatmorep.objectives.strategies import STRATEGIES, whole_levels

OF_TIMES = sorted(name for name, strategy in STRATEGIES.items() if strategy.hides == "times")
OF_TOKENS = sorted(name for name, strategy in STRATEGIES.items() if strategy.hides == "tokens")
GRIDS = st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=1, max_size=3)
SEEDS = st.integers(0, 1000)
N = 6
"""Samples."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def full(*grids: tuple[int, ...], levels: int = 2) -> dict[str, torch.Tensor]:
    """Fields a, b, ... that hold data everywhere, of grids (T, A, O) or (level, T, A, O)."""
    shapes = [(N, *grid) if len(grid) == 4 else (N, levels, *grid) for grid in grids]
    return {
        name: torch.ones(shape, dtype=torch.bool)
        for name, shape in zip("abc", shapes, strict=False)
    }


def with_holes(present: dict[str, torch.Tensor], absent: float, seed: int) -> dict:
    generator = seeded(seed + 1)
    return {name: torch.rand(x.shape, generator=generator) >= absent for name, x in present.items()}


def rates(seed: int, n: int = N) -> torch.Tensor:
    return torch.rand(n, generator=seeded(seed + 2), dtype=torch.float64).clamp(min=0.01)


# ---- times


@given(
    times=st.lists(st.integers(3, 8), min_size=1, max_size=3),
    seed=SEEDS,
    name=st.sampled_from(OF_TIMES),
)
def test_tokens_that_reach_into_the_hidden_span_are_hidden(
    times: list[int], seed: int, name: str
) -> None:
    """Slow twin: tokens as intervals of the neighborhood, in exact fractions."""
    present = full(*((n, 2, 1) for n in times))
    masks = alike(name, present, rates(seed), seeded(seed), together=False)
    steps = math.lcm(*times)
    span = (
        STRATEGIES[name]
        .draw((N, 1, steps, 1, 1), rates(seed), seeded(seed), margin=steps // min(times))
        .reshape(N, steps)
    )
    for sample in range(N):
        first, *_, last = [-1, *span[sample].nonzero().flatten().tolist()]
        begin, end = Fraction(int(span[sample].int().argmax()), steps), Fraction(last + 1, steps)
        assert first == -1
        assert begin < end
        for mask in masks.values():
            n = mask.shape[2]
            for k in range(n):
                reaches = Fraction(k, n) < end and Fraction(k + 1, n) > begin
                assert (mask[sample, :, k] == reaches).all()
            visible = (~mask[sample, 0, :, 0, 0]).tolist()
            assert any(visible)
            assert not all(visible)
            assert visible[0] or name not in ("forecast", "interpolation")
            assert visible[-1] or name not in ("hindcast", "interpolation")


@given(n=st.integers(3, 8), seed=SEEDS, name=st.sampled_from(OF_TIMES))
def test_fields_of_the_same_token_times_hide_the_same_times(n: int, seed: int, name: str) -> None:
    masks = alike(name, full((n, 2, 2), (n, 1, 3)), rates(seed), seeded(seed), together=False)
    one, two = (mask[:, 0, :, 0, 0] for mask in masks.values())
    assert torch.equal(one, two)
    most = n - 2 if name == "interpolation" else n - 1
    for mask, rate in zip(one, rates(seed), strict=True):
        low = math.floor(rate * n)
        assert int(mask.sum()) in {min(max(count, 1), most) for count in (low, low + 1)}


def test_the_cut_of_a_forecast_may_lie_inside_of_larger_tokens() -> None:
    many = torch.full((400,), 0.05, dtype=torch.float64)
    present = {
        name: torch.ones(400, 1, n, 1, 1, dtype=torch.bool) for name, n in (("a", 12), ("b", 3))
    }
    masks = alike("forecast", present, many, seeded(), together=False)
    assert (masks["a"].reshape(400, 12).sum(1) == 1).all()
    assert (masks["b"].reshape(400, 3).sum(1) == 1).all()


# ---- places


def cell_of(token: tuple[int, ...], tokens: tuple[int, ...], cells: tuple[int, ...]) -> tuple:
    """Slow twin: the cell that the center of a token lies in."""
    center = [Fraction(2 * k + 1, 2 * n) for k, n in zip(token, tokens, strict=True)]
    return tuple(math.floor(x * n) for x, n in zip(center, cells, strict=True))


@given(grids=GRIDS, seed=SEEDS, name=st.sampled_from(OF_TOKENS))
def test_tokens_are_hidden_where_their_center_lies_in_a_hidden_cell(
    grids: list[tuple[int, int, int]], seed: int, name: str
) -> None:
    present = full(*grids)
    masks = alike(name, present, rates(seed), seeded(seed), together=True)
    cells = tuple(map(min, zip(*grids, strict=True)))
    common = STRATEGIES[name].draw((N, 1, *cells), rates(seed), seeded(seed))[:, 0]
    for mask in masks.values():
        grid = tuple(mask.shape[2:])
        for token in np.ndindex(*grid):
            expected = common[(slice(None), *cell_of(token, grid, cells))]
            assert (mask[(slice(None), slice(None), *token)] == expected[:, None]).all()
        hidden = mask.flatten(1)
        some = common.flatten(1).any(1)
        assert torch.equal(hidden.any(1), some)
        assert not hidden.all(1).any()


@given(
    fine=st.tuples(*[st.integers(1, 3)] * 3),
    coarse=st.tuples(*[st.integers(1, 3)] * 3),
    seed=SEEDS,
    name=st.sampled_from(OF_TOKENS),
)
def test_the_same_points_are_hidden_where_larger_tokens_hold_whole_smaller_ones(
    fine: tuple[int, ...], coarse: tuple[int, ...], seed: int, name: str
) -> None:
    small = tuple(a * b for a, b in zip(fine, coarse, strict=True))
    masks = alike(name, full(small, coarse), rates(seed), seeded(seed), together=True)
    points = masks["b"]
    for dim, n in enumerate(fine, start=2):
        points = points.repeat_interleave(n, dim)
    assert torch.equal(masks["a"], points)


@given(grids=GRIDS, seed=SEEDS, absent=st.floats(0, 1), name=st.sampled_from(OF_TOKENS))
def test_where_data_are_missing_a_sample_still_has_hidden_and_visible_tokens(
    grids: list[tuple[int, int, int]], seed: int, absent: float, name: str
) -> None:
    present = with_holes(full(*grids), absent, seed)
    masks = alike(name, present, rates(seed), seeded(seed), together=True)
    cells = tuple(map(min, zip(*grids, strict=True)))
    for sample in range(N):
        with_data = {
            cell_of(token[1:], tuple(there.shape[2:]), cells)[1 if name == "space" else 0 :]
            for there in present.values()
            for token in np.ndindex(*there.shape[1:])
            if there[(sample, *token)]
        }
        several = len(with_data) > 1
        assert any(bool(mask[sample].any()) for mask in masks.values()) == several
        if several:
            assert any(bool((present[f] & ~masks[f])[sample].any()) for f in masks)
        assert not any(bool((masks[f] & ~present[f])[sample].any()) for f in masks)


# ---- fields and levels


@given(grids=GRIDS, seed=SEEDS, absent=st.floats(0, 1))
def test_fields_are_hidden_whole_and_never_all_of_those_with_data(
    grids: list[tuple[int, int, int]], seed: int, absent: float
) -> None:
    present = with_holes(full(*grids), absent, seed)
    masks = alike("fields", present, rates(seed), seeded(seed), together=False)
    for sample, rate in enumerate(rates(seed)):
        hidden = {name for name, mask in masks.items() if mask[sample].any()}
        for name, mask in masks.items():
            whole = present[name][sample] if name in hidden else torch.zeros_like(mask[sample])
            assert torch.equal(mask[sample], whole)
        n = sum(bool(there[sample].any()) for there in present.values())
        low = math.floor(rate * n)
        assert len(hidden) in {min(max(k, 1), max(n - 1, 0)) for k in (low, low + 1)}


@given(seed=SEEDS, levels=st.integers(2, 5))
def test_levels_together_are_the_same_in_all_fields_that_have_several(
    seed: int, levels: int
) -> None:
    present = full((levels, 2, 3, 1), (levels, 4, 1, 2), (1, 2, 2, 2))
    masks = alike("levels", present, rates(seed), seeded(seed), together=True)
    expected = whole_levels((N, levels, 1, 1, 1), rates(seed), seeded(seed))
    assert torch.equal(masks["a"], expected.expand_as(masks["a"]))
    assert torch.equal(masks["b"], expected.expand_as(masks["b"]))
    assert not masks["c"].any()


def test_fields_of_one_level_do_not_count_as_data_of_a_level() -> None:
    present = full((2, 1, 1, 1), (1, 1, 1, 1))
    present["a"][:, 0] = False
    for seed in range(5):
        masks = alike("levels", present, rates(seed), seeded(seed), together=True)
        assert not masks["a"].any()  # its only level with data stays visible


def test_levels_of_one_field_are_hidden_where_fields_are_independent() -> None:
    present = {
        name: torch.ones(2000, levels, 1, 2, 1, dtype=torch.bool)
        for name, levels in (("a", 3), ("b", 2), ("c", 1))
    }
    masks = alike("levels", present, rates(0, 2000), seeded(), together=False)
    hidden = torch.stack([mask.flatten(1).any(1) for mask in masks.values()])
    assert (hidden.sum(0) == 1).all()
    assert abs(hidden[0].double().mean() - 0.5) < 4 * 0.5 / 2000**0.5
    assert not hidden[2].any()
    for mask in masks.values():
        assert torch.equal(mask, mask[..., :1, :].expand_as(mask))
        assert not mask[..., 0, 0].flatten(1).all(1).any()


# ---- common to all


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_draws_depend_on_names_not_on_order_and_samples_not_on_each_other(
    name: str, together: bool
) -> None:
    present = full((4, 2, 2), (2, 3, 4), (4, 4, 1))
    masks = alike(name, present, rates(0), seeded(), together=together)
    turned = dict(reversed(present.items()))
    again = alike(name, turned, rates(0), seeded(), together=together)
    assert all(torch.equal(masks[field], again[field]) for field in present)
    other = with_holes(present, 0.5, 7)
    mixed = {field: x.clone() for field, x in present.items()}
    for field, x in mixed.items():
        x[2] = other[field][2]
    among = alike(name, mixed, rates(0), seeded(), together=together)
    rest = [0, 1, 3, 4, 5]
    assert all(torch.equal(masks[field][rest], among[field][rest]) for field in present)
