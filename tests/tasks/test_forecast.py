"""Forecasts are predictions of what lies after a time, made without it."""

from __future__ import annotations

import datetime

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.tasks import assembly, engine
from xatmorep.testing import assert_labelled_equal

FIELDS = ("2m_temperature", "temperature")
INIT = 5
"""Frame that most tests forecast from; three follow it."""


def _raise(*arguments, **options):
    raise AssertionError("something was computed")


def run(ds: xr.Dataset, lead_time="12h", **options) -> xr.Dataset:
    return ds.atmorep.forecast(lead_time, model=small.forecaster(), **options)


def oracle(ds: xr.Dataset, steps: int, init: int = INIT) -> xr.Dataset:
    """What `predict` says of the last frames of the same window if all of them are hidden."""
    time = ds.atmorep.axes["time"]
    window = ds.isel({time: slice(init + 1 + steps - 6, init + 1 + steps)})
    mask = xr.DataArray(np.arange(6) >= 6 - steps, {time: window[time]})
    predicted = window.atmorep.predict(model=small.forecaster(), mask=mask)
    return predicted.isel({time: slice(-steps, None)})


def to_init(ds: xr.Dataset) -> xr.Dataset:
    return ds.isel(time=slice(INIT + 1))


def noleap(ds: xr.Dataset) -> xr.Dataset:
    """The same frames in a calendar without the 31st of December 2020 and the like."""
    times = xr.date_range("2020-02-28T06", periods=ds.sizes["time"], freq="6h", calendar="noleap")
    return ds.assign_coords(time=("time", times, ds["time"].attrs))


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return small.dataset(9)


@pytest.fixture(scope="module")
def result(ds) -> xr.Dataset:
    return run(to_init(ds))


# ---- values


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(
    "part", [{}, {"latitude": slice(3, 11), "longitude": slice(5, 20)}], ids=["global", "region"]
)
def test_values_are_those_of_predict_with_the_future_hidden(ds, steps, part):
    ds = ds.isel(part)
    found = run(to_init(ds), f"{6 * steps}h")
    expected = oracle(ds, steps)
    for name in FIELDS:
        values = found[name].isel(init_time=0)
        assert values.sizes["lead_time"] == steps
        assert not values.isnull().any()
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_overlap_averages_neighborhoods_side_by_side(ds):
    """Frames before the forecast are the same in all of them, so `predict` can do it, too."""
    window = ds.isel(time=slice(0, 4))
    ahead = xr.zeros_like(window["2m_temperature"], dtype=bool)
    ahead[2:] = True
    predicted = window.atmorep.predict(model=small.wide(), mask=ahead, overlap=0.5)
    alone = window.isel(time=slice(0, 2)).atmorep.forecast("12h", model=small.wide(), overlap=0.5)
    tiled = window.isel(time=slice(0, 2)).atmorep.forecast("12h", model=small.wide())
    for name in ("2m_temperature", "temperature"):
        found = alone[name].isel(init_time=0).transpose("member", "lead_time", ...)
        np.testing.assert_allclose(found, predicted[name].isel(time=slice(2, 4)), rtol=1e-5)
        assert float(abs(alone[name] - tiled[name]).max()) > 0.01


def test_tokens_that_reach_beyond_the_init_time_are_hidden_whole(ds, result):
    """With 12 h the token of three frames holds the init time itself and both frames after it."""
    changed = to_init(ds).copy(deep=True)
    changed["temperature"][INIT] = 1e3
    assert_labelled_equal(run(changed), result)
    changed["temperature"][INIT - 1] += 20
    assert bool((run(changed)["2m_temperature"] != result["2m_temperature"]).any())
    changed = to_init(ds).copy(deep=True)
    changed["2m_temperature"][INIT] += 20
    assert bool((run(changed)["temperature"] != result["temperature"]).any())


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_what_follows_has_no_influence(ds, result, garbage):
    future = ds.copy(deep=True)
    for name in FIELDS:
        future[name][INIT + 1 :] = garbage
    time = ds["time"].values.copy()
    time[INIT + 1 :] += np.timedelta64(5, "h")
    for data in (future, future.assign_coords(time=("time", time, ds["time"].attrs))):
        init = ds["time"].values[INIT]
        for form in (data, data.chunk(time=1)):
            assert_labelled_equal(run(form, init_times=init).compute(), result, 1e-4)


