"""Places of tokens in their neighborhood, and the encodings of them."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from xatmorep.tokens.spec import FieldSpec, InputSpec, LevelType, Shape

__all__ = ["atmorep_positions", "harmonic_positions", "token_places", "vertical_place"]

Number = TypeVar("Number", float, Tensor)

_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


def vertical_place(level: Number, level_type: LevelType) -> Number:
    """Place of a level between the top of the atmosphere (0) and the surface (1).

    The square root of pressure over 1000 hPa (or of sigma), because levels lie closer aloft; the
    number of a hybrid level over 137, the lowest one of ERA5; 1 at the surface.

    Examples
    --------
    >>> vertical_place(250.0, "pressure"), vertical_place(0.0, "surface")
    (0.5, 1.0)
    """
    if level_type == "surface":
        return level * 0 + 1
    if level_type == "hybrid":
        return level / 137
    return (level / 1000 if level_type == "pressure" else level) ** 0.5


def token_places(inputs: InputSpec, name: str) -> Tensor:
    """Places of the centers of all tokens of a field or context, (N, 4), float64.

    Columns: number of the level among those of all fields, from the top; time, latitude and
    longitude in grid points from the first corner of the neighborhood, which may be negative or
    beyond the last one for a context. Rows in (level, time, latitude, longitude) order.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 4), time_step=6, grid_step=(1, 1)),
    ...     fields=[FieldSpec(name="2m_temperature", units="K", token_shape=(2, 4, 2))],
    ... )
    >>> token_places(spec, "2m_temperature").tolist()
    [[0.0, 1.0, 2.0, 1.0], [0.0, 1.0, 2.0, 3.0]]
    """
    levels, _ = _level_numbers(inputs, name)
    sizes = zip(
        inputs.first_point(name), inputs.token_grid(name), inputs.token_extent(name), strict=True
    )
    axes = [
        levels,
        *([first + (i + 0.5) * size for i in range(n)] for first, n, size in sizes),
    ]
    # On the CPU also where a network is built on the meta device: this is no weight to be loaded.
    return torch.cartesian_prod(
        *(torch.tensor(axis, dtype=torch.float64, device="cpu") for axis in axes)
    )


def harmonic_positions(inputs: InputSpec, name: str, width: int) -> Tensor:
    """Sines and cosines of unit amplitude of each token's place, (N, width), float32.

    The place x of a token's center along each axis lies between 0 and 1: in the neighborhood, or
    among the levels of all fields. An axis with n places, in the field that is finest along it,
    gets pairs sin(pi f x), cos(pi f x) with frequencies f spread evenly between 1/2 and n/2, and
    a share of the width in proportion to log(n). So tokens look alike when they are near (the
    highest frequency has a period of four tokens), and no two look the same.

    Places in contexts go on beyond 0 and 1. If the largest context is r times as large as the
    neighborhood along an axis, frequencies begin at 1/(2 r), and n counts r times.

    The same place has the same encoding in every field and context, whatever the shape of its
    tokens; a narrower field has the first entries of a wider one.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(1, 2, 4), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 2)),),
    ... )
    >>> harmonic_positions(spec, "2m_temperature", width=2)  # 1/4 and 3/4 of the longitudes
    tensor([[0.3827, 0.9239],
            [0.9239, 0.3827]])
    """
    own, n_levels = _level_numbers(inputs, name)
    box = inputs.neighborhood.shape
    extents = [inputs.token_extent(entry.name) for entry in inputs.entries]
    smallest = [min(sizes) for sizes in zip(*extents, strict=True)]
    finest = [n_levels, *(n / size for n, size in zip(box, smallest, strict=True))]
    larger = [context.extent for context in inputs.contexts]
    reach = [1.0, *(max(sizes) / n for n, *sizes in zip(box, box, *larger, strict=True))]
    axes = [[(i + 0.5) / n_levels for i in own], *inputs.token_centers(name)]
    # On the CPU also where a network is built on the meta device: this is no weight to be loaded.
    cpu = torch.device("cpu")
    x = torch.cartesian_prod(*(torch.tensor(a, dtype=torch.float64, device=cpu) for a in axes))
    encoding = torch.zeros(len(x), width, dtype=torch.float64, device=cpu)
    n_pairs = [0, 0, 0, 0]
    places = [n * r for n, r in zip(finest, reach, strict=True)]
    for pair in range(width // 2 if max(places) > 1 else 0):
        # Room in proportion to the logarithm of n, as seats are given to parties (D'Hondt).
        axis = max((3, 2, 1, 0), key=lambda axis: math.log(places[axis]) / (n_pairs[axis] + 1))
        # Multiples of the golden ratio, modulo one, fill an interval evenly wherever one stops.
        lowest = 0.5 / reach[axis]
        frequency = lowest + (finest[axis] / 2 - lowest) * (n_pairs[axis] * _GOLDEN_RATIO % 1)
        encoding[:, 2 * pair] = torch.sin(math.pi * frequency * x[:, axis])
        encoding[:, 2 * pair + 1] = torch.cos(math.pi * frequency * x[:, axis])
        n_pairs[axis] += 1
    return encoding.float()


def _level_numbers(inputs: InputSpec, name: str) -> tuple[list[int], int]:
    """Numbers of a field's levels among those of all fields, from the top; how many all are."""
    every = sorted({place for field in inputs.fields for place in _vertical_places(field)})
    return [every.index(place) for place in _vertical_places(inputs.field(name))], len(every)


def _vertical_places(field: FieldSpec) -> list[float]:
    return [vertical_place(level, field.level_type) for level in field.levels or (0.0,)]


def atmorep_positions(n_levels: int, grid: Shape, width: int) -> Tensor:
    """Positional encoding of the published AtmoRep weights, (N, width), float32.

    With v the number of the level, tau, y, x those of the token in time, latitude and longitude,
    and w_k = 2 pi 2k / width: entry 2k is sin(8 y w_k) / 2 + sin(tau w_k), entry 2k + 1 is
    cos(8 x w_k) / 2 + cos(v w_k). As in the original, y counts rows as if they had as many tokens
    as there are in latitude, and all steps are done in float32 (the angles reach hundreds, so that
    the rounding shows).
    """
    t, a, o = grid
    n = torch.arange(n_levels * t * a * o, device="cpu")
    level, time, place = n // (t * a * o), n % (t * a * o) // (a * o), n % (a * o)
    y, x = place // a, place % o
    even = torch.arange(0, width, 2, device="cpu")
    frequency = torch.tensor(2 * math.pi, dtype=torch.float32, device="cpu") * even / width
    sine = 0.5 * torch.sin(8 * y[:, None] * frequency) + torch.sin(time[:, None] * frequency)
    cosine = 0.5 * torch.cos(8 * x[:, None] * frequency) + torch.cos(level[:, None] * frequency)
    return torch.stack([sine, cosine], dim=-1).flatten(1)[:, :width]
