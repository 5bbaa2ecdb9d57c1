"""Whether self-distillation has collapsed: all samples alike, and a loss that is perfect."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["CollapseGuard", "CollapseReport"]

# A teacher has collapsed if less than this share of what could tell the samples of a batch apart
# does, and its features have if they vary less than this (their root mean square is 1). Small runs
# that learned had shares of 0.03 to 0.5, collapsed ones less than 0.01. Features stay apart for
# long after the distributions are alike: their spread says little before it is tiny.
LEAST_TOLD_APART = 0.02
LEAST_SPREAD = 0.01

# Share of the highest entropy from which on a distribution is called even. One that is as near to
# the lowest is on one prototype.
EVEN = 0.9


@dataclass(frozen=True)
class CollapseReport:
    """What the guard saw since the last report.

    Attributes
    ----------
    numbers : dict of str to float
        For the log, NaN if no batch had two samples; all from 0 to 1 but for the last:

        - ``teacher_entropy``: mean entropy of the teacher's distributions, 1 if they are uniform;
        - ``teacher_mean_entropy``: entropy of their mean over a batch, 0 if all chose the same
          prototype;
        - ``teacher_told_apart``: how far the distribution tells which sample of a batch it is of;
        - ``feature_spread``: standard deviation over a batch of the features before the head, whose
          root mean square is 1; mean of all features.
    warning : str or None
        What has collapsed, how, and what to do; None if nothing has.
    """

    numbers: dict[str, float]
    warning: str | None


class CollapseGuard(nn.Module):
    r"""Watches the teacher and says whether its answers still depend on the question.

    In a batch of B samples with distributions :math:`p_b` over K prototypes and entropy H

    .. math::
        I = H \Big( \frac{1}{B} \sum_b p_b \Big) - \frac{1}{B} \sum_b H(p_b)
        \;\in\; [0, \log \min(B, K)]

    is the mutual information of sample and prototype. It is zero if and only if all samples have
    the same distribution, which is what every collapse has in common. The kinds differ in the
    entropies: both are log K if the distributions are uniform, what centering alone leads to; both
    are zero if one prototype has everything, what sharpening alone leads to (section 5.3 of the
    DINO paper).

    All is judged within single batches, one view at a time, and then averaged. Distributions that
    are equal at any time but wander would look diverse over many steps.

    Attributes
    ----------
    sums : Tensor
        Sums of the four numbers and their count, since the last report; in the state dict.

    References
    ----------
    Caron et al. (2021), Emerging properties in self-supervised vision transformers,
    arXiv:2104.14294. The spread of the features is watched as in Chen and He (2021), Exploring
    simple siamese representation learning, arXiv:2011.10566, section 4.1.

    Examples
    --------
    Four samples, each with a prototype of its own, and then all with the same one:

    >>> guard = CollapseGuard()
    >>> guard.collect(torch.eye(4)[None], torch.eye(4)[None])
    >>> guard.report().numbers["teacher_told_apart"]
    1.0
    >>> guard.collect(torch.eye(4)[[0, 0, 0, 0]][None], torch.eye(4)[None])
    >>> print(guard.report().warning)
    self-distillation has collapsed: all samples of a batch have nearly the same distribution over
    the prototypes (told apart 0.0000, should be above 0.02), with everything on one of them
    (entropy 0.00): let the center follow faster (lower center_momentum), or sharpen less (raise
    teacher_temperature)
    """

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(5))

    @torch.no_grad()
    def collect(self, teacher: Tensor, features: Tensor) -> None:
        """Look at a batch; one of a single sample is left out.

        Parameters
        ----------
        teacher : Tensor
            ``(V, B, K)``: distributions of the teacher for V views of B samples.
        features : Tensor
            ``(V, B, W)``: the features that they come from, see `xatmorep.objectives.views.pool`.
        """
        _, batch, prototypes = teacher.shape
        if batch < 2:
            return
        each, together = _entropy(teacher).mean(1), _entropy(teacher.mean(1))
        apart = (together - each).clamp(min=0) / math.log(min(batch, prototypes))
        uniform = math.log(prototypes)
        spread = features.std(1, correction=0).mean(1)
        rows = torch.stack([each / uniform, together / uniform, apart, spread])
        sums = torch.cat([rows.sum(1), rows.new_full((1,), rows.shape[1])])
        self.sums += sums.to(self.sums)

    @torch.no_grad()
    def report(self, reduce: Callable[[Tensor], Tensor] | None = None) -> CollapseReport:
        """Sum up what was seen since the last report, and start anew.

        Parameters
        ----------
        reduce : callable, optional
            Sums a tensor over all processes that train together.
        """
        sums = self.sums if reduce is None else reduce(self.sums)
        each, together, apart, spread = (sums[:4] / sums[4]).tolist()
        self.sums = torch.zeros_like(self.sums)
        numbers = {
            "teacher_entropy": each,
            "teacher_mean_entropy": together,
            "teacher_told_apart": apart,
            "feature_spread": spread,
        }
        return CollapseReport(numbers, _warning(**numbers))


def _entropy(p: Tensor) -> Tensor:
    """Entropy over the last axis, in nats; 0 log 0 = 0."""
    return torch.special.entr(p).sum(-1)


def _warning(
    teacher_entropy: float,
    teacher_mean_entropy: float,
    teacher_told_apart: float,
    feature_spread: float,
) -> str | None:
    found = []
    if teacher_told_apart < LEAST_TOLD_APART:
        found.append(
            "all samples of a batch have nearly the same distribution over the prototypes (told "
            f"apart {teacher_told_apart:.4f}, should be above {LEAST_TOLD_APART}), "
            f"{_kind(teacher_entropy)}"
        )
    if feature_spread < LEAST_SPREAD:
        found.append(
            "all samples of a batch have nearly the same features (spread "
            f"{feature_spread:.4f}, should be above {LEAST_SPREAD}): lower the learning rate"
        )
    return f"self-distillation has collapsed: {'; and '.join(found)}" if found else None


def _kind(entropy: float) -> str:
    if entropy > EVEN:
        return (
            f"which is spread evenly over all of them (entropy {entropy:.2f}): sharpen more "
            "(lower teacher_temperature)"
        )
    if entropy < 1 - EVEN:
        return (
            f"with everything on one of them (entropy {entropy:.2f}): let the center follow "
            "faster (lower center_momentum), or sharpen less (raise teacher_temperature)"
        )
    return (
        f"on some of them (entropy {entropy:.2f}): let the center follow faster (lower "
        "center_momentum), or lower the learning rate"
    )
