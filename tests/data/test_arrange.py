"""Variables in canonical form, held by numpy, dask or a file that nobody reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from xarray.backends import BackendArray
from xarray.core import indexing

from xatmorep.data.arrange import arrange
from xatmorep.data.grid import Place
from xatmorep.data.units import Conversion

VALUES = np.arange(2 * 3 * 4, dtype="f4").reshape(2, 3, 4)
VARIABLE = xr.Variable(("lon", "t", "lat"), VALUES)
PLACES = {
    "number": Place(None, 2),
    "time": Place("t", 3),
    "level": Place(None, 1),
    "latitude": Place("lat", 4, np.arange(4)[::-1]),
    "longitude": Place("lon", 2, np.array([1, 0])),
}
EXPECTED = np.broadcast_to(
    VALUES.transpose(1, 2, 0)[:, ::-1, ::-1][np.newaxis, :, np.newaxis], (2, 3, 1, 4, 2)
)


class Recorded(BackendArray):
    """A file that remembers what was read from it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.reads: list[tuple[Any, ...]] = []

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return np.asarray(
            indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        self.reads.append(key)
        arrays = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        assert all(np.all(np.diff(array) > 0) for array in arrays), "files are read in order"
        scalars = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)
        return np.asarray(self.values[np.ix_(*arrays)][scalars])


def from_file(values: np.ndarray = VALUES) -> tuple[xr.Variable, Recorded]:
    file = Recorded(values)
    return xr.Variable(VARIABLE.dims, indexing.LazilyIndexedArray(file)), file


def test_dimensions_are_renamed_reordered_and_added() -> None:
    arranged = arrange(VARIABLE, PLACES, Conversion())
    assert arranged.dims == ("number", "time", "level", "latitude", "longitude")
    assert arranged.dtype == "float32"
    np.testing.assert_array_equal(arranged.values, EXPECTED)


def test_units_are_converted_in_double_precision() -> None:
    kelvin = Conversion(offset=273.15)
    arranged = arrange(VARIABLE, PLACES, kelvin)
    assert arranged.dtype == "float32"
    np.testing.assert_array_equal(arranged.values, (EXPECTED + np.float64(273.15)).astype("f4"))


def test_other_dimensions_are_reduced_to_their_first_entry() -> None:
    places = {"latitude": Place("lat", 4)}
    np.testing.assert_array_equal(arrange(VARIABLE, places).values, VALUES[0, 0])


@pytest.mark.parametrize("dtype", ["bool", "int16", "float64"])
def test_without_a_conversion_values_stay(dtype: str) -> None:
    for variable in (VARIABLE.astype(dtype), from_file(VALUES.astype(dtype))[0]):
        arranged = arrange(variable, PLACES)
        assert arranged.dtype == dtype
        np.testing.assert_array_equal(arranged.values, EXPECTED.astype(dtype))


def test_dask_computes_nothing() -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        arranged = arrange(VARIABLE.chunk({"t": 1}), PLACES, Conversion(2.0))
    assert arranged.chunks is not None
    np.testing.assert_array_equal(arranged.values, 2 * EXPECTED)


def test_a_file_is_read_only_where_it_is_indexed() -> None:
    variable, file = from_file()
    arranged = arrange(variable, PLACES, Conversion(2.0))
    part = arranged[0, 1:2]
    assert file.reads == []
    np.testing.assert_array_equal(part.values, 2 * EXPECTED[0, 1:2])
    ((lon, t, lat),) = file.reads
    assert (lon, t, lat) == (slice(0, 2, 1), slice(1, 2, 1), slice(0, 4, 1))


def keys(size: int) -> st.SearchStrategy[Any]:
    # xarray itself stumbles over an empty slice that counts down.
    slices = st.slices(size).filter(lambda key: len(range(size)[key]) > 0)
    places = st.integers(-size, size - 1)
    return slices | places | st.lists(places, min_size=1, max_size=size + 1).map(np.array)


@given(st.tuples(*(keys(place.size) for place in PLACES.values())))
def test_indexing_a_file_is_indexing_an_array(key: tuple[Any, ...]) -> None:
    variable, _ = from_file()
    unread = arrange(variable, PLACES, Conversion(offset=1.0))
    held = arrange(VARIABLE, PLACES, Conversion(offset=1.0))
    indexers = dict(zip(held.dims, key, strict=True))
    np.testing.assert_array_equal(unread.isel(indexers).values, held.isel(indexers).values)


def test_pointwise_indexing_of_a_file() -> None:
    variable, _ = from_file()
    points = {
        "time": xr.Variable("p", [0, 2, 2]),
        "latitude": xr.Variable("p", [3, 0, 1]),
        "longitude": xr.Variable("p", [1, 1, 0]),
    }
    expected = xr.Variable(tuple(PLACES), EXPECTED).isel(points)
    assert arrange(variable, PLACES, Conversion()).isel(points).equals(expected)


def test_a_packed_zarr_store_stays_unread(tmp_path: Path) -> None:
    ds = xr.Dataset({"x": VARIABLE.transpose("t", "lat", "lon")})
    packing = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -1}
    ds.to_zarr(tmp_path / "a.zarr", encoding={"x": packing}, consolidated=False)
    opened = xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False)
    arranged = arrange(opened["x"].variable, PLACES, Conversion())
    assert not arranged._in_memory
    np.testing.assert_array_equal(arranged.values, EXPECTED)
    np.testing.assert_array_equal(arranged[:, ::-1, 0, 1:, 1].values, EXPECTED[:, ::-1, 0, 1:, 1])
    assert not opened["x"].variable._in_memory


def test_an_array_in_memory_can_be_converted_where_it_is_indexed() -> None:
    variable = VARIABLE.copy(deep=True)
    deferred = arrange(variable, PLACES, Conversion(2.0), deferred=True)
    variable.values[...] += 1  # nothing was converted yet
    np.testing.assert_array_equal(deferred[:, 1:2].values, 2 * (EXPECTED + 1)[:, 1:2])
    assert arrange(VARIABLE.chunk(), PLACES, deferred=True).chunks is not None
