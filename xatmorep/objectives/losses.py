"""Losses of an ensemble of predictions, and their weighted sum.

All take a prediction ``(R, M, P)`` of R tokens, M members and P points, a target ``(R, P)`` and an
optional weight ``(R, P)`` or ``(R, 1)``, and return the weighted mean over tokens and points. They
compute in float32 at least. Targets that aren't finite have no weight; where nothing has weight
the loss and its gradient are zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xatmorep.errors import ConfigError
from xatmorep.objectives import gaussian
from xatmorep.strict import closest

__all__ = [
    "LOSSES",
    "Loss",
    "WeightedSum",
    "crps",
    "gaussian_crps",
    "latitude_weights",
    "mse_ensemble",
    "mse_mean",
    "statistical",
    "total_loss",
]


class Loss(Protocol):
    """A function of prediction, target and weight that returns a scalar."""

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted mean loss, a scalar."""


def mse_ensemble(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Mean squared error of the members.

    .. math:: L = \frac{1}{M} \sum_k (e_k - y)^2

    It is the squared error of the ensemble mean plus the (biased) variance of the ensemble, so
    it draws all members to the mean of what is possible: alone it gives no useful spread.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> mse_ensemble(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[2.0]]))
    tensor(1.)
    """
    prediction, target, weight = _prepare(prediction, target, weight)
    return _weighted_mean((prediction - target[:, None]).square().mean(1), weight)


def mse_mean(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Squared error of the ensemble mean.

    .. math:: L = (m - y)^2, \qquad m = \frac{1}{M} \sum_k e_k

    It is blind to the spread: all members get the same gradient. The mean of what is possible
    has the lowest expected loss. With one member it is `mse_ensemble`.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.

    Returns
    -------
    Tensor
        Scalar.

    References
    ----------
    The loss ``mse`` of AtmoRep: Lessig et al. (2023), arXiv:2308.13280.

    Examples
    --------
    >>> mse_mean(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[2.0]]))
    tensor(0.)
    """
    prediction, target, weight = _prepare(prediction, target, weight)
    return _weighted_mean((prediction.mean(1) - target).square(), weight)


def statistical(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None, *, floor: float = 1e-3
) -> Tensor:
    r"""Statistical loss of AtmoRep: distance to an unnormalized Gaussian, plus spread.

    .. math::
        L = \Bigl(1 - \exp\frac{-(y - m)^2}{2 s^2}\Bigr)^2 + \sqrt{s} - \sqrt{f},
        \qquad s^2 = \frac{1}{M - 1} \sum_k (e_k - m)^2 + f^2

    with the ensemble mean m and the floor f. The first term asks that the target be likely, the
    second that the ensemble be no wider than needed. The published loss is that of f = 0, whose
    first term is 0/0 for a perfect forecast without spread, and whose gradient is infinite at
    zero spread (here f = 0 gives the limit of a small f instead). With f > 0 value and gradients
    are finite everywhere, a perfect forecast without spread still costs nothing, and a spread
    well above f gives the published loss plus a constant. Where the error is many times the
    spread the first term is flat and has almost no gradient: use it together with `mse_ensemble`,
    as AtmoRep does. It is not a proper score.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.
    floor : float
        Smallest spread that counts, in units of the prediction.

    Returns
    -------
    Tensor
        Scalar.

    References
    ----------
    Lessig et al. (2023), AtmoRep: a stochastic model of atmosphere dynamics using large scale
    representation learning, arXiv:2308.13280, section on the loss function.

    Examples
    --------
    >>> statistical(torch.full((1, 4, 1), 2.0), torch.tensor([[2.0]]))
    tensor(0.)
    """
    prediction, target, weight = _prepare(prediction, target, weight)
    mean = prediction.mean(1)
    degrees = max(prediction.shape[1] - 1, 1)
    variance = (prediction - mean[:, None]).square().sum(1) / degrees
    return _weighted_mean(gaussian.statistical(target, mean, variance, floor), weight)


def crps(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    fair: bool = False,
) -> Tensor:
    r"""Continuous ranked probability score of the ensemble.

    .. math::
        L = \frac{1}{M} \sum_k |e_k - y| - \frac{1}{2 M D} \sum_{j, k} |e_j - e_k|

    with D = M, or D = M - 1 if `fair`. The sum over pairs is taken from the sorted members,
    :math:`\sum_{j,k} |e_j - e_k| = 2 \sum_k (2 k - M - 1)\, e_{(k)}`, and has a gradient also
    where members are equal: it drives them apart. One member gives the absolute error.

    The plain score is that of the ensemble as it is. The fair one is what random draws from the
    same distribution would get from infinitely many members. Tails of a network are not random
    draws but fixed: trained with the plain score, member k goes to the quantile
    ``(k - 1/2) / M``; trained with the fair one, to ``(k - 1) / (M - 1)``, so that the outer
    members run to the ends of the distribution.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.
    fair : bool
        Whether to correct for the number of members.

    Returns
    -------
    Tensor
        Scalar. The fair one can be negative for single cases.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation,
    doi:10.1198/016214506000001437, equation 21. Ferro (2014), Fair scores for ensemble
    forecasts, doi:10.1002/qj.2270, for the fair form.

    Examples
    --------
    >>> members, target = torch.tensor([[[0.0], [2.0]]]), torch.tensor([[0.0]])
    >>> crps(members, target), crps(members, target, fair=True)
    (tensor(0.5000), tensor(0.))
    """
    prediction, target, weight = _prepare(prediction, target, weight)
    members = prediction.shape[1]
    error = (prediction - target[:, None]).abs().mean(1)
    if members == 1:
        return _weighted_mean(error, weight)
    rank = torch.arange(1 - members, members, 2, device=error.device, dtype=error.dtype)
    pairs = members * (members - 1 if fair else members)
    spread = (rank[:, None] * prediction.sort(dim=1).values).sum(1) / pairs
    return _weighted_mean(error - spread, weight)


