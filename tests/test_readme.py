"""The figures of the README are those of the model's card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xatmorep.model.registry import read_card, shipped

README = (Path(__file__).parents[1] / "README.md").read_text()
CARD = read_card(shipped()["era5-surface-tiny"])


def _table() -> list[dict[str, str]]:
    block = re.search(r"<!-- scores -->\n(.*?)<!-- /scores -->", README, re.DOTALL)
    assert block is not None
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in block[1].strip().splitlines()
    ]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


def _score(field: str, metric: str, baseline: str | None) -> float:
    (score,) = [
        score
        for score in CARD.scores
        if (score.field, score.metric, score.baseline) == (field, metric, baseline)
        and score.rate in (None, 0.5)
        and score.lead_time is None
    ]
    return score.value


@pytest.mark.parametrize("row", _table(), ids=lambda row: row["RMSE"])
def test_scores_are_those_of_the_card(row):
    field = row["RMSE"].split(" [")[0]
    columns = {
        "model": (None, "rmse"),
        "climatology": ("climatology", "rmse"),
        "interpolation": ("interpolation", "rmse"),
        "anomaly_interpolation": ("anomaly_interpolation", "rmse"),
        "spread/skill": (None, "spread_skill_ratio"),
    }
    assert set(row) == {"RMSE", *columns}
    for column, (baseline, metric) in columns.items():
        assert row[column] == f"{_score(field, metric, baseline):.3g}"


def test_every_predicted_field_has_a_row():
    assert sorted(row["RMSE"].split(" [")[0] for row in _table()) == sorted(CARD.fields)


def test_the_command_beside_the_figures_is_that_of_the_card():
    words = re.search(r"^xatmorep evaluate .*$", README, re.MULTILINE)
    assert words is not None
    commands = {score.command for score in CARD.scores}
    assert any(all(word in command for word in words[0].split()) for command in commands)


def test_it_is_called_a_demonstration():
    assert CARD.demonstration
    assert "demonstration" in README
