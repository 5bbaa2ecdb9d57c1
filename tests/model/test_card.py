"""The model card: complete, strict, and the same after a round trip."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
import torch
from pydantic import ValidationError

from tests.model.small import small_card
from xatmorep._version import __version__
from xatmorep.model.card import ModelCard, Score


def test_round_trip_through_json() -> None:
    card = small_card()
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_says_when_and_with_what_it_was_made() -> None:
    card = small_card()
    assert abs((datetime.now(UTC) - card.created).total_seconds()) < 60
    assert card.versions == {"xatmorep": __version__, "torch": str(torch.__version__)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"author": "me"}, "Extra inputs are not permitted"),
        ({"name": "../etc"}, "should match pattern"),
        ({"name": ""}, "should match pattern"),
        ({"created": datetime(2026, 1, 1)}, "timezone"),
        ({"period": ("2020-01-01",)}, "Field required"),
        ({"data": None}, "valid dictionary"),
    ],
)
def test_refuses_what_makes_no_card(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        small_card(**changes)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Score(metric="rmse", field="t", value=value, command="none")
