"""Grid points around a position against loops over all of them, at the edges of the grid too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from xatmorep.errors import ConventionError
from xatmorep.testing.parity.neighborhoods import around_2023, around_2024, published_info
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec

TIMES = np.datetime64("2020-12-31T12", "s") + np.arange(16) * np.timedelta64(1, "h")


def globe(step: float, columns: int) -> xr.DataArray:
    """Values that tell where they are: frame * 10000 + row * 100 + column."""
    rows = round(180 / step) + 1
    frame, row, column = np.ogrid[: len(TIMES), :rows, :columns]
    return xr.DataArray(
        (10000 * frame + 100 * row + column)[:, None].astype(np.float32),
        {
            "time": TIMES,
            "level": [0.0],
            "latitude": 90 - step * np.arange(rows),
            "longitude": 360 / columns * np.arange(columns),
        },
        ("time", "level", "latitude", "longitude"),
    )


def in_words(step: tuple[float, float], size: tuple[float, float], north: float, east: float):
    """Rows and columns by the definition, in colatitudes, going over all grid points."""
    colatitude = 90 - north
    rows = [
        row
        for row in range(round(180 / step[0]) + 1)
        if colatitude - size[0] / 2 - step[0] / 2 < row * step[0] < colatitude + size[0] / 2
    ]
    n = round(360 / step[1])
    found = [
        (turn * 360 + column * step[1], column)
        for turn in (-1, 0, 1)
        for column in range(n)
        if east - size[1] / 2 - step[1] / 2 < turn * 360 + column * step[1] < east + size[1] / 2
    ]
    return rows, [column for _, column in sorted(found)]


@pytest.mark.parametrize("east", [0.0, 12.0, 348.0, 180.0, 72.0, 288.0, 175.3, 354.1])
@pytest.mark.parametrize("north", [0.0, 36.0, -36.0, 11.0])
def test_2024_equals_loops(north: float, east: float) -> None:
    # Between grid points there may be one more than elsewhere.
    for size in ((72.0, 144.0), (36.0, 60.0)):
        places = around_2024(globe(12, 30), [6, *size], [(2020, 12, 31, 20, north, east)])
        rows, columns = in_words((12, 12), size, north, east)
        assert places.rows[0].tolist() == rows
        assert places.columns[0].tolist() == columns
        assert places.frames.tolist() == [[3, 4, 5, 6, 7, 8]]


def test_2024_goes_once_around_the_circle() -> None:
    places = around_2024(globe(30, 12), [1, 60, 360], [(2021, 1, 1, 0, 0.0, 200.0)])
    assert places.columns[0].tolist() == [(1 + column) % 12 for column in range(12)]


def test_2024_takes_the_time_of_the_first_position_for_all() -> None:
    positions = [(2021, 1, 1, 2, 0.0, 0.0), (2020, 12, 31, 20, 0.0, 90.0)]
    places = around_2024(globe(30, 12), [3, 60, 60], positions)
    assert TIMES[places.frames].tolist() == [TIMES[12:15].tolist()] * 2


@pytest.mark.parametrize("date", [(2021, 2, 1, 0), (2020, 12, 31, 13)])
def test_2024_refuses_hours_that_the_data_lack(date: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConventionError, match="don't have the 3 hours up to 202"):
        around_2024(globe(30, 12), [3, 60, 60], [(*date, 0.0, 0.0)])


def test_2024_refuses_what_reaches_beyond_a_pole() -> None:
    positions = [(2021, 1, 1, 2, 0.0, 0.0), (2021, 1, 1, 2, 90.0, 90.0)]
    with pytest.raises(ConventionError, match=r"have \[2, 3\] grid points.*beyond a pole"):
        around_2024(globe(30, 12), [3, 90, 60], positions)


@pytest.mark.parametrize("colatitude", [72.0, 100.0, 89.9])
@pytest.mark.parametrize("longitude", [0.0, 5.9, 6.1, 348.0, 355.0, 180.0])
@pytest.mark.parametrize("box", [(4, 6, 9), (2, 3, 4)])
def test_2023_equals_loops(box: tuple[int, int, int], longitude: float, colatitude: float) -> None:
    places = around_2023((16, 30), box, [(9, colatitude, longitude)])
    row = min(range(16), key=lambda row: abs(12 * row - colatitude))
    column = min(range(31), key=lambda column: abs(12 * column - longitude))
    rows, columns = [], []
    for offset in range(-math.ceil(box[1] / 2), box[1] // 2):
        rows.append(row + offset)
    for offset in range(-math.ceil(box[2] / 2), box[2] // 2):
        columns.append((column + offset) % 30)
    assert places.rows.tolist() == [rows]
    assert places.columns.tolist() == [columns]
    assert places.frames.tolist() == [list(range(10 - box[0], 10))]


def spec(reference: str) -> InputSpec:
    return InputSpec(
        neighborhood=NeighborhoodSpec(shape=(4, 4, 6), time_step=1, grid_step=(30, 30)),
        fields=(FieldSpec(name="a", units="1", token_shape=(2, 2, 3)),),
        token_reference=reference,
    )


@pytest.mark.parametrize("east", [0.0, 180.0, 330.0, 90.0])
def test_tokens_hold_what_is_at_their_place(east: float) -> None:
    labels = globe(30, 12)
    positions = [(2021, 1, 1, 1, 0.0, east), (2021, 1, 1, 1, -15.0, 120.0)]
    places = around_2024(labels, [4, 120, 180], positions)
    batch = places.cut(spec("center"), {"a": labels})
    assert batch.tokens["a"].shape == (2, 1, 2, 2, 2, 2, 2, 3)
    for i, grid in enumerate(batch.to_grid("a")):
        for frame in range(4):
            for j in range(4):
                for k in range(6):
                    value = grid.isel(time=frame, level=0, latitude=j, longitude=k)
                    expected = labels.sel(
                        time=value["time"],
                        level=0,
                        latitude=value["latitude"],
                        longitude=value["longitude"] % 360,
                    )
                    assert value.item() == expected.item()
        assert (np.diff(grid["longitude"]) == 30).all()
        assert grid["longitude"][3] % 360 == positions[i][5]


def test_published_numbers_of_both_generations() -> None:
    labels = globe(30, 12)
    places = around_2024(labels, [4, 120, 180], [(2021, 1, 1, 0, 0.0, 0.0)])
    numbers = {}
    for generation in ("2023", "2024"):
        batch = places.cut(spec(f"atmorep-{generation}"), {"a": labels})
        numbers[generation] = published_info(batch, "a")
        assert numbers[generation].shape == (1, 1, 8, 8)
        assert numbers[generation].dtype == np.float32
    # The last hours of tokens are 22 on 31 December 2020, a leap year, and 0 on 1 January.
    common = [0, 60, 300, 0, 30]
    assert numbers["2024"][0, 0, [0, 4]].tolist() == [
        [2020, 365, 22, *common],
        [2021, 0, 0, *common],
    ]
    day = float(np.float32(364 + 22 / 24))
    assert numbers["2023"][0, 0, [0, 4]].tolist() == [
        [2020, day, 22, *common],
        [2021, 0, 0, *common],
    ]
