"""Losses of an ensemble of predictions, and their weighted sum.

All take a prediction ``(R, M, P)`` of R tokens, M members and P points, a target ``(R, P)`` and an
optional weight ``(R, P)`` or ``(R, 1)``, and return the weighted mean over tokens and points. They
compute in float32 at least. Targets that aren't finite have no weight; where nothing has weight
the loss and its gradient are zero. Weights of area and level are made in
`xatmorep.objectives.weighting`.

Losses in `SHAPED` also need to know how the P points of a token lie in time, latitude and
longitude. `total_loss` is told the shape once for each field, and gives it to those that need it.
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
from xatmorep.objectives.distributions import gaussian_kl, gaussian_nll
from xatmorep.objectives.energy import energy
from xatmorep.objectives.spectral import spectral
from xatmorep.objectives.weighting import prepare, weighted_mean
from xatmorep.strict import closest
from xatmorep.tokens.spec import Shape

__all__ = [
    "LOSSES",
    "SHAPED",
    "Loss",
    "ShapedLoss",
    "WeightedSum",
    "crps",
    "gaussian_crps",
    "mse_ensemble",
    "mse_mean",
    "statistical",
    "total_loss",
]


class Loss(Protocol):
    """A function of prediction, target and weight that returns a scalar."""

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted mean loss, a scalar."""


class ShapedLoss(Protocol):
    """A loss that needs to know how the points of a token lie."""

    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        token_shape: Shape | None = None,
    ) -> Tensor:
        """Weighted mean loss, a scalar; raises a ConfigError without `token_shape`."""


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
    prediction, target, weight = prepare(prediction, target, weight)
    return weighted_mean((prediction - target[:, None]).square().mean(1), weight)


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
    prediction, target, weight = prepare(prediction, target, weight)
    return weighted_mean((prediction.mean(1) - target).square(), weight)


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
    prediction, target, weight = prepare(prediction, target, weight)
    mean = prediction.mean(1)
    degrees = max(prediction.shape[1] - 1, 1)
    variance = (prediction - mean[:, None]).square().sum(1) / degrees
    return weighted_mean(gaussian.statistical(target, mean, variance, floor), weight)


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
    prediction, target, weight = prepare(prediction, target, weight)
    members = prediction.shape[1]
    error = (prediction - target[:, None]).abs().mean(1)
    if members == 1:
        return weighted_mean(error, weight)
    rank = torch.arange(1 - members, members, 2, device=error.device, dtype=error.dtype)
    pairs = members * (members - 1 if fair else members)
    spread = (rank[:, None] * prediction.sort(dim=1).values).sum(1) / pairs
    return weighted_mean(error - spread, weight)


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
    prediction, target, weight = prepare(prediction, target, weight)
    mean, std = gaussian.moments(prediction)
    return weighted_mean(gaussian.crps(target, mean, std), weight)


SHAPED: dict[str, ShapedLoss] = {"spectral": spectral}
"""Losses that need the shape of a token, by name; they are in `LOSSES` too."""

LOSSES: dict[str, Loss] = {
    "mse_ensemble": mse_ensemble,
    "mse_mean": mse_mean,
    "statistical": statistical,
    "crps": crps,
    "crps_fair": functools.partial(crps, fair=True),
    "gaussian_crps": gaussian_crps,
    "gaussian_nll": gaussian_nll,
    "gaussian_kl": gaussian_kl,
    "energy": energy,
    "energy_fair": functools.partial(energy, fair=True),
    **SHAPED,
}
"""Losses by the name that a configuration uses."""


@dataclass(frozen=True)
class WeightedSum:
    """Sum of losses, each times its weight; made by `total_loss`.

    Attributes
    ----------
    weights : dict of str to float
        Weight of each loss, by its name in `LOSSES`.
    losses : dict of str to Loss
        The losses by the same names; those in `SHAPED` know the shape of a token.
    """

    weights: dict[str, float]
    losses: dict[str, Loss]

    def terms(
        self, prediction: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each loss by name, before its weight is applied."""
        return {name: loss(prediction, target, weight) for name, loss in self.losses.items()}

    def __call__(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted sum of the terms, a scalar."""
        terms = self.terms(prediction, target, weight)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def total_loss(weights: Mapping[str, float], token_shape: Shape | None = None) -> WeightedSum:
    """Weighted sum of losses, for the tokens of one field.

    Parameters
    ----------
    weights : mapping of str to float
        Weight of each loss by its name in `LOSSES`; at least one is positive, none negative.
    token_shape : tuple of int, optional
        Points of a token in (time, latitude, longitude), for those losses that are in `SHAPED`.

    Returns
    -------
    WeightedSum
        A function of prediction, target and weight, with a method ``terms`` for the parts.

    Raises
    ------
    ConfigError
        If a name is unknown (the nearest known one is named), the weights are impossible, or a
        loss needs `token_shape` and it is missing or can't be used.

    Examples
    --------
    >>> loss = total_loss({"mse_ensemble": 1.0, "crps": 0.5})
    >>> loss(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[2.0]]))
    tensor(1.2500)
    >>> total_loss({"crps": 1.0, "spectral": 0.1}, token_shape=(3, 10, 10)).weights
    {'crps': 1.0, 'spectral': 0.1}
    """
    for name, weight in weights.items():
        if name not in LOSSES:
            raise ConfigError(f"unknown loss {name!r}{closest(name, LOSSES)}")
        if not 0 <= weight < math.inf:
            raise ConfigError(
                f"weight of loss {name!r} is {weight}: it must be finite, not negative"
            )
    used = {name: weight for name, weight in weights.items() if weight}
    if not used:
        raise ConfigError(f"no loss has a positive weight: {dict(weights)}")
    return WeightedSum(used, {name: _bound(name, token_shape) for name in used})


def _bound(name: str, token_shape: Shape | None) -> Loss:
    """The loss of a name, for tokens of one shape."""
    if name not in SHAPED:
        return LOSSES[name]
    loss = functools.partial(SHAPED[name], token_shape=token_shape)
    points = math.prod(token_shape or ())
    loss(torch.zeros(0, 1, points), torch.zeros(0, points))  # refuses an impossible shape now
    return loss
