"""Strict reading: every mistake is named, with its place and the nearest right word."""

from __future__ import annotations

import string
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xatmorep.errors import ConfigError
from xatmorep.strict import closest, validate


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = Field(gt=0)
    kind: Literal["wide", "narrow"] = "wide"


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    first: Part
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = {}
    other: Part | None = None
    rate: float = 0.5

    @field_validator("rate")
    @classmethod
    def _check_rate(cls, rate: float) -> float:
        if not 0 <= rate <= 1:
            raise ValueError("a rate lies between 0 and 1")
        return rate

    @model_validator(mode="after")
    def _check(self) -> Whole:
        if self.name == self.first.kind:
            raise ValueError("the name is that of a kind")
        return self


GOOD = {"name": "a", "first": {"width": 1}}

names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)


def test_what_is_right_is_read():
    assert validate(Whole, GOOD, "x.yaml").first.width == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "b"}, "nmae: unknown key; did you mean 'name'?"),
        ({"zzz": 1}, "zzz: unknown key; known are first, name, named, other, parts, rate"),
        ({"first": {}}, "first.width: Field required (found nothing)"),
        ({"first": {"width": 0}}, "first.width: Input should be greater than 0 (found 0)"),
        ({"first": {"width": 1, "knid": "wide"}}, "first.knid: unknown key; did you mean 'kind'?"),
        ({"parts": [{"width": 1}, {"with": 1, "width": 1}]}, "parts.1.with: unknown key; did you"),
        ({"named": {"p": {"width": 1, "wdth": 2}}}, "named.p.wdth: unknown key; did you mean 'wid"),
        ({"other": {"width": 1, "widht": 2}}, "other.widht: unknown key; did you mean 'width'?"),
        ({"first": {"width": "many"}}, "first.width: Input should be a valid integer"),
        ({"first": {"width": 1, "kind": "broad"}}, "first.kind: Input should be 'wide' or"),
        ({"rate": 2}, "rate: a rate lies between 0 and 1 (found 2)"),
        ({"name": "wide"}, "the name is that of a kind"),
        ({1: 2}, "1: Keys should be strings"),
    ],
)
def test_a_mistake_is_named_with_its_place(change, message):
    with pytest.raises(ConfigError) as error:
        validate(Whole, GOOD | change, "x.yaml")
    first, second = str(error.value).splitlines()
    assert first == "x.yaml:"
    assert second.startswith(f"  {message}")


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        validate(Whole, {"first": {"widht": 1}, "rate": -1}, "x.yaml")
    places = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(places) == ["first.widht", "first.width", "name", "rate"]


@pytest.mark.parametrize("content", [None, [], "name: a", 3])
def test_what_is_no_mapping_is_refused(content):
    with pytest.raises(ConfigError, match=r"x.yaml:\n  Input should be a valid dictionary"):
        validate(Whole, content, "x.yaml")


@given(st.dictionaries(names, st.integers()))
def test_every_unknown_key_is_refused(extra):
    unknown = {key: value for key, value in extra.items() if key not in Whole.model_fields}
    content = GOOD | unknown
    if not unknown:
        assert validate(Whole, content, "x.yaml").name == "a"
        return
    with pytest.raises(ConfigError) as error:
        validate(Whole, content, "x.yaml")
    for key in unknown:
        assert f"  {key}: unknown key; " in str(error.value)


@given(names, st.sets(names))
def test_the_nearest_is_known_or_all_are_listed(name, known):
    words = closest(name, known)
    if words.startswith("; did you mean "):
        assert words[len("; did you mean '") : -2] in known
    else:
        assert words == f"; known are {', '.join(sorted(known)) or 'none'}"


@given(st.sets(names, min_size=1), st.data())
def test_a_known_name_is_its_own_nearest(known, data):
    name = data.draw(st.sampled_from(sorted(known)))
    assert closest(name, known) == f"; did you mean {name!r}?"