def gaussian_crps(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Continuous ranked probability score of a Gaussian with the ensemble's mean and spread.

    .. math::
        L = s \Bigl(z\,(2 \Phi(z) - 1) + 2 \varphi(z) - \frac{1}{\sqrt{\pi}}\Bigr),
        \qquad z = \frac{y - m}{s}, \quad s^2 = \frac{1}{M - 1} \sum_k (e_k - m)^2

    with the ensemble mean m, and distribution function and density of the standard normal
    distribution. Without spread, so also with one member, it is the absolute error of the mean.
    It sees mean and spread only, not how the members lie otherwise. Value and gradient are
    finite everywhere. Members that are exactly equal stay so; `crps` drives them apart.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.

    Returns
    -------
    Tensor
        Scalar, never negative. Second derivatives are not supported.

    References
    ----------
    Gneiting, Raftery, Westveld and Goldman (2005), Calibrated probabilistic forecasting using
    ensemble model output statistics and minimum CRPS estimation, doi:10.1175/MWR2904.1.

    Examples
    --------
    >>> gaussian_crps(torch.full((1, 4, 1), 2.0), torch.tensor([[0.5]]))
    tensor(1.5000)
    """
    prediction, target, weight = _prepare(prediction, target, weight)
    mean, std = gaussian.moments(prediction)
    return _weighted_mean(gaussian.crps(target, mean, std), weight)


LOSSES: dict[str, Loss] = {
    "mse_ensemble": mse_ensemble,
    "mse_mean": mse_mean,
    "statistical": statistical,
    "crps": crps,
    "crps_fair": functools.partial(crps, fair=True),
    "gaussian_crps": gaussian_crps,
}
"""Losses by the name that a configuration uses."""


@dataclass(frozen=True)
class WeightedSum:
    """Sum of losses, each times its weight; made by `total_loss`.

    Attributes
    ----------
    weights : dict of str to float
        Weight of each loss, by its name in `LOSSES`.
    """

    weights: dict[str, float]

    def terms(
        self, prediction: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each loss by name, before its weight is applied."""
        return {name: LOSSES[name](prediction, target, weight) for name in self.weights}

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted sum of the terms, a scalar."""
        terms = self.terms(prediction, target, weight)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def total_loss(weights: Mapping[str, float]) -> WeightedSum:
    """Weighted sum of losses.

    Parameters
    ----------
    weights : mapping of str to float
        Weight of each loss by its name in `LOSSES`; at least one is positive, none negative.

    Returns
    -------
    WeightedSum
        A function of prediction, target and weight, with a method ``terms`` for the parts.

    Raises
    ------
    ConfigError
        If a name is unknown (the nearest known one is named) or the weights are impossible.

    Examples
    --------
    >>> loss = total_loss({"mse_ensemble": 1.0, "crps": 0.5})
    >>> loss(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[2.0]]))
    tensor(1.2500)
    """
    for name, weight in weights.items():
        if name not in LOSSES:
            raise ConfigError(f"unknown loss {name!r}{closest(name, LOSSES)}")
        if not 0 <= weight < math.inf:
            raise ConfigError(
                f"weight of loss {name!r} is {weight}: it must be finite, not negative"
            )
    if not any(weights.values()):
        raise ConfigError(f"no loss has a positive weight: {dict(weights)}")
    return WeightedSum({name: weight for name, weight in weights.items() if weight})


def latitude_weights(latitude: Tensor) -> Tensor:
    """Cosine of the latitude, normalized to mean one: the area of grid cells.

    Parameters
    ----------
    latitude : Tensor
        Degrees north, of any shape.

    Returns
    -------
    Tensor
        Of the same shape; float32 unless `latitude` is float64. Pass it as the weight of a loss.

    Raises
    ------
    ConfigError
        If a latitude lies outside -90..90.

    Examples
    --------
    >>> latitude_weights(torch.tensor([60.0, 0.0]))
    tensor([0.6667, 1.3333])
    """
    if not bool((latitude.abs() <= 90).all()):
        raise ConfigError("latitudes must lie within -90..90 degrees")
    # The cosine of a pole rounds to a negative number in float32; a tiny one keeps the mean
    # positive if all points are poles.
    cosine = torch.deg2rad(latitude.double()).cos().clamp(min=1e-12)
    dtype = torch.float64 if latitude.dtype == torch.float64 else torch.float32
    return (cosine / cosine.mean()).to(dtype)


def _prepare(
    prediction: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Check shapes, take float32 at least, and move NaN of the target into the weight."""
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


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Sum of weight * values over the sum of weights; zero where nothing has weight."""
    total = weight.sum()
    return (weight * values).sum() / total.where(total > 0, 1.0)
