"""Small configurations and inputs that the tests of the network share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from xatmorep.model.config import (
    DecoderConfig,
    EncoderConfig,
    FieldNetwork,
    ModelConfig,
    TailConfig,
)
from xatmorep.model.inputs import NetworkInput
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec, StaticSpec

WIND = FieldSpec(name="10m_u_component_of_wind", units="m s-1", token_shape=(1, 2, 3))
TEMPERATURE = FieldSpec(
    name="temperature",
    units="K",
    token_shape=(2, 4, 2),
    levels=(500, 850, 1000),
    level_type="pressure",
)
VORTICITY = FieldSpec(
    name="vorticity", units="s-1", token_shape=(2, 2, 6), levels=(123, 137), level_type="hybrid"
)
OROGRAPHY = StaticSpec(name="geopotential_at_surface", units="m2 s-2")

COUPLED = {
    WIND.name: FieldNetwork(width=8, coupled=(TEMPERATURE.name, VORTICITY.name)),
    TEMPERATURE.name: FieldNetwork(width=12, coupled=(WIND.name,)),
    VORTICITY.name: FieldNetwork(width=8, coupled=(TEMPERATURE.name,), predicted=False),
}
"""Three fields that differ in width, tokens and levels; the third is read but not predicted."""

PARTS: dict[str, Any] = {"kind": "transformer", "sub_token": (1, 2, 1), "width": 8, "heads": 2}
"""A transformer for embedding, with sub-tokens that divide the tokens of these fields."""


def spec(
    fields: Sequence[FieldSpec] = (WIND, TEMPERATURE, VORTICITY), *, statics: bool = False
) -> InputSpec:
    return InputSpec(
        neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
        fields=tuple(fields),
        statics=(OROGRAPHY,) if statics else (),
    )


def config(
    inputs: InputSpec | None = None,
    networks: dict[str, FieldNetwork] | None = None,
    *,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    tail: dict[str, Any] | None = None,
    **options: Any,
) -> ModelConfig:
    return ModelConfig(
        inputs=inputs or spec(),
        networks=networks or COUPLED,
        encoder=EncoderConfig(**{"layers": 2, "heads": 2, **(encoder or {})}),
        decoder=DecoderConfig(**{"layers": 2, "heads": 4, **(decoder or {})}),
        tail=TailConfig(**{"members": 3, **(tail or {})}),
        **options,
    )


def atmorep(**options: Any) -> ModelConfig:
    """The same three fields as the published AtmoRep networks are built."""
    return config(
        encoder={"coupling_heads": 2, "qk_norm": "plain", "qk_norm_cross_query": False},
        decoder={"qk_norm": "affine"},
        **{
            "positional_encoding": "atmorep",
            "token_info": "raw",
            "token_info_width": 4,
            "mask_embedding": False,
            "mlp_output_activation": True,
            **options,
        },
    )


def inputs(of: ModelConfig, batch: int = 2, seed: int = 0, rate: float = 0.5) -> NetworkInput:
    """Random tokens and info, some of them blank."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    result = NetworkInput(tokens={}, info={}, blank={})
    for field in of.inputs.fields:
        grid = (batch, field.n_levels, *of.inputs.token_grid(field.name))
        levels = torch.tensor(field.levels or (0.0,)).reshape(-1, 1, 1, 1).expand(grid)
        result.tokens[field.name] = torch.randn(*grid, field.points_per_token, generator=generator)
        result.info[field.name] = torch.stack(
            [
                1980 + (40 * uniform(*grid)).floor(),
                1 + (365 * uniform(*grid)).floor(),
                24 * uniform(*grid),
                levels,
                180 * uniform(*grid) - 90,
                360 * uniform(*grid),
                torch.ones(grid),
            ],
            dim=-1,
        )
        result.blank[field.name] = uniform(*grid) < rate
        if of.inputs.statics:
            _, a, o = field.token_shape
            static_shape = (batch, *grid[3:], len(of.inputs.statics) * a * o)
            result.statics[field.name] = torch.randn(static_shape, generator=generator)
    return result
