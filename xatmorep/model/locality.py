"""Attention heads that begin by looking at one neighbor each, as a convolution does."""

from __future__ import annotations

import torch
from torch import Tensor

from xatmorep.model.positions import token_places
from xatmorep.tokens.spec import InputSpec

__all__ = ["local_scores"]

# Earlier, later, north, south, west, east, above and below: steps in level, time, latitude and
# longitude.
NEIGHBORS = (
    (0, -1, 0, 0),
    (0, 1, 0, 0),
    (0, 0, -1, 0),
    (0, 0, 1, 0),
    (0, 0, 0, -1),
    (0, 0, 0, 1),
    (-1, 0, 0, 0),
    (1, 0, 0, 0),
)


def local_scores(inputs: InputSpec, name: str, other: str, heads: int, strength: float) -> Tensor:
    """What is added to the scores of attention to make it local, (heads, N, N_c), float32.

    A head that looks in the direction d gets ``-strength * |x - y - d|^2`` for a token at y that
    attends to one at x, as the positional heads of ConViT do at first (d'Ascoli et al. 2021,
    arXiv:2103.10697, equation 6 with its two terms); content can overrule it. Lengths are counted
    in tokens, the larger ones where two fields differ. The heads of a field that attends to itself
    look at the tokens before and after, in the north, south, west and east, above and below, as
    far as the neighborhood has any; the first head that attends to another field looks at its own
    place. Further heads are free: nothing is added.

    Parameters
    ----------
    inputs : InputSpec
    name, other : str
        Field that attends, with N tokens, and field that it attends to, with N_c.
    heads : int
        Number of heads.
    strength : float
        With 1 or more, a head begins with one token in its view.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(3, 2, 2), time_step=6, grid_step=(1, 1)),
    ...     fields=[FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 2))],
    ... )
    >>> scores = local_scores(spec, "2m_temperature", "2m_temperature", heads=2, strength=1)
    >>> scores[0]  # of three tokens in time, each looks at the one before
    tensor([[-1., -4., -9.],
            [ 0., -1., -4.],
            [-1.,  0., -1.]])
    """
    own, others = token_places(inputs, name), token_places(inputs, other)
    shapes = [inputs.token_extent(field) for field in (name, other)]
    size = torch.tensor([1, *(max(pair) for pair in zip(*shapes, strict=True))], device="cpu")
    steps = (others[None] - own[:, None]) / size
    directions = _directions(own) if name == other else [(0, 0, 0, 0)]
    scores = torch.zeros(heads, len(own), len(others), dtype=torch.float64, device="cpu")
    for head, direction in zip(scores, directions, strict=False):
        away = steps - torch.tensor(direction, dtype=torch.float64, device="cpu")
        head -= strength * away.square().sum(-1)
    return scores.float()


def _directions(places: Tensor) -> list[tuple[int, ...]]:
    """Steps to neighbors, along axes with more than one token."""
    several = [len(axis.unique()) > 1 for axis in places.unbind(-1)]
    return [step for step in NEIGHBORS if any(s and m for s, m in zip(step, several, strict=True))]
