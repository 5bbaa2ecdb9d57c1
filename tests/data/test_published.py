"""Published normalization: arguments, fitting, and the recorded reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cftime
import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from tests.data.published import (
    FULL,
    JANUARY,
    LOCAL_RAIN,
    RAIN,
    TEMPERATURE,
    VORTICITY,
    table_url,
    write,
    write_store,
    write_tables,
)
from tests.data.test_normalization import CountingScheduler, field, noise, refuse
from xatmorep.data.normalization import Normalizer
from xatmorep.data.published import (
    PublishedField,
    fit_normalization,
    read_normalization,
)
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.tokens.tokenize import tokenize

REFERENCE = Path(__file__).parents[1] / "atmorep" / "reference"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return write_tables(tmp_path)


@pytest.mark.parametrize("name", ["../vorticity", "a/b", "", "..", "Vorticity", "a b", "a\n"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a field"):
        PublishedField("vorticity", name, (137.0,), "global")


def test_wrong_arguments_are_refused(tables: Path) -> None:
    with pytest.raises(ConfigError, match="scope='zonal' is unknown"):
        PublishedField("vorticity", "vorticity", (137.0,), "zonal")  # type: ignore[arg-type]
    for period in (("2021", "2022"), ("2021-01",), ("2021-01", 3), ("2021-01", "2021-1")):
        with pytest.raises(ConfigError, match="must be the first and the last month, such as"):
            read_normalization(tables, [VORTICITY], period=period)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ends before it begins"):
        read_normalization(tables, [VORTICITY], period=("2021-02", "2021-01"))


def test_months_that_were_not_read_are_refused(tables: Path) -> None:
    normalizer = read_normalization(tables, [RAIN])
    times = np.array(["2021-02-28T23", "2021-03-01T00"], "datetime64[s]")
    rain = field(noise(2, 1, 2, 2), time=times, level=[0.0]).chunk()
    words = "no statistics of the months 2021-03: there are those of 2021-01 to 2021-02; select"
    with dask.config.set(scheduler=refuse), pytest.raises(ConventionError, match=words):
        normalizer.check("total_precipitation", rain)


def test_saved_and_read_back(tmp_path: Path) -> None:
    write_store(tmp_path / "store")
    fields = [VORTICITY, LOCAL_RAIN]
    normalizer = read_normalization(tmp_path / "store", fields)
    normalizer.save(str(tmp_path / "model"))
    loaded = Normalizer.load(str(tmp_path / "model"))
    for wanted in fields:
        for kind in ("mean", "std"):
            got = getattr(loaded, kind)[wanted.name]
            xr.testing.assert_identical(got, getattr(normalizer, kind)[wanted.name])
            assert got["year_month"].dtype == np.int64


@pytest.mark.parametrize("calendar", [None, "noleap", "360_day"])
def test_fitted_as_the_published_ones_were_made(calendar: str | None) -> None:
    dates = ["2020-12-30", "2020-12-29", "2021-01-01", "2021-01-30", "2021-01-15", "2021-12-01"]
    times: Any = np.array(sorted(dates), "datetime64[s]")
    months = [JANUARY - 1] * 2 + [JANUARY] * 3 + [JANUARY + 11]
    if calendar is not None:
        parts = [[int(part) for part in date.split("-")] for date in sorted(dates)]
        times = [cftime.datetime(*part, calendar=calendar) for part in parts]
    arrays = {
        "vorticity": field(noise(6, 2, 3, 4, seed=1), time=times, level=[137.0, 123.0]),
        "temperature": field(noise(6, 1, 3, 4, seed=2), time=times, level=[123.0]),
        "unused": field(noise(6, 1, 3, 4, seed=3), time=times),
    }
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        lazy = {name: array.chunk(time=2, level=1) for name, array in arrays.items()}
        normalizer = fit_normalization(lazy, [VORTICITY, TEMPERATURE])
    assert scheduler.calls == 1
    assert sorted(normalizer.mean) == ["temperature", "vorticity"]
    mean, std = normalizer.mean["vorticity"], normalizer.std["vorticity"]
    assert mean.dims == ("year_month", "level")
    for month in sorted(set(months)):
        those = [time for time, number in enumerate(months) if number == month]
        for level in (137.0, 123.0):
            values = arrays["vorticity"].sel(level=level).values[those].astype(np.float64)
            total = sum(float(x) for x in values.ravel())
            average = total / values.size
            square = sum((float(x) - average) ** 2 for x in values.ravel())
            at = {"year_month": month, "level": level}
            np.testing.assert_allclose(mean.sel(at), average, rtol=1e-6)
            np.testing.assert_allclose(std.sel(at), np.sqrt(square / values.size), rtol=1e-5)
    mean, std = normalizer.mean["temperature"], normalizer.std["temperature"]
    assert mean.dims == ("year_month", "level", "latitude", "longitude")
    assert mean["year_month"].values.tolist() == sorted(set(months))
    january = arrays["temperature"].values[2:5, 0].astype(np.float64)
    np.testing.assert_allclose(mean.sel(year_month=JANUARY)[0], january.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std.sel(year_month=JANUARY)[0], january.std(0), rtol=1e-5)


# The recorded reference


def reference(case: str, file: str) -> Any:
    return np.load(REFERENCE / case / file)


@pytest.mark.parametrize("period", [None, ("2020-12", "2021-01")])
def test_normalized_tokens_equal_the_recorded_ones(period: Any, tmp_path: Path) -> None:
    index = json.loads((REFERENCE / "input_pipeline" / "index.json").read_text())
    raw, recorded = (reference("input_pipeline", f"{name}.npz") for name in ("raw", "tensors"))
    group = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    group.attrs.update({name: index[f"{name}_attr"] for name in ("fields", "levels", "fields_sfc")})
    group.create_array("time", data=raw["time_seconds"].astype("datetime64[s]"))
    for name in ("lats", "lons"):
        group.create_array(name, data=raw[name])
    for name in FULL:
        group.create_array(f"normalization/{name}", data=raw[name])
    fields = {
        name: PublishedField(name, name, tuple(map(float, levels)) if levels[0] else (), *scope)
        for name, scope, levels in (
            (entry[0], entry[6:] or ["global"], entry[2]) for entry in index["fields_config"]
        )
    }
    normalizer = read_normalization(tmp_path, list(fields.values()), period=period)
    coords = {
        "time": raw["time_seconds"].astype("datetime64[s]"),
        "latitude": 90 - raw["lats"],
        "longitude": raw["lons"],
    }
    for (name, wanted), entry in zip(fields.items(), index["fields_config"], strict=True):
        levels = [index["levels_attr"].index(level) for level in wanted.levels]
        values = (
            raw["data"][:, index["fields_attr"].index(name)][:, levels]
            if levels
            else raw["data_sfc"]
        )
        labels = {"time": coords["time"], "level": list(wanted.levels or (0.0,)), **coords}
        array = xr.DataArray(values, labels, ("time", "level", "latitude", "longitude"))
        for number in range(index["batch"]):
            cut = {
                dim: recorded[f"cut.batch{number}.{short}_idx"]
                for dim, short in (("time", "time"), ("latitude", "lat"), ("longitude", "lon"))
            }
            normalized = normalizer.apply(name, array.isel(cut)).transpose("level", ...)
            tokens = tokenize(normalized.values, tuple(entry[4]))
            np.testing.assert_array_equal(
                tokens, recorded[f"normalized_tokens.{name}"][:, number], strict=True
            )


def test_normalized_month_equals_the_recorded_one(tmp_path: Path) -> None:
    recorded = reference("input_cut_2023", "tensors.npz")
    table = recorded["global_coefficients_year_month_mean_divisor"]
    write(table_url(tmp_path, "vorticity", 123), table)
    wanted = PublishedField("vorticity", "vorticity", (123.0,), "global")
    values = recorded["data.month1"][:, None]
    # That code normalizes hours of the month before with the month of the file.
    times = np.datetime64("2021-03-01", "s") + np.arange(len(values)) * np.timedelta64(1, "h")
    array = field(values, time=times, level=[123.0], latitude=90 - 12.0 * np.arange(16))
    normalized = read_normalization(tmp_path, [wanted]).apply("vorticity", array)
    np.testing.assert_array_equal(normalized[:, 0], recorded["normalized.month1"])
