"""The network's configuration: what is refused, in which words, and what is saved."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.model import networks
from tests.model.networks import TEMPERATURE, VORTICITY, WIND
from xatmorep.model.config import FieldNetwork, ModelConfig


def test_json_round_trip() -> None:
    for config in (
        networks.config(networks.spec(statics=True)),
        networks.atmorep(),
        networks.config(embedding=networks.PARTS),
    ):
        assert ModelConfig.model_validate_json(config.model_dump_json()) == config
        assert ModelConfig.model_validate(config.model_dump(mode="json")) == config


def test_configurations_from_before_there_was_a_choice_of_embeddings() -> None:
    config = networks.config()
    assert "embedding" not in config.model_dump(exclude_defaults=True)
    older = config.model_dump(mode="json")
    assert older.pop("embedding")["kind"] == "linear"
    assert ModelConfig.model_validate(older) == config


def test_predicted_fields_are_in_the_order_of_the_inputs() -> None:
    assert networks.config().predicted == (WIND.name, TEMPERATURE.name)
    turned = networks.config(networks.spec((TEMPERATURE, VORTICITY, WIND)))
    assert turned.predicted == (TEMPERATURE.name, WIND.name)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        networks.config().dropout = 0.5  # type: ignore[misc]


def alone(**network: Any) -> dict[str, Any]:
    """Arguments for a model of the wind alone."""
    return {
        "inputs": networks.spec((WIND,)),
        "networks": {WIND.name: FieldNetwork(**{"width": 8, **network})},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"networks": {WIND.name: FieldNetwork(width=8)}}, "one entry for each field"),
        (
            alone(width=10),
            "width 10 of '10m_u_component_of_wind' is not divisible by the 2 encoder",
        ),
        (alone(coupled=("temperature",)), r"coupled to \['temperature'\]: it must be other fields"),
        (alone(coupled=(WIND.name,)), "must be other fields"),
        (alone(predicted=False), "at least one field must be predicted"),
        ({**alone(), "token_info_width": 8}, "leaves no room beside token_info_width 8"),
        ({"decoder": {"cross_ratio": 0.2}}, "of 4 decoder heads leaves 0 cross heads"),
        ({"decoder": {"cross_ratio": 1.0}}, "less than 1"),
        ({"decoder": {"layers": 3}}, "lower cross_rate"),
        ({"encoder": {"mlp_layers": 1}}, "greater than or equal to 2"),
        ({"encoder": {"head": 2}}, "Extra inputs are not permitted"),
        ({"tail": {"members": 0}}, "greater than 0"),
        ({"embedding": {"kind": "convolution"}}, "'linear' or 'transformer'"),
        ({"embedding": {"sub_token": (1, 2, 1)}}, "a linear embedding has no sub_token: leave it"),
        ({"embedding": {"shared": True, "crops": 0.5}}, "has no crops, shared"),
        ({"embedding": {"kind": "transformer"}}, "needs a sub_token of positive sizes, found None"),
        ({"embedding": {**networks.PARTS, "sub_token": (1, 0, 1)}}, r"found \(1, 0, 1\)"),
        ({"embedding": {**networks.PARTS, "heads": 3}}, "width 8 is not divisible by 3 heads"),
        ({"embedding": {**networks.PARTS, "crops": 1.5}}, "less than or equal to 1"),
        ({"embedding": {**networks.PARTS, "size": 1}}, "Extra inputs are not permitted"),
        (
            {"embedding": {**networks.PARTS, "sub_token": (1, 4, 1)}},
            r"sub_token \(1, 4, 1\) does not divide the tokens of '10m_u_component_of_wind', "
            r"\(1, 2, 3\)",
        ),
        ({"dropout": 1.0}, "less than 1"),
        ({"positional_encoding": "sine"}, "'harmonic' or 'atmorep'"),
        ({"token_info": "none"}, "'scaled', 'raw' or 'raw-2023'"),
        ({"colour": "blue"}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        networks.config(**arguments)


def test_repeated_coupling_is_refused() -> None:
    coupled = {
        **networks.COUPLED,
        WIND.name: FieldNetwork(width=8, coupled=(TEMPERATURE.name, TEMPERATURE.name)),
    }
    with pytest.raises(ValidationError, match="each once"):
        networks.config(networks=coupled)