def test_only_the_frames_that_are_needed_are_read(ds):
    read = []

    def frame(block, block_info):
        read.append(block_info[0]["array-location"][0][0])
        return block

    data = ds.chunk(time=1)
    for name in FIELDS:
        counted = data[name].data.map_blocks(frame, dtype="float32", meta=np.empty((0,) * 3, "f4"))
        data[name] = data[name].copy(data=counted)
    run(data, init_times=ds["time"][INIT]).compute(scheduler="synchronous")
    assert set(read) == {2, 3, 4, 5}


@pytest.mark.parametrize("order", [[4, 5, 8], [8, 3]])
def test_several_init_times_equal_single_ones(ds, order):
    times = ds["time"].values[order]
    together = run(ds, init_times=times)
    np.testing.assert_array_equal(together["init_time"], times)
    for i, (frame, time) in enumerate(zip(order, times, strict=True)):
        one = together.isel(init_time=[i])
        assert_labelled_equal(one, run(ds, init_times=time), 1e-4)
        if frame + 2 < ds.sizes["time"]:
            expected = oracle(ds, 2, frame)["temperature"]
            np.testing.assert_array_equal(one["temperature"].isel(init_time=0), expected)


def test_the_view_and_the_tiling_are_made_once(ds, monkeypatch):
    made = []
    for name in ("canonical_view", "tiling_for", "reference"):
        function = getattr(engine, name)

        def counted(*arguments, _function=function, _name=name, **options):
            made.append(_name)
            return _function(*arguments, **options)

        monkeypatch.setattr(engine, name, counted)
    run(ds.chunk(), init_times=ds["time"][3:])
    assert sorted(made) == ["canonical_view", "reference", "tiling_for"]


def test_frames_that_are_known_take_no_room(ds, monkeypatch):
    shapes = {}

    def run_slab(*arguments):
        answers = assembly.run_slab(*arguments)
        shapes.update({key: values.shape for key, (values, _) in answers.items()})
        return answers

    monkeypatch.setattr(engine, "run_slab", run_slab)
    run(ds)
    assert shapes == {
        ("2m_temperature", "prediction"): (1, 3, 1, 2, 19, 24),
        ("temperature", "prediction"): (1, 3, 2, 2, 19, 24),
    }


@pytest.mark.parametrize("form", [small.flipped, small.rolled, small.renamed])
def test_the_same_in_every_form_of_the_data(ds, result, form):
    data = form(to_init(ds))
    back = small.as_input(run(data), data)
    for name in FIELDS:
        found = back[name].transpose(*result[name].dims)
        np.testing.assert_allclose(found, result[name], atol=1e-4, err_msg=name)


def test_form_and_units_are_those_of_the_data(ds, result):
    data = small.renamed(small.flipped(to_init(ds)))
    data["tas"] = (data["tas"] - 273.15).assign_attrs(units="degC", standard_name="air_temperature")
    found = run(data)
    assert found["ta"].dims == ("member", "init_time", "lead_time", "plev", "lat", "lon")
    np.testing.assert_array_equal(found["plev"], [50000, 85000])
    np.testing.assert_array_equal(found["lat"], data["lat"])
    assert found["tas"].attrs == {"units": "degC", "standard_name": "air_temperature"}
    flipped = found["tas"].values[..., ::-1, :] + 273.15
    np.testing.assert_allclose(flipped, result["2m_temperature"], atol=1e-3)


def test_further_dimensions_are_carried_through(ds):
    both = xr.concat([ds, small.dataset(9, seed=1)], "number", data_vars="all")
    both = both.assign_coords(number=[3, 5])
    both["geopotential_at_surface"] = ds["geopotential_at_surface"]
    found = run(both)
    dims = ("number", "member", "init_time", "lead_time", "level", "latitude", "longitude")
    assert found["temperature"].dims == dims
    np.testing.assert_array_equal(found["number"], [3, 5])
    for number in (3, 5):
        alone = run(both.sel(number=number, drop=True))
        one = found.sel(number=number, drop=True)
        assert_labelled_equal(one, alone, 1e-4)


# ---- labels


