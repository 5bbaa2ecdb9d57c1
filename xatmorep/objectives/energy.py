"""Energy score: what an ensemble costs that predicts all points of a token together."""

from __future__ import annotations

import torch
from torch import Tensor

from xatmorep.objectives.weighting import prepare, shares, weighted_mean

__all__ = ["energy"]


def energy(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    fair: bool = False,
) -> Tensor:
    r"""Energy score of the ensemble of a token, taken as one vector of its points.

    .. math::
        L = \frac{1}{M} \sum_k \lVert e_k - y \rVert
        - \frac{1}{2 M D} \sum_{j, k} \lVert e_j - e_k \rVert,
        \qquad \lVert x \rVert^2 = \frac{\sum_p w_p x_p^2}{\sum_p w_p}

    with D = M, or D = M - 1 if `fair`; the mean over tokens is weighted with
    :math:`\sum_p w_p`. It is `crps` for vectors, and equal to it for tokens of one point. While
    `crps` looks at each point alone, this one also sees which points vary together. The norm is
    a root mean square, so that the score has the units of the field and is alike for tokens of
    any size; points without weight, such as missing ones, don't exist for it. It is proper for
    any weights, as these only stretch the axes of the vector.

    One member gives the root mean square error of the token. Members that are exactly equal stay
    so, as their distance has no gradient; `crps` drives them apart.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.
    fair : bool
        Whether to correct for the number of members, see `xatmorep.objectives.losses.crps`.

    Returns
    -------
    Tensor
        Scalar. The fair one can be negative for single cases.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation,
    doi:10.1198/016214506000001437, section on the energy score. Ferro (2014), Fair scores for
    ensemble forecasts, doi:10.1002/qj.2270, for the fair form.

    Examples
    --------
    >>> members, target = torch.tensor([[[0.0, 0.0], [2.0, 2.0]]]), torch.zeros(1, 2)
    >>> energy(members, target), energy(members, target, fair=True)
    (tensor(0.5000), tensor(0.))
    """
    prediction, target, weight = prepare(prediction, target, weight)
    stretch = shares(weight).sqrt()[:, None]
    prediction, target = stretch * prediction, stretch * target[:, None]
    # Unlike a square root, a norm has a finite gradient at zero, which is zero.
    score = torch.linalg.vector_norm(prediction - target, dim=2).mean(1)
    members = prediction.shape[1]
    if members > 1:
        # By matrix products it would be faster, but wrong for members that are close together.
        apart = torch.cdist(prediction, prediction, compute_mode="donot_use_mm_for_euclid_dist")
        score = score - apart.sum((1, 2)) / (2 * members * (members - 1 if fair else members))
    return weighted_mean(score, weight.sum(1))
