"""What a specification accepts and refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.tokens.strategies import make_spec
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec


def test_json_round_trip() -> None:
    spec = make_spec(
        fields={"a": ((1, 2, 3), ()), "b": ((2, 4, 2), (500, 850))}, statics=("orography",)
    )
    assert InputSpec.model_validate_json(spec.model_dump_json()) == spec
    assert hash(spec) == hash(InputSpec.model_validate(spec.model_dump()))


def test_counts() -> None:
    spec = make_spec((4, 6, 12), {"a": ((2, 3, 4), (500, 850, 1000)), "b": ((4, 6, 12), ())})
    assert spec.token_grid("a") == (2, 2, 3)
    assert spec.token_grid("b") == (1, 1, 1)
    assert (spec.field("a").n_levels, spec.field("b").n_levels) == (3, 1)
    assert spec.field("a").points_per_token == 24


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_shape": (1, 0, 3)}, "must be positive"),
        ({"level_type": "pressure"}, "a surface field has no levels"),
        ({"levels": (500,)}, "a surface field has no levels"),
        ({"levels": (500, 500.0), "level_type": "pressure"}, "repeat"),
        ({"level_type": "isentropic", "levels": (300,)}, "level_type"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_field_refuses(changes: dict[str, object], words: str) -> None:
    good = {"name": "a", "units": "K", "token_shape": (1, 2, 3)}
    FieldSpec.model_validate(good)
    with pytest.raises(ValidationError, match=words):
        FieldSpec.model_validate({**good, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (0, 4, 6)},
        {"grid_step": (1, 0)},
        {"time_step": 0},
        {"time_tolerance": -0.1},
        {"time_tolerance": 1},
    ],
)
def test_neighborhood_refuses(changes: dict[str, object]) -> None:
    good = {"shape": (2, 4, 6), "time_step": 6, "grid_step": (1, 1)}
    NeighborhoodSpec.model_validate(good)
    with pytest.raises(ValidationError):
        NeighborhoodSpec.model_validate({**good, **changes})


def test_inputs_refuse() -> None:
    with pytest.raises(ValidationError, match="at least one field"):
        make_spec(fields={})
    with pytest.raises(ValidationError, match="repeat"):
        make_spec(fields={"a": ((1, 2, 3), ())}, statics=("a",))
    with pytest.raises(ValidationError, match="6 points in longitude, which tokens of 4 points"):
        make_spec((2, 4, 6), {"a": ((1, 2, 4), ())})


CONTEXT = {
    "name": "c",
    "field": "a",
    "coarsen": (1, 2, 2),
    "shape": (4, 4, 6),
    "token_shape": (2, 2, 3),
    "levels": (850,),
}


def with_context(**changes: object) -> InputSpec:
    base = make_spec((2, 4, 6), {"a": ((1, 2, 3), (500, 850)), "b": ((2, 2, 2), ())})
    return InputSpec.model_validate(base.model_dump() | {"contexts": [CONTEXT | changes]})


def test_a_context_is_one_more_entry() -> None:
    spec = with_context()
    assert InputSpec.model_validate_json(spec.model_dump_json()) == spec
    assert [entry.name for entry in spec.entries] == ["a", "b", "c"]
    assert [field.name for field in spec.fields] == ["a", "b"]
    entry = spec.field("c")
    assert (entry.levels, entry.level_type, entry.units) == ((850,), "pressure", "1")
    assert with_context(levels=()).field("c").levels == (500, 850)
    assert (spec.token_grid("c"), spec.token_extent("c")) == ((2, 2, 2), (2, 4, 6))
    assert (spec.token_grid("a"), spec.token_extent("a")) == ((2, 2, 2), (1, 2, 3))
    assert (spec.first_point("c"), spec.coarsening("c")) == ((-2, -2, -3), (1, 2, 2))
    assert (spec.past("a"), spec.past("b")) == (2, 0)
    with pytest.raises(KeyError):
        spec.token_grid("d")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coarsen": (1, 0, 2)}, "must be positive"),
        ({"token_shape": (2, 3, 3)}, "'c' has 4 points in latitude, which tokens of 3"),
        ({"levels": (850, 850)}, "levels of 'c' repeat"),
        ({"levels": (700,)}, r"levels \[700.0\]: those of 'a' are \[500.0, 850.0\]"),
        ({"field": "aa"}, "one of 'aa', which is no field; did you mean 'a'"),
        ({"name": "b"}, "field names repeat"),
        ({"shape": (1, 4, 6), "token_shape": (1, 2, 3)}, "over 1 grid points in time"),
        ({"coarsen": (1, 1, 1), "shape": (2, 5, 6), "token_shape": (1, 1, 1)}, "must be even"),
        ({"shape": (4, 4, 300)}, "600 degrees of longitude, more than the whole circle"),
        ({"units": "K"}, "Extra inputs"),
    ],
)
def test_a_context_refuses(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        with_context(**changes)


def test_token_reference() -> None:
    content = make_spec().model_dump()
    assert content.pop("token_reference") == "center"
    assert InputSpec.model_validate(content) == make_spec()
    for reference in ("center", "atmorep-2024", "atmorep-2023"):
        spec = InputSpec.model_validate({**content, "token_reference": reference})
        assert InputSpec.model_validate_json(spec.model_dump_json()) == spec
        assert (spec == make_spec()) == (reference == "center")
    with pytest.raises(ValidationError, match="'center', 'atmorep-2024' or 'atmorep-2023'"):
        InputSpec.model_validate({**content, "token_reference": "atmorep"})


def test_the_default_reference_leaves_older_configurations_as_they_are() -> None:
    """Digests of models are made of what differs from the defaults."""
    assert "token_reference" not in make_spec().model_dump(exclude_defaults=True)


def test_is_frozen() -> None:
    with pytest.raises(ValidationError):
        make_spec().fields = ()