def test_labels(ds, result):
    values = result["temperature"]
    assert values.dims == ("member", "init_time", "lead_time", "level", "latitude", "longitude")
    assert values.dtype == "float32"
    assert values.attrs == {"units": "K", "standard_name": "air_temperature"}
    assert list(result.data_vars) == list(FIELDS)
    for axis in ("latitude", "longitude"):
        xr.testing.assert_identical(result[axis].variable, ds[axis].variable)
    np.testing.assert_array_equal(result["level"], [500, 850])
    np.testing.assert_array_equal(result["member"], [0, 1, 2])
    init = ds["time"].values[INIT]
    assert result["init_time"].values.tolist() == [init]
    assert result["init_time"].dtype == ds["time"].dtype
    assert result["init_time"].attrs["standard_name"] == "forecast_reference_time"
    assert result["lead_time"].dtype == "timedelta64[s]"
    assert result["lead_time"].attrs["standard_name"] == "forecast_period"
    assert result["time"].dims == ("init_time", "lead_time")
    np.testing.assert_array_equal(result["time"], [ds["time"].values[INIT + 1 : INIT + 3]])
    assert result["time"].dtype == ds["time"].dtype
    np.testing.assert_array_equal(result["init_time"] + result["lead_time"], result["time"])
    assert result.attrs["task"] == "forecast"
    assert result.attrs["parameters"] == "lead_time=12h, members=True, overlap=0.0"
    assert result.attrs["model_digest"] == small.forecaster().digest


def test_the_valid_time_is_called_as_in_the_data(ds):
    data = to_init(ds).rename(time="valid_time")
    attrs = {"long_name": "when", "axis": "T", "bounds": "valid_time_bnds"}
    data["valid_time"].attrs = attrs
    found = run(data)
    assert found["valid_time"].dims == ("init_time", "lead_time")
    assert found["valid_time"].attrs == {"long_name": "when", "axis": "T", "standard_name": "time"}
    # As GRIB readers give it: the coordinate is no index of its dimension.
    data = to_init(ds).rename_dims(time="step").drop_indexes("time")
    found = run(data)
    assert found["time"].dims == ("init_time", "lead_time")
    assert "step" not in found.dims


def test_the_mean_of_the_members(result, ds):
    mean = run(to_init(ds), members=False)
    assert mean["2m_temperature"].dims == ("init_time", "lead_time", "latitude", "longitude")
    np.testing.assert_allclose(mean["temperature"], result["temperature"].mean("member"), 1e-6)
    assert mean["temperature"].attrs == result["temperature"].attrs


@pytest.mark.parametrize(
    "lead_time",
    [
        "720min",
        np.timedelta64(12, "h"),
        datetime.timedelta(hours=12),
        pd.Timedelta("12h"),
        "12:00:00",
        "PT12H",
    ],
)
def test_lead_times_in_every_form(ds, result, lead_time):
    assert_labelled_equal(run(to_init(ds), lead_time), result)


@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda time: [str(time)],
        lambda time: time.astype("M8[ns]"),
        lambda time: time.item(),
        pd.Timestamp,
        lambda time: pd.DatetimeIndex([time]),
        lambda time: xr.DataArray(time),
        lambda time: xr.DataArray([time], dims="time"),
        lambda time: (time,),
    ],
)
def test_init_times_in_every_form(ds, result, form):
    init = ds["time"].values[INIT]
    assert_labelled_equal(run(ds, init_times=form(init)), result)


def test_calendars_of_climate_models(ds):
    data = noleap(ds)
    init = data["time"].values[INIT]
    assert init.isoformat() == "2020-03-01T12:00:00"
    found = run(data, init_times=init)
    expected = oracle(data, 2)
    for name in FIELDS:
        np.testing.assert_array_equal(found[name].isel(init_time=0), expected[name])
    assert found["init_time"].values.tolist() == [init]
    assert found.indexes["init_time"].calendar == "noleap"
    assert found["time"].values.tolist() == [data["time"].values[[INIT + 1, INIT + 2]].tolist()]
    for time in ("2020-03-01T12", [init], data["time"][INIT], data.indexes["time"][[INIT]]):
        assert_labelled_equal(run(data, init_times=time), found)


