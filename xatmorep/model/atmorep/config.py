"""From the settings of a published AtmoRep model to our configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xatmorep.data.names import FIELDS, Field, fields_by_alias
from xatmorep.errors import CheckpointError, ConfigError
from xatmorep.model.atmorep.settings import FieldSettings, Settings
from xatmorep.model.config import ModelConfig
from xatmorep.strict import closest, validate
from xatmorep.tokens.spec import InputSpec

__all__ = ["PUBLISHED_FIELDS", "canonical_names", "field_spec", "model_config", "network_config"]

PUBLISHED_FIELDS = (
    *("vorticity", "divergence", "velocity_u", "velocity_v", "velocity_z"),
    *("temperature", "specific_humidity", "total_precip"),
)
"""Fields of the published models, as AtmoRep calls them."""


def canonical_names(settings: Settings, where: str) -> dict[str, str]:
    """Canonical name of each field by AtmoRep's name.

    Raises
    ------
    CheckpointError
        If a field is unknown, or stands at the surface here and on levels there.
    """
    return {field.name: _known(field, where).name for field in settings.fields}


def model_config(settings: Settings, per_head: bool, where: str) -> ModelConfig:
    """Configuration of a published model.

    Parameters
    ----------
    settings : Settings
        What its configuration file says.
    per_head : bool
        Whether its weights have one matrix for each head (until spring 2024), which says where
        queries and keys are normalized.
    where : str
        Name of the configuration file, for messages.

    Raises
    ------
    CheckpointError
        If a field is unknown or the settings don't fit together.
    """
    names = canonical_names(settings, where)
    _check_boxes(settings, where)
    hours, *degrees = settings.n_size
    time, latitude, longitude = settings.fields[0].points
    inputs = {
        "neighborhood": {
            "shape": (time, latitude, longitude),
            "time_step": hours / time,
            "grid_step": (degrees[0] / latitude, degrees[1] / longitude),
        },
        "fields": [
            field_spec(field, names[field.name], _known(field, where).units)
            for field in settings.fields
        ],
        "token_reference": f"atmorep-{settings.generation}",
    }
    try:
        return network_config(settings, inputs, names, per_head, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def network_config(
    settings: Settings,
    inputs: InputSpec | dict[str, Any],
    names: Mapping[str, str],
    per_head: bool,
    where: str,
) -> ModelConfig:
    """Configuration of the network, for inputs that name AtmoRep's fields as `names` says.

    Raises
    ------
    ConfigError
        If the settings don't fit together.
    """
    predicted = {name for name, _ in settings.predicted}
    norm = "plain" if settings.with_qk_lnorm else "none"
    content = {
        "inputs": inputs,
        "networks": {
            names[field.name]: {
                "width": field.width,
                "coupled": [names.get(other, other) for other in field.coupled],
                "predicted": field.name in predicted,
            }
            for field in settings.fields
        },
        "encoder": {
            "layers": settings.encoder_num_layers,
            "heads": settings.encoder_num_heads,
            "coupling_heads": max(settings.coupling_num_heads_per_field, 1),
            "mlp_layers": max(settings.encoder_num_mlp_layers, 2),
            "qk_norm": norm,
            "qk_norm_cross_query": per_head,
        },
        "decoder": {
            "layers": settings.decoder_num_layers,
            "heads": settings.decoder_num_heads,
            "cross_ratio": settings.decoder_cross_att_ratio,
            "cross_rate": settings.decoder_cross_att_rate,
            "mlp_layers": max(settings.decoder_num_mlp_layers, 2),
            # With fused matrices the norm of the decoder has parameters and ignores the flag.
            "qk_norm": norm if per_head else "affine",
        },
        "tail": {
            "members": settings.net_tail_num_nets,
            "hidden_layers": settings.net_tail_num_layers,
        },
        "positional_encoding": "atmorep",
        "token_info": "raw-2023" if settings.generation == "2023" else "raw",
        "token_info_width": settings.size_token_info_net,
        "mask_embedding": False,
        "layer_norm": settings.with_layernorm,
        "mlp_output_activation": True,
        "dropout": settings.dropout_rate,
    }
    return validate(ModelConfig, content, where)


def field_spec(field: FieldSettings, name: str, units: str) -> dict[str, Any]:
    """Content of the `FieldSpec` of one field, under another name."""
    surface = field.levels == (0,)
    return {
        "name": name,
        "units": units,
        "token_shape": field.token_shape,
        "levels": () if surface else field.levels,
        "level_type": "surface" if surface else "hybrid",
    }


def _known(field: FieldSettings, where: str) -> Field:
    found = {known.name: known for known in fields_by_alias(field.name)}
    if field.name in FIELDS:
        found[field.name] = FIELDS[field.name]
    surface = field.levels == (0,)
    fitting = [known for known in found.values() if known.levels != surface]
    if len(fitting) == 1:
        return fitting[0]
    if found:
        place = "at the surface (level 0)" if surface else f"on levels {field.levels}"
        raise CheckpointError(f"{where} has the field {field.name!r} {place}, which is not known")
    raise CheckpointError(
        f"{where} has the field {field.name!r}, which is not known"
        f"{closest(field.name, PUBLISHED_FIELDS)}"
    )


def _check_boxes(settings: Settings, where: str) -> None:
    first = settings.fields[0]
    for field in settings.fields:
        if field.points != first.points:
            raise CheckpointError(
                f"{where} has tokens of {first.name!r} that cover {first.points} points in (time, "
                f"latitude, longitude) and tokens of {field.name!r} that cover {field.points}: a "
                "model reads the same box of all its fields"
            )
