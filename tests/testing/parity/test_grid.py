"""Grids and coordinates as they are written, point by point."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from tests.atmorep.cases import REFERENCE, read
from xatmorep.testing.parity.grid import (
    denormalized,
    forecast_coordinates,
    in_written_months,
    placed,
    token_coordinates,
)
from xatmorep.testing.parity.store import RecordedBatch

FOLDER = REFERENCE / "input_pipeline"


@functools.cache
def batch() -> RecordedBatch:
    """Three neighborhoods from 15 UTC on 31 December 2020; the first crosses Greenwich."""
    index = json.loads((FOLDER / "index.json").read_text())
    return RecordedBatch.cut(read(FOLDER / "raw.npz"), index)


def test_denormalized_tokens_are_the_data_again() -> None:
    for field in batch().fields:
        grids = denormalized(batch(), field, batch().tokens.tokens[field.name])
        for i, grid in enumerate(grids):
            places = batch().places
            data = (
                batch()
                .view[field.name]
                .isel(time=places.frames[i], latitude=places.rows[i], longitude=places.columns[i])
            )
            expected = data.transpose("level", "time", "latitude", "longitude")
            np.testing.assert_allclose(grid, expected, rtol=1e-5, atol=1e-5)


def test_members_are_denormalized_one_by_one() -> None:
    field = batch().fields[1]
    tokens = batch().tokens.tokens[field.name]
    members = np.stack([tokens, -tokens, 0 * tokens], axis=1)
    together = denormalized(batch(), field, members)
    for i in range(3):
        np.testing.assert_array_equal(together[:, i], denormalized(batch(), field, members[:, i]))


@pytest.mark.parametrize(("number", "is_local"), [(0, False), (1, True), (2, False)])
def test_statistics_of_another_place_matter_to_local_fields(number: int, is_local: bool) -> None:
    field = batch().fields[number]
    assert field.local == is_local
    tokens = batch().tokens.tokens[field.name]
    own, last = (denormalized(batch(), field, tokens, entry=entry) for entry in (None, -1))
    np.testing.assert_array_equal(own[-1], last[-1])
    assert np.array_equal(own[0], last[0]) != is_local
    # With the statistics of its last place, the value of the first is that of the formula.
    labels = batch().tokens
    place = {"latitude": labels.latitude[-1][2], "longitude": labels.longitude[-1][3] % 360}
    here = {dim: value for dim, value in place.items() if is_local}
    month = {"year_month": 12 * 2020 + 11, "level": (field.levels or (0,))[0]}
    mean = batch().statistics.mean[field.name].sel(month | here).item()
    std = batch().statistics.std[field.name].sel(month | here).item()
    a, o = field.token_shape[1:]
    value = tokens[0, 0, 0, 2 // a, 3 // o, 0, 2 % a, 3 % o]
    assert last[0, 0, 0, 2, 3] == pytest.approx(value * std + mean, rel=1e-5)


def test_placed_is_the_inverse_of_picking_rows() -> None:
    rng = np.random.default_rng(0)
    for field in batch().fields:
        n = 3 * max(1, len(field.levels)) * int(np.prod(field.tokens))
        rows = rng.permutation(n)[: n // 2]
        values = rng.normal(size=(len(rows), 5, int(np.prod(field.token_shape))))
        full = placed(batch(), field, values, rows)
        assert full.shape == (3, 5, max(1, len(field.levels)), *field.tokens, *field.token_shape)
        flat = np.moveaxis(full, 1, 5).reshape(n, 5, -1)
        np.testing.assert_array_equal(flat[rows], values)
        assert np.isnan(np.delete(flat, rows, axis=0)).all()
        mean = placed(batch(), field, values[:, 0], rows)
        np.testing.assert_array_equal(mean, full[:, 0])


def test_written_months_are_counted_from_2021_and_from_the_end() -> None:
    raw, written = read(FOLDER / "raw.npz"), in_written_months(batch())
    for kind, table in enumerate((written.mean, written.std)):
        local = table["temperature"].sel(level=123).values
        # December 2020 takes the last month of a table that begins in January 2020 and ends in
        # February 2021; January 2021 takes January 2020.
        np.testing.assert_array_equal(local[0], raw["norm"][-1, kind, 1, 0])
        np.testing.assert_array_equal(local[1], raw["norm"][0, kind, 1, 0])
        assert table["temperature"]["year_month"].values.tolist() == [24251, 24252]


def test_coordinates_of_a_forecast() -> None:
    found = forecast_coordinates(batch(), 5)
    hours = found["forecast.coords.batch0.hours_since_1970"]
    first = np.datetime64("2020-12-31T15").astype("datetime64[h]").astype(int)
    np.testing.assert_array_equal(hours, first + np.arange(12.0))
    np.testing.assert_array_equal(
        found["forecast.coords.batch0.target_hours_since_1970"], hours[-5:]
    )
    assert found["forecast.coords.batch0.lon"].tolist() == [*range(300, 360, 12), *range(0, 84, 12)]
    assert found["forecast.coords.batch0.lat_degrees_north"].tolist() == [54, 42, 30, 18, 6, -6]


def test_written_longitudes_of_a_token_are_sorted() -> None:
    field = batch().fields[0]
    found = token_coordinates(batch(), field, 0, np.array([1, 30]))
    # The second column of tokens of 3 x 3 x 3 points crosses Greenwich.
    assert found["lon"].tolist() == [[0, 336, 348], [12, 24, 36]]
    assert found["lat_degrees_north"].tolist() == [[54, 42, 30], [18, 6, -6]]
    first = np.datetime64("2020-12-31T15").astype("datetime64[h]").astype(int)
    assert (found["hours_since_1970"] - first).tolist() == [[0, 1, 2], [9, 10, 11]]
