from __future__ import annotations

import pytest

import xatmorep
from tests.tasks import small
from xatmorep.evaluation.card import score_table, with_scores


@pytest.fixture(scope="module")
def scores():
    return xatmorep.evaluate(small.model(), small.dataset(), rate=0.5)


def test_the_card_gets_every_score_once(scores):
    card = with_scores(small.model().card, scores, command="xatmorep evaluate noise")
    records = {(s.metric, s.field, s.level, s.baseline): s for s in card.scores}
    assert len(records) == len(card.scores) == 3 * (6 + 3)
    record = records["rmse", "temperature", 850.0, None]
    expected = scores["score"].sel(forecaster="model", metric="rmse").isel(quantity=2).item()
    assert record.value == pytest.approx(expected, rel=1e-3)
    assert record.units == "K"
    assert record.command == "xatmorep evaluate noise"
    assert records["spread_skill_ratio", "temperature", 850.0, None].units == "1"


def test_older_scores_are_replaced(scores):
    once = with_scores(small.model().card, scores, command="first")
    twice = with_scores(once, scores, command="second")
    assert {score.command for score in twice.scores} == {"second"}
    assert len(twice.scores) == len(once.scores)


def test_the_table_has_a_line_for_each_level(scores):
    text = score_table(scores)
    assert text.startswith("RMSE where 50% of the tokens were hidden at random (model small):")
    lines = [line.split()[:3] for line in text.splitlines()[2:]]
    assert [line[0] for line in lines] == ["2m_temperature", "temperature", "temperature"]
    assert "temperature at 500 [K]" in text
    assert "spread/skill" in text
