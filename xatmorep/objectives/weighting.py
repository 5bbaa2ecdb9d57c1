"""How much each point and token counts in a loss.

A weight is ``(R, P)``, one for each point of R tokens, or ``(R, 1)``, one for each token. Losses
are weighted means, so that only ratios of weights matter: weights of area, level and missing
points are multiplied, and need no normalization. The loss of a batch is the mean of the losses of
its parts, weighted with the sums of their weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from xatmorep.errors import ConfigError

__all__ = ["latitude_weights", "level_weights", "prepare", "shares", "weighted_mean"]


def latitude_weights(latitude: Tensor) -> Tensor:
    """Cosine of the latitude: area of a grid cell, relative to one at the equator.

    Parameters
    ----------
    latitude : Tensor
        Degrees north, of any shape.

    Returns
    -------
    Tensor
        Of the same shape, positive also at the poles; float32 unless `latitude` is float64.

    Raises
    ------
    ConfigError
        If a latitude lies outside -90..90.

    Examples
    --------
    >>> latitude_weights(torch.tensor([60.0, 0.0]))
    tensor([0.5000, 1.0000])
    """
    if not bool((latitude.abs() <= 90).all()):
        raise ConfigError("latitudes must lie within -90..90 degrees")
    # In float64 the cosine of a pole is a tiny positive number, in float32 a negative one.
    cosine = torch.deg2rad(latitude.double()).cos()
    return cosine.to(torch.promote_types(latitude.dtype, torch.float32))


def level_weights(factors: Sequence[float], hidden: Tensor) -> Tensor:
    """Weight of each hidden token, by the level that it is on.

    A common choice are factors in proportion to pressure: errors then count about as the density
    of the air.

    Parameters
    ----------
    factors : sequence of float
        Weight of each level, finite and not negative, in the order of the levels.
    hidden : Tensor
        Bool ``(batch, level, T, A, O)``.

    Returns
    -------
    Tensor
        float32 ``(R, 1)``, in the order of boolean indexing.

    Raises
    ------
    ConfigError
        If a factor is impossible, or their number isn't that of the levels.

    References
    ----------
    Factors by pressure: Lam et al. (2023), GraphCast: learning skillful medium-range global weather
    forecasting, arXiv:2212.12794, section on the training objective.

    Examples
    --------
    >>> hidden = torch.tensor([[True, False], [True, True]]).reshape(2, 2, 1, 1, 1)
    >>> level_weights((500, 850), hidden)
    tensor([[500.],
            [500.],
            [850.]])
    """
    if not all(0 <= factor < math.inf for factor in factors):
        raise ConfigError(f"weights of levels must be finite, not negative: {tuple(factors)}")
    if len(factors) != hidden.shape[1]:
        raise ConfigError(f"{len(factors)} weights were given for {hidden.shape[1]} levels")
    each = torch.tensor(factors, dtype=torch.float32, device=hidden.device)
    return each.reshape(-1, 1, 1, 1).expand(hidden.shape)[hidden][:, None]


def prepare(
    prediction: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Check what a loss is given, and bring it into the form in which it computes.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)``, ``(R, 1)`` or None.

    Returns
    -------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` of one type, float32 at least. Targets that aren't
        finite are zeros without weight.

    Raises
    ------
    ConfigError
        If the shapes don't fit together.

    Examples
    --------
    >>> prediction, target = torch.zeros(1, 3, 2), torch.tensor([[1.0, torch.nan]])
    >>> prepare(prediction, target, None)[1:]
    (tensor([[1., 0.]]), tensor([[1., 0.]]))
    """
    if prediction.ndim != 3 or not prediction.shape[1]:
        raise ConfigError(
            f"a prediction has shape (tokens, members, points): {tuple(prediction.shape)}"
        )
    rows, _, points = prediction.shape
    if target.shape != (rows, points):
        raise ConfigError(
            f"the target has shape {tuple(target.shape)}, the prediction "
            f"{tuple(prediction.shape)}: {(rows, points)} is needed"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    target = target.to(dtype)
    finite = target.isfinite()
    if weight is None:
        weight = finite
    elif weight.shape in ((rows, points), (rows, 1)):
        weight = weight * finite
    else:
        raise ConfigError(
            f"the weight has shape {tuple(weight.shape)}: {(rows, points)} or {(rows, 1)} is needed"
        )
    return prediction.to(dtype), target.where(finite, 0.0), weight.to(dtype)


def shares(weight: Tensor) -> Tensor:
    """Share of each point in the weight of its token.

    Parameters
    ----------
    weight : Tensor
        ``(R, P)``.

    Returns
    -------
    Tensor
        ``(R, P)``; each row sums to one, or is zero where the token has no weight.

    Examples
    --------
    >>> shares(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor([[0.2500, 0.7500],
            [0.0000, 0.0000]])
    """
    total = weight.sum(1, keepdim=True)
    return weight / total.where(total > 0, 1.0)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Sum of weight * values over the sum of weights; zero where nothing has weight.

    Examples
    --------
    >>> weighted_mean(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]))
    tensor(2.)
    """
    total = weight.sum()
    return (weight * values).sum() / total.where(total > 0, 1.0)
