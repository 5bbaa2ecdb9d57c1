from __future__ import annotations

import copy
import pickle

import dask
import numpy as np
import pytest
import torch
import xarray as xr

import xatmorep
from tests.tasks import small
from xatmorep.data import arrange
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.testing import assert_labelled_equal


def _raise(*arguments, **options):
    raise AssertionError("something was computed")


@pytest.fixture(scope="module")
def embedding() -> xr.Dataset:
    return small.dataset().atmorep.embed(model=small.model())


def test_dimensions_and_coordinates_are_those_of_tokens(embedding):
    surface, upper = embedding["2m_temperature"], embedding["temperature"]
    assert surface.dims == ("time", "latitude", "longitude", "feature")
    assert surface.shape == (5, 10, 8, 16)
    # The second field has other tokens, and a level: what differs carries its name.
    assert upper.dims == (
        "time_temperature",
        "level",
        "latitude_temperature",
        "longitude_temperature",
        "feature_temperature",
    )
    assert upper.shape == (3, 2, 7, 6, 8)
    np.testing.assert_array_equal(upper["level"], [500, 850])  # the order of the data
    # 19 rows in boxes of 6: rows 0..17 in three boxes, then the last tokens of rows 13..18.
    np.testing.assert_allclose(surface["latitude"][-2:], [-75, -85])
    np.testing.assert_allclose(surface["longitude"], 15 + 45 * np.arange(8))
    np.testing.assert_allclose(embedding["longitude_bounds"][0], [-7.5, 37.5])
    assert embedding["latitude"].attrs["bounds"] == "latitude_bounds"
    assert embedding["latitude"].attrs["units"] == "degrees_north"
    assert embedding["latitude_temperature"].attrs["bounds"] == "latitude_bounds_temperature"
    assert bool((np.diff(surface["latitude"]) < 0).all())


def test_time_of_a_token_is_the_middle_of_its_frames(embedding):
    expected = np.array(
        ["2020-12-31T09", "2020-12-31T21", "2021-01-01T03"], dtype="datetime64[s]"
    )  # frames 0-1, 2-3 and, shifted, 3-4
    np.testing.assert_array_equal(embedding["time_temperature"], expected)


def test_attributes_say_where_it_comes_from(embedding):
    assert embedding.attrs["model"] == "small"
    assert embedding.attrs["model_digest"] == small.model().digest
    assert embedding.attrs["task"] == "embed"
    assert embedding["2m_temperature"].attrs["long_name"] == "embedding of 2m temperature"


def test_values_are_those_of_the_network_for_one_neighborhood():
    """A twin without tiling, dask or labels."""
    ds, model = (
        small.dataset().isel(time=[0, 1], latitude=slice(0, 6), longitude=slice(0, 12)),
        (small.model()),
    )
    result = ds.atmorep.embed(model=model, layer=1)
    from xatmorep.data.conventions import canonical_view
    from xatmorep.model.inputs import NetworkInput
    from xatmorep.tokens.batch import TokenBatch

    view = canonical_view(ds, small.CONFIG.inputs.fields, small.CONFIG.inputs.statics)
    arrays = {
        name: model.normalizer.apply(name, field).transpose("level", "time", ...).values[None]
        for name, field in view.fields.items()
    }
    batch = TokenBatch.cut(
        small.CONFIG.inputs,
        arrays,
        times=ds["time"].values[None],
        latitude=ds["latitude"].values[None],
        longitude=ds["longitude"].values[None],
        statics={
            name: model.normalizer.apply(name, field).values[None]
            for name, field in view.statics.items()
        },
    )
    tokens = {name: torch.from_numpy(x) for name, x in batch.tokens.items()}
    blank = {name: torch.zeros(x.shape[:5], dtype=torch.bool) for name, x in tokens.items()}
    with torch.no_grad():
        layers = model.network.encode(NetworkInput.of(batch, tokens, blank))
    expected = layers["2m_temperature"][1].reshape(2, 3, 4, 16).numpy()
    np.testing.assert_allclose(result["2m_temperature"], expected, atol=1e-6)


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 2, "latitude": 7}, {"longitude": 5}])
def test_dask_gives_the_same_and_computes_nothing_before(embedding, chunks):
    ds = small.dataset().chunk(chunks)
    with dask.config.set(scheduler=_raise):
        lazy = ds.atmorep.embed(model=small.model())
        assert lazy.chunks
    assert_labelled_equal(lazy, embedding, atol=1e-5)


