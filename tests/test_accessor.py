"""The accessor: it hands its arguments on, sees the dataset as it is, and holds nothing."""

from __future__ import annotations

import inspect
import pickle

import dask
import numpy as np
import pytest
import torch
import xarray as xr

import xatmorep
from tests.strategies import canonical_dataset
from tests.tasks import small
from xatmorep import accessor
from xatmorep.accessor import AtmorepAccessor
from xatmorep.data.axes import AXES
from xatmorep.data.conventions import canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.errors import ConventionError
from xatmorep.model.card import DataSource, ModelCard
from xatmorep.model.checkpoint import Model
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer
from xatmorep.tasks import engine
from xatmorep.testing import assert_labelled_equal

FUNCTIONS = {
    "attention": xatmorep.attention,
    "embed": xatmorep.embed,
    "forecast": xatmorep.forecast,
    "predict": xatmorep.predict,
    "tokens": xatmorep.tokenize,
}


def _raise(*arguments, **options):
    raise AssertionError("something was computed")


def single_field_model() -> Model:
    """2 m temperature alone, as a DataArray has it."""
    content = small.CONFIG.model_dump()
    content["inputs"] |= {"fields": content["inputs"]["fields"][:1], "statics": ()}
    content["networks"] = {"2m_temperature": {"width": 16}}
    config = ModelConfig.model_validate(content)
    card = ModelCard(
        name="single",
        description="For tests.",
        fields=("2m_temperature",),
        grid="global, 10 x 15 degrees",
        period=("2020-12-31", "2021-01-01"),
        data=DataSource(name="noise"),
    )
    view = canonical_view(small.dataset(), config.inputs.fields)
    network = Multiformer(config, torch.Generator().manual_seed(1)).eval()
    return Model(config, network, Normalizer.fit(view.fields), card)


# ---- the face


def test_it_is_registered_on_both():
    ds = small.dataset()
    assert isinstance(ds.atmorep, AtmorepAccessor)
    assert isinstance(ds["temperature"].atmorep, AtmorepAccessor)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_methods_have_the_arguments_of_the_functions(name):
    function = dict(inspect.signature(FUNCTIONS[name]).parameters)
    method = dict(inspect.signature(getattr(AtmorepAccessor, name)).parameters)
    del function["ds"], function["variables"], method["self"]
    assert [(p.name, p.kind, p.default) for p in method.values()] == [
        (p.name, p.kind, p.default) for p in function.values()
    ]


def test_every_method_is_a_function_of_the_package():
    public = {name for name in vars(AtmorepAccessor) if not name.startswith("_")}
    assert public == {*FUNCTIONS, "fields", "axes"}
    assert accessor.DEFAULT_MODEL == engine.DEFAULT_MODEL


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("embed", {"fields": ["temperature"], "layer": 1, "pool": "time"}),
        ("tokens", {}),
        ("predict", {"rate": 0.3, "members": False, "where": "all", "seed": 4}),
    ],
)
def test_methods_hand_their_arguments_on(name, arguments):
    ds = small.dataset()
    arguments["model"] = small.model()
    result = getattr(ds.atmorep, name)(**arguments)
    assert_labelled_equal(result, FUNCTIONS[name](ds, **arguments))


def test_attention_hands_its_arguments_on():
    ds, model = small.dataset(), small.model()
    place = {"time": "2021-01-01T00", "latitude": 30, "longitude": 200, "level": 500}
    result = ds.atmorep.attention(place, model=model, layer=None, head=1)
    assert_labelled_equal(result, xatmorep.attention(ds, place, model=model, layer=None, head=1))


def test_forecast_hands_its_arguments_on():
    ds, model = small.dataset(9), small.forecaster()
    arguments = {"init_times": ds["time"][[4, 6]], "model": model, "members": False}
    named = ds.rename(temperature="t").atmorep(fields={"temperature": "t"})
    result = named.forecast("12h", batch_size=3, **arguments).rename(t="temperature")
    assert_labelled_equal(result, xatmorep.forecast(ds, "12h", **arguments), 1e-4)


