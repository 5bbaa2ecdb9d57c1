"""The table of published models."""

from __future__ import annotations

import re

import pytest

from xatmorep import cli
from xatmorep.model.atmorep.config import PUBLISHED_FIELDS
from xatmorep.model.atmorep.published import LANDING_PAGE, MODELS


def test_ids_are_eight_letters_and_digits_and_differ() -> None:
    ids = [model.model_id for model in MODELS]
    assert all(re.fullmatch("[a-z0-9]{8}", model_id) for model_id in ids)
    assert len(set(ids)) == len(ids)


def test_fields_are_those_that_are_known() -> None:
    named = {field for model in MODELS for field in model.fields}
    assert named == set(PUBLISHED_FIELDS)


def test_both_generations_are_there() -> None:
    assert {model.year for model in MODELS} == {"2023", "2024"}


def test_the_command_says_what_to_fetch_and_where_to_put_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["info", "atmorep"]) == 0
    text = capsys.readouterr().out
    for model in MODELS:
        assert model.archive in text
    assert LANDING_PAGE in text
    assert "xatmorep.load_atmorep(" in text
    assert max(map(len, text.splitlines())) <= 140