@pytest.mark.parametrize("present", [small.flipped, small.rolled, small.renamed])
def test_the_same_in_every_form_of_the_data(embedding, present):
    """Flipped, rolled and renamed data give the same embeddings at the same places."""
    ds = present(small.dataset())
    result = ds.atmorep.embed(model=small.model())
    name = "tas" if present is small.renamed else "2m_temperature"
    latitude, longitude = result[name].dims[1:3]
    assert (result[latitude][0] < result[latitude][-1]) == (ds[latitude][0] < ds[latitude][-1])
    assert float(result[longitude].min()) >= float(ds[longitude].min()) - 7.5
    surface = small.as_input(result[[name]], ds)["2m_temperature"]
    expected = embedding["2m_temperature"]
    np.testing.assert_allclose(surface["latitude"], expected["latitude"])
    np.testing.assert_allclose(surface["longitude"], expected["longitude"])
    np.testing.assert_allclose(surface, expected, atol=1e-5)


def test_names_and_levels_are_those_of_the_input():
    result = small.renamed(small.dataset()).atmorep.embed(model=small.model())
    assert list(result) == ["tas", "ta"]
    assert result["tas"].dims == ("time", "lat", "lon", "feature")
    np.testing.assert_array_equal(result["plev"], [50000, 85000])
    assert result["plev"].attrs["units"] == "Pa"
    assert "lat_bounds" in result.coords


def test_ensemble_members_are_carried_in_front(embedding):
    ds = small.dataset()
    both = xr.concat([ds, small.dataset(seed=1)], "number", data_vars="all").assign_coords(
        number=[3, 7]
    )
    both["geopotential_at_surface"] = ds["geopotential_at_surface"]
    result = both.atmorep.embed(model=small.model())
    assert result["temperature"].dims[0] == "number"
    np.testing.assert_array_equal(result["number"], [3, 7])
    np.testing.assert_allclose(
        result["2m_temperature"].sel(number=3), embedding["2m_temperature"], atol=1e-5
    )
    assert (
        float(abs(result["2m_temperature"].sel(number=7) - embedding["2m_temperature"]).max()) > 0.1
    )


def test_batch_size_changes_nothing(embedding):
    result = small.dataset().atmorep.embed(model=small.model(), batch_size=1)
    assert_labelled_equal(result, embedding, atol=1e-5)


def test_calendars_of_climate_models():
    times = xr.date_range("2001-02-27", periods=5, freq="6h", calendar="noleap", use_cftime=True)
    ds = small.dataset().assign_coords(time=times)
    result = ds.atmorep.embed(model=small.model())
    assert result["time"].dt.calendar == "noleap"
    assert result["time"].values[0] == times[0]
    assert result["time_bounds"].values[0, 0] < times[0]


def test_missing_values_stay_where_they_are(embedding):
    """NaN at one point changes its own neighborhoods and makes no NaN."""
    ds = small.dataset()
    ds["2m_temperature"][0, 0, 0] = np.nan
    result = ds.atmorep.embed(model=small.model())
    assert not result["2m_temperature"].isnull().any()
    far = {"latitude": slice(3, None)}
    same = abs(result["2m_temperature"] - embedding["2m_temperature"]).isel(far).max()
    assert float(same) < 1e-5


def test_pooling_is_a_weighted_mean(embedding):
    result = small.dataset().atmorep.embed(model=small.model(), pool="horizontal")
    assert result["2m_temperature"].dims == ("time", "feature")
    edges = np.sin(np.deg2rad(embedding["latitude_bounds"].values))
    weight = xr.DataArray(abs(np.diff(edges)[:, 0]), dims="latitude")
    expected = embedding["2m_temperature"].weighted(weight).mean(("latitude", "longitude"))
    np.testing.assert_allclose(result["2m_temperature"], expected, atol=1e-5)
    assert "time_bounds" in result.coords
    assert "latitude_bounds" not in result.coords


