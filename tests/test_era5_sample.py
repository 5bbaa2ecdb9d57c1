"""The main job on real ERA5: the shipped model embeds the shipped sample, in every form of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import xatmorep
from xatmorep.testing import assert_labelled_equal

FIELDS = (
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "2m_temperature",
    "mean_sea_level_pressure",
)


@pytest.fixture(scope="module")
def sample() -> xr.Dataset:
    return xatmorep.open_dataset("era5-sample").isel(time=slice(2, 8)).load()


@pytest.fixture(scope="module")
def embedding(sample) -> xr.Dataset:
    return sample.atmorep.embed()


def test_dims_coordinates_and_attributes(sample, embedding):
    assert tuple(embedding) == FIELDS
    for name in FIELDS:
        assert embedding[name].dims == ("time", "latitude", "longitude", "feature")
        assert embedding[name].dtype == "float32"
        assert bool(np.isfinite(embedding[name]).all())
    # 15 degrees a token: 12 rows of them, one more that reaches the pole; the last of 6 times too.
    assert dict(embedding.sizes) == {
        "time": 6, "latitude": 13, "longitude": 24, "feature": 88, "bounds": 2,
    }  # fmt: skip
    np.testing.assert_array_equal(embedding["time"], sample["time"])
    np.testing.assert_allclose(embedding["latitude"][[0, -2, -1]], [83, -82, -83])
    np.testing.assert_allclose(embedding["latitude_bounds"][[0, -1]], [[90, 75.5], [-75.5, -90]])
    np.testing.assert_allclose(embedding["longitude"], 7 + 15 * np.arange(24))
    for axis in ("latitude", "longitude"):
        assert embedding[axis].attrs["units"] == sample[axis].attrs["units"]
        assert embedding[axis].attrs["bounds"] == f"{axis}_bounds"
    assert embedding.attrs["model"] == "era5-surface-tiny"
    assert embedding.attrs["model_digest"] == xatmorep.load("era5-surface-tiny").digest
    assert "demonstration" in embedding.attrs["comment"]


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 4, "latitude": 50, "longitude": 77}])
def test_dask_gives_the_same(sample, embedding, chunks):
    lazy = sample.chunk(chunks).atmorep.embed()
    assert all(lazy[name].chunks for name in FIELDS)
    assert_labelled_equal(lazy, embedding, atol=1e-5)


def test_latitude_flipped(sample, embedding):
    flipped = sample.isel(latitude=slice(None, None, -1)).atmorep.embed()
    assert bool((np.diff(flipped["latitude"]) > 0).all())
    for name in FIELDS:
        np.testing.assert_allclose(flipped[name][:, ::-1], embedding[name], atol=1e-5)


def test_longitude_from_minus_180(sample, embedding):
    east = ((sample["longitude"] + 180) % 360 - 180).assign_attrs(sample["longitude"].attrs)
    rolled = sample.assign_coords(longitude=east).sortby("longitude").atmorep.embed()
    assert bool((np.diff(rolled["longitude"]) > 0).all())
    assert float(rolled["longitude"].min()) >= -180.5
    back = rolled.assign_coords(longitude=rolled["longitude"] % 360).sortby("longitude")
    np.testing.assert_allclose(back["longitude"], embedding["longitude"])
    for name in FIELDS:
        np.testing.assert_allclose(back[name], embedding[name], atol=1e-5)


def test_renamed_to_lat_and_lon(sample, embedding):
    names = {"latitude": "lat", "longitude": "lon", "2m_temperature": "t2m"}
    renamed = sample.rename(names).atmorep.embed()
    assert renamed["t2m"].dims == ("time", "lat", "lon", "feature")
    assert {"lat_bounds", "lon_bounds"} < set(renamed.coords)
    np.testing.assert_allclose(renamed["t2m"], embedding["2m_temperature"], atol=1e-5)


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (xr.Dataset.to_zarr, xr.open_zarr),
        (xr.Dataset.to_netcdf, xr.open_dataset),
    ],
    ids=["zarr", "netcdf"],
)
def test_files_read_back_unchanged(embedding, tmp_path, write: Callable, read: Callable):
    write(embedding, tmp_path / "embedding")
    xr.testing.assert_identical(read(tmp_path / "embedding").load(), embedding)
