from __future__ import annotations

import pytest

import xatmorep
from tests.tasks import small
from xatmorep.evaluation.card import score_table, with_scores
from xatmorep.evaluation.metrics import METRICS


@pytest.fixture(scope="module")
def scores():
    return xatmorep.evaluate(
        small.model(),
        small.dataset(8),
        climatology=small.dataset(seed=1),
        baselines=["climatology", "persistence"],
        block="6h",
        resamples=20,
    )


@pytest.fixture(scope="module")
def forecasts():
    return xatmorep.evaluate(
        small.forecaster(), small.dataset(9), task="forecast", lead_time="12h", resamples=20
    )


def test_the_card_gets_every_score_once(scores):
    card = with_scores(small.model().card, scores, command="xatmorep evaluate noise")
    records = {(s.metric, s.field, s.level, s.baseline): s for s in card.scores}
    assert len(records) == len(card.scores) == 3 * (len(METRICS) + 2)
    record = records["rmse", "temperature", 850.0, None]
    place = {"forecaster": "model", "metric": "rmse", "field": "temperature", "level": 850}
    assert record.value == pytest.approx(scores["score"].sel(place).item(), rel=1e-3)
    low, high = scores["score_interval"].sel(place).values
    assert record.interval == pytest.approx((low, high), rel=1e-3)
    assert (record.units, record.rate, record.lead_time) == ("K", 0.5, None)
    assert record.command == "xatmorep evaluate noise"
    for metric in ("spread_skill_ratio", "acc", "normalized_rmse"):
        assert records[metric, "temperature", 850.0, None].units == "1"
    assert records["rmse", "2m_temperature", None, "persistence"].value > 0
    assert ("mae", "2m_temperature", None, "persistence") not in records


def test_forecasts_have_a_lead_time_and_no_rate(forecasts):
    card = with_scores(small.forecaster().card, forecasts, command="x")
    assert {score.lead_time for score in card.scores} == {"6h", "12h"}
    assert {score.rate for score in card.scores} == {None}
    # Too few times for intervals, and no climatology for anomalies.
    assert {score.interval for score in card.scores} == {None}
    assert not {"acc", "normalized_rmse"} & {score.metric for score in card.scores}


def test_older_scores_of_the_same_question_are_replaced(scores, forecasts):
    once = with_scores(small.model().card, scores, command="first")
    twice = with_scores(once, scores, command="second")
    assert {score.command for score in twice.scores} == {"second"}
    assert len(twice.scores) == len(once.scores)
    both = with_scores(twice, forecasts, command="third")
    assert {score.command for score in both.scores} == {"second", "third"}
    other = scores.assign_attrs(rate=0.9)
    three = with_scores(both, other, command="fourth")
    assert {score.command for score in three.scores} == {"second", "third", "fourth"}
    again = with_scores(three, forecasts, command="fifth")
    assert {score.command for score in again.scores} == {"second", "fourth", "fifth"}


def test_scores_that_do_not_say_what_was_asked_give_way(scores):
    card = with_scores(small.model().card, scores, command="old")
    unknown = tuple(score.model_copy(update={"rate": None}) for score in card.scores)
    card = card.model_copy(update={"scores": unknown})
    card = with_scores(card, scores.assign_attrs(rate=0.9), command="new")
    assert {score.command for score in card.scores} == {"new"}


def test_the_table_has_a_line_for_each_level(scores):
    text = score_table(scores)
    assert text.startswith("RMSE where 50% of the tokens were hidden at random (model small):")
    lines = [line.split()[:3] for line in text.splitlines()[2:5]]
    assert [line[0] for line in lines] == ["2m_temperature", "temperature", "temperature"]
    assert "temperature at 500 [K]" in text
    assert "spread/skill" in text
    ratio = scores["mean_ratio"].sel(metric="rmse", baseline="best").item()
    assert "best" in text
    assert f"{ratio:.3f} [" in text


def test_the_table_of_forecasts_has_a_line_for_each_lead_time(forecasts):
    text = score_table(forecasts)
    assert text.startswith("RMSE of forecasts from 4 times (model small):")
    for words in ("2m_temperature after 6h [K]", "temperature at 850 after 12h [K]"):
        assert words in text
    last = text.splitlines()[-1].split()
    assert last[0] == "persistence"  # the only one, and so the best
    assert len(last) == 3


def test_the_table_without_baselines(scores):
    alone = scores.sel(forecaster=["model"]).drop_dims("baseline")
    assert "mean ratio" not in score_table(alone)
