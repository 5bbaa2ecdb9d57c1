"""Recorded stores as our Dataset and Normalizer, and what their lists of fields mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.atmorep.cases import REFERENCE, read
from xatmorep.testing.parity.store import RecordedField, dataset, normalizer

INDEX: dict[str, Any] = {
    "fields_attr": ["vorticity", "temperature"],
    "levels_attr": [123, 137],
    "fields_sfc_attr": ["total_precip"],
}


def entry(**changes: Any) -> list[Any]:
    parts = {
        "name": "temperature",
        "network": [1, 32, [], 0],
        "levels": [137, 123],
        "tokens": [2, 3, 6],
        "size": [6, 2, 2],
        "rates": [0.5, 0.8, 0.2, 0.3],
        **changes,
    }
    return list(parts.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"levels": (137, 123), "masked": True, "local": False}),
        ({"scope": "global"}, {"local": False}),
        ({"scope": "local"}, {"local": True}),
        ({"levels": [0]}, {"levels": ()}),
        ({"network": [0, 32, [], 0]}, {"masked": False}),
        ({"rates": [0.0, 0.8, 0.2, 0.3]}, {"masked": False}),
        ({"network": [1, 32, ["a"], 0, ["abcd1234", -2]], "scope": "local"}, {"masked": True}),
    ],
)
def test_entries(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    field = RecordedField.of(entry(**changes))
    assert field.points == (12, 6, 12)
    assert field.spec.n_levels == max(1, len(field.levels))
    assert {name: getattr(field, name) for name in expected} == expected


@pytest.mark.parametrize("year_base", [None, 2019])
def test_statistics_are_found_by_month_level_and_place(year_base: int | None) -> None:
    raw = read(REFERENCE / "input_pipeline" / "raw.npz")
    index = INDEX if year_base is None else {**INDEX, "year_base": year_base}
    fields = [
        RecordedField.of(entry(scope="local")),
        RecordedField.of(entry(name="total_precip", levels=[0])),
        RecordedField.of(entry(name="vorticity")),
    ]
    statistics = normalizer(raw, index, fields)
    # The months are those of the year of the first time, 2020, unless another is stated.
    month = 12 * (year_base or 2020) + 11
    place = {"latitude": 54.0, "longitude": 348.0, "level": 123.0}
    row, column = 3, 29
    for kind, table in enumerate((statistics.mean, statistics.std)):
        local = table["temperature"].sel(year_month=month, **place)
        assert local == raw["norm"][11, kind, 1, 0, row, column]
        assert table["vorticity"].dims == ("year_month", "level")
        assert (
            table["vorticity"].sel(year_month=month, level=137)
            == (raw["global_norm"][11, kind, 0, 1])
        )
        assert (
            table["total_precip"].sel(year_month=month, level=0)
            == (raw["global_norm_sfc"][11, kind, 0])
        )


def test_dataset_has_the_fields_that_are_asked_for() -> None:
    raw = read(REFERENCE / "input_pipeline" / "raw.npz")
    fields = [RecordedField.of(entry()), RecordedField.of(entry(name="total_precip", levels=[0]))]
    ds = dataset(raw, INDEX, fields)
    assert list(ds) == ["temperature", "total_precip"]
    assert ds["time"].values[0] == np.datetime64("2020-12-31T00")
    where = {"time": np.datetime64("2021-01-01T02"), "latitude": -18.0, "longitude": 24.0}
    assert ds["temperature"].sel(where | {"model_level": 137}) == raw["data"][26, 1, 1, 9, 2]
    assert ds["total_precip"].sel(where) == raw["data_sfc"][26, 0, 9, 2]
