from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.tasks import small
from xatmorep.testing import assert_labelled_equal


@pytest.fixture(scope="module")
def tokens() -> xr.Dataset:
    return small.dataset().atmorep.tokens(model=small.model())


def test_dimensions(tokens):
    assert tokens["2m_temperature"].shape == (5, 10, 8, 1, 2, 3)
    upper = tokens["temperature"]
    assert upper.dims[-3:] == (
        "token_time_temperature",
        "token_latitude_temperature",
        "token_longitude_temperature",
    )
    assert upper.shape == (3, 2, 7, 6, 2, 3, 4)
    assert list(tokens["info"].values)[:3] == ["year", "day_of_year", "hour"]


def test_values_are_the_normalized_data(tokens):
    """Tokens of a field put side by side are the field, as far as they don't overlap."""
    ds, normalizer = small.dataset(), small.model().normalizer
    field = ds["2m_temperature"].expand_dims(level=[0.0])
    expected = normalizer.apply("2m_temperature", field).isel(level=0)
    regular = tokens["2m_temperature"].isel(latitude=slice(0, 9), token_time=0)
    found = regular.transpose("time", "latitude", "token_latitude", "longitude", "token_longitude")
    np.testing.assert_allclose(found.values.reshape(5, 18, 24), expected[:, :18], atol=1e-5)
    last = (
        tokens["2m_temperature"]
        .isel(latitude=9, token_time=0)
        .transpose("time", "token_latitude", "longitude", "token_longitude")
    )
    np.testing.assert_allclose(last.values.reshape(5, 2, 24), expected[:, 17:], atol=1e-5)


def test_info_tells_when_and_where(tokens):
    info = tokens["2m_temperature_info"]
    np.testing.assert_allclose(info.sel(info="latitude")[0, :, 0], tokens["latitude"])
    np.testing.assert_allclose(info.sel(info="year")[:, 0, 0], [2020, 2020, 2020, 2021, 2021])
    np.testing.assert_allclose(info.sel(info="hour")[:, 0, 0], [6, 12, 18, 0, 6])


def test_missing_values_stay_missing():
    ds = small.dataset()
    ds["2m_temperature"][1, 2, 3] = np.nan
    result = ds.atmorep.tokens(model=small.model())["2m_temperature"]
    assert int(result.isnull().sum()) == 1
    assert np.isnan(result.values[1, 1, 1, 0, 0, 0])


def test_dask_gives_the_same(tokens):
    lazy = small.dataset().chunk(time=2, longitude=5).atmorep.tokens(model=small.model())
    assert lazy.chunks
    assert_labelled_equal(lazy, tokens, atol=1e-6)


def test_files_read_back_identical(tokens, tmp_path):
    tokens.to_zarr(tmp_path / "t.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "t.zarr", consolidated=False).load()
    xr.testing.assert_identical(back, tokens)