def test_pooling_over_everything():
    result = small.dataset().atmorep.embed(
        model=small.model(), pool=["time", "level", "horizontal"]
    )
    assert result["2m_temperature"].dims == ("feature",)
    assert result["temperature"].sizes == {"feature_temperature": 8}


def test_layers_and_fields_can_be_chosen(embedding):
    ds, model = small.dataset(), small.model()
    only = ds.atmorep.embed(model=model, fields=["temperature"], layer=2)
    assert list(only) == ["temperature"]
    np.testing.assert_allclose(only["temperature"], embedding["temperature"], atol=1e-6)
    first = ds.atmorep.embed(model=model, layer=0)["2m_temperature"]
    assert float(abs(first - embedding["2m_temperature"]).max()) > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 3}, "layer 3 doesn't exist: 0 is the embedding network, 1 to 2 are"),
        ({"layer": -4}, "layer -4 doesn't exist"),
        ({"pool": "levels"}, "pool 'levels' is unknown; did you mean 'level'?"),
        ({"fields": ["temprature"]}, "the model has no field 'temprature'; did you mean"),
        ({"dtype": "float8"}, "dtype must be one of float32, float64"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"device": "tpu9"}, "device 'tpu9' is not a torch device"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError) as error:
        small.dataset().atmorep.embed(model=small.model(), **arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ds: ds.drop_vars("2m_temperature"), ["2m_temperature", "temperature"]),
        (lambda ds: ds.sel(level=[500]), ["850"]),
        (lambda ds: ds.isel(time=[0]), ["time", "2"]),
        (lambda ds: ds.isel(time=[0, 1, 3]), ["time", "12"]),
        (lambda ds: ds.isel(longitude=slice(0, None, 2)), ["longitude", "30"]),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_read(change, words):
    with (
        dask.config.set(scheduler=_raise),
        pytest.raises(ConventionError) as error,
    ):
        change(small.dataset().chunk()).atmorep.embed(model=small.model())
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_types_give_nearly_the_same(embedding, dtype):
    model = small.model()
    result = small.dataset().atmorep.embed(model=model, dtype=dtype)
    assert result["2m_temperature"].dtype == "float32"
    tolerance = 1e-4 if dtype == "float64" else 0.3
    np.testing.assert_allclose(
        result["2m_temperature"], embedding["2m_temperature"], atol=tolerance
    )
    # The caller's model is left as it is.
    assert next(model.network.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["result.zarr", "result.nc"])
def test_files_read_back_identical(embedding, tmp_path, name):
    path = tmp_path / name
    if name.endswith("zarr"):
        embedding.to_zarr(path, consolidated=False)
        back = xr.open_zarr(path, consolidated=False)
    else:
        embedding.to_netcdf(path)
        back = xr.open_dataset(path)
    xr.testing.assert_identical(back.load(), embedding)


def test_a_saved_model_travels_as_its_address(tmp_path, embedding):
    model = small.model()
    model.save(tmp_path / "model")
    by_name = small.dataset().chunk().atmorep.embed(model=tmp_path / "model")
    graph = by_name["temperature"].data.__dask_graph__()
    assert not any(
        isinstance(getattr(task, "value", None), xatmorep.Model) for task in dict(graph).values()
    )
    assert_labelled_equal(by_name, embedding, atol=1e-5)


def test_the_graph_carries_neither_weights_nor_statistics(tmp_path):
    """A saved model is its address in a graph; statistics of each grid point stay with it."""
    model = small.model.__wrapped__()
    ds = small.dataset(21).chunk(time=2)
    whole = len(pickle.dumps(ds.atmorep.embed(model=model)))
    model.save(tmp_path / "model")
    assert whole > len(pickle.dumps(model))
    named = ds.atmorep.embed(model=xatmorep.load(tmp_path / "model"))
    # The data themselves are in memory here and travel along.
    weight = len(pickle.dumps(named)) - len(pickle.dumps(ds))
    assert weight < 250_000
    assert whole - len(pickle.dumps(named)) > 0.9 * len(pickle.dumps(model))


