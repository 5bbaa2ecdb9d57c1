"""Likelihood and divergence: losses that take an ensemble for a Gaussian distribution.

`gaussian_nll` does so at each point, `gaussian_kl` for the values of a token as a whole.
"""

from __future__ import annotations

from torch import Tensor

from xatmorep.objectives import gaussian
from xatmorep.objectives.weighting import prepare, shares, weighted_mean

__all__ = ["gaussian_kl", "gaussian_nll"]


def gaussian_nll(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None, *, floor: float = 0.01
) -> Tensor:
    r"""Negative log-likelihood of the target under a Gaussian with the ensemble's mean and spread.

    .. math::
        L = \log\frac{s}{f} + \frac{(y - m)^2}{2 s^2},
        \qquad s^2 = \frac{1}{M - 1} \sum_k (e_k - m)^2 + f^2

    with the ensemble mean m and the floor f. Up to the constant :math:`\log(f \sqrt{2 \pi})`,
    which makes it zero for a perfect forecast without spread, it is the negative logarithm of
    the density. It is proper for mean and variance, and punishes a spread that is too small much
    harder than `xatmorep.objectives.losses.crps` does: without spread, so also with one member,
    it is the squared error of the mean over 2 f^2. The best variance is f^2 less than that of the
    errors, and for few members somewhat more. Members that are exactly equal stay so.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.
    floor : float
        Smallest standard deviation, above zero, in units of the prediction. The default is about
        what bfloat16 resolves in a normalized field.

    Returns
    -------
    Tensor
        Scalar, never negative.

    References
    ----------
    Dawid and Sebastiani (1999), Coherent dispersion criteria for optimal experimental design,
    doi:10.1214/aos/1018031101. Gneiting and Raftery (2007),
    doi:10.1198/016214506000001437, section on scores that depend on two moments.

    Examples
    --------
    >>> import torch
    >>> members = torch.tensor([[[-1.0], [1.0]]])
    >>> gaussian_nll(members, torch.zeros(1, 1)), gaussian_nll(0 * members, torch.zeros(1, 1))
    (tensor(4.9518), tensor(0.))
    """
    prediction, target, weight = prepare(prediction, target, weight)
    mean, std = gaussian.moments(prediction)
    cost = gaussian.negative_log_likelihood(target, mean, std.square(), floor)
    return weighted_mean(cost, weight)


def gaussian_kl(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None, *, floor: float = 0.1
) -> Tensor:
    r"""Divergence of the distribution of a token's values from the predicted one.

    .. math::
        L = D\bigl(N(m_y, v_y + f^2) \,\|\, N(m_e, v_e + f^2)\bigr)
        = \frac{1}{2} \Bigl(r - 1 - \log r + \frac{(m_y - m_e)^2}{v_e + f^2}\Bigr),
        \qquad r = \frac{v_y + f^2}{v_e + f^2}

    the Kullback-Leibler divergence D of Gaussians with floor f. Their means m and variances v are
    those of the target's points, and of the points of all members together, weighted with the
    points' weights; the mean over tokens is weighted with the sums of these.

    The distributions are described by two moments, not by a histogram. A token has some ten or
    hundred points, too few to fill bins; moments need no choice of range and width of bins; and
    their gradient doesn't vanish where the two distributions don't overlap, as is the rule early
    in training. What differs beyond mean and variance, such as tails, isn't seen.

    The divergence is taken from the target because that one is a likelihood: apart from what
    only the target decides, it is the mean negative log-likelihood of the target's points under
    the predicted Gaussian. Hence it is lowest, on average, for the right mean and the right
    variance, whatever the floor (see `gaussian.divergence`), and an ensemble may make up for too
    smooth members by spread. It does not see where in the token the values are: use it together
    with `mse_ensemble` or `crps`.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.
    floor : float
        Standard deviation below which differences of spread hardly count, above zero, in units of
        the prediction. It bounds value and gradient where a prediction has no variance.

    Returns
    -------
    Tensor
        Scalar, never negative but for rounding.

    References
    ----------
    Kullback and Leibler (1951), On information and sufficiency, doi:10.1214/aoms/1177729694.

    Examples
    --------
    A token whose points are exchanged has the same distribution, a shifted one has not.

    >>> import torch
    >>> target = torch.tensor([[0.0, 2.0]])
    >>> gaussian_kl(torch.tensor([[[2.0, 0.0]]]), target)
    tensor(0.)
    >>> gaussian_kl(torch.tensor([[[1.0, 3.0]]]), target)
    tensor(0.4950)
    """
    prediction, target, weight = prepare(prediction, target, weight)
    share = shares(weight)
    mean = (share[:, None] * prediction).sum(2).mean(1)
    variance = (share[:, None] * (prediction - mean[:, None, None]).square()).sum(2).mean(1)
    wanted_mean = (share * target).sum(1)
    wanted_variance = (share * (target - wanted_mean[:, None]).square()).sum(1)
    cost = gaussian.divergence(wanted_mean, wanted_variance, mean, variance, floor)
    return weighted_mean(cost, weight.sum(1))
