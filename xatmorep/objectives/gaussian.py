"""What a Gaussian forecast costs at each point, from target, mean and spread.

The formulas of those losses that see no more of an ensemble than its mean and spread. Values and
gradients are finite where the spread is zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "crps",
    "divergence",
    "likely",
    "moments",
    "negative_log_likelihood",
    "root_spread",
    "statistical",
]


def moments(prediction: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an ensemble.

    Parameters
    ----------
    prediction : Tensor
        ``(R, M, P)`` of R tokens, M members and P points.

    Returns
    -------
    mean, std : Tensor
        ``(R, P)``. The divisor is M - 1; one member has no spread. Where there is no spread, it
        has no gradient.

    Examples
    --------
    >>> moments(torch.tensor([[[1.0], [3.0]]]))
    (tensor([[2.]]), tensor([[1.4142]]))
    """
    mean = prediction.mean(1)
    # Unlike a square root, the norm has a finite gradient at zero, which is zero.
    distance = torch.linalg.vector_norm(prediction - mean[:, None], dim=1)
    return mean, distance / max(prediction.shape[1] - 1, 1) ** 0.5


def likely(target: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    r"""Unnormalized Gaussian, 1 where the target is the mean.

    .. math:: G = \exp\frac{-(y - m)^2}{2 s^2}

    Parameters
    ----------
    target, mean, variance : Tensor
        Of one shape.

    Returns
    -------
    Tensor
        Of the same shape. Without variance it is 1 or 0, and has no gradient.

    Examples
    --------
    >>> likely(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.ones(2))
    tensor([1.0000, 0.6065])
    """
    error = (target - mean).square()
    # exp(-100) is nothing beside 1 in float64 too. Leaving it out keeps gradients from 0 * inf.
    far = error >= 200 * variance
    near = torch.exp(-error / (2 * variance.masked_fill(far, 1.0)))
    return near.where(~far, (error == 0).to(near.dtype))


def root_spread(variance: Tensor) -> Tensor:
    """Square root of the standard deviation; where that is zero, it has no gradient.

    Examples
    --------
    >>> root_spread(torch.tensor([0.0, 16.0]))
    tensor([0., 2.])
    """
    none = variance == 0
    return (variance.masked_fill(none, 1.0) ** 0.25).masked_fill(none, 0.0)


def statistical(target: Tensor, mean: Tensor, variance: Tensor, floor: float = 0.0) -> Tensor:
    r"""Statistical loss of AtmoRep: distance to an unnormalized Gaussian, plus spread.

    .. math::
        (1 - G)^2 + \sqrt{s} - \sqrt{f},
        \qquad G = \exp\frac{-(y - m)^2}{2 s^2}, \quad s^2 = v + f^2

    with the variance v and the floor f; f = 0 is the published loss. Where s is zero, value and
    gradient are the limit of a small floor: the first term is 0 for a perfect forecast and else
    1, and nothing has a gradient.

    Parameters
    ----------
    target, mean, variance : Tensor
        Of one shape.
    floor : float
        Smallest spread that counts, in units of the target.

    Returns
    -------
    Tensor
        Of the same shape.

    References
    ----------
    Lessig et al. (2023), arXiv:2308.13280, section on the loss function.

    Examples
    --------
    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> statistical(one, zero, one), statistical(one, zero, zero), statistical(one, one, zero)
    (tensor([1.1548]), tensor([1.]), tensor([0.]))
    """
    variance = variance + floor**2
    unlikely = 1 - likely(target, mean, variance)
    return unlikely.square() + (root_spread(variance) - floor**0.5)


def crps(target: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    r"""Continuous ranked probability score of a Gaussian.

    .. math::
        s \Bigl(z\,(2 \Phi(z) - 1) + 2 \varphi(z) - \frac{1}{\sqrt{\pi}}\Bigr)
        = (y - m) \operatorname{erf}\frac{z}{\sqrt{2}}
        + s \Bigl(2 \varphi(z) - \frac{1}{\sqrt{\pi}}\Bigr),
        \qquad z = \frac{y - m}{s}

    Where s is zero, it is the absolute error.

    Parameters
    ----------
    target, mean, std : Tensor
        Of one shape.

    Returns
    -------
    Tensor
        Of the same shape, never negative. Second derivatives are not supported.

    References
    ----------
    Gneiting, Raftery, Westveld and Goldman (2005), doi:10.1175/MWR2904.1.

    Examples
    --------
    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> crps(zero, zero, one), crps(one, zero, zero)
    (tensor([0.2337]), tensor([1.]))
    """
    error = target - mean
    # For given error and std the score has no slope in z, so z may be held fixed: the gradient is
    # exact, erf(z / sqrt 2) and 2 phi(z) - 1 / sqrt pi, and finite also where z is infinite. The
    # absolute value keeps a zero with a minus from turning the sign of z.
    z = (error / std.abs()).detach()
    z = torch.nan_to_num(z, nan=0.0, posinf=math.inf, neginf=-math.inf)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return error * torch.erf(z / math.sqrt(2)) + std * (2 * density - 1 / math.sqrt(math.pi))


def negative_log_likelihood(target: Tensor, mean: Tensor, variance: Tensor, floor: float) -> Tensor:
    r"""Negative logarithm of the density of a Gaussian, up to a constant.

    .. math:: \log\frac{s}{f} + \frac{(y - m)^2}{2 s^2}, \qquad s^2 = v + f^2

    with the variance v and the floor f.

    Parameters
    ----------
    target, mean, variance : Tensor
        Of one shape.
    floor : float
        Smallest standard deviation, above zero.

    Returns
    -------
    Tensor
        Of the same shape, never negative; zero where target and mean are equal and there is no
        variance.

    Examples
    --------
    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> negative_log_likelihood(one, zero, zero, floor=0.5)
    tensor([2.])
    """
    error = (target - mean).square() / (2 * (variance + floor**2))
    return torch.log1p(variance / floor**2) / 2 + error


def divergence(
    target_mean: Tensor, target_variance: Tensor, mean: Tensor, variance: Tensor, floor: float
) -> Tensor:
    r"""Kullback-Leibler divergence of a target's Gaussian from a predicted one.

    .. math::
        D\bigl(N(m_y, v_y + f^2) \,\|\, N(m_e, v_e + f^2)\bigr)
        = \frac{1}{2} \Bigl(r - 1 - \log r + \frac{(m_y - m_e)^2}{v_e + f^2}\Bigr),
        \qquad r = \frac{v_y + f^2}{v_e + f^2}

    The floor f is in both, so that it leaves the best prediction where it is: where
    :math:`m_y` and :math:`v_y` vary, the mean divergence is lowest for the mean :math:`m_e` of
    :math:`m_y`, and for the mean :math:`v_e` of :math:`v_y + (m_y - m_e)^2`.

    Parameters
    ----------
    target_mean, target_variance, mean, variance : Tensor
        Of one shape.
    floor : float
        Standard deviation that is added to both, above zero.

    Returns
    -------
    Tensor
        Of the same shape, never negative but for rounding.

    Examples
    --------
    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> divergence(zero, one, zero, one, floor=0.1), divergence(one, zero, zero, zero, floor=0.5)
    (tensor([0.]), tensor([2.]))
    """
    wide = variance + floor**2
    ratio = (target_variance + floor**2) / wide
    return (ratio - 1 - ratio.log() + (target_mean - mean).square() / wide) / 2
