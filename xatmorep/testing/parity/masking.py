"""What the original code hides of one level of a field, and what it puts in the place of it.

Our own training hides tokens in another way (`xatmorep.objectives.masking`). These functions give
what the network of the published weights saw in training, from recorded draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MaskedLevel", "bert", "forecast", "temporal_interpolation"]

# Largest factor of the refinement; a setting of the original has no effect on it.
_FINEST = 2
_NOISE = 0.1


class MaskedLevel(NamedTuple):
    """One level of a field with some of its tokens hidden.

    Attributes
    ----------
    source : (B, T, A, O, t, a, o) float32 Tensor
        What the network reads.
    target : (N, t * a * o) float32 Tensor
        Values of the hidden tokens as they were: batch entry after batch entry, in the order of
        `indices`.
    indices : list of (n,) int64 Tensor
        Hidden tokens of each batch entry b: ``b * T * A * O`` plus the number of the token in
        (time, latitude, longitude) order.
    """

    source: Tensor
    target: Tensor
    indices: list[Tensor]


def bert(
    tokens: Tensor, draws: Mapping[str, Tensor], rates: tuple[float, float, float, float]
) -> MaskedLevel:
    """Hide random tokens: masked, mixed with noise, refined, or left as they are.

    Each of the three may happen to the same token, in this order. The number of hidden tokens of
    batch entry b is ``ceil(T * A * O * rates[0] * u[b])``.

    Parameters
    ----------
    tokens : (B, T, A, O, t, a, o) float32 Tensor
        Normalized values.
    draws : mapping of str to Tensor
        ``masking_ratio_uniform`` (B,) float64; ``permutation.batch<b>`` (T * A * O,) int64;
        ``uniform_mask``, ``uniform_noise`` and ``uniform_multires`` (N,) float64;
        ``noise_mix_weight`` (k,) and ``noise_normal`` (k, t * a * o) float32 of the k tokens with
        noise; ``multires_uniform`` () float64 where any token is refined.
    rates : (float, float, float, float)
        Largest share of hidden tokens, and shares of these that are masked, mixed with noise and
        refined.

    Returns
    -------
    MaskedLevel
        With hidden tokens in the order in which they were drawn.

    Examples
    --------
    >>> one = torch.tensor([0.0], dtype=torch.float64)
    >>> draws = {"masking_ratio_uniform": one + 0.9, "permutation.batch0": torch.tensor([2, 0, 1])}
    >>> draws |= {"uniform_mask": one, "uniform_noise": one + 1, "uniform_multires": one + 1}
    >>> masked = bert(torch.arange(1.0, 4).reshape(1, 3, 1, 1, 1, 1, 1), draws, (0.3, 1, 0, 0))
    >>> masked.source.flatten().tolist(), masked.target.tolist(), masked.indices[0].tolist()
    ([1.0, 2.0, 0.0], [[3.0]], [2])
    """
    share, *shares = rates
    n = math.prod(tokens.shape[1:4])
    uniform = draws["masking_ratio_uniform"].tolist()
    indices = [
        b * n + draws[f"permutation.batch{b}"][: math.ceil(n * (share * u))]
        for b, u in enumerate(uniform)
    ]
    kinds = ("mask", "noise", "multires")
    masked, noised, refined = (
        draws[f"uniform_{kind}"] < rate for kind, rate in zip(kinds, shares, strict=True)
    )
    flat = tokens.flatten(0, 3)
    hidden = flat[torch.cat(indices)]
    hidden[masked] = _nothing(flat)
    if noised.any():
        # How far the values of all tokens are spread, at each point of a token.
        spread = flat.flatten(1).std(0)
        hidden[noised] = _noise(
            hidden[noised], spread, draws["noise_mix_weight"], draws["noise_normal"]
        )
    if refined.any():
        hidden[refined] = _refine(hidden[refined], float(draws["multires_uniform"]))
    return _replaced(tokens, indices, hidden)


def forecast(tokens: Tensor, n: int) -> MaskedLevel:
    """Mask the last `n` token times at every place.

    Parameters
    ----------
    tokens : (B, T, A, O, t, a, o) Tensor
        Normalized values.
    n : int
        Number of token times.

    Examples
    --------
    >>> masked = forecast(torch.ones(1, 3, 1, 1, 1, 1, 1), 1)
    >>> masked.source.flatten().tolist(), masked.indices[0].tolist()
    ([1.0, 1.0, 0.0], [2])
    """
    return temporal_interpolation(tokens, range(tokens.shape[1] - n, tokens.shape[1]))


def temporal_interpolation(tokens: Tensor, times: Sequence[int]) -> MaskedLevel:
    """Mask some token times at every place.

    Parameters
    ----------
    tokens : (B, T, A, O, t, a, o) Tensor
        Normalized values.
    times : sequence of int
        Numbers of the token times.

    Examples
    --------
    >>> masked = temporal_interpolation(torch.ones(1, 3, 1, 2, 1, 1, 1), [1])
    >>> masked.source.flatten().tolist(), masked.indices[0].tolist()
    ([1.0, 1.0, 0.0, 0.0, 1.0, 1.0], [2, 3])
    """
    numbers = torch.arange(math.prod(tokens.shape[:4])).reshape(tokens.shape[:4])
    indices = [entry[list(times)].flatten() for entry in numbers]
    flat = tokens.flatten(0, 3)
    hidden = flat[torch.cat(indices)]
    hidden[:] = _nothing(flat)
    return _replaced(tokens, indices, hidden)


def _replaced(tokens: Tensor, indices: list[Tensor], hidden: Tensor) -> MaskedLevel:
    """The level with other values of its hidden tokens."""
    where = torch.cat(indices)
    source = tokens.flatten(0, 3).clone()
    target = source[where].flatten(1)
    source[where] = hidden
    return MaskedLevel(source.reshape(tokens.shape), target, indices)


def _nothing(flat: Tensor) -> Tensor:
    """Zeros; NaN at the points of a token where any token (n, t, a, o) of the level is NaN."""
    return 0 * flat.mean(0)


def _noise(values: Tensor, spread: Tensor, weight: Tensor, normal: Tensor) -> Tensor:
    """Some of the value, and noise of a tenth of the spread at each point."""
    noise = (_NOISE * spread * normal).reshape(values.shape)
    return (1 - weight)[:, None, None, None] * values + noise


def _refine(values: Tensor, uniform: float) -> Tensor:
    """Interpolate tokens (n, t, a, o) to a finer grid and back.

    Meant to be a coarser one: the factor lies between 1 and 2 and is the same for all tokens.
    """
    t, a, o = values.shape[1:]
    finer = [int(uniform * (1 - _FINEST) * size + _FINEST * size) for size in (a, o)]
    for size in ((t, *finer), (t, a, o)):
        values = F.interpolate(values[:, None], size=size, mode="trilinear")[:, 0]
    return values
