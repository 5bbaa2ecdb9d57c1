"""Strategies for the tokens of one field."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from xatmorep.objectives.strategies import (
    LEAST_OF_LARGE,
    STRATEGIES,
    block,
    box,
    forecast,
    hindcast,
    interpolation,
    large,
    random_tokens,
    slab,
    whole_fields,
    whole_levels,
)

OF_TOKENS = sorted(name for name, strategy in STRATEGIES.items() if strategy.hides != "fields")
OF_TIMES = sorted(name for name, strategy in STRATEGIES.items() if strategy.hides == "times")
SHAPES = st.tuples(*[st.integers(1, 5)] * 5)
RATES = st.floats(0.01, 1)
SEEDS = st.integers(0, 1000)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def holes(shape: tuple[int, ...], absent: float, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=seeded(seed + 1)) >= absent


def wanted(rate: float, n: int) -> int:
    """Number of n pieces that are hidden, rounded to the nearest."""
    return min(max(round(rate * n), 1), max(n - 1, 0))


def near(rate: float, n: int, most: int) -> set[int]:
    """Numbers of n pieces that may be hidden where it is rounded at random."""
    both = (math.floor(rate * n), math.floor(rate * n) + 1)
    return {min(max(count, 1), max(most, 0)) for count in both}


# ---- common to all


@given(
    shape=SHAPES, rate=RATES, seed=SEEDS, absent=st.floats(0, 1), name=st.sampled_from(OF_TOKENS)
)
def test_masks_have_a_shape_come_again_and_spare_tokens_without_data(
    shape: tuple[int, ...], rate: float, seed: int, absent: float, name: str
) -> None:
    draw, present = STRATEGIES[name].draw, holes(shape, absent, seed)
    mask = draw(shape, rate, seeded(seed), present)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert not (mask & ~present).any()
    assert torch.equal(mask, draw(shape, rate, seeded(seed), present))


@given(shape=SHAPES, seed=SEEDS, name=st.sampled_from(OF_TOKENS), other=st.integers(1, 4))
def test_a_sample_depends_neither_on_rate_nor_on_data_of_the_others(
    shape: tuple[int, ...], seed: int, name: str, other: int
) -> None:
    shape = (shape[0] + 1, *shape[1:])
    other = other % shape[0]
    present, rates = holes(shape, 0.2, seed), torch.linspace(0.1, 1, shape[0])
    mask = STRATEGIES[name].draw(shape, rates, seeded(seed), present)
    present[other], rates[other] = holes(shape, 0.7, seed + 1)[other], 0.3
    again = STRATEGIES[name].draw(shape, rates, seeded(seed), present)
    rest = [sample for sample in range(shape[0]) if sample != other]
    assert torch.equal(mask[rest], again[rest])


@given(shape=SHAPES, seed=SEEDS, absent=st.floats(0, 1), name=st.sampled_from(OF_TOKENS))
def test_rate_zero_hides_nothing(
    shape: tuple[int, ...], seed: int, absent: float, name: str
) -> None:
    if name != "large":
        mask = STRATEGIES[name].draw(shape, 0.0, seeded(seed), holes(shape, absent, seed))
        assert not mask.any()


@pytest.mark.parametrize("name", OF_TOKENS)
def test_masks_differ_between_samples_draws_and_seeds(name: str) -> None:
    draw, shape, generator = STRATEGIES[name].draw, (40, 5, 7, 4, 6), seeded()
    rates = torch.linspace(0.1, 0.9, 40)
    first, second = (draw(shape, rates, generator) for _ in range(2))
    third = draw(shape, rates, seeded(1))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations((first, second, third), 2))
    assert len({tuple(mask.flatten().tolist()) for mask in first}) > 4


@pytest.mark.parametrize("name", OF_TOKENS)
def test_something_is_hidden_and_something_visible_in_every_sample(name: str) -> None:
    for rate in (1e-9, 0.5, 1.0):
        mask = STRATEGIES[name].draw((50, 2, 3, 2, 2), rate, seeded()).flatten(1)
        assert mask.any(1).all()
        assert not mask.all(1).any()


# ---- tokens


@given(shape=SHAPES, rate=st.floats(0, 1), seed=SEEDS, absent=st.floats(0, 1))
def test_random_tokens_hides_the_asked_share(
    shape: tuple[int, ...], rate: float, seed: int, absent: float
) -> None:
    present = holes(shape, absent, seed)
    mask = random_tokens(shape, rate, seeded(seed), present)
    for hidden, n in zip(mask.flatten(1).sum(1), present.flatten(1).sum(1), strict=True):
        assert hidden == (wanted(rate, int(n)) if rate else 0)


def test_random_tokens_takes_one_rate_for_each_sample() -> None:
    mask = random_tokens((4, 2, 5, 2, 5), torch.tensor([0.0, 0.25, 0.5, 1.0]), seeded())
    assert mask.flatten(1).sum(1).tolist() == [0, 25, 50, 99]


def test_every_token_is_hidden_equally_often() -> None:
    mask = random_tokens((4000, 1, 2, 2, 3), 0.25, seeded())
    share = mask.double().mean(0)
    assert torch.allclose(share, torch.full_like(share, 0.25), atol=4 * (0.25 * 0.75 / 4000) ** 0.5)


# ---- blocks and boxes


def is_box(mask: np.ndarray) -> bool:
    """Whether the true cells fill a box, but for one face of which they fill a piece."""
    inside = mask[tuple(slice(w.min(), w.max() + 1) for w in np.nonzero(mask))]
    missing = np.argwhere(~inside)
    faces = [
        inside.take(edge, axis)
        for axis, size in enumerate(inside.shape)
        for edge in (0, size - 1)
        if size > 1 and (missing[:, axis] == edge).all()
    ]
    return not len(missing) or any(hangs_together(face) for face in faces)


def hangs_together(mask: np.ndarray) -> bool:
    """Whether the true cells form one piece, over common faces."""
    return ndimage.label(mask)[1] == 1


@given(shape=SHAPES, rate=RATES, seed=SEEDS)
def test_block_is_one_rectangle_through_times_and_levels(
    shape: tuple[int, ...], rate: float, seed: int
) -> None:
    mask = block(shape, rate, seeded(seed))
    assert torch.equal(mask, mask[:, :1, :1].expand(shape))
    n = shape[3] * shape[4]
    for columns in mask[:, 0, 0].numpy():
        assert columns.sum() == wanted(rate, n)
        assert n == 1 or (is_box(columns) and hangs_together(columns))


@given(shape=SHAPES, rate=RATES, seed=SEEDS)
def test_box_is_one_box_through_levels(shape: tuple[int, ...], rate: float, seed: int) -> None:
    mask = box(shape, rate, seeded(seed))
    assert torch.equal(mask, mask[:, :1].expand(shape))
    n = math.prod(shape[2:])
    for cells in mask[:, 0].numpy():
        assert cells.sum() == wanted(rate, n)
        assert n == 1 or (is_box(cells) and hangs_together(cells))


@pytest.mark.parametrize("grid", [(1, 8, 8), (4, 1, 9), (9, 1, 1), (4, 6, 7)])
def test_boxes_in_all_kinds_of_neighborhoods(grid: tuple[int, int, int]) -> None:
    rates = torch.linspace(0.05, 0.95, 60)
    for draw in (box, block):
        cells = draw((60, 1, *grid), rates, seeded())[:, 0]
        assert all(is_box(mask) and hangs_together(mask) for mask in cells.numpy() if mask.any())


@given(shape=SHAPES, rate=RATES, seed=SEEDS, absent=st.floats(0, 1))
def test_blocks_and_boxes_count_what_holds_data(
    shape: tuple[int, ...], rate: float, seed: int, absent: float
) -> None:
    present = holes(shape, absent, seed)
    for draw, through in ((block, (1, 2)), (box, (1,))):
        mask = draw(shape, rate, seeded(seed), present)
        pieces = mask.any(through, keepdim=True)
        assert torch.equal(mask, pieces & present)
        available = present.any(through).flatten(1).sum(1)
        for hidden, n in zip(pieces.flatten(1).sum(1), available, strict=True):
            assert hidden == wanted(rate, int(n))


def test_blocks_lie_everywhere_and_have_many_proportions() -> None:
    mask = block((500, 1, 1, 8, 8), 0.25, seeded())[:, 0, 0]
    assert mask.double().mean(0).min() > 0.1
    assert mask.double().mean(0).max() < 0.4
    heights, widths = mask.any(2).sum(1), mask.any(1).sum(1)
    assert set(heights.tolist()) >= {2, 3, 4, 5, 6, 7, 8}
    assert set(widths.tolist()) >= {2, 3, 4, 5, 6, 7, 8}


@given(shape=SHAPES, rate=RATES, seed=SEEDS)
def test_large_leaves_little(shape: tuple[int, ...], rate: float, seed: int) -> None:
    mask = large(shape, rate, seeded(seed))
    cells, n = math.prod(shape[2:]), math.prod(shape[1:])
    share = LEAST_OF_LARGE + (1 - LEAST_OF_LARGE) * rate
    for sample in mask:
        as_box = shape[1] * wanted(share, cells) if cells > 1 else 0
        assert int(sample.sum()) in {as_box, wanted(share, n)}


def test_large_leaves_a_box_or_scattered_tokens() -> None:
    mask = large((400, 2, 4, 6, 6), 0.5, seeded())
    assert mask.double().mean() == pytest.approx(0.875)
    through = (mask == mask[:, :1]).flatten(1).all(1)
    assert abs(through.double().mean() - 0.5) < 0.1
    for visible in (~mask[through, 0]).numpy():
        assert is_box(visible)
        assert hangs_together(visible)
    assert not any(hangs_together(visible) for visible in (~mask[~through, 0]).numpy())


# ---- times


@given(shape=SHAPES, rate=RATES, seed=SEEDS, name=st.sampled_from(OF_TIMES))
def test_whole_times_are_one_slab_as_long_as_the_rate_says(
    shape: tuple[int, ...], rate: float, seed: int, name: str
) -> None:
    mask = STRATEGIES[name].draw(shape, rate, seeded(seed))
    assert torch.equal(mask, mask[:, :1, :, :1, :1].expand(shape))
    n = shape[2]
    most = n - 2 if name == "interpolation" else n - 1
    for times in mask[:, 0, :, 0, 0].numpy():
        assert times.sum() in near(rate, n, most)
        if not times.any():
            continue
        assert hangs_together(times)
        assert not times[0] or name not in ("forecast", "interpolation")
        assert not times[-1] or name not in ("hindcast", "interpolation")
        assert times[-1] or name != "forecast"
        assert times[0] or name != "hindcast"


@given(
    steps=st.integers(1, 9),
    margin=st.integers(1, 4),
    rate=RATES,
    seed=SEEDS,
    name=st.sampled_from(OF_TIMES),
)
def test_the_margin_stays_visible(
    steps: int, margin: int, rate: float, seed: int, name: str
) -> None:
    mask = STRATEGIES[name].draw((20, 1, steps, 1, 1), rate, seeded(seed), margin=margin)
    times = mask.reshape(20, steps)
    begin, end = (~times[:, :margin]).all(1), (~times[:, steps - min(margin, steps) :]).all(1)
    if name == "interpolation":
        assert (begin & end).all()
        assert times.any() == (steps > 2 * margin)
    else:
        assert (begin | end).all()
        assert times.any() == (steps > margin)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("draw", [slab, forecast, hindcast, interpolation])
def test_the_number_of_times_is_right_on_average(draw, rate: float) -> None:
    mask = draw((4000, 1, 10, 1, 1), rate, seeded())
    assert abs(mask.double().mean() - rate) < 4 * 0.1 / 2 / 4000**0.5


@pytest.mark.parametrize(
    ("draw", "margin", "starts"),
    [(slab, 1, range(5)), (slab, 4, (0, 4)), (interpolation, 1, (1, 2, 3))],
)
def test_every_start_is_drawn_equally_often(draw, margin: int, starts: range) -> None:
    """Slabs of two of six times."""
    mask = draw((3000, 1, 6, 1, 1), 1 / 3 + 1e-9, seeded(), margin=margin).reshape(3000, 6)
    start = mask[mask.sum(1) == 2].int().argmax(1)
    assert len(start) > 2990
    share = start.bincount(minlength=6) / len(start)
    for number in range(6):
        expected = 1 / len(starts) if number in starts else 0.0
        assert abs(share[number] - expected) < 4 * 0.5 / 3000**0.5


def test_times_leave_out_what_has_no_data() -> None:
    present = torch.ones(1, 1, 4, 1, 2, dtype=torch.bool)
    present[0, 0, 3, 0, 1] = False
    mask = forecast((1, 1, 4, 1, 2), 0.5, seeded(), present)
    assert mask.flatten().int().tolist() == [0, 0, 0, 0, 1, 1, 1, 0]


# ---- levels and fields


@given(shape=SHAPES, rate=RATES, seed=SEEDS, absent=st.floats(0, 1))
def test_whole_levels_are_hidden_where_they_hold_data(
    shape: tuple[int, ...], rate: float, seed: int, absent: float
) -> None:
    present = holes(shape, absent, seed)
    mask = whole_levels(shape, rate, seeded(seed), present)
    hidden = mask.flatten(2).any(2)
    assert torch.equal(mask, hidden[:, :, None, None, None] & present)
    for count, n in zip(hidden.sum(1), present.flatten(2).any(2).sum(1), strict=True):
        assert int(count) in near(rate, int(n), int(n) - 1)


@given(batch=st.integers(1, 5), n=st.integers(1, 6), rate=RATES, seed=SEEDS, absent=st.floats(0, 1))
def test_whole_fields_never_hides_all(
    batch: int, n: int, rate: float, seed: int, absent: float
) -> None:
    present = holes((batch, n), absent, seed)
    mask = whole_fields((batch, n), rate, seeded(seed), present)
    assert not (mask & ~present).any()
    for hidden, there in zip(mask.sum(1), present.sum(1), strict=True):
        assert int(hidden) in near(rate, int(there), int(there) - 1)


def test_every_level_and_field_is_hidden_equally_often() -> None:
    levels = whole_levels((4000, 3, 1, 1, 1), 0.5, seeded()).reshape(4000, 3)
    fields = whole_fields((4000, 3), 0.5, seeded())
    for mask in (levels, fields):
        assert torch.allclose(mask.double().mean(0), torch.tensor(0.5).double(), atol=0.032)
        assert set(mask.sum(1).tolist()) == {1, 2}
