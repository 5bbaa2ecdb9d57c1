"""What an embedding is paid for saying the same of a place, whatever the size of its token.

The masked objective does little for this, whether or not the network sees random parts of tokens:
it learns to live with them, and their features hardly come closer to those of the whole tokens.

For a training loop, with a network whose embedding is of the kind ``"transformer"``::

    pairs = network.at_two_sizes(inputs)
    loss = masked_loss + config.model.embedding.consistency * consistency(pairs)

The pairs are tokens and smaller ones in their middle, of another size in each step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["consistency", "consistency_loss"]


def consistency(pairs: Mapping[str, tuple[Tensor, Tensor]], temperature: float = 0.1) -> Tensor:
    """Mean of `consistency_loss` over fields.

    Parameters
    ----------
    pairs : mapping of str to (Tensor, Tensor)
        Features (N, D) of N places as tokens of two sizes, for each field.
    temperature : float
        See `consistency_loss`.

    Examples
    --------
    >>> pairs = {"u": (torch.eye(2), torch.eye(2)), "v": (torch.ones(2, 3), torch.ones(2, 3))}
    >>> consistency(pairs)
    tensor(0.3466)
    """
    return torch.stack([consistency_loss(*pair, temperature) for pair in pairs.values()]).mean()


def consistency_loss(one: Tensor, other: Tensor, temperature: float = 0.1) -> Tensor:
    r"""Cross-entropy of finding the same place among others by its features (InfoNCE).

    .. math::
        L = -\frac{1}{2N} \sum_i \left[
            \log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ij} / \tau}} +
            \log \frac{e^{s_{ii} / \tau}}{\sum_j e^{s_{ji} / \tau}} \right],
        \qquad s_{ij} = \frac{x_i \cdot y_j}{\lVert x_i \rVert \lVert y_j \rVert}

    Features :math:`x_i` and :math:`y_i` of the same place are pulled together, those of different
    ones apart: equal features for all would cost :math:`\log N`, so that they can't collapse.
    Only directions count. It is computed in float32 at least.

    Parameters
    ----------
    one, other : Tensor
        (N, D) both: features of the same N places, in the same order, as tokens of two sizes.
    temperature : float
        :math:`\tau`; the smaller, the more the most similar of the others count.

    Returns
    -------
    Tensor
        Scalar, between 0 and :math:`\log N + 2 / \tau`; 0 for one place or none.

    References
    ----------
    van den Oord et al. (2018), Representation learning with contrastive predictive coding,
    arXiv:1807.03748; with cosines and in both directions as in Radford et al. (2021), Learning
    transferable visual models from natural language supervision, arXiv:2103.00020.

    Examples
    --------
    >>> consistency_loss(torch.eye(3), 2 * torch.eye(3)) < 1e-4  # equal directions, all different
    tensor(True)
    >>> consistency_loss(torch.ones(3, 2), torch.ones(3, 2))  # no telling which is which: log 3
    tensor(1.0986)
    """
    dtype = torch.promote_types(one.dtype, torch.float32)
    with torch.autocast(one.device.type, enabled=False):
        x, y = (F.normalize(features.to(dtype), dim=1) for features in (one, other))
        similarity = x @ y.T / temperature
        found = similarity.diagonal()
        missed = torch.logsumexp(similarity, 0) + torch.logsumexp(similarity, 1) - 2 * found
        return missed.sum() / max(2 * len(x), 1)
