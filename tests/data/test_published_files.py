"""Published coefficients in binary files, as of 2023."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

from tests.data.published import (
    GRID,
    JANUARY,
    MONTHS,
    RAIN,
    TEMPERATURE,
    VORTICITY,
    grid_url,
    rows,
    table_url,
    write,
    write_tables,
)
from tests.data.test_normalization import field, noise
from xatmorep.data.published import (
    PublishedField,
    has_normalization,
    read_normalization,
)
from xatmorep.errors import CheckpointError


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return write_tables(tmp_path)


@pytest.mark.parametrize("place", ["{path}", "file://{path}", "memory://tables", "memory://"])
@pytest.mark.parametrize("inner", ["", "/normalization"])
def test_tables_of_whole_levels(place: str, inner: str, tmp_path: Path) -> None:
    url = place.format(path=tmp_path)
    fsspec.filesystem("memory").store.clear()
    fields = [VORTICITY, RAIN]
    assert not has_normalization(url)
    with pytest.raises(CheckpointError, match=f"no published coefficients at {url}: neither"):
        read_normalization(url, fields)
    data = {
        ("vorticity", 137): rows(*MONTHS[::-1], seed=1),
        ("vorticity", 123): rows(*MONTHS[1:], (2022, 1), seed=2),
        ("total_precip", 0): rows((1999, 5), *MONTHS, seed=3),
    }
    for (name, level), table in data.items():
        write(table_url(f"{url}{inner}", name, level), table)
    assert has_normalization(url)
    normalizer = read_normalization(url, fields)
    assert sorted(normalizer.mean) == ["total_precipitation", "vorticity"]
    for canonical, months, levels in (
        ("vorticity", MONTHS[1:], [137, 123]),
        ("total_precipitation", [(1999, 5), *MONTHS], [0]),
    ):
        name = "total_precip" if canonical == "total_precipitation" else canonical
        for part, column in ((normalizer.mean, 2), (normalizer.std, 3)):
            got = part[canonical]
            assert got.dims == ("year_month", "level")
            assert got.dtype == np.float32
            assert got["level"].values.tolist() == levels
            assert got["year_month"].values.tolist() == [12 * y + m - 1 for y, m in months]
            for year, month in months:
                for level in levels:
                    (row,) = [r for r in data[name, level] if (r[0], r[1]) == (year, month)]
                    at = got.sel(year_month=12 * year + month - 1, level=level)
                    assert at.item() == row[column]


def test_only_the_months_of_a_period(tables: Path) -> None:
    whole = read_normalization(tables, [VORTICITY])
    part = read_normalization(tables, [VORTICITY, RAIN], period=("2021-01", "2021-02"))
    for kind in ("mean", "std"):
        got = getattr(part, kind)
        xr.testing.assert_identical(
            got["vorticity"], getattr(whole, kind)["vorticity"].isel(year_month=slice(2, 4))
        )
        assert got["total_precipitation"]["year_month"].values.tolist() == [JANUARY, JANUARY + 1]


@pytest.fixture
def grids(tmp_path: Path) -> tuple[Path, dict[tuple[str, int], np.ndarray]]:
    """Coefficients of grid points at their real size."""
    data = {}
    rng = np.random.default_rng(0)
    for month, level in (("2020-12", 123), ("2021-01", 123), ("2021-01", 137)):
        data[month, level] = rng.uniform(0.5, 2.0, (*GRID, 2)).astype(np.float32)
        write(grid_url(tmp_path, "temperature", month, level), data[month, level])
    return tmp_path, data


def test_files_of_grid_points(grids: tuple[Path, dict[tuple[str, int], np.ndarray]]) -> None:
    folder, data = grids
    normalizer = read_normalization(folder, [TEMPERATURE])
    mean, std = normalizer.mean["temperature"], normalizer.std["temperature"]
    assert mean["year_month"].values.tolist() == [JANUARY - 1, JANUARY]
    assert mean.dims == std.dims == ("year_month", "level", "latitude", "longitude")
    assert mean.dtype == std.dtype == np.float32
    for number, month in enumerate(("2020-12", "2021-01")):
        np.testing.assert_array_equal(mean[number, 0], data[month, 123][..., 0])
        np.testing.assert_array_equal(std[number, 0], data[month, 123][..., 1])
    # A place across Greenwich in the southern hemisphere, rows and columns counted by hand.
    times = np.array(["2020-12-31T23", "2021-01-01T00"], "datetime64[s]")
    region = field(
        noise(2, 1, 2, 2),
        time=times,
        level=[123.0],
        latitude=[-10.0, -10.25],
        longitude=[-0.25, 0.0],
    )
    got = normalizer.apply("temperature", region).values
    for t, month in enumerate(("2020-12", "2021-01")):
        for i, row in enumerate((400, 401)):
            for j, column in enumerate((1439, 0)):
                m, s = data[month, 123][row, column]
                assert got[t, 0, i, j] == (region.values[t, 0, i, j] - m) / s
    # Of two levels, only the months that both have.
    both = PublishedField("temperature", "temperature", (123.0, 137.0), "local")
    common = read_normalization(folder, [both]).mean["temperature"]
    assert common["year_month"].values.tolist() == [JANUARY]
    np.testing.assert_array_equal(common[0, 1], data["2021-01", 137][..., 0])
    with pytest.raises(CheckpointError, match=r"no file temperature/.*_y2020_m12_ml137.bin in"):
        read_normalization(folder, [both], period=("2020-12", "2021-01"))


def test_files_of_another_size_are_refused(tables: Path) -> None:
    url = grid_url(tables, "temperature", "2021-01", 123)
    write(url, bytes(721 * 1440 * 8 - 4))
    words = r"_ml123.bin has 8305916 bytes, not the 8305920 of a grid of 721 x 1440"
    with pytest.raises(CheckpointError, match=words):
        read_normalization(tables, [TEMPERATURE])
    write(table_url(tables, "vorticity", 123), bytes(23))
    with pytest.raises(CheckpointError, match=r"_ml123.bin has 23 bytes: .* rows of 16 bytes"):
        read_normalization(tables, [VORTICITY])
    write(table_url(tables, "vorticity", 123), bytes(16 * 120_001))
    with pytest.raises(CheckpointError, match=r"has 1920016 bytes: .* at most 120000"):
        read_normalization(tables, [VORTICITY])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((2021.5, 1, 0, 1), "start with no year and month"),
        ((2021, 13, 0, 1), "start with no year and month"),
        ((np.nan, 1, 0, 1), "start with no year and month"),
        ((np.inf, 1, 0, 1), "start with no year and month"),
        ((2020, 12, 0, 1), "several rows of the same month"),
        ((2021, 3, np.nan, 1), "of 'vorticity' are damaged"),
        ((2021, 3, 0, np.inf), "of 'vorticity' are damaged"),
        ((2021, 3, 0, -1), "of 'vorticity' are damaged"),
    ],
)
def test_damaged_tables_are_refused(row: tuple[float, ...], words: str, tables: Path) -> None:
    for level in (137, 123):
        write(table_url(tables, "vorticity", level), np.vstack([rows(*MONTHS), row]))
    with pytest.raises(CheckpointError, match=words):
        read_normalization(tables, [VORTICITY])


def test_what_files_lack_is_said(tables: Path) -> None:
    divergence = PublishedField("divergence", "divergence", (123.0,), "global")
    with pytest.raises(CheckpointError, match=r"no file divergence/global.*_divergence_ml123.bin"):
        read_normalization(tables, [divergence])
    words = "no coefficients of 'divergence': at all its levels there are those of none"
    with pytest.raises(CheckpointError, match=words):
        read_normalization(tables, [PublishedField("d", "divergence", (123.0,), "local")])
    half = PublishedField("vorticity", "vorticity", (123.5,), "global")
    with pytest.raises(CheckpointError, match=r"whole model levels, not of 123.5"):
        read_normalization(tables, [half])
    words = (
        "no coefficients of 'total_precip' in the months 2020-12: "
        "at all its levels there are those of 2021-01 to 2021-02; choose"
    )
    with pytest.raises(CheckpointError, match=words):
        read_normalization(tables, [RAIN], period=("2020-12", "2021-02"))


def test_files_that_cannot_be_read_are_refused(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(fsspec.get_filesystem_class("file"), "cat_file", forbid)
    with pytest.raises(CheckpointError, match=r"_ml137.bin can't be read: not yours"):
        read_normalization(tables, [VORTICITY])
