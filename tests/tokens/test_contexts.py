"""Contexts hold what is around a neighborhood and before it, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contexts import plain
from tests.tokens.strategies import dataset, make_spec, times
from xatmorep.errors import ConventionError
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.contexts import Canvas, coarse
from xatmorep.tokens.sampling import RandomNeighborhoods
from xatmorep.tokens.spec import ContextSpec, InputSpec
from xatmorep.tokens.tokenize import untokenize

GLOBE, REGION = (9, 10, 12), (9, 8, 10)
AROUND = ContextSpec(
    name="around", field="a", coarsen=(1, 2, 2), shape=(2, 4, 6), token_shape=(1, 2, 3)
)
BEFORE = ContextSpec(
    name="before",
    field="a",
    coarsen=(2, 1, 1),
    shape=(3, 6, 8),
    token_shape=(3, 3, 2),
    levels=(850,),
)
OTHER = ContextSpec(
    name="other", field="b", coarsen=(3, 3, 1), shape=(2, 2, 6), token_shape=(1, 1, 1)
)


def spec() -> InputSpec:
    base = make_spec(
        (2, 4, 6),
        {"a": ((1, 2, 3), (500, 850)), "b": ((2, 2, 2), ())},
        statics=("orography",),
        grid_step=(20, 30),
    )
    return InputSpec(**base.model_dump(exclude={"contexts"}), contexts=(AROUND, BEFORE, OTHER))


def canvas(
    spec: InputSpec, fields: dict[str, xr.DataArray], *, is_global: bool, stop: int
) -> tuple[Canvas, dict[str, np.ndarray]]:
    """Everything up to a frame."""
    field = fields["a"]
    arrays = {
        name: x.values[:stop].transpose(1, 0, 2, 3)[None].copy() for name, x in fields.items()
    }
    labels = (field["time"].values[:stop], field["latitude"].values, field["longitude"].values)
    return Canvas(spec, *labels, is_global), arrays


@settings(max_examples=15, deadline=None)
@given(
    is_global=st.booleans(),
    frame=st.integers(0, 7),
    row=st.integers(0, 4),
    column=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_values_are_those_that_xarray_coarsens(
    is_global: bool, frame: int, row: int, column: int, seed: int
) -> None:
    one = spec()
    # Rows begin at the north pole.
    fields, statics = dataset(one, GLOBE if is_global else REGION, north=90.0, seed=seed)
    painted, arrays = canvas(one, fields, is_global=is_global, stop=frame + 2)
    corners = [(0, row, column), (0, 0, 0), (0, 4, 11 if is_global else 4)]
    found = painted.cut(arrays, {"orography": statics["orography"].values}, corners)
    assert list(found) == ["around", "before", "other"]
    for context in one.contexts:
        result = found[context.name]
        assert result.values.dtype == np.float32
        for number, (_, north, west) in enumerate(corners):
            corner = (frame, north, west)
            expected = plain(one, context, fields[context.field], corner, is_global=is_global)
            np.testing.assert_allclose(result.values[number], expected, rtol=1e-5, atol=1e-6)
            orography = statics["orography"].expand_dims(time=frame + 2, level=[0.0])
            orography = orography.assign_coords(time=fields["a"]["time"][: frame + 2])
            bare = context.model_copy(update={"levels": ()})
            expected = plain(one, bare, orography, corner, is_global=is_global)[0, -1]
            np.testing.assert_allclose(
                result.statics["orography"][number], expected, rtol=1e-5, atol=1e-6
            )


def test_what_the_data_do_not_have_is_missing() -> None:
    one = spec()
    fields, _ = dataset(one, REGION, north=90.0)
    full = {name: field.fillna(1.0) for name, field in fields.items()}
    painted, arrays = canvas(one, full, is_global=False, stop=3)
    found = painted.cut(arrays, {}, [(0, 0, 4), (0, 4, 0)])
    around, before = found["around"].values, found["before"].values
    # Two rows north of the pole, three columns east of the region: one half block is there.
    assert np.isnan(around[0, :, :, 0]).all()
    assert np.isnan(around[0, ..., -1]).all()
    assert np.isfinite(around[0, :, :, 1:, :-1]).all()
    assert np.isnan(around[1, :, :, -1]).all()
    assert np.isnan(around[1, ..., 0]).all()
    # Three frames of six: the first block has none, the second one.
    assert np.isnan(before[:, :, 0]).all()
    assert np.isfinite(before[0, 0, 1, 1:, :-1]).all()
    np.testing.assert_array_equal(before[0, 0, 1, 1:, 1:-1], full["a"].values[0, 1, 0:5, 4:10])


def test_a_globe_goes_around() -> None:
    one = spec()
    fields, _ = dataset(one, GLOBE, north=90.0)
    painted, arrays = canvas(one, fields, is_global=True, stop=4)
    rolled = {name: field.roll(longitude=5, roll_coords=False) for name, field in fields.items()}
    again, moved = canvas(one, rolled, is_global=True, stop=4)
    here = painted.cut(arrays, {}, [(0, 2, 8)])
    there = again.cut(moved, {}, [(0, 2, 1)])
    for name, context in here.items():
        np.testing.assert_array_equal(context.values, there[name].values)
    np.testing.assert_array_equal(here["around"].longitude[0], 30.0 * np.arange(5, 17))


def test_labels_go_on_where_the_data_end() -> None:
    one = spec()
    fields, _ = dataset(one, REGION, north=80.0, west=100.0)
    painted, arrays = canvas(one, fields, is_global=False, stop=3)
    context = painted.cut(arrays, {}, [(0, 0, 4)])["before"]
    np.testing.assert_array_equal(context.times[0], times(6) - np.timedelta64(18, "h"))
    np.testing.assert_array_equal(context.latitude[0], 100 - 20.0 * np.arange(6))
    np.testing.assert_array_equal(context.longitude[0], 190 + 30.0 * np.arange(8))


@pytest.mark.parametrize("calendar", [None, "360_day", "noleap"])
def test_token_info_tells_the_true_center_and_the_coarse_resolution(calendar: str | None) -> None:
    one = spec()
    fields, statics = dataset(one, GLOBE, north=90.0, calendar=calendar)
    sampler = RandomNeighborhoods(
        fields, statics, one, is_global=True, crops_per_slab=6, seed=2, slabs_per_epoch=5
    )
    for batch in sampler.batches(0):
        info = batch.info["around"]
        assert info.shape == (6, 2, 2, 2, 2, 7)
        assert (info[..., 6] == 40).all()
        assert (batch.info["other"][..., 6] == 60).all()
        assert (batch.info["before"][..., 3] == 850).all()
        # The box begins 2 rows north and 3 columns west; a token has 4 rows and 6 columns.
        north = batch.latitude[:, :1] + 20 * (2 - 1.5) - 80 * np.arange(2)
        np.testing.assert_array_equal(info[:, 0, 0, :, 0, 4], north.clip(-90, 90))
        west = batch.longitude[:, :1] + 30 * (-3 + 2.5) + 180 * np.arange(2)
        np.testing.assert_array_equal(info[:, 0, 0, 0, :, 5], west % 360)
        # One frame in a token of the one, six of the other.
        fine = batch.info["a"]
        np.testing.assert_array_equal(info[:, 0, :, 0, 0, :3], fine[:, 0, :, 0, 0, :3])
        last = batch.times[:, -1]
        center = xr.DataArray(last - (last[0] - batch.times[0, 0]) * 2.5).dt
        hours = center.hour.values + center.minute.values / 60
        np.testing.assert_array_equal(batch.info["before"][:, 0, 0, 0, 0, 2], hours)
        np.testing.assert_array_equal(batch.info["before"][:, 0, 0, 0, 0, 1], center.dayofyear)


@pytest.mark.parametrize("is_global", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_random_neighborhoods_come_with_their_contexts(is_global: bool, chunked: bool) -> None:
    one = spec()
    fields, statics = dataset(one, GLOBE if is_global else REGION, north=90.0)
    given = {name: x.chunk(time=2) for name, x in fields.items()} if chunked else fields
    sampler = RandomNeighborhoods(
        given, statics, one, is_global=is_global, crops_per_slab=5, seed=3, slabs_per_epoch=6
    )
    bare = RandomNeighborhoods(
        fields,
        statics,
        one.model_copy(update={"contexts": ()}),
        is_global=is_global,
        crops_per_slab=5,
        seed=3,
        slabs_per_epoch=6,
    )
    known = {axis: fields["a"][axis].values for axis in ("time", "latitude", "longitude")}
    for batch, without in zip(sampler.batches(1), bare.batches(1), strict=True):
        for name in ("a", "b"):  # the same draws
            np.testing.assert_array_equal(batch.tokens[name], without.tokens[name])
        for i in range(5):
            corner = tuple(
                int(np.flatnonzero(values == first)[0])
                for values, first in zip(
                    known.values(),
                    (batch.times[i, 0], batch.latitude[i, 0], batch.longitude[i, 0]),
                    strict=True,
                )
            )
            for context in one.contexts:
                expected = plain(one, context, fields[context.field], corner, is_global=is_global)
                values = untokenize(batch.tokens[context.name])[i]
                np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        assert batch.statics["around"].shape == (5, 2, 2, 1, 2, 3)
        assert np.isfinite(batch.statics["around"]).all()


def test_the_past_of_a_slab_is_read_of_sources_only() -> None:
    one = spec()
    fields, statics = dataset(one, GLOBE, north=90.0)
    read: dict[str, set[int]] = {"a": set(), "b": set()}

    def lazy(name: str) -> xr.DataArray:
        chunked = fields[name].chunk(time=1)

        def block(values: np.ndarray, block_info: dict) -> np.ndarray:
            read[name].add(block_info[0]["array-location"][0][0])
            return values

        data = chunked.data.map_blocks(block, dtype="float32", meta=np.empty((0,) * 4, "f4"))
        return chunked.copy(data=data)

    only = one.model_copy(update={"contexts": (AROUND, BEFORE)})
    sampler = RandomNeighborhoods(
        {name: lazy(name) for name in fields},
        statics,
        only,
        is_global=True,
        crops_per_slab=2,
        seed=0,
        slabs_per_epoch=1,
    )
    (batch,) = sampler.batches(0)
    first = int(np.flatnonzero(fields["a"]["time"].values == batch.times[0, 0])[0])
    assert read["b"] == {first, first + 1}
    assert read["a"] == {i for i in range(first - 4, first + 2) if i >= 0}


def test_a_batch_is_labelled_without_its_contexts_and_names_them() -> None:
    one = spec()
    fields, statics = dataset(one, GLOBE, north=90.0)
    sampler = RandomNeighborhoods(fields, statics, one, is_global=True, crops_per_slab=2, seed=0)
    batch = sampler.slab(0, 0)
    assert "around 2x2x2x2 tokens of 1x2x3" in repr(batch)
    assert {str(name) for name in batch.to_dataset().data_vars} == {
        *("a", "a_token_info", "a_statics", "b", "b_token_info", "b_statics")
    }
    with pytest.raises(ConventionError, match=r"contexts: the model reads .*'around'"):
        TokenBatch.cut(
            one,
            {name: np.zeros((1, n, 2, 4, 6)) for name, n in (("a", 2), ("b", 1))},
            times=times(2)[None],
            latitude=50.0 - np.arange(4)[None],
            longitude=1.0 * np.arange(6)[None],
            statics={"orography": np.zeros((1, 4, 6))},
        )


def test_coarse_points_without_any_value_are_missing() -> None:
    values = np.full((1, 2, 4), np.nan)
    values[0, 0, 3] = 5
    np.testing.assert_array_equal(
        coarse(values, np.array([90.0, 80.0]), (1, 2, 2)), [[[np.nan, 5]]]
    )
