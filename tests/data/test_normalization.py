"""Normalization: apply, invert, laziness, coordinates, and the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import dask
import dask.array
import numpy as np
import pytest
import safetensors.numpy
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xatmorep.data.normalization import FILENAME, Normalizer
from xatmorep.errors import CheckpointError, ConfigError, ConventionError

DIMS = ("time", "level", "latitude", "longitude")
CHOICES = [
    (mean, std, period)
    for mean in ("global", "local")
    for std in ("global", "local")
    for period in ("record", "month", "year_month")
]


def field(values: np.ndarray, **coords: Any) -> xr.DataArray:
    """Canonical field; by default steps of 20 days, levels 1, 2, ..., a global grid."""
    n_time, n_level, n_lat, n_lon = values.shape[-4:]
    extra = ("number",) * (values.ndim - 4)
    start = np.datetime64("2001-01-05T00", "s")
    default = {
        "time": start + np.arange(n_time) * np.timedelta64(20 * 24, "h"),
        "level": np.arange(1.0, n_level + 1),
        "latitude": np.linspace(90, -90, n_lat) if n_lat > 1 else np.array([40.0]),
        "longitude": np.arange(n_lon) * 360.0 / n_lon,
    }
    return xr.DataArray(values.astype(np.float32), {**default, **coords}, (*extra, *DIMS))


def noise(*shape: int, seed: int = 0, offset: float = 280.0, scale: float = 15.0) -> np.ndarray:
    return offset + scale * np.random.default_rng(seed).standard_normal(shape)


def fitted(array: xr.DataArray, *choices: Any) -> Normalizer:
    mean, std, period = choices or ("global", "global", "record")
    return Normalizer.fit({"x": array}, mean=mean, std=std, period=period)


def refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("something was computed")


class CountingScheduler:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: Any, keys: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return dask.get(graph, keys, **kwargs)


@settings(max_examples=40)
@given(
    choices=st.sampled_from(CHOICES),
    seed=st.integers(0, 999),
    offset=st.sampled_from([0.0, 280.0, 1e5]),
    holes=st.booleans(),
)
def test_inverse_gives_the_values_back(
    choices: tuple[Any, Any, Any], seed: int, offset: float, holes: bool
) -> None:
    values = noise(2, 4, 2, 3, 4, seed=seed, offset=offset)
    if holes:
        values[np.random.default_rng(seed).random(values.shape) < 0.3] = np.nan
    array = field(values)
    normalizer = fitted(array, *choices)
    normalized = normalizer.apply("x", array)
    back = normalizer.invert("x", normalized)
    assert normalized.dtype == back.dtype == np.float32
    # One rounding of the normalized value, one of the result.
    mean = 0 if offset == 0 else offset
    bound = 1.2e-7 * (np.abs(array) + np.abs(array - mean) + 100).values
    assert ((np.abs(back - array) <= bound) | np.isnan(array)).all()
    np.testing.assert_array_equal(np.isnan(normalized), np.isnan(array))
    xr.testing.assert_equal(back.coords.to_dataset(), array.coords.to_dataset())
    assert back.dims == array.dims


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True) | st.sampled_from(
    [0.0, 1.0, 1e-45, -1e-40, 1.2e-38, 300.0, float("nan")]
)


@settings(max_examples=50)
@given(
    choices=st.sampled_from(CHOICES),
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=3),
        elements=FLOATS,
        fill=FLOATS,
    ),
)
def test_finite_values_stay_finite(choices: tuple[Any, Any, Any], values: np.ndarray) -> None:
    array = field(values)
    normalizer = fitted(array, *choices)
    assert np.isfinite(normalizer.mean["x"]).all()
    assert np.isfinite(normalizer.std["x"]).all()
    assert (normalizer.std["x"] > 0).all()
    normalized = normalizer.apply("x", array)
    np.testing.assert_array_equal(np.isfinite(normalized), np.isfinite(array))
    assert np.isfinite(normalizer.invert("x", normalized)).equals(np.isfinite(array))
    # Values that were not fitted, and holes that are filled, as well.
    assert np.isfinite(normalizer.apply("x", xr.full_like(array, 1e7))).all()


@pytest.mark.parametrize("choices", CHOICES)
def test_dask_equals_numpy_and_is_computed_when_asked(choices: tuple[Any, Any, Any]) -> None:
    array = field(noise(2, 5, 2, 3, 6))
    lazy = array.chunk({"time": 3, "level": 1, "longitude": 4})
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        from_lazy = Normalizer.fit(
            {"x": lazy, "y": 2 * lazy},
            {"z": lazy[0, 0, 0]},
            mean=choices[0],
            std=choices[1],
            period=choices[2],
        )
    assert scheduler.calls == 1
    normalizer = fitted(array, *choices)
    for kind in ("mean", "std"):
        got, expected = getattr(from_lazy, kind)["x"], getattr(normalizer, kind)["x"]
        xr.testing.assert_allclose(got, expected, rtol=3e-7)
        assert isinstance(got.data, np.ndarray)
    with dask.config.set(scheduler=refuse):
        normalized = normalizer.apply("x", lazy)
        back = normalizer.invert("x", normalized)
    assert normalized.chunks == back.chunks == lazy.chunks
    assert back.dtype == np.float32
    xr.testing.assert_identical(normalized.compute(), normalizer.apply("x", array))
    xr.testing.assert_allclose(back.compute(), array, rtol=1e-6)


def test_data_are_read_once() -> None:
    read: list[int] = []

    def frame(block_info: Any = None) -> np.ndarray:
        index = block_info[None]["chunk-location"][0]
        read.append(index)
        return noise(1, 1, 3, 4, seed=index).astype(np.float32)

    data = dask.array.map_blocks(
        frame, chunks=((1,) * 5, 1, 3, 4), dtype=np.float32, meta=np.empty((0,) * 4, np.float32)
    )
    array = field(np.zeros((5, 1, 3, 4))).copy(data=data)
    with dask.config.set(scheduler="synchronous"):
        fitted(array, "local", "global", "month")
    assert sorted(read) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_months_follow_the_calendar(calendar: str) -> None:
    days = [(2001, 1, 30), (2001, 2, 27), (2001, 2, 28), (2001, 3, 1)]
    times = [cftime.datetime(*day, calendar=calendar) for day in days]
    values = np.array([1.0, 10.0, 20.0, 7.0]).reshape(4, 1, 1, 1)
    array = field(values, time=times)
    normalizer = fitted(array, "global", "global", "month")
    mean = normalizer.mean["x"].squeeze("level")
    whole = values.mean()
    expected = [1.0, 15.0, 7.0] + [whole] * 9
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    assert mean["month"].values.tolist() == list(range(1, 13))
    # January and March have one value each, without variation: the record's variation is used.
    np.testing.assert_allclose(
        normalizer.std["x"].values.ravel(), [values.std(), 5.0] + [values.std()] * 10, rtol=1e-6
    )
    normalized = normalizer.apply("x", array)
    np.testing.assert_allclose(normalized.values.ravel(), [0.0, -1.0, 1.0, 0.0], atol=1e-6)
    other = field(
        np.full((1, 1, 1, 1), whole), time=[cftime.datetime(1999, 7, 1, calendar=calendar)]
    )
    np.testing.assert_allclose(normalizer.apply("x", other), 0.0, atol=1e-6)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard", None])
@pytest.mark.parametrize("lazy", [False, True])
def test_calendar_months_are_told_apart(calendar: str | None, lazy: bool) -> None:
    days = [(2000, 12, 30), (2001, 1, 1), (2002, 1, 1), (2001, 1, 2), (2002, 1, 2)]
    days = [*days, (2000, 12, 29)]
    times: Any = [cftime.datetime(*day, calendar=calendar or "standard") for day in days]
    if calendar is None:
        times = np.array(["{:04d}-{:02d}-{:02d}".format(*day) for day in days], "datetime64[s]")
    values = np.array([3.0, 10.0, -5.0, 20.0, -7.0, 5.0]).reshape(6, 1, 1, 1)
    array = field(values, time=times)
    array = array.chunk(time=2) if lazy else array
    normalizer = fitted(array, "global", "global", "year_month")
    mean, std = normalizer.mean["x"], normalizer.std["x"]
    assert mean.dims == ("year_month", "level")
    assert mean["year_month"].values.tolist() == [12 * 2000 + 11, 12 * 2001, 12 * 2002]
    np.testing.assert_allclose(mean.values.ravel(), [4.0, 15.0, -6.0])
    np.testing.assert_allclose(std.values.ravel(), [1.0, 5.0, 1.0])
    normalized = normalizer.apply("x", array)
    np.testing.assert_allclose(normalized.values.ravel(), [-1, -1, 1, 1, -1, 1])
    np.testing.assert_allclose(normalizer.invert("x", normalized).values, values)
    one = array.isel(time=[4])
    np.testing.assert_allclose(normalizer.apply("x", one).values, -1)


def test_months_without_statistics_are_refused_unread() -> None:
    def at(*times: str) -> xr.DataArray:
        index = np.array(times, "datetime64[s]")
        return field(noise(len(times), 1, 2, 2), time=index).chunk()

    known = at("2020-11-01", "2020-12-01", "2021-01-01", "2021-05-01")
    normalizer = fitted(known, "local", "local", "year_month")
    words = (
        "'x' has no statistics of the months 2019-12, 2021-02 to 2021-03: there are those of "
        "2020-11 to 2021-01, 2021-05; select"
    )
    later = at("2019-12-31", "2021-01-31", "2021-02-01", "2021-03-01")
    with dask.config.set(scheduler=refuse):
        normalizer.check("x", known)
        with pytest.raises(ConventionError, match=words):
            normalizer.check("x", later)
        with pytest.raises(ConventionError, match=words):
            normalizer.apply("x", later)
    by_month = fitted(known, "global", "global", "month")
    some = Normalizer(
        {"x": by_month.mean["x"].sel(month=[12, 1, 2])},
        {"x": by_month.std["x"].sel(month=[2, 1, 12])},
    )
    january = known.isel(time=[2])
    xr.testing.assert_identical(some.apply("x", january), by_month.apply("x", january))
    with pytest.raises(ConventionError, match="months 5, 11: there are those of 1 to 2, 12;"):
        some.apply("x", known)


@pytest.mark.parametrize("choices", CHOICES)
def test_arithmetic_is_that_of_float32(choices: tuple[Any, Any, Any]) -> None:
    array = field(noise(5, 2, 3, 4))
    normalizer = fitted(array, *choices)
    month = array["time"].dt.month.values - 1  # from January on, without gaps
    normalized, back = np.empty((2, *array.shape), np.float32)
    for point in np.ndindex(*array.shape):
        place = {"month": month[point[0]], "year_month": month[point[0]]}
        place |= dict(zip(DIMS[1:], point[1:], strict=True))
        mean, std = (
            np.float32(part["x"].isel({dim: place[dim] for dim in part["x"].dims}).item())
            for part in (normalizer.mean, normalizer.std)
        )
        normalized[point] = (array.values[point] - mean) / std
        back[point] = normalized[point] * std + mean
    for same in (array, array.astype(np.float64), array.chunk(time=2)):
        np.testing.assert_array_equal(normalizer.apply("x", same), normalized)
    np.testing.assert_array_equal(normalizer.invert("x", array.copy(data=normalized)), back)


def test_each_field_has_its_own_scope() -> None:
    array = field(noise(4, 2, 3, 4))
    both = Normalizer.fit(
        {"x": array, "y": array},
        mean={"x": "local", "y": "global"},
        std={"x": "global", "y": "local"},
    )
    for name, mean, std in (("x", "local", "global"), ("y", "global", "local")):
        alone = fitted(array, mean, std, "record")
        xr.testing.assert_identical(both.mean[name], alone.mean["x"])
        xr.testing.assert_identical(both.std[name], alone.std["x"])


def test_any_dimensions_in_any_order() -> None:
    array = field(noise(4, 2, 3, 4))
    members = xr.concat([array, array + 1], xr.Variable("member", [0, 1]))
    shuffled = members.transpose("longitude", "time", "member", "latitude", "level")
    for choices in CHOICES:
        normalizer = fitted(array, *choices)
        normalized = normalizer.apply("x", shuffled)
        assert normalized.dims == shuffled.dims
        xr.testing.assert_identical(
            normalized.sel(member=1, drop=True).transpose(*DIMS), normalizer.apply("x", array + 1)
        )


def test_labels_are_kept_and_attributes_of_values_dropped() -> None:
    array = field(noise(3, 1, 3, 4)).rename("t2m").assign_attrs(units="K")
    array["time"].attrs["standard_name"] = "time"
    array["latitude"].attrs["units"] = "degrees_north"
    array = array.assign_coords(step=7, valid_time=("time", array["time"].values))
    for choices in CHOICES:
        normalized = fitted(array, *choices).apply("x", array)
        assert normalized.name == "t2m"
        assert normalized.attrs == {}
        xr.testing.assert_identical(normalized.coords.to_dataset(), array.coords.to_dataset())
    assert array.attrs == {"units": "K"}


@pytest.mark.parametrize("choices", CHOICES)
def test_region_and_levels_are_found_by_their_coordinates(choices: tuple[Any, Any, Any]) -> None:
    array = field(noise(4, 3, 5, 8), level=[500.0, 850.0, 1013.2])
    normalizer = fitted(array, *choices)
    whole = normalizer.apply("x", array)
    part = {"level": [2, 0], "latitude": [3, 1], "longitude": [7, 0, 1]}
    region = array.isel(part)
    for shift in (0.0, 360.0, -360.0):
        # The western edge across Greenwich, stored either way, in float32 as many files have it.
        shifted = region.assign_coords(
            longitude=(np.array([315.0, 360.0, 405.0]) + shift).astype(np.float32),
            latitude=region["latitude"].astype(np.float32),
            level=region["level"].astype(np.float32),
        )
        normalized = normalizer.apply("x", shifted)
        np.testing.assert_array_equal(normalized, whole.isel(part))
        np.testing.assert_array_equal(normalized["longitude"], shifted["longitude"])


def test_global_statistics_fit_any_grid() -> None:
    normalizer = fitted(field(noise(4, 1, 5, 8)))
    elsewhere = field(noise(1, 1, 1, 1), latitude=[12.34], longitude=[56.78])
    assert np.isfinite(normalizer.apply("x", elsewhere)).all()


@pytest.mark.parametrize(
    ("coords", "words"),
    [
        ({"level": [1.0, 3.0]}, r"'x' has no statistics at level \[3.0\].* 2 points from 1 to 2"),
        ({"latitude": [90.0, 1.0, -90.0]}, r"latitude \[1.0\].* 3 points from -90 to 90"),
        (
            {"longitude": [5.0, 95.0, 185.0, 275.0]},
            r"longitude \[5.0, 95.0, 185.0\] \.\.\.: .* 4 points from 0 to 270; select those",
        ),
        ({"longitude": [0.0, 90.0, np.nan, 270.0]}, r"longitude \[nan\]"),
    ],
)
def test_places_without_statistics_are_refused(coords: dict[str, Any], words: str) -> None:
    array = field(noise(3, 2, 3, 4))
    normalizer = fitted(array, "local", "global", "record")
    with pytest.raises(ConventionError, match=words):
        normalizer.apply("x", array.assign_coords(coords))


def test_wrong_arguments_are_refused() -> None:
    array = field(noise(3, 2, 3, 4))
    with pytest.raises(ConfigError, match=r"mean='zonal' is unknown.*'global', 'local'"):
        Normalizer.fit({"x": array}, mean="zonal")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"std='zonal' is unknown"):
        Normalizer.fit({"x": array}, std={"x": "zonal"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"mean has no scope for \['x'\]; .* \['y'\]"):
        Normalizer.fit({"x": array}, mean={"y": "local"})
    with pytest.raises(ConfigError, match=r"period='day'.*'record', 'month', 'year_month'"):
        Normalizer.fit({"x": array}, period="day")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"weights='cos' is unknown.*'area', 'none'"):
        Normalizer.fit({"x": array}, weights="cos")  # type: ignore[arg-type]
    with pytest.raises(ConventionError, match=r"'x' needs the dimensions \['level'\]"):
        Normalizer.fit({"x": array[:, 0]})
    with pytest.raises(ConventionError, match="'x' has no time step"):
        Normalizer.fit({"x": array[:0]})
    normalizer = fitted(array, "global", "global", "month")
    with pytest.raises(ConventionError, match=r"no statistics of 'y'; the normalizer has \['x'\]"):
        normalizer.apply("y", array)
    with pytest.raises(ConventionError, match=r"'x' needs the dimensions \['time'\]"):
        normalizer.invert("x", array[0])


def test_static_fields() -> None:
    values = np.array([[0.0, 0.0], [10.0, np.nan], [0.0, 20.0]])
    static = xr.DataArray(
        values.astype(np.float32),
        {"latitude": [60.0, 0.0, -60.0], "longitude": [0.0, 180.0]},
        ("latitude", "longitude"),
    )
    normalizer = Normalizer.fit(
        {"x": field(noise(2, 1, 3, 2))},
        {"height": static, "flat": xr.full_like(static, 5.0)},
        mean="local",
        std="local",
        period="month",
    )
    weights = np.where(np.isnan(values), 0.0, np.array([[0.5], [1.0], [0.5]]))
    mean = np.nansum(weights * values) / weights.sum()
    std = np.sqrt(np.nansum(weights * (values - mean) ** 2) / weights.sum())
    assert normalizer.mean["height"].dims == ()
    np.testing.assert_allclose(normalizer.mean["height"], mean, rtol=1e-6)
    np.testing.assert_allclose(normalizer.std["height"], std, rtol=1e-6)
    np.testing.assert_array_equal(normalizer.apply("flat", xr.full_like(static, 5.0)), 0.0)
    np.testing.assert_allclose(normalizer.apply("height", static), (values - mean) / std, rtol=1e-5)


@pytest.mark.parametrize("choices", CHOICES)
def test_saved_twice_alike_and_read_back(choices: tuple[Any, Any, Any], tmp_path: Path) -> None:
    array = field(noise(4, 2, 3, 4), level=[500.0, 850.0])
    static = array[0, 0].reset_coords(drop=True)
    mean, std, period = choices
    normalizer = Normalizer.fit(
        {"b": array, "a": array[:, :1]}, {"s/1": static}, mean=mean, std=std, period=period
    )
    folder = tmp_path / "new" / "model"
    normalizer.save(str(folder))
    first = (folder / FILENAME).read_bytes()
    normalizer.save(f"file://{folder}")
    assert (folder / FILENAME).read_bytes() == first == normalizer.to_bytes()
    loaded = Normalizer.load(str(folder))
    assert loaded.to_bytes() == first
    for name in ("a", "b"):
        xr.testing.assert_identical(
            loaded.apply(name, array[:, :1]), normalizer.apply(name, array[:, :1])
        )
    xr.testing.assert_identical(loaded.apply("s/1", static), normalizer.apply("s/1", static))
    for name, statistics in normalizer.mean.items():
        xr.testing.assert_equal(
            loaded.mean[name],
            statistics.drop_vars("level", errors="ignore")
            if "level" not in statistics.dims
            else statistics,
        )


def test_saved_in_memory_filesystem() -> None:
    normalizer = fitted(field(noise(2, 1, 3, 4)))
    normalizer.save("memory://models/norm")
    assert Normalizer.load("memory://models/norm").to_bytes() == normalizer.to_bytes()


def rewritten(
    data: bytes, change: Callable[[dict[str, np.ndarray], dict[str, Any]], None]
) -> bytes:
    """Change tensors and header of the file, and leave it valid safetensors."""
    tensors = dict(safetensors.numpy.load(data))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["xatmorep_normalization"])
    change(tensors, header)
    return safetensors.numpy.save(tensors, {"xatmorep_normalization": json.dumps(header)})


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    normalizer = fitted(field(noise(2, 1, 3, 4)), "local", "local", "month")
    data = normalizer.to_bytes()
    for end in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(CheckpointError, match="damaged"):
            Normalizer.from_bytes(data[:end])
    with pytest.raises(CheckpointError, match="damaged"):
        Normalizer.from_bytes(data + b"\0")
    (tmp_path / FILENAME).write_bytes(data[:-10])
    with pytest.raises(CheckpointError, match=f"{tmp_path}/{FILENAME}: .*damaged"):
        Normalizer.load(str(tmp_path))
    with pytest.raises(CheckpointError, match=f"no {FILENAME} in .*elsewhere"):
        Normalizer.load(str(tmp_path / "elsewhere"))
    with pytest.raises(CheckpointError, match="damaged"):
        Normalizer.from_bytes(safetensors.numpy.save({"mean/x": np.zeros(1, np.float32)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, header: header.update(format_version=2), "format_version 2 is not 1"),
        (lambda tensors, header: header["dims"].pop("std/x"), "doesn't fit together"),
        (
            lambda tensors, header: tensors.update(more=np.zeros(1)),
            r"unexpected tensors \['more'\]",
        ),
        (lambda tensors, header: tensors.pop("mean/x/level"), "damaged: 'mean/x/level'"),
        (lambda tensors, header: tensors["std/x"].fill(0), "of 'x' is damaged.*positive"),
        (lambda tensors, header: tensors["mean/x"].fill(np.nan), "of 'x' is damaged.*finite"),
        (lambda tensors, header: header["dims"].update({"mean/x": ["level"] * 2}), "damaged"),
        (lambda tensors, header: header.update(dims=3), "damaged"),
        (lambda tensors, header: header["dims"].update({"mode/x": []}), "damaged"),
        (lambda tensors, header: tensors["mean/x/month"].fill(1.5), "month must be whole numbers"),
        (lambda tensors, header: tensors["mean/x/month"].fill(np.nan), "month must be whole"),
        (
            lambda tensors, header: header["dims"]["std/x"].__setitem__(0, "level"),
            "damaged",
        ),
        (
            lambda tensors, header: (
                tensors.update({"std/x/year_month": tensors.pop("std/x/month")}),
                header["dims"]["std/x"].__setitem__(0, "year_month"),
            ),
            r"of 'x' is damaged: its mean has .*'month'.* deviation .*'year_month'",
        ),
    ],
)
def test_inconsistent_files_are_refused(change: Any, words: str) -> None:
    data = fitted(field(noise(2, 1, 3, 4)), "global", "global", "month").to_bytes()
    unchanged = Normalizer.from_bytes(rewritten(data, lambda *_: None))
    assert unchanged.mean["x"].dims == ("month", "level")
    with pytest.raises(CheckpointError, match=words):
        Normalizer.from_bytes(rewritten(data, change))


def test_coordinates_without_statistics_are_found_without_reading() -> None:
    array = field(noise(3, 2, 4, 8))
    normalizer = fitted(array, "local", "local", "record")
    lazy = array.chunk()
    with dask.config.set(scheduler=refuse):
        normalizer.check("x", lazy)
        with pytest.raises(ConventionError, match="'x' has no statistics at longitude"):
            normalizer.check("x", lazy.assign_coords(longitude=lazy["longitude"] + 1))
    with pytest.raises(ConventionError, match="no statistics of 'y'"):
        normalizer.check("y", lazy)


def test_a_file_opened_without_dask_is_fitted_block_by_block(tmp_path: Path) -> None:
    array = field(noise(12, 1, 4, 8))
    array.to_dataset(name="x").to_zarr(tmp_path / "x.zarr", consolidated=False)
    opened = xr.open_zarr(tmp_path / "x.zarr", chunks=None, consolidated=False)["x"]
    with dask.config.set({"array.chunk-size": 3 * array[0].nbytes}):
        normalizer = fitted(opened)
    assert not opened.variable._in_memory
    xr.testing.assert_allclose(normalizer.std["x"], fitted(array).std["x"])
