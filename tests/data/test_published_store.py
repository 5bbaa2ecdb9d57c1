"""Published coefficients in a zarr store, as of 2024."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

from tests.data.published import (
    FIELDS,
    FULL,
    GRID,
    JANUARY,
    LATS,
    LEVELS,
    LOCAL_RAIN,
    LONS,
    RAIN,
    TEMPERATURE,
    VORTICITY,
    write_store,
)
from xatmorep.data.published import (
    PublishedField,
    has_normalization,
    read_normalization,
)
from xatmorep.errors import CheckpointError, ConfigError


def selected(inner: Any, wanted: PublishedField, month: int) -> np.ndarray:
    """(2, level, ...) of one month after January 2020, read in the plainest way."""
    name = "global_" * (wanted.scope == "global") + ("norm" if wanted.levels else "norm_sfc")
    whole = inner[name][...][month]
    if not wanted.levels:
        return np.asarray(whole[:, 0][:, None])
    at = FIELDS.index(wanted.published_name)
    levels = [whole[:, at, LEVELS.index(int(level))] for level in wanted.levels]
    return np.stack(levels, axis=1)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("place", ["{path}", "file://{path}", "memory://store{format}.zarr"])
def test_store_of_all_fields(place: str, zarr_format: int, tmp_path: Path) -> None:
    inner = write_store(tmp_path / "store.zarr", zarr_format)
    url = place.format(path=tmp_path / "store.zarr", format=zarr_format)
    if url.startswith("memory"):
        fsspec.filesystem("memory").put(str(tmp_path / "store.zarr"), url, recursive=True)
    assert has_normalization(url)
    everything = [
        VORTICITY,
        PublishedField("u_component_of_wind", "velocity_u", (96.0,), "global"),
        PublishedField("temperature", "temperature", (137.0, 96.0), "local"),
        LOCAL_RAIN,
    ]
    for fields in (everything, [RAIN]):
        normalizer = read_normalization(url, fields, period=("2020-12", "2021-02"))
        assert sorted(normalizer.mean) == sorted(wanted.name for wanted in fields)
        for wanted in fields:
            for number, part in enumerate((normalizer.mean, normalizer.std)):
                got = part[wanted.name]
                assert got.dtype == np.float32
                assert got["year_month"].values.tolist() == [JANUARY - 1, JANUARY, JANUARY + 1]
                assert got["level"].values.tolist() == list(wanted.levels or (0.0,))
                for month in range(3):
                    np.testing.assert_array_equal(
                        got[month], selected(inner, wanted, 11 + month)[number]
                    )
                if wanted.scope == "local":
                    assert got.dims == ("year_month", "level", "latitude", "longitude")
                    assert got["latitude"].values.tolist() == [90, 45, 0, -45, -90]
                    np.testing.assert_array_equal(got["longitude"], LONS)


def test_all_months_of_a_store(tmp_path: Path) -> None:
    write_store(tmp_path)
    normalizer = read_normalization(tmp_path, [VORTICITY, LOCAL_RAIN])
    for name in ("vorticity", "total_precipitation"):
        months = normalizer.mean[name]["year_month"].values
        assert months.tolist() == list(range(12 * 2020, 12 * 2020 + 15))


@pytest.mark.parametrize("unit", ["s", "h", "D"])
def test_year_of_the_first_time(unit: str, tmp_path: Path) -> None:
    write_store(tmp_path, time=np.array(["1979-12-31", "1980-01-01"], f"datetime64[{unit}]"))
    months = read_normalization(tmp_path, [VORTICITY]).mean["vorticity"]["year_month"]
    assert months.values[0] == 12 * 1979


def test_other_chunks_are_not_read(tmp_path: Path) -> None:
    write_store(tmp_path, zarr_format=2)
    whole = read_normalization(tmp_path, [TEMPERATURE])
    spared = {"13.0.2.1.0.0", "14.0.2.1.0.0"}
    for chunk in (tmp_path / "normalization").glob("*/[0-9]*"):
        if chunk.parent.name != "norm" or chunk.name not in spared:
            chunk.write_bytes(b"damaged")
    part = read_normalization(tmp_path, [TEMPERATURE], period=("2021-02", "2021-03"))
    for kind in ("mean", "std"):
        expected = getattr(whole, kind)["temperature"].isel(year_month=slice(13, 15))
        xr.testing.assert_identical(getattr(part, kind)["temperature"], expected)
    with pytest.raises(CheckpointError, match=r"norm in .* can't be read"):
        read_normalization(tmp_path, [TEMPERATURE], period=("2021-01", "2021-03"))


def test_months_that_nobody_filled(tmp_path: Path) -> None:
    norm = np.ones((15, 2, *FULL["global_norm"]), np.float32)
    norm[3:11, 1] = 0
    norm[1, 1, 0, 2] = 0  # vorticity at level 137 only
    write_store(tmp_path, global_norm=norm)
    normalizer = read_normalization(tmp_path, [VORTICITY])
    months = [0, 2, 11, 12, 13, 14]
    assert (normalizer.mean["vorticity"]["year_month"] - 12 * 2020).values.tolist() == months
    one_level = PublishedField("vorticity", "vorticity", (96.0,), "global")
    assert read_normalization(tmp_path, [one_level]).mean["vorticity"].sizes["year_month"] == 7
    words = "all divisors of 'vorticity' are zero.* months 2020-02, 2020-04 to 2020-11: choose"
    with pytest.raises(CheckpointError, match=words):
        read_normalization(tmp_path, [VORTICITY], period=("2020-01", "2020-12"))
    write_store(tmp_path, global_norm=0 * norm)
    with pytest.raises(CheckpointError, match=r"are zero.* months 2020-01 to 2021-03"):
        read_normalization(tmp_path, [VORTICITY])


def test_points_that_never_varied(tmp_path: Path) -> None:
    norm = np.random.default_rng(1).uniform(0.5, 2, (2, 2, *FULL["norm_sfc"])).astype(np.float32)
    norm[0, 1, 0, 1, 2:4] = 0
    write_store(tmp_path, norm_sfc=norm)
    std = read_normalization(tmp_path, [LOCAL_RAIN]).std["total_precipitation"]
    expected = norm[:, 1].copy()
    expected[0, 0, 1, 2:4] = np.mean([x for x in norm[0, 1].ravel() if x > 0], dtype=np.float64)
    np.testing.assert_array_equal(std, expected)


def test_more_than_fits_is_refused_unread(tmp_path: Path) -> None:
    inner = write_store(tmp_path, lats=np.arange(721) * 0.25, lons=np.arange(1440) * 0.25)
    shape = (600, 2, len(FIELDS), len(LEVELS), *GRID)  # nothing is written but its description
    chunks = (1, 2, 1, 1, *GRID)
    array = inner.create_array("norm", shape=shape, dtype="f4", chunks=chunks, overwrite=True)
    words = r"600 months \(2020-01 to 2069-12\) take 4.6 GiB, more than 4: .*period=\('2021-01'"
    with pytest.raises(ConfigError, match=words):
        read_normalization(tmp_path, [TEMPERATURE])
    array[12, :, 2, 1] = 2.0
    normalizer = read_normalization(tmp_path, [TEMPERATURE], period=("2021-01", "2021-01"))
    assert (normalizer.std["temperature"] == 2).all()


def test_what_a_store_lacks_is_said(tmp_path: Path) -> None:
    write_store(tmp_path)
    for wanted, words in (
        (PublishedField("z", "velocity_z", (123.0,), "local"), "no field 'velocity_z'; it has"),
        (PublishedField("s", "total_cover", (), "local"), r"'total_cover'; it has \['total_prec"),
        (PublishedField("t", "temperature", (1.0,), "local"), r"no level 1.0; it has \[96, 123"),
    ):
        with pytest.raises(CheckpointError, match=words):
            read_normalization(tmp_path, [wanted])
    words = "of 'vorticity' in the months 2019-12, 2021-04: .* those of 2020-01 to 2021-03"
    with pytest.raises(CheckpointError, match=words):
        read_normalization(tmp_path, [VORTICITY], period=("2019-12", "2021-04"))


def test_damaged_stores_are_refused(tmp_path: Path) -> None:
    def refused(words: str, wanted: PublishedField = VORTICITY, **arrays: np.ndarray) -> None:
        write_store(tmp_path, n_months=2, **arrays)
        with pytest.raises(CheckpointError, match=words):
            read_normalization(tmp_path, [wanted])

    refused("lats in .* degrees from the north pole.* from -90 to 90", TEMPERATURE, lats=LATS - 90)
    refused(r"norm in .* \(2, 2, 3, 3, 5, 8\).* 3, 3, 5, 7\)", TEMPERATURE, lons=LONS[:7])
    refused(r"the type int32: it must be", global_norm=np.ones((2, 2, 3, 3), np.int32))
    refused(r"the shape \(2, 3, 3\)", global_norm=np.ones((2, 3, 3), np.float32))
    refused("time in .* holds no dates", time=np.arange(3))
    refused("time in .* holds no dates", time=np.array([], "datetime64[s]"))
    refused("'temperature' are damaged", TEMPERATURE, norm=np.full((2, 2, *FULL["norm"]), -1, "f4"))
    group = zarr.open_group(tmp_path)
    del group["normalization/global_norm"]
    with pytest.raises(CheckpointError, match="no array 'normalization/global_norm'"):
        read_normalization(tmp_path, [VORTICITY])
    (tmp_path / ".zattrs").write_text(json.dumps({"fields": FIELDS, "levels": 3}))
    with pytest.raises(CheckpointError, match=r"no attribute 'levels' with a list; .*'fields'"):
        read_normalization(tmp_path, [TEMPERATURE])
    (tmp_path / ".zgroup").write_text("{")
    with pytest.raises(CheckpointError, match=r"zarr store .* can't be opened"):
        read_normalization(tmp_path, [VORTICITY])
