"""Neighborhoods cover everything, blend to one, and their kept tokens are one monotonic grid."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import xarray as xr
import xbatcher
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.strategies import dataset, make_spec, times
from xatmorep.errors import ConventionError
from xatmorep.tokens.spec import InputSpec
from xatmorep.tokens.tiling import AxisTiling, Tiling, tiling_for, token_coordinates


@st.composite
def axes(draw: st.DrawFn, overlap: bool = True) -> tuple[AxisTiling, int]:
    """One tiled dimension and a token size that divides the box and what boxes share."""
    token, count = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    box = token * count
    shared = token * draw(st.integers(0, count - 1)) if overlap else 0
    return AxisTiling.cut(box + draw(st.integers(0, 3 * box + 1)), box, shared), token


@pytest.mark.parametrize(
    ("size", "box", "starts"),
    [
        (4, 4, (0,)),
        (5, 4, (0, 1)),
        (7, 4, (0, 3)),
        (8, 4, (0, 4)),
        (9, 4, (0, 4, 5)),
        (3, 1, (0, 1, 2)),
        (721, 54, (*range(0, 702, 54), 667)),
    ],
)
def test_starts(size: int, box: int, starts: tuple[int, ...]) -> None:
    assert AxisTiling.cut(size, box).starts == starts


def test_too_small() -> None:
    with pytest.raises(ConventionError, match="3 points are fewer than the 4"):
        AxisTiling.cut(3, 4)


@pytest.mark.parametrize(
    ("size", "box", "shared", "starts"),
    [
        (8, 4, 2, (0, 2, 4)),
        (9, 4, 2, (0, 2, 4, 5)),
        (4, 4, 3, (0,)),
        (124, 20, 8, (*range(0, 97, 12), 104)),
    ],
)
def test_starts_of_neighborhoods_that_overlap(
    size: int, box: int, shared: int, starts: tuple[int, ...]
) -> None:
    assert AxisTiling.cut(size, box, shared).starts == starts


@pytest.mark.parametrize("overlap", [0, 0.3, 0.34, 0.5, 0.67, 0.99])
def test_neighborhoods_share_whole_tokens_of_all_fields(overlap: float) -> None:
    """Of three tokens, as many as the share has; else other points would be hidden in each."""
    spec = make_spec((6, 12, 18), {"a": ((1, 2, 3), ()), "b": ((2, 4, 6), ())})
    labels = dataset(spec, (20, 40, 60))[0]["a"]
    tiling = tiling_for(labels, spec, overlap=overlap)
    shared = [axis.box - axis.starts[1] for axis in (tiling.time, tiling.latitude)]
    assert shared == [2 * int(3 * overlap), 4 * int(3 * overlap)]
    assert tiling.longitude.starts[1] == 18 - 6 * int(3 * overlap)


@given(axes(), st.data())
def test_neighborhoods_that_reach_into_a_range(
    case: tuple[AxisTiling, int], data: st.DataObject
) -> None:
    axis, _ = case
    start = data.draw(st.integers(0, axis.size - 1))
    points = range(start, data.draw(st.integers(start + 1, axis.size)))
    found = axis.reaching(slice(points.start, points.stop))
    covering = [s for s in axis.starts if set(range(s, s + axis.box)) & set(points)]
    assert list(found.starts) == covering
    for i, first in enumerate(found.starts):
        inside = np.isin(np.arange(first, first + axis.box), points)
        whole = axis.weights(axis.starts.index(first))
        np.testing.assert_array_equal(found.weights(i)[inside], whole[inside])


@given(axes())
def test_weights_are_positive_and_one_where_alone(case: tuple[AxisTiling, int]) -> None:
    axis, _ = case
    visits = np.zeros(axis.size, dtype=int)
    for i in range(len(axis)):
        visits[axis.points(i)] += 1
    for i in range(len(axis)):
        weights, alone = axis.weights(i), visits[axis.points(i)] == 1
        assert ((weights > 0) & (weights <= 1)).all()
        assert (weights[alone] == 1.0).all()


def test_weights_of_many_neighborhoods_are_largest_in_the_middle() -> None:
    weights = AxisTiling.cut(size=60, box=20, shared=15).weights(3)
    assert np.argmax(weights) in (9, 10)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-12)


@pytest.mark.parametrize("shared", [0, 4, 8, 10])
def test_weights_of_two_at_a_time_sum_to_one(shared: int) -> None:
    axis = AxisTiling.cut(20 + 5 * (20 - shared), 20, shared)
    total = np.zeros(axis.size)
    for i in range(len(axis)):
        total[axis.points(i)] += axis.weights(i)
    np.testing.assert_allclose(total, 1, rtol=1e-15)


@pytest.mark.parametrize("shared", [4, 6, 8])
def test_neighborhoods_go_round_a_circle(shared: int) -> None:
    axis = AxisTiling.cut(48, 16, shared, closed=True)
    total, visits = np.zeros(48), np.zeros(48, dtype=int)
    for i in range(len(axis)):
        points = np.r_[axis.points(i)] % 48
        total[points] += axis.weights(i)
        visits[points] += 1
    assert visits.min() >= 1
    if 48 % (16 - shared) == 0:
        np.testing.assert_allclose(total, 1, rtol=1e-15)
        np.testing.assert_array_equal(np.roll(visits, 16 - shared), visits)
    for i in range(len(axis)):
        alone = visits[np.r_[axis.points(i)] % 48] == 1
        assert (axis.weights(i)[alone] == 1.0).all()


def test_one_neighborhood_can_be_the_whole_circle() -> None:
    axis = AxisTiling.cut(12, 12, 6, closed=True)
    assert axis.starts == (0, 6)
    np.testing.assert_allclose(axis.weights(0), axis.weights(0)[::-1], rtol=1e-12)
    assert (axis.weights(0) > 0).all()


def test_only_whole_tokens_go_round() -> None:
    """Else what is hidden at one end would not be what is hidden at the other."""
    spec = make_spec((2, 4, 6))
    for columns, starts in ((12, (0, 3, 6, 9)), (13, (0, 3, 6, 7))):
        labels = dataset(spec, (2, 4, columns))[0]["2m_temperature"]
        tiling = tiling_for(labels, spec, overlap=0.5, is_global=True)
        assert tiling.longitude.starts == starts


@given(axes(overlap=False))
def test_weights_sum_to_one_and_are_one_where_alone(case: tuple[AxisTiling, int]) -> None:
    axis, _ = case
    total, visits = np.zeros(axis.size), np.zeros(axis.size, dtype=int)
    for i in range(len(axis)):
        weights = axis.weights(i)
        assert ((weights > 0) & (weights <= 1)).all()
        total[axis.points(i)] += weights
        visits[axis.points(i)] += 1
    assert (visits >= 1).all()
    np.testing.assert_allclose(total, 1, rtol=1e-15)
    for i in range(len(axis)):
        alone = visits[axis.points(i)] == 1
        assert (axis.weights(i)[alone] == 1.0).all()


def test_blend_is_smooth() -> None:
    last = AxisTiling.cut(size=60, box=50).weights(1)
    assert (np.diff(last[:41]) > 0).all()
    assert np.abs(np.diff(last, n=2)).max() < 0.005  # no kink, not even at the ends
    np.testing.assert_allclose(AxisTiling.cut(size=60, box=50).weights(0), last[::-1], atol=1e-15)


@given(axes())
def test_kept_tokens_are_those_that_cover_something_new(case: tuple[AxisTiling, int]) -> None:
    axis, token = case
    seen: set[int] = set()
    kept_starts = []
    for i, start in enumerate(axis.starts):
        tokens = [range(s, s + token) for s in range(start, start + axis.box, token)]
        new = [n for n, points in enumerate(tokens) if set(points) - seen]
        kept = axis.kept_tokens(i, token)
        assert list(range(axis.box // token))[kept] == new
        places = axis.token_places(i, token)
        assert places == slice(len(kept_starts), len(kept_starts) + len(new))
        kept_starts += [tokens[n].start for n in new]
        seen |= set(range(start, start + axis.box))
    starts = axis.token_starts(token)
    assert starts.tolist() == kept_starts
    assert (np.diff(starts) > 0).all()
    assert {point for start in starts for point in range(start, start + token)} == seen


def test_regular_boxes_are_those_of_xbatcher() -> None:
    spec = make_spec((2, 4, 6))
    fields, _ = dataset(spec, (5, 9, 14))
    field = fields["2m_temperature"]
    tiling = tiling_for(field, spec)
    regular = xbatcher.BatchGenerator(
        field,
        input_dims={"time": 2, "latitude": 4, "longitude": 6},
        concat_input_dims=False,
        preload_batch=False,
    )
    boxes = [
        box
        for box in tiling.boxes()
        if not any(s.start % (s.stop - s.start) for s in box.slices.values())
    ]
    assert len(boxes) == len(regular) == 8
    for box, batch in zip(boxes, regular, strict=True):
        xr.testing.assert_identical(field.isel(box.slices), batch)


@given(st.tuples(*[st.integers(0, 7)] * 3))
def test_blending_boxes_gives_back_the_field(more: tuple[int, int, int]) -> None:
    spec = make_spec((2, 4, 6))
    sizes = tuple(n + m for n, m in zip((2, 4, 6), more, strict=True))
    fields, _ = dataset(spec, (sizes[0], sizes[1], sizes[2]))
    field = fields["2m_temperature"].isel(level=0).fillna(0).astype(float)
    tiling = tiling_for(field, spec)
    total, visits = np.zeros(field.shape), np.zeros(field.shape)
    for box in tiling.boxes():
        place = tuple(box.slices.values())
        total[place] += tiling.weights(box) * field.values[place]
        visits[place] += 1
    assert visits.min() == 1
    np.testing.assert_allclose(total, field, rtol=1e-13)
    np.testing.assert_array_equal(total[visits == 1], field.values[visits == 1])


@given(st.tuples(*[st.integers(0, 7)] * 3), st.sampled_from([(1, 2, 3), (2, 4, 2), (1, 1, 6)]))
def test_kept_tokens_of_all_boxes_fill_the_grid_of_tokens(
    more: tuple[int, int, int], token: tuple[int, int, int]
) -> None:
    tiling = Tiling(*(AxisTiling.cut(n + m, n) for n, m in zip((2, 4, 6), more, strict=True)))
    visits = np.zeros(tiling.token_grid(token), dtype=int)
    axes = (tiling.time, tiling.latitude, tiling.longitude)
    for box in tiling.boxes():
        numbers = (box.time, box.latitude, box.longitude)
        visits[
            tuple(
                axis.token_places(i, size)
                for axis, i, size in zip(axes, numbers, token, strict=True)
            )
        ] += 1
    assert (visits == 1).all()


def test_boxes_run_longitude_fastest() -> None:
    tiling = Tiling(AxisTiling.cut(3, 2), AxisTiling.cut(5, 4), AxisTiling.cut(12, 6))
    numbers = [(box.time, box.latitude, box.longitude) for box in tiling.boxes()]
    assert numbers == list(itertools.product(range(2), repeat=3))


def test_tiling_can_be_sent_and_compared() -> None:
    tiling = Tiling(AxisTiling.cut(3, 2), AxisTiling.cut(5, 4), AxisTiling.cut(12, 6))
    assert pickle.loads(pickle.dumps(tiling)) == tiling
    assert hash(pickle.loads(pickle.dumps(tiling))) == hash(tiling)


def test_tiling_refuses_with_the_users_names() -> None:
    fields, _ = dataset(make_spec(), (2, 3, 6))
    with pytest.raises(ConventionError, match="dimension 'lat' has 3 points, fewer than the 4"):
        tiling_for(fields["2m_temperature"], make_spec(), axes={"latitude": "lat"})


def test_one_neighborhood_in_time_where_the_caller_places_it() -> None:
    fields, _ = dataset(make_spec(), (1, 9, 12))
    tiling = tiling_for(fields["2m_temperature"], make_spec(), in_time=False)
    assert tiling.time == AxisTiling.cut(2, 2)
    assert (tiling.latitude.starts, tiling.longitude.starts) == ((0, 4, 5), (0, 6))


# Coordinates of kept tokens


def coordinates(
    spec: InputSpec, sizes: tuple[int, int, int], name: str, **where: object
) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    fields, _ = dataset(spec, sizes, **where)  # type: ignore[arg-type]
    field = fields[name]
    return field, token_coordinates(tiling_for(field, spec), spec, name, field)


@given(
    st.tuples(*[st.integers(0, 7)] * 3),
    st.sampled_from([(1, 2, 3), (2, 4, 2), (1, 1, 6)]),
    st.sampled_from([None, "noleap"]),
)
def test_coordinates_against_slow_twin(
    more: tuple[int, int, int], token: tuple[int, int, int], calendar: str | None
) -> None:
    spec = make_spec((2, 4, 6), {"a": (token, (500, 850))}, grid_step=(0.5, 0.25))
    sizes = (2 + more[0], 4 + more[1], 6 + more[2])
    field, coords = coordinates(spec, sizes, "a", west=355.0, calendar=calendar)
    tiling = tiling_for(field, spec)
    assert tuple(coords[axis].size for axis in ("time", "latitude", "longitude")) == (
        tiling.token_grid(token)
    )
    for axis, tiles, size, half in zip(
        ("time", "latitude", "longitude"),
        (tiling.time, tiling.latitude, tiling.longitude),
        token,
        (np.timedelta64(3 * 3600, "s"), 0.25, 0.125),
        strict=True,
    ):
        points = field[axis].values
        half = half.item() if axis == "time" and calendar else half
        for i, start in enumerate(tiles.token_starts(size)):
            inside = points[start : start + size]
            low, high = min(inside), max(inside)
            assert coords[axis].values[i] == low + (high - low) / 2
            bounds = coords[f"{axis}_bounds"].values[i]
            assert bounds[0] == low - half
            assert bounds[1] == high + half
        assert coords[axis].dtype == points.dtype
        steps = np.diff(coords[axis].values)
        assert (steps < 0 if axis == "latitude" else steps > steps * 0).all()
        assert coords[f"{axis}_bounds"].dims == (axis, "bounds")
    assert coords["level"].values.tolist() == [500, 850]


def test_coordinates_label_a_dataset() -> None:
    _, coords = coordinates(make_spec(), (3, 5, 7), "2m_temperature")
    sizes = {axis: coords[axis].size for axis in ("time", "level", "latitude", "longitude")}
    labelled = xr.Dataset({"a": (tuple(sizes), np.zeros(list(sizes.values())))}, coords=coords)
    assert set(labelled.indexes) == set(sizes)
    assert labelled["level"].values.tolist() == [0.0]


def test_bounds_stop_at_the_poles() -> None:
    spec = make_spec((1, 181, 6), {"a": ((1, 181, 6), ())})
    _, coords = coordinates(spec, (1, 181, 6), "a", north=90.0)
    assert coords["latitude_bounds"].values.tolist() == [[-90, 90]]
    spec = make_spec((1, 4, 6), {"a": ((1, 2, 6), ())})
    _, coords = coordinates(spec, (1, 7, 6), "a", north=90.0)
    assert coords["latitude_bounds"].values.tolist() == [
        [88.5, 90],
        [86.5, 88.5],
        [85.5, 87.5],
        [83.5, 85.5],
    ]


def test_bounds_use_the_grid_step_of_the_data() -> None:
    spec = make_spec((1, 4, 6), {"a": ((1, 2, 3), ())}, grid_step=(2.8, 2.8))
    labels = {
        "time": xr.DataArray(times(1), dims="time"),
        "latitude": xr.DataArray(40 - 2.8125 * np.arange(4), dims="latitude"),
        "longitude": xr.DataArray(2.8125 * np.arange(6), dims="longitude"),
    }
    coords = token_coordinates(tiling_for(labels, spec), spec, "a", labels)
    bounds = coords["longitude_bounds"].values
    assert bounds[0, 1] == bounds[1, 0] == 2.5 * 2.8125


def test_bounds_of_a_single_row_use_the_step_of_the_model() -> None:
    spec = make_spec((1, 1, 1), {"a": ((1, 1, 1), ())}, grid_step=(0.5, 2))
    _, coords = coordinates(spec, (1, 1, 1), "a", north=10.0, west=7.0)
    assert coords["latitude_bounds"].values.tolist() == [[9.75, 10.25]]
    assert coords["longitude_bounds"].values.tolist() == [[6, 8]]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_keep_their_unit_where_steps_are_uneven(unit: str) -> None:
    spec = make_spec((2, 4, 6), {"a": ((2, 2, 3), ())}, time_step=7.26, time_tolerance=0.11)
    when = np.array(["2026-03-25T21", "2026-03-26T05"], dtype=f"datetime64[{unit}]")
    fields, _ = dataset(spec, (2, 4, 6))
    field = fields["a"].assign_coords(time=when)
    coords = token_coordinates(tiling_for(field, spec), spec, "a", field)
    assert coords["time"].dtype == coords["time_bounds"].dtype == when.dtype
    assert coords["time"].values[0] == np.datetime64("2026-03-26T01")
    lower, upper = coords["time_bounds"].values[0]
    assert (when[0] - lower) == (upper - when[1]) == np.timedelta64(13068, "s")


def test_a_single_box_has_weight_one() -> None:
    tiling = Tiling(AxisTiling.cut(2, 2), AxisTiling.cut(4, 4), AxisTiling.cut(6, 6))
    (box,) = tiling.boxes()
    assert (tiling.weights(box) == 1).all()
    assert tiling.weights(box).shape == (2, 4, 6)


def test_boxes_of_one_time_are_a_part_of_all():
    tiling = Tiling(AxisTiling.cut(7, 3), AxisTiling.cut(5, 4), AxisTiling.cut(8, 4))
    parts = [box for time in range(3) for box in tiling.boxes(time=time)]
    assert parts == tiling.boxes()
