from __future__ import annotations

import cftime
import dask
import numpy as np
import pytest
import xarray as xr

from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.testing import assert_labelled_equal

PLACE = {"time": "2020-12-31T12", "latitude": 42, "longitude": 50, "level": 500}


def _raise(*arguments, **options):
    raise AssertionError("something was computed")


@pytest.fixture(scope="module")
def weights() -> xr.Dataset:
    return small.dataset().atmorep.attention(PLACE, model=small.model(), layer=None)


def test_pairs_and_dimensions(weights):
    assert set(weights) == {
        "2m_temperature_to_2m_temperature",
        "2m_temperature_to_temperature",
        "temperature_to_temperature",
        "temperature_to_2m_temperature",
    }
    own = weights["2m_temperature_to_2m_temperature"]
    assert own.dims == ("query", "layer", "head", "time", "latitude", "longitude")
    assert own.shape == (1, 2, 2, 2, 3, 4)
    across = weights["2m_temperature_to_temperature"]
    assert across.shape == (1, 2, 1, 1, 2, 2, 3)
    assert "coupling_head" in across.dims
    np.testing.assert_array_equal(weights["layer"], [1, 2])
    # The neighborhood that holds the place: rows 0..5, columns 0..11.
    np.testing.assert_allclose(own["latitude"], [85, 65, 45])
    np.testing.assert_allclose(own["longitude"], [15, 60, 105, 150])
    assert weights["query_time"].values[0] == np.datetime64("2020-12-31T12")


def test_weights_sum_to_one(weights):
    for name, pair in weights.items():
        total = pair.sum(
            [dim for dim in pair.dims if str(dim).startswith(("time", "lev", "lat", "lon"))]
        )
        np.testing.assert_allclose(total, 1, atol=1e-5, err_msg=name)


def test_dask_gives_the_same_and_computes_nothing_before(weights):
    ds = small.dataset().chunk(time=1, latitude=5)
    with dask.config.set(scheduler=_raise):
        lazy = ds.atmorep.attention(PLACE, model=small.model(), layer=None)
    assert_labelled_equal(lazy, weights, atol=1e-6)


@pytest.mark.parametrize("present", [small.flipped, small.rolled, small.renamed])
def test_the_same_place_in_every_form_of_the_data(weights, present):
    ds = present(small.dataset())
    place = PLACE | ({"level": 50000} if present is small.renamed else {})
    result = ds.atmorep.attention(place, model=small.model(), layer=None)
    name = "ta_to_tas" if present is small.renamed else "temperature_to_2m_temperature"
    back = small.as_input(result[[name]], ds)[name]
    np.testing.assert_allclose(back, weights["temperature_to_2m_temperature"], atol=1e-5)


def test_several_places_share_a_grid(weights):
    far = {"time": "2021-01-01T06", "latitude": -88, "longitude": -10, "level": 850}
    both = small.dataset().atmorep.attention([PLACE, far], model=small.model(), layer=None)
    own = both["2m_temperature_to_2m_temperature"]
    assert own.sizes["query"] == 2
    assert bool((own["latitude"].diff("latitude") < 0).all())
    sums = own.sum(["time", "latitude", "longitude"])  # skips what a query can't see
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    first = own.isel(query=0).dropna("time", how="all").dropna("latitude", how="all")
    first = first.dropna("longitude", how="all")
    np.testing.assert_allclose(first, weights["2m_temperature_to_2m_temperature"][0], atol=1e-6)


def test_one_layer_and_head(weights):
    result = small.dataset().atmorep.attention(PLACE, model=small.model(), layer=1, head=1)
    own = result["2m_temperature_to_2m_temperature"]
    assert own.sizes["head"] == own.sizes["layer"] == 1
    expected = weights["2m_temperature_to_2m_temperature"].sel(layer=[1], head=[1])
    np.testing.assert_allclose(own, expected, atol=1e-6)


def test_calendars_of_climate_models(weights):
    times = xr.date_range("2001-02-27", periods=5, freq="6h", calendar="noleap", use_cftime=True)
    ds = small.dataset().assign_coords(time=times)
    text, date = (
        ds.atmorep.attention(PLACE | {"time": time}, model=small.model())
        for time in ("2001-02-27T06", cftime.DatetimeNoLeap(2001, 2, 27, 6))
    )
    xr.testing.assert_identical(text, date)
    assert text["query_time"].values[0] == times[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": "2021-03-01"}, "time 2021-03-01 of the query lies outside of the data"),
        ({"time": "yesterday"}, "time 'yesterday' of the query is no time"),
        ({"latitude": 120}, "latitude 120 of the query lies outside"),
        ({"level": 700}, "temperature has no level 700 but 850, 500"),
        ({"lat": 3}, "has unknown ['lat']"),
    ],
)
def test_places_outside_are_refused(change, message):
    with pytest.raises(ConfigError) as error:
        small.dataset().atmorep.attention(PLACE | change, model=small.model())
    assert message in str(error.value)


def test_incomplete_places_are_refused():
    ds, model = small.dataset(), small.model()
    with pytest.raises(ConfigError, match=r"lacks \['longitude'\]"):
        ds.atmorep.attention({"time": "2021-01-01", "latitude": 0}, model=model)
    with pytest.raises(ConfigError, match="several levels: the query needs one"):
        ds.atmorep.attention({k: v for k, v in PLACE.items() if k != "level"}, model=model)
    with pytest.raises(ConfigError, match="no query was given"):
        ds.atmorep.attention([], model=model)
    with pytest.raises(ConfigError, match="layer 5 doesn't exist: there are 1 to 2"):
        ds.atmorep.attention(PLACE, model=model, layer=5)


def test_the_thirtieth_of_february_can_be_asked_for():
    times = xr.date_range("2001-02-29", periods=5, freq="6h", calendar="360_day", use_cftime=True)
    ds = small.dataset().assign_coords(time=times)
    result = ds.atmorep.attention(PLACE | {"time": "2001-02-30"}, model=small.model())
    assert result["query_time"].values[0] == cftime.Datetime360Day(2001, 2, 30)


def test_ensemble_members_have_weights_of_their_own(weights):
    ds = small.dataset()
    both = xr.concat([ds, small.dataset(seed=1)], "number", data_vars="all")
    both["geopotential_at_surface"] = ds["geopotential_at_surface"]
    result = both.atmorep.attention(PLACE, model=small.model(), layer=None)
    own = result["2m_temperature_to_2m_temperature"]
    assert own.dims[:2] == ("query", "number")
    expected = weights["2m_temperature_to_2m_temperature"]
    np.testing.assert_allclose(own.isel(number=0), expected, atol=1e-6)
    with pytest.raises(ConventionError, match="'head' of the dataset is named like"):
        both.rename(number="head").atmorep.attention(PLACE, model=small.model())
