"""Contexts in tasks: what the network reads of them, wherever data end and points are hidden."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from tests import contexts
from tests.tasks import small
from xatmorep.data.conventions import canonical_view
from xatmorep.errors import ConfigError
from xatmorep.model.checkpoint import load
from xatmorep.model.inputs import NetworkInput
from xatmorep.tasks import assembly
from xatmorep.testing import assert_labelled_equal
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.tokenize import untokenize

FIELDS = ("2m_temperature", "temperature")
INIT = 8
PLACE = {"time": "2020-12-31T18", "latitude": 10, "longitude": 30, "level": 500}


def _raise(*arguments, **options):
    raise AssertionError("something was computed")


def bare(ds: xr.Dataset) -> xr.Dataset:
    return ds.drop_attrs(deep=False)


@pytest.fixture
def seen(monkeypatch) -> list[TokenBatch]:
    """Batches that the network is shown."""
    batches = []
    network_input = assembly.network_input

    def recorded(network, batch, hidden, whole):
        batches.append(batch)
        return network_input(network, batch, hidden, whole)

    monkeypatch.setattr(assembly, "network_input", recorded)
    return batches


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """Ten times, of which an even number fills time slabs, with some values missing."""
    ds = small.dataset(10)
    draw = np.random.default_rng(7).random(ds["2m_temperature"].shape)
    return ds.assign({"2m_temperature": ds["2m_temperature"].where(draw < 0.95)})


def check(ds: xr.Dataset, batches: list[TokenBatch], hidden: dict[str, np.ndarray]) -> None:
    """Compare all contexts that were seen with those that a plain oracle cuts."""
    model = contexts.model()
    spec = model.config.inputs
    view = canonical_view(ds, spec.fields, spec.statics)
    fields = {name: model.normalizer.apply(name, x) for name, x in view.fields.items()}
    for name, mask in hidden.items():
        fields[name] = fields[name].where(~mask)
    labels = {axis: fields["temperature"][axis].values for axis in ("latitude", "longitude")}
    times = fields["temperature"]["time"].values
    n = 0
    for batch in batches:
        for i in range(len(batch)):
            corner = (
                int(np.flatnonzero(times == batch.times[i, 0])[0]),
                int(np.flatnonzero(labels["latitude"] == batch.latitude[i, 0])[0]),
                int(np.flatnonzero(labels["longitude"] == batch.longitude[i, 0])[0]),
            )
            for context in spec.contexts:
                expected = contexts.plain(
                    spec, context, fields[context.field], corner, is_global=view.is_global
                )
                values = untokenize(batch.tokens[context.name])[i]
                np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
                n += 1
    assert n > 10


REGION = {"latitude": slice(3, 13), "longitude": slice(5, 20)}


@pytest.mark.parametrize("part", [{}, REGION], ids=["global", "region"])
def test_embed_reads_what_is_around_and_before(ds, seen, part):
    ds = ds.isel(part)
    ds.atmorep.embed(model=contexts.model())
    check(ds, seen, {})


@pytest.mark.parametrize("part", [{}, REGION], ids=["global", "region"])
def test_hidden_points_are_missing_around_too(ds, seen, part):
    ds = ds.isel(part)
    mask = xr.DataArray(
        np.random.default_rng(0).random(ds["2m_temperature"].shape) < 0.3,
        ds["2m_temperature"].coords,
    )
    ds.atmorep.predict(model=contexts.model(), mask=mask)
    points = mask.transpose("time", "latitude", "longitude").values[:, None]
    check(ds, seen, dict.fromkeys(FIELDS, points))


def test_random_cells_are_missing_around_too(ds, seen):
    even = ds.isel(latitude=slice(12))
    result = even.atmorep.predict(model=contexts.model(), rate=0.5, seed=4)
    masks = {
        "2m_temperature": result["2m_temperature_hidden"].values[:, None],
        "temperature": result["temperature_hidden"].sel(level=[850, 500]).values,
    }
    check(even, seen, masks)


def changed(ds: xr.Dataset, hidden: dict[str, xr.DataArray], value: float) -> xr.Dataset:
    return ds.assign({name: ds[name].where(~mask, value) for name, mask in hidden.items()})


@pytest.mark.parametrize("garbage", [999.0, -1e30, np.nan])
def test_hidden_values_have_no_influence_wherever_they_lie(ds, garbage):
    """Rows and times are whole neighborhoods here, so that cells are tokens."""
    ds = ds.isel(latitude=slice(12)).fillna(280)
    model = contexts.model()
    expected = ds.atmorep.predict(model=model, rate=0.4, seed=3)
    hidden = {
        name: expected[f"{name}_hidden"].reindex_like(ds[name], fill_value=False) for name in FIELDS
    }
    again = changed(ds, hidden, garbage).atmorep.predict(model=model, rate=0.4, seed=3)
    assert_labelled_equal(bare(again), bare(expected), 0)


def test_a_mask_far_outside_of_a_neighborhood_counts(ds):
    """Points that are hidden in the south and in the past are not read for the north."""
    ds = ds.isel(latitude=slice(12)).fillna(280)
    model = contexts.model()
    mask = xr.zeros_like(ds["2m_temperature"], dtype=bool)
    mask[0:2, 7:9, 3:17] = True
    mask[8:, 0:3] = True
    expected = ds.atmorep.predict(model=model, mask=mask)
    again = changed(ds, dict.fromkeys(FIELDS, mask), 999.0).atmorep.predict(model=model, mask=mask)
    assert_labelled_equal(bare(again), bare(expected), 0)
    # The same points count where they aren't hidden.
    hidden_now = mask.where(mask["time"] > mask["time"][4], other=False)
    alone = ds.atmorep.predict(model=model, mask=hidden_now)["2m_temperature"]
    for part in ({"time": slice(2, 4)}, {"time": slice(8, 10), "latitude": slice(7, 9)}):
        other = ds.copy(deep=True)
        for name in FIELDS:
            other[name][part] += 30
        values = other.atmorep.predict(model=model, mask=hidden_now)["2m_temperature"]
        north = abs(values - alone).isel(time=slice(8, 10), latitude=slice(0, 3))
        assert float(north.max()) > 0


@pytest.fixture
def inputs(monkeypatch) -> list[NetworkInput]:
    """What the network is shown."""
    shown = []
    network_input = assembly.network_input

    def recorded(*arguments):
        shown.append(network_input(*arguments))
        return shown[-1]

    monkeypatch.setattr(assembly, "network_input", recorded)
    return shown


def test_a_field_that_is_hidden_everywhere_has_no_contexts(ds, inputs):
    mask = xr.Dataset({"2m_temperature": xr.ones_like(ds["2m_temperature"], dtype=bool)})
    ds.atmorep.predict(model=contexts.model(), mask=mask)
    for one, _ in inputs:
        assert one.blank["around"].all()
        assert not one.tokens["around"].any()
    assert not all(one.blank["before"].all() for one, _ in inputs)


def test_tokens_that_overlap_hidden_ones_are_withheld_as_in_training(ds, inputs):
    """One point hides a token of 2 x 3, which overlaps tokens of 4 x 4 that have other points."""
    ds = ds.isel(time=slice(0, 2), latitude=slice(6), longitude=slice(12)).fillna(280)
    mask = xr.zeros_like(ds["2m_temperature"], dtype=bool)
    mask[1, 2, 6] = True  # of rows 2 and 3, columns 6 to 8
    ds.atmorep.predict(model=contexts.model(), mask=mask)
    ((one, _),) = inputs
    # The box begins three rows and two columns before the neighborhood.
    rows, columns = np.arange(3)[:, None] * 4 - 3, np.arange(4) * 4 - 2
    expected = (rows <= 3) & (rows + 3 >= 2) & (columns <= 8) & (columns + 3 >= 6)
    np.testing.assert_array_equal(one.blank["around"][0, 0, 1], expected)
    assert not one.blank["around"][0, 0, 0].any()


def test_around_a_forecast_nobody_knows_the_future(ds, inputs):
    """Tokens of three frames, of which the last two are ahead: the one before is not shown."""
    ds.isel(time=slice(INIT + 1)).atmorep.forecast("12h", model=contexts.forecaster())
    for one, hidden in inputs:
        assert hidden["temperature"][:, :, 1].all()
        # Eight frames by twos: the last two reach into the hidden three.
        assert one.blank["before"][:, :, 2:].all()
        assert not one.blank["before"][:, :, :2].all()
        assert one.blank["around"][:, :, 4:].all()
        assert not one.blank["around"][:, :, :4].all()


@pytest.mark.parametrize(
    "chunks", [{"time": 1}, {"time": 3, "level": 2, "longitude": 7, "latitude": 5}]
)
def test_dask_gives_the_same_and_computes_nothing_before(ds, chunks):
    tasks = {
        "embed": {"model": contexts.model()},
        "predict": {"model": contexts.model(), "rate": 0.4},
        "forecast": {"model": contexts.forecaster(), "lead_time": "12h"},
        "attention": {"model": contexts.model(), "query": PLACE},
    }
    for task, options in tasks.items():
        expected = getattr(ds.atmorep, task)(**options)
        with dask.config.set(scheduler=_raise):
            lazy = getattr(ds.chunk(chunks).atmorep, task)(**options, batch_size=2)
            assert lazy.chunks
        assert_labelled_equal(bare(lazy).compute(), bare(expected), 1e-4)


@pytest.mark.parametrize("present", [small.flipped, small.rolled, small.renamed])
def test_the_same_in_every_form_of_the_data(ds, present):
    model = contexts.model()
    expected = ds.atmorep.embed(model=model)["2m_temperature"]
    other = present(ds)
    found = small.as_input(other.atmorep.embed(model=model), other)["2m_temperature"]
    np.testing.assert_allclose(found.transpose(*expected.dims), expected, atol=1e-4)


def test_ensemble_members_have_contexts_of_their_own(ds):
    model = contexts.model()
    both = xr.concat([ds, 2 * ds - 280], dim="number").assign(
        geopotential_at_surface=ds["geopotential_at_surface"]
    )
    together = both.atmorep.predict(model=model, rate=0.3)
    for i in range(2):
        alone = both.isel(number=[i]).atmorep.embed(model=model)["temperature"]
        expected = both.atmorep.embed(model=model)["temperature"].isel(number=[i])
        np.testing.assert_allclose(alone, expected, atol=1e-4)
    assert together["temperature"].sizes["number"] == 2


# ---- forecasts


@pytest.fixture(scope="module")
def forecast(ds) -> xr.Dataset:
    return ds.isel(time=slice(INIT + 1)).atmorep.forecast("12h", model=contexts.forecaster())


def test_a_forecast_is_a_prediction_with_the_future_hidden(ds, forecast):
    """Of frames 5 to 10; contexts read three frames more, as far as the data have them."""
    long = small.dataset(11).assign(
        {name: ds[name].reindex(time=small.dataset(11)["time"]) for name in FIELDS}
    )
    time = long["time"]
    mask = xr.DataArray(np.arange(11) > INIT, {"time": time})
    predicted = long.atmorep.predict(model=contexts.forecaster(), mask=mask)
    for name in FIELDS:
        np.testing.assert_allclose(
            forecast[name].isel(init_time=0), predicted[name].isel(time=slice(-2, None)), atol=1e-4
        )


@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_what_follows_has_no_influence(ds, forecast, garbage):
    future = ds.copy(deep=True)
    for name in FIELDS:
        future[name][INIT + 1 :] = garbage
    for form in (future, future.chunk(time=1)):
        found = form.atmorep.forecast(
            "12h", model=contexts.forecaster(), init_times=ds["time"].values[INIT]
        )
        assert_labelled_equal(found.compute(), forecast, 1e-4)


def test_the_past_has_influence_and_no_more_of_it_is_read(ds, forecast):
    read: dict[str, set[int]] = {name: set() for name in FIELDS}

    def counted(name: str) -> xr.DataArray:
        def frame(block, block_info):
            read[name].add(block_info[0]["array-location"][0][0])
            return block

        array = ds[name].chunk(time=1)
        meta = np.empty((0,) * array.ndim, "f4")
        return array.copy(data=array.data.map_blocks(frame, dtype="float32", meta=meta))

    init = ds["time"].values[INIT]
    lazy = ds.assign({name: counted(name) for name in FIELDS})
    lazy.atmorep.forecast("12h", model=contexts.forecaster(), init_times=init).compute(
        scheduler="synchronous"
    )
    # Six frames of which four are known, and two before them for the context of eight.
    assert read == {"2m_temperature": {5, 6, 7, 8}, "temperature": {3, 4, 5, 6, 7, 8}}
    past = ds.copy(deep=True)
    past["temperature"][3:5] += 20
    found = past.atmorep.forecast("12h", model=contexts.forecaster(), init_times=init)
    assert float(abs(found - forecast)["temperature"].max()) > 0
    past["temperature"][:3] = 1e3
    again = past.atmorep.forecast("12h", model=contexts.forecaster(), init_times=init)
    assert_labelled_equal(again, found)


def test_the_past_ends_at_a_gap(ds):
    """As if nothing lay before it; frames 3 and 4 are the past of a forecast from frame 8."""
    time = ds["time"].values.copy()
    time[:4] -= np.timedelta64(1, "h")
    gap = ds.assign_coords(time=("time", time, ds["time"].attrs))
    found, expected, whole = (
        data.atmorep.forecast("12h", model=contexts.forecaster(), init_times=time[INIT])
        for data in (gap, ds.isel(time=slice(4, None)), ds)
    )
    assert_labelled_equal(found, expected)
    assert float(abs(found - whole)["temperature"].max()) > 0


# ---- models


def test_contexts_are_no_results(ds):
    model = contexts.model()
    assert not {"around", "before"} & set(ds.atmorep.predict(model=model, where="all").data_vars)
    assert not {"around", "before"} & set(ds.atmorep.tokens(model=model).data_vars)
    pairs = ds.atmorep.attention(PLACE, model=model)
    assert sorted(map(str, pairs.data_vars)) == [f"{a}_to_{b}" for a in FIELDS for b in FIELDS]
    with pytest.raises(ConfigError, match="'around' is a context of '2m_temperature'"):
        ds.atmorep.embed(model=model, fields="around")


def test_a_model_is_saved_with_its_contexts(ds, tmp_path):
    model = contexts.model()
    model.save(tmp_path / "model")
    again = load(str(tmp_path / "model"))
    assert again.digest == model.digest
    assert "context: 4 x 6 x 8 means of 2 x 1 x 3 points" in repr(again)
    assert_labelled_equal(ds.atmorep.embed(model=again), ds.atmorep.embed(model=model))
