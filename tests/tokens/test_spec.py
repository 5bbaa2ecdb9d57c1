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