def test_only_the_query_may_come_without_its_keyword():
    with pytest.raises(TypeError, match="positional"):
        small.dataset().atmorep.embed(small.model())


# ---- names and axes as data

ERA5 = {"2m_temperature": "2m_temperature", "temperature": "temperature"}
NAMES = {
    "arco": (lambda ds: ds, ERA5, ("time", "level", "latitude", "longitude")),
    "weatherbench2": (
        lambda ds: ds.drop_attrs().transpose("time", "level", "longitude", "latitude"),
        ERA5,
        ("time", "level", "latitude", "longitude"),
    ),
    "cmip6": (
        small.renamed,
        {"2m_temperature": "tas", "temperature": "ta"},
        ("time", "plev", "lat", "lon"),
    ),
    "ecmwf": (
        lambda ds: ds.rename(
            {"2m_temperature": "t2m", "temperature": "t"}
            | {"time": "valid_time", "level": "pressure_level"}
        ),
        {"2m_temperature": "t2m", "temperature": "t"},
        ("valid_time", "pressure_level", "latitude", "longitude"),
    ),
    "one map": (
        lambda ds: ds.isel(time=0).sel(level=500),
        ERA5,
        ("time", "level", "latitude", "longitude"),
    ),
}


@pytest.mark.parametrize("provider", NAMES)
def test_fields_and_axes_are_names_in_the_dataset(provider):
    present, fields, axes = NAMES[provider]
    ds = present(small.dataset())
    found = ds.atmorep.fields
    assert {name: found[name] for name in fields} == fields
    assert set(found) - set(fields) <= {"geopotential_at_surface"}
    assert ds.atmorep.axes == dict(zip(AXES, axes, strict=True))


def test_absent_axes_are_left_out():
    ds = small.dataset()[["2m_temperature"]]
    assert ds.atmorep.axes == {axis: axis for axis in ("time", "latitude", "longitude")}
    assert xr.Dataset().atmorep.axes == {}
    assert xr.Dataset().atmorep.fields == {}


def test_an_ambiguous_name_is_refused_with_its_candidates():
    ds = small.dataset().rename({"2m_temperature": "t2m"})
    ds["tas"] = ds["t2m"]
    with pytest.raises(ConventionError, match=r"'2m_temperature' could be any of 't2m'.*'tas'"):
        ds.atmorep.fields  # noqa: B018
    assert ds.atmorep(fields={"2m_temperature": "tas"}).fields["2m_temperature"] == "tas"


def test_fields_and_axes_said_by_hand():
    """Names that mean nothing to anybody else give what the usual ones give."""
    ds = small.dataset()
    names = {"2m_temperature": "a", "temperature": "b", "geopotential_at_surface": "c"}
    names |= {"time": "when", "level": "p", "latitude": "j", "longitude": "i"}
    strange = ds.drop_attrs().rename(names)
    with pytest.raises(ConventionError):
        strange.atmorep.embed(model=small.model())
    # A bare coordinate says neither that it is a pressure nor in which units.
    strange["p"].attrs["units"] = "hPa"
    named = strange.atmorep(fields=names)
    assert named.axes == {axis: names[axis] for axis in AXES}
    assert {name: named.fields[name] for name in ERA5} == {name: names[name] for name in ERA5}
    result = named.embed(model=small.model(), layer=0)
    expected = ds.atmorep.embed(model=small.model(), layer=0)
    for name in ERA5:
        np.testing.assert_allclose(result[names[name]], expected[name], atol=1e-5)
    assert result["a"].dims == ("when", "j", "i", "feature")


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(ConventionError, match="'nothing'} names no variable of the dataset; it ha"):
        small.dataset().atmorep(fields={"temperature": "nothing"}).fields  # noqa: B018


# ---- nothing is kept