def test_a_forecast_can_go_where_a_dataset_goes(ds):
    """One init time with the valid time as its dimension is data like any other."""
    init = ds["time"].values[INIT]
    follow = run(ds, "18h", init_times=init, members=False).isel(init_time=0)
    follow = follow.swap_dims(lead_time="time").drop_vars(["lead_time", "init_time"])
    known = ds[[*FIELDS]].sel(level=[500, 850], time=slice(None, init))
    joined = xr.concat([known, follow], "time")
    joined["geopotential_at_surface"] = ds["geopotential_at_surface"]
    assert run(joined)["time"].values[0, 0] == follow["time"].values[-1] + np.timedelta64(6, "h")


# ---- lazily


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 4, "level": 2, "longitude": 7}])
def test_dask_gives_the_same_and_computes_nothing_before(ds, chunks):
    times = ds["time"].values[[INIT, 8]]
    with dask.config.set(scheduler=_raise):
        lazy = run(ds.chunk(chunks), init_times=times, batch_size=2)
    assert all(isinstance(lazy[name].data, da.Array) for name in FIELDS)
    eager = run(ds, init_times=times)
    assert all(isinstance(eager[name].data, np.ndarray) for name in FIELDS)
    assert_labelled_equal(lazy, eager, 1e-4)


@pytest.mark.parametrize("calendar", ["datetime64", "cftime"])
@pytest.mark.parametrize("lazy", [False, True])
def test_files_read_back_identical(ds, tmp_path, calendar, lazy):
    data = ds if calendar == "datetime64" else noleap(ds)
    found = run(data.chunk(time=2) if lazy else data, init_times=data["time"].values[[4, 8]])
    expected = found.compute()
    found.to_zarr(tmp_path / "f.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "f.zarr", consolidated=False) as back:
        xr.testing.assert_identical(back.load(), expected)
    found.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc") as back:
        assert back["lead_time"].dtype.kind == "m"
        assert set(back.coords) == set(expected.coords)
        xr.testing.assert_identical(back.load(), expected)


def test_data_from_files(ds, result, tmp_path):
    """Packed, and dated in whole hours since long ago; neither is that of the result."""
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 260.0, "_FillValue": -32768}
    encoding = dict.fromkeys(FIELDS, packing) | {"time": {"units": "hours since 1900-01-01"}}
    to_init(ds).to_netcdf(tmp_path / "in.nc", encoding=encoding)
    for chunks in (None, {}):
        with xr.open_dataset(tmp_path / "in.nc", chunks=chunks) as data:
            found = run(data).compute()
        found.to_netcdf(tmp_path / "out.nc")
        xr.testing.assert_identical(xr.load_dataset(tmp_path / "out.nc"), found)
        np.testing.assert_allclose(found["temperature"], result["temperature"], atol=0.5)


# ---- mistakes


@pytest.mark.parametrize("lead_time", [12, 12.0, "12", np.int64(12), np.timedelta64(12), True])
def test_a_bare_number_is_no_lead_time(ds, lead_time):
    with pytest.raises(ConfigError, match=r'lead_time .* has no unit: write it as "3h"'):
        run(ds, lead_time)


@pytest.mark.parametrize("lead_time", ["soon", "", None, pd.NaT, "3 fortnights", [12], "nat"])
def test_other_things_are_no_lead_times(ds, lead_time):
    with pytest.raises(ConfigError, match=r'is no duration: write it as "3h"'):
        run(ds, lead_time)


@pytest.mark.parametrize("lead_time", ["0h", "-6h", "3h", "7h", "6h 1s"])
def test_lead_times_are_whole_steps(ds, lead_time):
    message = "is no positive multiple of the model's time step, 6h; the largest lead time of the"
    with pytest.raises(ConfigError, match=message):
        run(ds, lead_time)


def test_something_has_to_be_seen(ds):
    with pytest.raises(ConfigError) as error:
        run(ds, "24h")
    assert str(error.value) == (
        "lead_time 24h leaves the model no whole token of temperature to see: the largest lead "
        "time of the model small is 18h"
    )
    message = "the model small can't forecast: one token of temperature takes all 2 frames"
    with pytest.raises(ConfigError, match=message):
        ds.atmorep.forecast("6h", model=small.model())


