"""From tokens to features: values, token info, static context, and the place in the box."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xatmorep.errors import ConfigError
from xatmorep.model.config import ModelConfig
from xatmorep.model.positions import atmorep_positions, harmonic_positions, vertical_place
from xatmorep.model.subtokens import SubTokenTransformer
from xatmorep.tokens.spec import LevelType

__all__ = [
    "Embedding",
    "raw_info",
    "scaled_info",
]


class Embedding(nn.Module):
    """Features of one field's tokens, (B, L, T, A, O, P) to (B, N, D) with N = L * T * A * O.

    Sum of the features of the token's values, a linear map of its info, a linear map of the static
    fields below it, a learned vector if its values are withheld, and the positional encoding. If
    ``config.token_info_width`` is w > 0, the features of values and the learned vector fill the
    first D - w entries and the info the last w ones, as in AtmoRep.

    The features of values are a linear map of all of them, or one of what a `SubTokenTransformer`
    makes of them; that is trained on tokens with values only, and those withheld have features
    zero.

    Parameters
    ----------
    config : ModelConfig
    name : str
        Canonical name of the field.
    shared : SubTokenTransformer, optional
        The one that all fields share, which is not part of this module. An own one, where the
        configuration asks for any, if not given.

    Attributes
    ----------
    sub_tokens : SubTokenTransformer or None
        None if the embedding is linear.
    """

    positions: Tensor
    sub_tokens: SubTokenTransformer | None

    def __init__(
        self, config: ModelConfig, name: str, shared: SubTokenTransformer | None = None
    ) -> None:
        super().__init__()
        spec, width = config.inputs.field(name), config.networks[name].width
        _, a, o = self.token_shape = spec.token_shape
        box, (k, m, n) = config.inputs.neighborhood, config.inputs.coarsening(name)
        self.steps = (k * box.time_step, m * box.grid_step[0], n * box.grid_step[1])
        self.name, self.level_type = name, spec.level_type
        self.raw, self.day_fraction = config.token_info != "scaled", config.token_info == "raw-2023"
        self.shape = (spec.n_levels, *config.inputs.token_grid(name), spec.points_per_token)
        self.concatenate = config.token_info_width > 0
        value_width = width - config.token_info_width
        if shared is not None:
            # No submodule: its weights are counted and saved once, with the network.
            object.__setattr__(self, "sub_tokens", shared)
        elif config.embedding.kind == "transformer":
            self.sub_tokens = SubTokenTransformer(config)
        else:
            self.sub_tokens = None
        inner = spec.points_per_token if self.sub_tokens is None else config.embedding.width
        self.values = nn.Linear(inner, value_width)
        self.info = nn.Linear(8 if self.raw else 11, config.token_info_width or width)
        n_static = len(config.inputs.statics) * a * o
        self.statics = nn.Linear(n_static, width, bias=False) if n_static else None
        self.blank = nn.Parameter(torch.zeros(value_width)) if config.mask_embedding else None
        if config.positional_encoding == "atmorep":
            positions = atmorep_positions(spec.n_levels, config.inputs.token_grid(name), width)
        else:
            positions = harmonic_positions(config.inputs, name, width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(
        self, tokens: Tensor, info: Tensor, blank: Tensor, statics: Tensor | None
    ) -> Tensor:
        """Embed one field; arguments as in `NetworkInput`.

        Raises
        ------
        ConfigError
            If the tokens or the statics are not those of the configuration.
        """
        self._check(tokens, statics)
        # Zero, so that not even a gradient can tell what was there.
        tokens = tokens.masked_fill(blank[..., None], 0.0)
        values = self.embed_values(tokens.unflatten(-1, self.token_shape))
        if self.sub_tokens is not None:
            values = values.masked_fill(blank[..., None], 0.0)
        if self.blank is not None:
            values = values + blank[..., None] * self.blank
        described = self._describe(info).to(values.dtype)
        x = torch.cat([values, described], dim=-1) if self.concatenate else values + described
        if self.statics is not None:
            x = x + self.statics(statics)[:, None, None]
        return x.flatten(1, 4) + self.positions

    def embed_values(self, values: Tensor, *, crops: float | None = None) -> Tensor:
        """Features of values alone, without info, place and static fields.

        Parameters
        ----------
        values : Tensor
            (..., t, a, o): normalized values of tokens, finite. A linear embedding takes tokens of
            the configuration's shape; a transformer takes any that its sub-tokens divide, with the
            points in the same distance from each other.
        crops : float, optional
            Share of the tokens of which a transformer sees only a random part; that of the
            configuration in training and none otherwise, if not given.

        Returns
        -------
        Tensor
            (..., D), or D - w entries where token info has w of its own.

        Raises
        ------
        ConfigError
            If the shape of the tokens is none that this embedding can take.

        Examples
        --------
        The same place as a token of 2 x 4 x 4 points, and as the 2 x 2 x 2 in the middle of it:

        >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
        >>> config = ModelConfig(
        ...     inputs=InputSpec(
        ...         neighborhood=NeighborhoodSpec(shape=(4, 8, 8), time_step=6, grid_step=(1, 1)),
        ...         fields=[FieldSpec(name="u", units="m s-1", token_shape=(2, 4, 4))],
        ...     ),
        ...     networks={"u": {"width": 16}},
        ...     embedding={"kind": "transformer", "sub_token": (2, 1, 1)},
        ...     encoder={"layers": 1, "heads": 4},
        ...     decoder={"layers": 1, "heads": 4},
        ...     tail={"members": 2},
        ... )
        >>> embedding, values = Embedding(config, "u").eval(), torch.randn(5, 2, 4, 4)
        >>> embedding.embed_values(values).shape
        torch.Size([5, 16])
        >>> embedding.embed_values(values[..., 1:3, 1:3]).shape
        torch.Size([5, 16])
        """
        if self.sub_tokens is not None:
            return self.values(self.sub_tokens(values, self.steps, crops))
        if tuple(values.shape[-3:]) != self.token_shape:
            raise ConfigError(
                f"the linear embedding of {self.name!r} takes tokens of {self.token_shape} points "
                f"only, not of {tuple(values.shape[-3:])}; one of the kind 'transformer' takes any "
                "that its sub-tokens divide"
            )
        return self.values(values.flatten(-3))

    def _describe(self, info: Tensor) -> Tensor:
        """Linear map of the token info, in float32 at least: bfloat16 cannot hold a year."""
        dtype = torch.promote_types(self.info.weight.dtype, torch.float32)
        with torch.autocast(info.device.type, enabled=False):
            info = info.to(dtype)
            if self.raw:
                features = raw_info(info, day_fraction=self.day_fraction)
            else:
                features = scaled_info(info, self.level_type)
            return F.linear(features, self.info.weight.to(dtype), self.info.bias.to(dtype))

    def flops(self) -> int:
        """Floating point operations of the matrix products for one neighborhood."""
        _, _, a, o, _ = self.shape
        n = len(self.positions)
        below = a * o * self.statics.weight.numel() if self.statics is not None else 0
        inside = self.sub_tokens.flops(n, self.token_shape) if self.sub_tokens is not None else 0
        linear = n * (self.values.weight.numel() + self.info.weight.numel()) + below
        return 2 * linear + inside

    def _check(self, tokens: Tensor, statics: Tensor | None) -> None:
        if tuple(tokens.shape[1:]) != self.shape:
            raise ConfigError(
                f"tokens of {self.name!r} have shape {tuple(tokens.shape)}; this model needs "
                f"(batch, level, time, latitude, longitude, point) = (any, "
                f"{', '.join(map(str, self.shape))})"
            )
        if (statics is None) != (self.statics is None):
            raise ConfigError(
                f"static fields of {self.name!r} are {'missing' if statics is None else 'given'}, "
                f"but this model {'needs' if statics is None else 'has no'} static fields"
            )


def scaled_info(info: Tensor, level_type: LevelType) -> Tensor:
    """Bounded features of the token info, periodic where the quantity is.

    Parameters
    ----------
    info : Tensor
        (..., 7) in the order of `NetworkInput.info`.
    level_type : str
        Kind of vertical coordinate, see `vertical_place`.

    Returns
    -------
    Tensor
        (..., 11): sine and cosine of the day of the year (period 365.25 days), of the hour
        (24 hours), of latitude and of longitude; (year - 2000) / 50; place of the level between 0
        (top) and 1 (surface); decimal logarithm of the resolution in degrees.

    Examples
    --------
    >>> info = torch.tensor([2000.0, 1.0, 6.0, 250.0, -90.0, 180.0, 0.1])
    >>> [round(x, 2) + 0.0 for x in scaled_info(info, "pressure").tolist()]
    [0.0, 1.0, 1.0, 0.0, -1.0, 0.0, 0.0, -1.0, 0.0, 0.5, -1.0]
    """
    year, day, hour, level, latitude, longitude, resolution = info.unbind(-1)
    angles = torch.stack(
        [
            (day - 1) * (2 * math.pi / 365.25),
            hour * (2 * math.pi / 24),
            torch.deg2rad(latitude),
            torch.deg2rad(longitude),
        ],
        dim=-1,
    )
    periodic = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    others = [(year - 2000) / 50, vertical_place(level, level_type), resolution.log10()]
    return torch.cat([periodic, torch.stack(others, dim=-1)], dim=-1)


def raw_info(info: Tensor, *, day_fraction: bool = False) -> Tensor:
    """Numbers and order of AtmoRep's token info, (..., 7) to (..., 8).

    Parameters
    ----------
    info : Tensor
        (..., 7) in the order of `NetworkInput.info`.
    day_fraction : bool
        Whether the day has the hours as its fraction, as in 2023.

    Returns
    -------
    Tensor
        Year, day of the year counted from 0, hour, level, colatitude, longitude, level again,
        resolution; in the dtype of `info`. A day with its fraction is rounded to float32 once,
        like the original's.

    Examples
    --------
    >>> raw_info(torch.tensor([2021.0, 1.0, 6.0, 137.0, 60.0, 10.0, 0.25])).tolist()
    [2021.0, 0.0, 6.0, 137.0, 30.0, 10.0, 137.0, 0.25]
    >>> raw_info(torch.tensor([2021.0, 1.0, 6.0, 137.0, 60.0, 10.0, 0.25]), day_fraction=True)[1]
    tensor(0.2500)
    """
    year, day, hour, level, latitude, longitude, resolution = info.unbind(-1)
    day = day - 1
    if day_fraction:
        day = (day.double() + hour.double() / 24).float().to(day.dtype)
    return torch.stack(
        [year, day, hour, level, 90 - latitude, longitude, level, resolution], dim=-1
    )