def test_names_said_by_hand_stay_with_the_call():
    ds = small.dataset().rename({"temperature": "b"}).drop_attrs()
    first = ds.atmorep
    named = first(fields={"temperature": "b"})
    assert named is not first
    assert ds.atmorep is first
    assert "temperature" in named.fields
    assert "temperature" not in ds.atmorep.fields
    # Nor is the caller's mapping shared.
    mapping = {"temperature": "b"}
    named = first(fields=mapping)
    mapping["temperature"] = "nothing"
    assert named.fields["temperature"] == "b"


def test_the_cached_accessor_sees_what_the_dataset_became():
    ds = small.dataset()[["temperature"]]
    accessor = ds.atmorep
    assert "2m_temperature" not in accessor.fields
    ds["2m_temperature"] = small.dataset()["2m_temperature"]
    assert ds.atmorep is accessor
    assert "2m_temperature" in accessor.fields


def test_calls_leave_nothing_behind():
    ds = small.dataset()
    before = dict(vars(ds.atmorep))
    untouched = ds.copy(deep=True)
    ds.atmorep.embed(model=small.model())
    ds.atmorep.predict(model=small.model())
    repr(ds.atmorep)
    assert vars(ds.atmorep) == before
    xr.testing.assert_identical(ds, untouched)


def test_a_dataset_travels_with_next_to_nothing_more():
    """The accessor is pickled with the dataset, but is only a reference back."""
    ds = small.dataset()
    size = len(pickle.dumps(ds))
    ds.atmorep.tokens(model=small.model())
    pickled = pickle.dumps(ds)
    assert len(pickled) < size + 200
    there = pickle.loads(pickled)
    xr.testing.assert_identical(there, ds)
    assert there.atmorep.fields == ds.atmorep.fields


# ---- one field


@pytest.mark.parametrize("name", ["2m_temperature", "t2m", "tas"])
def test_an_array_of_one_field_gives_its_own_name(name):
    model, ds = single_field_model(), small.dataset()
    array = ds["2m_temperature"].rename(name)
    result = array.atmorep.embed(model=model)
    assert list(result.data_vars) == [name]
    expected = ds.atmorep.embed(model=model)["2m_temperature"]
    np.testing.assert_array_equal(result[name], expected)
    predicted = array.atmorep.predict(model=model, rate=0.5)
    assert list(predicted.data_vars) == [name, f"{name}_hidden"]
    assert array.atmorep.fields == {"2m_temperature": name}


def test_an_array_can_be_called_anything():
    model, array = single_field_model(), small.dataset()["2m_temperature"]
    result = array.rename("mine").atmorep(fields={"2m_temperature": "mine"}).tokens(model=model)
    assert list(result.data_vars) == ["mine", "mine_info"]
    unnamed = array.rename(None).atmorep(fields={"2m_temperature": "field"}).tokens(model=model)
    np.testing.assert_array_equal(unnamed["field"], result["mine"])


def test_an_array_is_not_enough_for_a_model_of_several_fields():
    with pytest.raises(ConventionError, match="'temperature'"):
        small.dataset()["2m_temperature"].atmorep.embed(model=small.model())


# ---- seeing before running


def test_both_reprs_read_nothing():
    ds = small.dataset().chunk(time=1)
    with dask.config.set(scheduler=_raise):
        text, page = repr(ds.atmorep), ds.atmorep._repr_html_()
    for seen in (text, page):
        for word in ("temperature", "850", "latitude", "era5-surface-tiny"):
            assert word in seen


def test_the_repr_uses_names_said_by_hand():
    ds = canonical_dataset().rename({"temperature": "<script>alert(1)</script>"})
    named = ds.atmorep(fields={"temperature": "<script>alert(1)</script>"})
    assert "temperature <- <script>alert(1)</script> (850, 500 hPa; explicit)" in repr(named)
    page = named._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_repr_of_an_array():
    text = repr(small.dataset()["temperature"].atmorep)
    assert "temperature <- temperature (500, 700, 850 hPa; name)" in text
