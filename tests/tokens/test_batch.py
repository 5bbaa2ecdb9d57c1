"""Token batches: cut, labelled, put back on the grid; and what they refuse."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.strategies import dataset, make_spec, specs, times
from xatmorep.errors import ConventionError
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.info import token_info
from xatmorep.tokens.spec import InputSpec
from xatmorep.tokens.tiling import tiling_for

Fields = dict[str, xr.DataArray]


def cut(spec: InputSpec, fields: Fields, statics: Fields, places: list[dict]) -> TokenBatch:
    """Batch of the neighborhoods at some places of a dataset."""
    boxes = {name: [field.isel(place) for place in places] for name, field in fields.items()}
    first = boxes[spec.fields[0].name]
    return TokenBatch.cut(
        spec,
        {
            name: np.stack([box.transpose("level", "time", ...).values for box in crops])
            for name, crops in boxes.items()
        },
        times=np.stack([box["time"].values for box in first]),
        latitude=np.stack([box["latitude"].values for box in first]),
        longitude=np.stack([box["longitude"].values for box in first]),
        statics={
            name: np.stack([static.isel(p, missing_dims="ignore").values for p in places])
            for name, static in statics.items()
        },
    )


def batch_of(spec: InputSpec, n: int = 2, **where: object) -> TokenBatch:
    """Batch of `n` neighborhoods side by side in longitude."""
    nt, na, no = spec.neighborhood.shape
    fields, statics = dataset(spec, (nt, na, n * no), **where)  # type: ignore[arg-type]
    places = [{"longitude": slice(i * no, (i + 1) * no)} for i in range(n)]
    return cut(spec, fields, statics, places)


TWO = make_spec(
    (2, 4, 6),
    {"a": ((1, 2, 3), (500, 850)), "b": ((2, 2, 2), ())},
    statics=("orography", "land_sea_mask"),
)


@given(
    specs(),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.sampled_from([None, "noleap"]),
    st.sampled_from([0.0, 357.0]),
)
def test_tokens_to_grid_restores_data_and_coordinates(
    spec: InputSpec, more: tuple[int, int, int], calendar: str | None, west: float
) -> None:
    nt, na, no = spec.neighborhood.shape
    sizes = (nt + more[0], na + more[1], no + more[2])
    fields, statics = dataset(spec, sizes, calendar=calendar, west=west)
    boxes = [dict(b.slices) for b in tiling_for(fields[spec.fields[0].name], spec).boxes()]
    batch = cut(spec, fields, statics, boxes)
    assert len(batch) == len(boxes)
    for name, field in fields.items():
        for back, box in zip(batch.to_grid(name), boxes, strict=True):
            xr.testing.assert_identical(back, field.isel(box))
            assert back.dtype == np.float32


def test_regular_neighborhoods_are_glued_by_xarray() -> None:
    spec = make_spec((2, 4, 6))
    fields, _ = dataset(spec, (4, 8, 12))
    field = fields["2m_temperature"]
    boxes = [dict(box.slices) for box in tiling_for(field, spec).boxes()]
    parts = cut(spec, fields, {}, boxes).to_grid("2m_temperature")
    glued = xr.combine_by_coords([part.to_dataset() for part in parts], join="outer")
    glued = glued.sortby("latitude", ascending=False)["2m_temperature"]
    xr.testing.assert_identical(glued, field)


@given(specs())
def test_tokens_statics_and_info_against_slow_twin(spec: InputSpec) -> None:
    nt, na, no = spec.neighborhood.shape
    fields, statics = dataset(spec, (nt, na, no))
    batch = cut(spec, fields, statics, [{}])
    for f in spec.fields:
        grid = spec.token_grid(f.name)
        t, a, o = f.token_shape
        for i, j, k in itertools.product(*map(range, grid)):
            place = (slice(i * t, i * t + t), slice(j * a, j * a + a), slice(k * o, k * o + o))
            for level in range(f.n_levels):
                np.testing.assert_array_equal(
                    batch.tokens[f.name][0, level, i, j, k],
                    fields[f.name].values[place[0], level, place[1], place[2]],
                )
            for number, static in enumerate(spec.statics):
                np.testing.assert_array_equal(
                    batch.statics[f.name][0, j, k, number], statics[static.name].values[place[1:]]
                )
        x = fields[f.name]
        info = token_info(
            spec, f.name, x["time"].values, x["latitude"].values, x["longitude"].values
        )
        np.testing.assert_array_equal(batch.info[f.name][0], info)


def test_cut_casts_to_single_precision() -> None:
    spec = make_spec()
    values = {"2m_temperature": np.arange(48.0).reshape(1, 1, 2, 4, 6)}
    batch = TokenBatch.cut(
        spec,
        values,
        times=times(2)[None],
        latitude=(60 - np.arange(4, dtype=np.float32))[None],
        longitude=np.arange(6)[None],
    )
    assert batch.tokens["2m_temperature"].dtype == np.float32
    assert batch.latitude.dtype == batch.longitude.dtype == np.float64


# As a Dataset


def test_dataset_labels_every_point() -> None:
    batch = batch_of(TWO, west=355.0)
    ds = batch.to_dataset()
    assert ds["a"].dims == (
        "neighborhood", "level", "step", "row", "column",
        "token_time", "token_latitude", "token_longitude",
    )  # fmt: skip
    assert ds["b"].dims == (
        "neighborhood", "step_b", "row", "column_b",
        "token_time_b", "token_latitude", "token_longitude_b",
    )  # fmt: skip
    assert ds["a_token_info"].dims[1:] == ("level", "step", "row", "column", "token_info")
    assert ds["b_statics"].dims == (
        "neighborhood", "row", "column_b", "static", "token_latitude", "token_longitude_b",
    )  # fmt: skip
    assert ds["static"].values.tolist() == ["orography", "land_sea_mask"]
    for name, tag in (("a", ""), ("b", "_b")):
        info = ds[f"{name}_token_info"]
        for axis, counted in (("latitude", "latitude"), ("longitude", f"longitude{tag}")):
            told = info.sel(token_info=axis)
            expected = ds[counted] % 360
            np.testing.assert_allclose(told, expected.broadcast_like(told).transpose(*told.dims))
        hour = info.sel(token_info="hour")
        told = ds[f"time{tag}"].dt.hour.broadcast_like(hour).transpose(*hour.dims)
        np.testing.assert_array_equal(hour, told)


def test_points_of_the_dataset_are_those_of_the_grid() -> None:
    batch = batch_of(TWO)
    ds = batch.to_dataset()
    for name, tag in (("a", ""), ("b", "_b")):
        for i, grid in enumerate(batch.to_grid(name)):
            crop = ds.isel(neighborhood=i)
            points = crop[name].stack(
                time=(f"step{tag}", f"token_time{tag}"),
                latitude=("row", "token_latitude"),
                longitude=(f"column{tag}", f"token_longitude{tag}"),
                create_index=False,
            )
            dims = [dim for dim in grid.dims if dim in points.dims]
            np.testing.assert_array_equal(points.transpose(*dims), grid.squeeze())
            for axis, own in (("time", tag), ("latitude", ""), ("longitude", tag)):
                along = crop[f"point_{axis}{own}"].values.ravel()
                np.testing.assert_array_equal(along, grid[axis].values)


def test_dims_are_shared_where_tokens_and_levels_are_the_same() -> None:
    spec = make_spec(
        fields={
            "surface": ((1, 2, 3), ()),
            "a": ((1, 2, 3), (500,)),
            "b": ((1, 2, 3), (500,)),
            "c": ((1, 2, 3), (500, 850)),
        }
    )
    ds = batch_of(spec).to_dataset()
    assert ds["a"].dims == ds["b"].dims
    assert ds["c"].dims[1] == "level_c"
    assert ds["level"].attrs["units"] == "hPa"
    assert "static" not in ds.dims


@pytest.mark.parametrize("calendar", [None, "noleap"])
def test_dataset_can_be_stored(tmp_path: Path, calendar: str | None) -> None:
    ds = batch_of(TWO, calendar=calendar).to_dataset()
    ds.to_zarr(tmp_path / "batch.zarr", consolidated=False)
    ds.to_netcdf(tmp_path / "batch.nc")
    for back in (
        xr.open_zarr(tmp_path / "batch.zarr", consolidated=False),
        xr.open_dataset(tmp_path / "batch.nc"),
    ):
        xr.testing.assert_equal(back.load(), ds)
        assert set(back.coords) == set(ds.coords)


# What is refused


def changed(batch: TokenBatch, name: str, key: str | None, new: object) -> TokenBatch:
    if key is not None:
        new = {**getattr(batch, name), key: new}
    return dataclasses.replace(batch, **{name: new})


@pytest.mark.parametrize("name", ["tokens", "info", "statics"])
def test_refuses_wrong_arrays(name: str) -> None:
    batch = batch_of(TWO)
    array = getattr(batch, name)["a"]
    changed(batch, name, "a", array.copy())
    with pytest.raises(ConventionError, match=r"of 'a' must be float32 of shape \(2, .*float64"):
        changed(batch, name, "a", array.astype(np.float64))
    for wrong in (array[:1], array[..., :1], array[0]):
        with pytest.raises(ConventionError, match="of 'a' must be float32 of shape"):
            changed(batch, name, "a", wrong)
    with pytest.raises(ConventionError, match=r"reads \['a', 'b'\], a batch was given \['a'\]"):
        changed(batch, name, None, {"a": array})
    with pytest.raises(ConventionError, match="a batch was given"):
        changed(batch, name, "c", array)


@pytest.mark.parametrize("name", ["times", "latitude", "longitude"])
def test_refuses_wrong_labels(name: str) -> None:
    batch = batch_of(TWO)
    good = getattr(batch, name)
    with pytest.raises(ConventionError, match=f"{name} must be .*of shape"):
        changed(batch, name, None, good[:, :-1])
    with pytest.raises(ConventionError, match=f"{name} "):
        changed(batch, name, None, good[:, ::-1])
    with pytest.raises(ConventionError, match=f"{name} "):
        changed(batch, name, None, good.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "new", "words"),
    [
        ("latitude", 91.0 - np.arange(4), "within 90 and -90"),
        ("latitude", np.full(4, np.nan), "from north to south"),
        ("longitude", 72.0 * np.arange(6), "at most once"),
        ("longitude", np.array([357.0, 358, 359, 0, 1, 2]), "beyond 360 where it crosses"),
        ("times", times(1).repeat(2), "must increase"),
        ("times", np.array(["2020", "2021"], dtype=object), "datetime64 or cftime, found object"),
    ],
)
def test_refuses_impossible_labels(name: str, new: np.ndarray, words: str) -> None:
    batch = batch_of(TWO, n=1)
    with pytest.raises(ConventionError, match=words):
        changed(batch, name, None, new[None])


def test_cut_refuses() -> None:
    spec = TWO
    fields, statics = dataset(spec, (2, 4, 6))
    with pytest.raises(ConventionError, match=r"fields: the model reads \['a', 'b'\]"):
        cut(spec, {"a": fields["a"]}, statics, [{}])
    with pytest.raises(ConventionError, match="static fields: the model reads"):
        cut(spec, fields, {}, [{}])
    with pytest.raises(ConventionError, match=r"field 'a' must be float32 of shape \(1, 2, 2, 4"):
        cut(spec, {**fields, "a": fields["a"].isel(level=[0])}, statics, [{}])
    mask = {**statics, "land_sea_mask": statics["orography"][1:]}
    with pytest.raises(ConventionError, match=r"static field 'land_sea_mask' must be of shape"):
        cut(spec, fields, mask, [{}])
    with pytest.raises(ConventionError, match=r"times must be \(batch, time\)"):
        TokenBatch.cut(spec, {}, times=times(0), latitude=np.zeros(0), longitude=np.zeros(0))


def test_is_never_changed() -> None:
    batch = batch_of(TWO)
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.times = batch.times  # type: ignore[misc]
    given_tokens = dict(batch.tokens)
    copy = dataclasses.replace(batch, tokens=given_tokens)
    given_tokens.clear()
    assert sorted(copy.tokens) == ["a", "b"]


def test_can_be_sent_to_another_process() -> None:
    batch = batch_of(TWO, calendar="noleap")
    xr.testing.assert_identical(pickle.loads(pickle.dumps(batch)).to_dataset(), batch.to_dataset())


def test_says_what_it_is() -> None:
    assert repr(batch_of(TWO)) == (
        "<TokenBatch of 2 neighborhoods: a 2x2x2x2 tokens of 1x2x3, b 1x1x2x3 tokens of 2x2x2>"
    )
