"""Cuts of 2023 by their definition: counted days, files with hours of the month before."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.atmorep.cases import read
from xatmorep.testing.parity.cut_2023 import arrays
from xatmorep.testing.parity.recorded import FILE

BEFORE, HOURS = 8, 30
CASE = {
    "file_shape": [-1, 13, 24],
    "resolution_degrees": 15.0,
    "num_tokens": [2, 3, 2],
    "token_size": [4, 1, 5],
    # January after a leap year, March of a leap year, January after a common year.
    "years_months": [[2021, 1], [2020, 3], [2022, 1]],
    "hours_before_month_start_in_data": BEFORE,
}
# Number of the month, hour of the month, colatitude, longitude.
POSITIONS = [
    *((0, 2, 90.0, 0.0), (0, 21, 45.0, 352.0), (1, 0, 100.0, 180.0), (1, 1, 90.0, 359.0)),
    *((2, 5, 120.0, 7.4), (2, 0, 60.0, 7.6)),
]


@pytest.fixture(params=[137, 0], ids=["level", "surface"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    rng = np.random.default_rng(0)
    rows, columns = CASE["file_shape"][1:]
    months = rng.normal(size=(3, BEFORE + HOURS, rows, columns)).astype(np.float32)
    table = [
        (year, month, *rng.normal(size=1), *(1 + rng.random(1)))
        for year in (2019, 2020, 2021, 2022)
        for month in range(1, 13)
    ]
    np.savez(
        tmp_path / FILE,
        **{f"data.month{i}": month for i, month in enumerate(months)},
        positions_month_hour_colat_lon=np.array(POSITIONS, dtype=np.float64),
        global_coefficients_year_month_mean_divisor=np.array(table, dtype=np.float32),
    )
    return {**CASE, "level": request.param}, tmp_path


def numbers(month: int, hour: int) -> tuple[int, float, int]:
    """Year, day with its fraction and hour as the original counts them."""
    year, number = CASE["years_months"][month]
    first = datetime.datetime(year, number, 1)
    days = (first - datetime.datetime(year, 1, 1)).days + hour / 24
    if days < 0:
        year, days = year - 1, days + 365
    return year, float(np.float32(days)), (first + datetime.timedelta(hours=hour)).hour


def test_cuts_and_infos_equal_loops(case: tuple[dict[str, Any], Path]) -> None:
    index, folder = case
    found, recorded = arrays(folder, index), read(folder / FILE)
    (nt, na, no), (t, a, o) = index["num_tokens"], index["token_size"]
    assert found["cut"].shape == (len(POSITIONS), nt * t, na * a, no * o)
    assert found["token_info"].shape == (len(POSITIONS), nt * na * no, 8)
    for b, (month, hour, colatitude, longitude) in enumerate(POSITIONS):
        top = round(colatitude / 180 * 12) - math.ceil(na * a / 2)
        left = round(longitude / 360 * 24) - math.ceil(no * o / 2)
        for i, j, k in np.ndindex(found["cut"].shape[1:]):
            frame, row, column = hour - nt * t + 1 + i, top + j, (left + k) % 24
            value = recorded[f"data.month{month}"][BEFORE + frame, row, column]
            assert found["cut"][b, i, j, k] == value
            if (i % t, j % a, k % o) == (t - 1, a // 2, o // 2):
                token = ((i // t) * na + j // a) * no + k // o
                year, day, clock = numbers(month, frame)
                expected = [year, day, clock, index["level"], 15 * row, 15 * column]
                expected += [index["level"], 15]
                assert found["token_info"][b, token].tolist() == expected


def test_a_file_is_normalized_with_its_own_month(case: tuple[dict[str, Any], Path]) -> None:
    index, folder = case
    found, recorded = arrays(folder, index), read(folder / FILE)
    table = recorded["global_coefficients_year_month_mean_divisor"]
    for i, (year, month) in enumerate(index["years_months"]):
        mean, std = table[12 * (year - 2019) + month - 1, 2:]
        expected = (recorded[f"data.month{i}"] - mean) / std
        assert expected.dtype == np.float32
        np.testing.assert_array_equal(found[f"normalized.month{i}"], expected)


def test_the_index_can_come_from_a_file(case: tuple[dict[str, Any], Path]) -> None:
    index, folder = case
    again = arrays(folder, json.loads(json.dumps(index)))
    np.testing.assert_array_equal(again["cut"], arrays(folder, index)["cut"])