def test_a_digest_of_the_weights_is_taken_twice_at_the_most(monkeypatch):
    model, taken = small.model.__wrapped__(), []
    digest = xatmorep.Model.digest.fget

    def counting(self):
        taken.append(self)
        return digest(self)

    monkeypatch.setattr(xatmorep.Model, "digest", property(counting))
    small.dataset(9).atmorep.embed(model=model)
    assert 1 <= len(taken) <= 2


def test_a_model_in_memory_is_copied_once_for_all_slabs(monkeypatch):
    from xatmorep.tasks import reference

    model, copies, deepcopy = small.model.__wrapped__(), [], copy.deepcopy

    def counting(original, *memo):
        copies.extend([original] if isinstance(original, torch.nn.Module) and not memo else [])
        return deepcopy(original, *memo)

    reference._place.cache_clear()
    monkeypatch.setattr(reference.copy, "deepcopy", counting)
    small.dataset(9).atmorep.embed(model=model)
    assert len(copies) == 1


def test_names_in_the_graph_depend_on_data_model_and_arguments():
    def name(ds, **arguments):
        return ds.chunk(time=2).atmorep.embed(**arguments)["temperature"].data.name

    ds, model = small.dataset(), small.model()
    names = [
        name(ds, model=model),
        name(ds, model=model, layer=1),
        name(ds, model=model, dtype="float64"),
        name(small.dataset(seed=1), model=model),
    ]
    assert len(set(names)) == 4
    assert name(ds, model=model) == names[0]


def test_only_the_fields_decide_whether_a_result_is_lazy():
    ds, model = small.dataset(), small.model()
    other = ds.assign(other=ds["2m_temperature"].chunk())
    assert not other.atmorep.embed(model=model).chunks
    partly = ds.assign(temperature=ds["temperature"].chunk(time=1))
    with dask.config.set(scheduler=_raise):
        assert partly.atmorep.embed(model=model).chunks


def test_a_file_opened_without_dask_is_read_slab_by_slab(tmp_path, embedding, monkeypatch):
    small.dataset().to_zarr(tmp_path / "ds.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "ds.zarr", chunks=None, consolidated=False)
    read, unread = [], arrange._Unread._read

    def counting(self, key):
        values = unread(self, key)
        if "time" in self.places:
            read.append(values.shape[list(self.places).index("time")])
        return values

    monkeypatch.setattr(arrange._Unread, "_read", counting)
    result = ds.atmorep.embed(model=small.model())
    np.testing.assert_allclose(result["temperature"], embedding["temperature"], atol=1e-5)
    assert read == [2] * 6  # two fields in three time boxes
    assert not ds["temperature"].variable._in_memory


@pytest.mark.parametrize("dim", ["feature", "bounds"])
def test_dimensions_named_like_those_of_the_result_are_refused(dim):
    ds = small.dataset()
    fields = {name: ds[name].expand_dims({dim: 2}) for name in ("2m_temperature", "temperature")}
    with pytest.raises(ConventionError, match=rf"rename it, .*rename\({dim}='dataset_{dim}'\)"):
        ds.assign(fields).atmorep.embed(model=small.model())


def test_places_without_statistics_are_refused_before_anything_is_read():
    ds = small.dataset().assign_coords(longitude=small.dataset()["longitude"] + 5)
    ds["longitude"].attrs["units"] = "degrees_east"
    with dask.config.set(scheduler=_raise), pytest.raises(ConventionError, match="no statistics"):
        ds.chunk().atmorep.embed(model=small.model())


def test_a_static_field_may_lack_values(embedding):
    """A missing value counts as the mean; it makes no NaN."""
    ds = small.dataset()
    ds["geopotential_at_surface"][0, 0] = np.nan
    result = ds.atmorep.embed(model=small.model())
    assert not any(result[name].isnull().any() for name in result)


def test_one_field_can_be_named_alone():
    result = small.dataset().atmorep.embed(model=small.model(), fields="temperature")
    assert list(result) == ["temperature"]
