"""The table of names."""

from __future__ import annotations

from collections import Counter

import pytest

from xatmorep.data.names import FIELDS, fields_by_alias, fields_by_standard_name


def test_canonical_names_are_no_aliases_of_others() -> None:
    for field in FIELDS.values():
        for alias in field.aliases:
            assert alias not in FIELDS


def test_fields_that_share_an_alias_differ_in_levels() -> None:
    counts = Counter(alias for field in FIELDS.values() for alias in field.aliases)
    shared = [alias for alias, count in counts.items() if count > 1]
    assert sorted(shared) == ["cl", "z"]
    for alias in shared:
        assert sorted(field.levels for field in fields_by_alias(alias)) == [False, True]


def test_fields_that_share_a_standard_name_differ_in_levels_or_height() -> None:
    names = {name for field in FIELDS.values() for name in field.standard_names}
    for name in names:
        fields = fields_by_standard_name(name)
        assert len({(field.levels, field.height) for field in fields}) == len(fields), name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("t2m", "2m_temperature"),
        ("2t", "2m_temperature"),
        ("tas", "2m_temperature"),
        ("ta", "temperature"),
        ("msl", "mean_sea_level_pressure"),
        ("psl", "mean_sea_level_pressure"),
        ("wap", "vertical_velocity"),
        ("hus", "specific_humidity"),
        ("tp", "total_precipitation"),
        ("pr", "mean_total_precipitation_rate"),
        ("uas", "10m_u_component_of_wind"),
        ("vo", "vorticity"),
    ],
)
def test_names_of_ecmwf_and_cmip6(alias: str, name: str) -> None:
    assert [field.name for field in fields_by_alias(alias)] == [name]


def test_unknown_names_are_no_fields() -> None:
    assert fields_by_alias("unheard_of") == ()
    assert fields_by_standard_name("None") == ()
