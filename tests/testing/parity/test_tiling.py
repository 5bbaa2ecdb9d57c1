"""Tilings of the globe and weights of its rows against records and plain loops."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr

from tests.atmorep.cases import REFERENCE, read
from xatmorep.testing.parity.neighborhoods import around_2024
from xatmorep.testing.parity.tiling import global_tiles, latitude_weight_table

RECORDED = read(REFERENCE / "losses" / "tensors.npz")
TILES = sorted(name for name in RECORDED if name.startswith("tiles."))
FORM = re.compile(r"tiles\.res([\d.]+)_tok(\d+)x(\d+)_of_(\d+)x(\d+)_overlap(\d+)_(\d+)")

# Resolution in latitude and longitude, tokens, token size, overlap in tokens.
SIZES = [
    ((36, 36), (1, 1), (2, 5), (0, 0)),
    ((12, 12), (2, 4), (3, 3), (0, 0)),
    ((12, 12), (2, 4), (3, 3), (1, 1)),
    ((20, 15), (2, 3), (2, 2), (0, 1)),
    ((4, 7.5), (3, 2), (5, 3), (1, 0)),
    ((15, 30), (2, 2), (2, 2), (5, 7)),
    ((15, 30), (2, 2), (2, 2), (0, 0)),
]


@pytest.mark.parametrize("name", TILES)
def test_tiles_are_those_of_the_original(name: str) -> None:
    found = FORM.fullmatch(name)
    assert found
    resolution, *numbers = found.groups()
    tokens, sizes, overlap = np.array(numbers, dtype=int).reshape(3, 2).tolist()
    tiles = global_tiles(float(resolution), tokens, sizes, overlap)
    assert tiles.dtype == np.float64
    np.testing.assert_array_equal(tiles, RECORDED[name])


def test_there_are_records_with_and_without_overlap() -> None:
    assert len(TILES) == 3
    assert sorted(name.partition("overlap")[2] for name in TILES) == ["0_0", "1_2", "2_4"]


@pytest.mark.parametrize(("resolution", "tokens", "sizes", "overlap"), SIZES)
def test_tiles_equal_loops_in_exact_fractions(resolution, tokens, sizes, overlap) -> None:
    axes = []
    for step, count, size, shared in zip(resolution, tokens, sizes, overlap, strict=True):
        side = count * size * Fraction(step)
        axes.append((Fraction(step), side, min(shared * size * Fraction(step), side / 2)))
    (step, height, shared), (_, width, beside) = axes
    expected = []
    rows = []
    number = 0
    while height + number * (height - shared) < 180:
        rows.append(height / 2 + number * (height - shared))
        number += 1
    rows.append(180 - height / 2 + step)
    for row in rows:
        number = 0
        while number * (width - beside) - beside / 2 < 360:
            east = width / 2 - beside / 2 + number * (width - beside)
            expected.append((float(90 - row), float(east % 360)))
            number += 1
    assert global_tiles(resolution, tokens, sizes, overlap).tolist() == [list(x) for x in expected]


@pytest.mark.parametrize(("resolution", "tokens", "sizes", "overlap"), SIZES)
def test_tiles_cover_the_globe_unless_their_side_divides_it(
    resolution, tokens, sizes, overlap
) -> None:
    n_rows, n_columns = round(180 / resolution[0]) + 1, round(360 / resolution[1])
    labels = xr.DataArray(
        np.zeros((1, n_rows, n_columns)),
        {
            "time": [np.datetime64("2021-01-01", "s")],
            "latitude": 90 - resolution[0] * np.arange(n_rows),
            "longitude": resolution[1] * np.arange(n_columns),
        },
        ("time", "latitude", "longitude"),
    )
    sides = [n * k * step for n, k, step in zip(tokens, sizes, resolution, strict=True)]
    tiles = global_tiles(resolution, tokens, sizes, overlap)
    places = around_2024(labels, [1, *sides], [(2021, 1, 1, 0, *tile) for tile in tiles.tolist()])
    assert places.rows.shape[1] == tokens[0] * sizes[0]
    assert places.columns.shape[1] == tokens[1] * sizes[1]
    seen = np.zeros((n_rows, n_columns), dtype=bool)
    for rows, columns in zip(places.rows, places.columns, strict=True):
        seen[np.ix_(rows, columns)] = True
    assert seen.all() == bool((180 / sides[0]) % 1 or overlap[0])
    assert seen[[0, -1]].all()


def test_one_number_is_the_resolution_of_both() -> None:
    np.testing.assert_array_equal(
        global_tiles(12, (2, 4), (3, 3), (0, 0)), global_tiles((12, 12), (2, 4), (3, 3))
    )


def test_weights_are_those_of_the_original() -> None:
    table = latitude_weight_table()
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, RECORDED["lat_weights_721"])
    for row, weight in enumerate(table.tolist()):
        assert weight == np.float32(math.cos(math.pi / 2 - row * math.pi / 721))
