"""Features of a token from its parts, by a small transformer that serves tokens of any size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xatmorep.errors import ConfigError
from xatmorep.model.attention import Attention
from xatmorep.model.config import ModelConfig
from xatmorep.model.encoder import FeedForward, plain_norm
from xatmorep.tokens.spec import Shape

__all__ = [
    "SubTokenLayer",
    "SubTokenTransformer",
    "cut",
    "places",
    "random_crops",
    "random_middle",
]

Steps = tuple[float, float, float]
"""A distance in (hours, degrees of latitude, degrees of longitude)."""

WAVES = 4
"""Wavelengths along each axis in the encoding of a sub-token's place."""

MOST_SEQUENCES = 2**15
"""Sequences in one call of fused attention: a CUDA grid has at most 2**16 - 1 of them."""


class SubTokenTransformer(nn.Module):
    """Features of tokens of any shape, (..., t, a, o) to (..., D), from sub-tokens of one shape.

    A token is cut into sub-tokens, whose values v are mapped linearly. Of the place p of each in
    its token come a factor and a summand, so that the features are ``(A v) * (B p) + C p``;
    transformer layers mix the sub-tokens of a token, and the mean over them is normalized. Places
    are waves of the offset from the token's center in hours and degrees, see `places`: a part of
    a token and the token around it are seen in the same way. (Without the factor, means over
    sub-tokens tell little of the pattern in a token before the layers have learned to look.)

    In training, features are made from a random part of a token (see `random_crops`) with the
    probability ``config.embedding.crops``. What is drawn comes from torch's global generator of
    the device, as for dropout.

    Parameters
    ----------
    config : ModelConfig
        With an embedding of the kind ``"transformer"``.

    Attributes
    ----------
    layers : sequence of SubTokenLayer
        The layers, from first to last.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        embedding, box = config.embedding, config.inputs.neighborhood
        if embedding.sub_token is None:
            raise ConfigError("a linear embedding has no sub-tokens")
        self.sub_token, self.crops = embedding.sub_token, embedding.crops
        self.values = nn.Linear(math.prod(self.sub_token), embedding.width)
        self.factor = nn.Linear(3 * 2 * WAVES, embedding.width, bias=False)
        self.summand = nn.Linear(3 * 2 * WAVES, embedding.width, bias=False)
        self.layers = cast(
            "Sequence[SubTokenLayer]",
            nn.ModuleList(
                SubTokenLayer(embedding.width, embedding.heads, config.dropout)
                for _ in range(embedding.layers)
            ),
        )
        # As in `harmonic_positions`: neighbors differ, and the whole neighborhood is half a wave.
        steps = (box.time_step, *box.grid_step)
        self.waves = tuple(
            (4 * size * step, max(2 * points, 4 * size) * step)
            for size, points, step in zip(self.sub_token, box.shape, steps, strict=True)
        )

    def forward(self, values: Tensor, steps: Steps, crops: float | None = None) -> Tensor:
        """Features of tokens.

        Parameters
        ----------
        values : Tensor
            (..., t, a, o), finite.
        steps : tuple of float
            Hours and degrees between two points in (time, latitude, longitude).
        crops : float, optional
            Share of the tokens of which only a random part is seen; that of the configuration in
            training and none otherwise, if not given.

        Returns
        -------
        Tensor
            (..., D), of mean zero and unit variance.

        Raises
        ------
        ConfigError
            If the sub-tokens don't divide the tokens.
        """
        *lead, t, a, o = values.shape
        grid = self.grid((t, a, o))
        tokens = cut(values, self.sub_token)
        if crops is None:
            crops = self.crops if self.training else 0.0
        seen = random_crops(len(tokens), grid, crops, device=values.device) if crops else None
        dtype = torch.promote_types(self.factor.weight.dtype, torch.float32)
        sizes = [size * step for size, step in zip(self.sub_token, steps, strict=True)]
        place = places(grid, sizes, self.waves, dtype, values.device).to(self.factor.weight.dtype)
        x = self.values(tokens) * self.factor(place) + self.summand(place)
        for layer in self.layers:
            x = layer(x, seen)
        if seen is None:
            mean = x.mean(1)
        else:
            mean = (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return plain_norm(mean).reshape(*lead, mean.shape[-1])

    def grid(self, token_shape: Shape) -> Shape:
        """Number of sub-tokens in a token, in (time, latitude, longitude).

        Raises
        ------
        ConfigError
            If they don't divide the token.
        """
        if any(n % size or not n for n, size in zip(token_shape, self.sub_token, strict=True)):
            raise ConfigError(
                f"tokens of {token_shape} points can't be cut into sub-tokens of {self.sub_token}: "
                "each size has to be a multiple"
            )
        t, a, o = (n // size for n, size in zip(token_shape, self.sub_token, strict=True))
        return t, a, o

    def flops(self, tokens: int, token_shape: Shape) -> int:
        """Floating point operations of the matrix products for a number of tokens."""
        n = math.prod(self.grid(token_shape))
        place = self.factor.weight.numel() + self.summand.weight.numel()
        linear = tokens * n * self.values.weight.numel() + n * place
        return 2 * linear + tokens * sum(layer.flops(n) for layer in self.layers)


class SubTokenLayer(nn.Module):
    """A transformer layer with layer norm before attention and before the feed-forward block.

    Parameters
    ----------
    width : int
        Width D of the features.
    heads : int
        Attention heads of D / heads entries.
    dropout : float
        Rate of dropout after attention and in the feed-forward block.

    Examples
    --------
    >>> SubTokenLayer(8, heads=2, dropout=0.0)(torch.randn(5, 4, 8), None).shape
    torch.Size([5, 4, 8])
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, width // heads)
        self.feed_forward = FeedForward(width, 2, dropout, output_activation=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Update sub-tokens (N, S, D); bool (N, S) says to which of them attention may look."""
        [(query, key, value)] = self.attention.project(plain_norm(x), [])
        mask = None if seen is None else seen[:, None, None]
        mixed = _attend(query, key, value, mask)
        x = x + self.dropout(self.attention.out(mixed.transpose(1, 2).flatten(2)))
        y: Tensor = x + self.feed_forward(plain_norm(x))
        return y

    def flops(self, n: int) -> int:
        """Floating point operations of the matrix products for one token of n sub-tokens."""
        linear = sum(p.numel() for p in self.feed_forward.parameters() if p.ndim == 2)
        return self.attention.flops(n) + 2 * n * linear


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of many short sequences, in as many calls as the fused kernels need."""
    parts = [x.split(MOST_SEQUENCES) for x in (query, key, value)]
    masks = [None] * len(parts[0]) if mask is None else mask.split(MOST_SEQUENCES)
    mixed = [F.scaled_dot_product_attention(*part) for part in zip(*parts, masks, strict=True)]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def cut(values: Tensor, sub_token: Shape) -> Tensor:
    """Cut tokens (..., t, a, o) into sub-tokens: (N, S, P), all tokens in one dimension.

    Examples
    --------
    >>> cut(torch.arange(8).reshape(1, 1, 2, 4), (1, 2, 2))
    tensor([[[0, 1, 4, 5],
             [2, 3, 6, 7]]])
    """
    *lead, t, a, o = values.shape
    dt, da, do = sub_token
    x = values.reshape(math.prod(lead), t // dt, dt, a // da, da, o // do, do)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def places(
    grid: Shape,
    sizes: Sequence[float],
    waves: Sequence[tuple[float, float]],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Sines and cosines of the offset of each sub-token from the center of its token.

    Parameters
    ----------
    grid : tuple of int
        Number of sub-tokens in (time, latitude, longitude).
    sizes : sequence of float
        Distance between two of them along each axis.
    waves : sequence of (float, float)
        Shortest and longest wavelength along each axis; there are four, in a geometric series.

    Returns
    -------
    Tensor
        (S, 24): four sines and four cosines for each axis.

    Examples
    --------
    >>> places((1, 1, 2), (6, 2, 2), [(24, 96), (8, 32), (8, 32)])[:, [16, 20]]  # west, east
    tensor([[-0.7071,  0.7071],
            [ 0.7071,  0.7071]])
    """
    parts = []
    for axis, (n, size, (shortest, longest)) in enumerate(zip(grid, sizes, waves, strict=True)):
        offset = (torch.arange(n, dtype=dtype, device=device) - (n - 1) / 2) * size
        ratio = torch.arange(WAVES, dtype=dtype, device=device) / (WAVES - 1)
        wavelength = shortest * (longest / shortest) ** ratio
        angle = 2 * math.pi * offset[:, None] / wavelength
        shape = [1, 1, 1, 2 * WAVES]
        shape[axis] = n
        wave = torch.cat([angle.sin(), angle.cos()], dim=-1)
        parts.append(wave.reshape(shape).expand(*grid, -1))
    return torch.cat(parts, dim=-1).flatten(0, 2)


def random_crops(
    tokens: int,
    grid: Shape,
    share: float,
    *,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a box of sub-tokens for each token.

    Parameters
    ----------
    tokens : int
        Number N of tokens.
    grid : tuple of int
        Number of sub-tokens in (time, latitude, longitude).
    share : float
        Probability of a box that may be smaller than the token; else it is the whole token. The
        length along each axis is uniform between one and all sub-tokens, and so is the place
        among those that are left.
    device : torch.device or str, optional
        Where to draw.
    generator : torch.Generator, optional
        Source of the draw, on the same device; torch's global one if not given.

    Returns
    -------
    Tensor
        bool, (N, S): True for sub-tokens in the box, which are one at least.

    Examples
    --------
    >>> random_crops(3, (1, 1, 4), 1.0, generator=torch.Generator().manual_seed(2)).int()
    tensor([[0, 0, 1, 1],
            [1, 1, 1, 1],
            [1, 1, 1, 0]], dtype=torch.int32)
    """
    draw = torch.rand(7, tokens, 1, dtype=torch.float32, device=device, generator=generator)
    whole = (draw[6] >= share)[..., None, None]
    box = torch.ones(tokens, *grid, dtype=torch.bool, device=device)
    for axis, n in enumerate(grid):
        length = (draw[2 * axis] * n).long() + 1
        start = (draw[2 * axis + 1] * (n - length + 1)).long()
        index = torch.arange(n, device=device)
        shape = [tokens, 1, 1, 1]
        shape[axis + 1] = n
        box = box & ((index >= start) & (index < start + length)).reshape(shape)
    return (whole | box).flatten(1)


def random_middle(
    values: Tensor, sub_token: Shape, *, generator: torch.Generator | None = None
) -> Tensor:
    """Cut smaller tokens from the middle of tokens, all of one size that is drawn.

    Parameters
    ----------
    values : Tensor
        (..., t, a, o)
    sub_token : tuple of int
        Points of a sub-token in (time, latitude, longitude); they divide both sizes.
    generator : torch.Generator, optional
        Source of the draw, on the CPU; torch's global one if not given.

    Returns
    -------
    Tensor
        Any of the smaller sizes with equal probability; the tokens themselves if there is none.
        The centers are the same, or half a point apart where the grid has no point there.

    Examples
    --------
    >>> random_middle(torch.arange(24).reshape(1, 2, 12), (1, 2, 8))
    tensor([[[ 2,  3,  4,  5,  6,  7,  8,  9],
             [14, 15, 16, 17, 18, 19, 20, 21]]])
    """
    shape = tuple(values.shape[-3:])
    lengths = [range(size, n + 1, size) for n, size in zip(shape, sub_token, strict=True)]
    sizes = [size for size in itertools.product(*lengths) if size != shape] or [shape]
    number = int(torch.randint(len(sizes), (), generator=generator))
    for axis, (n, size) in enumerate(zip(shape, sizes[number], strict=True)):
        values = values.narrow(axis - 3, (n - size) // 2, size)
    return values
