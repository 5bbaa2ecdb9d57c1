"""Grids that a model can't use are refused, and the line that the message gives helps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.tokens.strategies import make_spec, times
from xatmorep.errors import ConventionError
from xatmorep.tokens.spec import InputSpec
from xatmorep.tokens.steps import check_grid, check_times, times_after


def grid(
    nt: int = 4,
    latitude: np.ndarray | None = None,
    longitude: np.ndarray | None = None,
    when: np.ndarray | None = None,
) -> xr.Dataset:
    coords = {
        "time": times(nt) if when is None else when,
        "latitude": 90.0 - np.arange(19) if latitude is None else latitude,
        "longitude": np.arange(24.0) if longitude is None else longitude,
    }
    shape = [len(values) for values in coords.values()]
    return xr.Dataset({"x": (tuple(coords), np.ones(shape))}, coords=coords)


def refusal(ds: xr.Dataset, spec: InputSpec, **axes: str) -> str:
    with pytest.raises(ConventionError) as error:
        check_grid(ds, spec, axes=axes)
    return str(error.value)


def helped(message: str, ds: xr.Dataset) -> xr.Dataset:
    """What the line at the end of a message makes of the dataset."""
    line = message.rsplit(" with ", maxsplit=1)[1]
    result = eval(line, {"ds": ds, "np": np, "xr": xr})
    assert not result["x"].isnull().any()
    return result


def test_accepts_the_grid_of_the_model() -> None:
    check_grid(grid(2), make_spec())
    check_grid(
        grid(1, np.array([7.0]), np.array([3.0])), make_spec((1, 1, 1), {"a": ((1,) * 3, ())})
    )


@pytest.mark.parametrize("axis", ["time", "latitude", "longitude"])
def test_too_small(axis: str) -> None:
    spec = make_spec()
    need = dict(zip(("time", "latitude", "longitude"), spec.neighborhood.shape, strict=True))[axis]
    message = refusal(grid().isel({axis: slice(need - 1)}), spec, **{axis: "mine"})
    assert f"dimension 'mine' has {need - 1} points, fewer than the {need}" in message
    check_grid(grid().isel({axis: slice(need)}), spec)


def test_finer_grid_is_coarsened() -> None:
    ds = grid(latitude=90 - 0.25 * np.arange(77), longitude=0.25 * np.arange(96))
    message = refusal(ds, make_spec())
    assert "grid steps of 'latitude' and 'longitude' are 0.25 and 0.25 degrees" in message
    assert "the model was trained on 1 and 1" in message
    assert 'ds.coarsen(latitude=4, longitude=4, boundary="trim").mean()' in message
    check_grid(helped(message, ds), make_spec())


@pytest.mark.parametrize("step", [0.7, 2.5])
def test_other_grid_is_interpolated_in_the_users_own_range(step: float) -> None:
    ds = grid(latitude=90 - step * np.arange(30), longitude=200 + step * np.arange(40))
    mine = ds.assign_coords(longitude=ds["longitude"] - 360).sortby("latitude")
    mine = mine.rename(latitude="lat", longitude="lon")
    message = refusal(ds, make_spec(), latitude="lat", longitude="lon")
    assert "ds.interp(lat=" in message
    fixed = helped(message, mine).sortby("lat", ascending=False)
    check_grid(fixed.rename(lat="latitude", lon="longitude"), make_spec())
    assert fixed["lon"].size == int(39 * step + 1e-9) + 1


def test_only_the_wrong_axis_is_named() -> None:
    ds = grid(longitude=0.5 * np.arange(24))
    message = refusal(ds, make_spec())
    assert message.startswith("grid step of 'longitude' is 0.5 degrees")
    assert "latitude" not in message
    check_grid(helped(message, ds), make_spec())


def test_a_gaussian_grid_has_one_step() -> None:
    nodes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))[::-1]
    spec = make_spec(grid_step=(5.6, 5.625))
    check_grid(grid(latitude=nodes, longitude=5.625 * np.arange(64)), spec)


def test_a_missing_row_is_found() -> None:
    ds = grid(latitude=np.delete(90.0 - np.arange(181), 100))
    message = refusal(ds, make_spec())
    assert "'latitude' goes from -9 to -11 degrees in one step" in message
    check_grid(helped(message, ds), make_spec())


@pytest.mark.parametrize("calendar", [None, "noleap", "360_day"])
def test_finer_times_are_thinned(calendar: str | None) -> None:
    ds = grid(when=times(20, 1, calendar=calendar))
    message = refusal(ds, make_spec())
    assert "the step of 'time' from 2020-12-3" in message
    assert "is 1 hours, the model was trained on 6:" in message
    assert "ds.isel(time=slice(None, None, 6))" in message
    check_grid(helped(message, ds), make_spec())


@pytest.mark.parametrize("calendar", [None, "noleap"])
@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_gap_names_the_first_bad_step_and_the_longest_sound_part(
    at: int, calendar: str | None
) -> None:
    when = np.delete(times(12, calendar=calendar), at)
    message = refusal(grid(when=when), make_spec())
    first, second = (
        np.datetime_as_string(w, unit="s") if calendar is None else w.isoformat()
        for w in when[at - 1 : at + 1]
    )
    assert f"from {first} to {second} is 12 hours" in message
    fixed = helped(message, grid(when=when))
    check_grid(fixed, make_spec())
    assert fixed.sizes["time"] == max(at, 11 - at)


@pytest.mark.parametrize("calendar", [None, "noleap"])
@pytest.mark.parametrize(("found", "wanted"), [(12, 6), (4, 6), (6, 7.26)])
def test_other_times_are_interpolated(found: float, wanted: float, calendar: str | None) -> None:
    ds = grid(when=times(12, found, calendar=calendar))
    spec = make_spec(time_step=wanted)
    message = refusal(ds, spec, time="valid_time")
    assert "ds.interp(valid_time=xr.date_range(" in message
    fixed = helped(message, ds.rename(time="valid_time"))
    check_grid(fixed.rename(valid_time="time"), spec)


def test_tolerance() -> None:
    hours = np.cumsum([0, 7, 7, 7, 8, 7, 7, 7, 8])  # as in the shipped ERA5 sample
    ds = grid(when=np.datetime64("2026-03-25", "ns") + hours * np.timedelta64(1, "h"))
    check_grid(ds, make_spec(time_step=7.26, time_tolerance=0.11))
    message = refusal(ds, make_spec(time_step=7.26, time_tolerance=0.1))
    assert "from 2026-03-25T21:00:00 to 2026-03-26T05:00:00 is 8 hours" in message
    assert "trained on 7.26 (within 10.0%)" in message


def test_times_backwards_are_no_step() -> None:
    message = refusal(grid(when=times(4)[::-1]), make_spec())
    assert "is -6 hours" in message


def test_everything_wrong_is_said_at_once() -> None:
    ds = grid(1, latitude=90 - 0.5 * np.arange(3), when=None)
    message = refusal(ds, make_spec())
    assert message.count(";") == 2
    for words in ("'time' has 1 points", "'latitude' has 3 points", "grid step of 'latitude'"):
        assert words in message


def test_times_can_be_left_out() -> None:
    short = grid(1)
    check_grid(short, make_spec(), in_time=False)
    check_grid(grid(when=times(4, 5)), make_spec(), in_time=False)
    with pytest.raises(ConventionError, match="'latitude' has 3 points") as error:
        check_grid(short.isel(latitude=slice(3)), make_spec(), in_time=False)
    assert "time" not in str(error.value)


@pytest.mark.parametrize("calendar", [None, "noleap"])
def test_times_before_the_first_that_is_needed_may_be_anything(calendar: str | None) -> None:
    when = np.delete(times(12, calendar=calendar), [1, 7])  # steps 0 and 5 are too long
    check_times(when[:6], make_spec(), first=1)
    check_times(when, make_spec(), first=6)
    check_times(when[:1], make_spec())
    for first, bad in ((0, 0), (1, 5), (5, 5)):
        with pytest.raises(ConventionError) as error:
            check_times(when, make_spec(), first=first, name="mine")
        seconds = (
            [np.datetime_as_string(w, unit="s") for w in when]
            if calendar is None
            else [w.isoformat() for w in when]
        )
        wanted = f"the step of 'mine' from {seconds[bad]} to {seconds[bad + 1]} is 12 hours"
        assert wanted in str(error.value)


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_times_after_keep_the_unit(unit: str) -> None:
    time = np.datetime64("2020-02-28T20", unit)
    after, leads = times_after(time, make_spec(time_step=7.26), 3)
    assert (after.dtype, leads.dtype) == (f"datetime64[{unit}]", f"timedelta64[{unit}]")
    np.testing.assert_array_equal(leads, np.array([26136, 52272, 78408], "timedelta64[s]"))
    np.testing.assert_array_equal(after, time + leads)


def test_times_after_do_not_drift() -> None:
    """Of 399.96 s, each frame is the nearest second to where it belongs."""
    after, leads = times_after(np.datetime64("2020-01-01", "s"), make_spec(time_step=0.1111), 300)
    assert leads[-1] == np.timedelta64(119988, "s")
    assert after[-1] == np.datetime64("2020-01-02T09:19:48")


def test_times_after_follow_the_calendar() -> None:
    when = times(1, calendar="noleap")[0].replace(year=2020, month=2, day=28, hour=18)
    after, leads = times_after(when, make_spec(), 2)
    assert [time.isoformat() for time in after] == ["2020-03-01T00:00:00", "2020-03-01T06:00:00"]
    assert {time.calendar for time in after} == {"noleap"}
    np.testing.assert_array_equal(leads, np.array([6, 12], "timedelta64[h]"))