@pytest.mark.parametrize(
    ("init_times", "message"),
    [
        ("2020-12-31", "2020-12-31 is no time of these data, which have 9 from 2020-12-31 06:00:0"),
        (["2021-01-01T18", "2021-01-01T19"], "2021-01-01T19 is no time of these data"),
        ("tomorrow", "tomorrow is no time of these data"),
        (slice("2021"), "slice"),
        ([], "no time is given"),
        (["2021-01-02"] * 2, "the time 2021-01-02 is given twice"),
    ],
)
def test_init_times_are_times_of_the_data(ds, init_times, message):
    with pytest.raises(ConfigError) as error:
        run(ds, init_times=init_times)
    assert message in str(error.value)


def test_the_past_has_to_be_long_enough(ds):
    message = (
        "a forecast of 12h by the model small reads 4 frames up to its init time, the data have 3 "
        "up to 2020-12-31 18:00:00: start later, or take more of the past"
    )
    with pytest.raises(ConventionError) as error:
        run(ds, init_times=ds["time"][[4, 2, 1]])
    assert str(error.value) == message
    with pytest.raises(ConventionError) as error:
        run(ds.isel(time=slice(3)))
    assert str(error.value) == message
    assert run(ds.isel(time=slice(4))).sizes["lead_time"] == 2


def test_steps_before_the_init_time_are_those_of_the_model(ds):
    gap = ds.drop_isel(time=3)
    with pytest.raises(ConventionError) as expected:
        gap.atmorep.predict(model=small.forecaster())
    with pytest.raises(ConventionError) as error:
        run(gap, "18h", init_times=[gap["time"].values[-1], gap["time"].values[4]])
    assert "the step of 'time' from 2020-12-31T18:00:00 to 2021-01-01T06:00:00 is 12 hours" in str(
        error.value
    )
    shared = str(expected.value).partition(": ")[0]
    assert str(error.value).startswith(shared)
    # What isn't read may be as it likes.
    whole = ds.isel(time=slice(4, None))
    assert_labelled_equal(run(gap, "12h"), run(whole, "12h"))


def test_coarser_steps_are_taken_from_finer_data_by_the_line_in_the_error(ds):
    hours = ds["time"].values[0] + np.arange(49) * np.timedelta64(1, "h")
    fine = ds.interp(time=hours.astype("M8[ns]"))
    with pytest.raises(ConventionError) as error:
        run(fine)
    line = str(error.value).rsplit(" with ", 1)[1]
    assert line == "ds.isel(time=slice(None, None, 6))"
    assert run(eval(line, {"ds": fine})).sizes["lead_time"] == 2


def test_times_without_statistics_are_found_before_anything_is_read(ds):
    """Those that are read, and those ahead; the others of the dataset may have none."""
    model = small.forecaster_of(ds.isel(time=slice(3, None)))
    with dask.config.set(scheduler=_raise):
        ds.chunk().atmorep.forecast("12h", init_times=ds["time"][6:], model=model)
        for frames in ([5], [6, 5]):
            with pytest.raises(ConventionError, match="2020-12"):
                ds.chunk().atmorep.forecast("12h", init_times=ds["time"][frames], model=model)
        late = ds.assign_coords(time=ds["time"] + np.timedelta64(30, "D")).chunk()
        with pytest.raises(ConventionError, match="2021-02"):
            late.atmorep.forecast("18h", init_times=late["time"][5], model=model)


def test_the_grid_is_checked(ds):
    message = "dimension 'latitude' has 4 points, fewer than the 6 of one neighborhood of the model"
    with pytest.raises(ConventionError, match=message):
        run(ds.isel(latitude=slice(4)))


@pytest.mark.parametrize("dim", ["member", "init_time", "lead_time"])
def test_dimensions_of_the_result_are_refused(ds, dim):
    message = f"dimension '{dim}' of the dataset is named like one of the result: rename it"
    with pytest.raises(ConventionError, match=message):
        run(ds.expand_dims({dim: [1, 2]}))
    for axis in ("time", "longitude"):
        with pytest.raises(ConventionError, match=message):
            run(ds.rename({axis: dim}))


def test_scalars_give_way(ds, result):
    data = to_init(ds).assign_coords(member=7, lead_time=3, init_time=8, realm="air")
    found = run(data)
    assert found["realm"].item() == "air"
    assert_labelled_equal(found.drop_vars("realm"), result)
