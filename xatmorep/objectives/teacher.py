"""Student and teacher beside their encoders: heads, centering and sharpening, momentum.

All as in DINO: Caron et al. (2021), Emerging properties in self-supervised vision transformers,
arXiv:2104.14294.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Center",
    "ProjectionHead",
    "linear_warmup",
    "momentum_update",
    "precise",
    "rising_momentum",
    "teacher_distribution",
]


class ProjectionHead(nn.Module):
    r"""From the features of a neighborhood to how near it is to each prototype.

    .. math:: h_k(z) = \frac{w_k \cdot y}{\lVert w_k \rVert \, \lVert y \rVert}, \qquad y = MLP(z)

    Three linear layers with GELU in between, then cosines, all between -1 and 1: with vectors of
    unit length no prototype can win by being long (DINO, section 3.1 and appendix C). There is no
    batch norm, so that a sample's answer doesn't depend on the others.

    Parameters
    ----------
    width : int
        Width W of the features.
    hidden, bottleneck, prototypes : int
        Width of the hidden layers, of y, and number K of prototypes.
    generator : torch.Generator, optional
        Draws the initial weights; torch's global one if not given.

    Examples
    --------
    >>> head = ProjectionHead(6, hidden=8, bottleneck=4, prototypes=10)
    >>> head(torch.randn(3, 6)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        bottleneck: int,
        prototypes: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        with torch.no_grad():
            for weight in (p for p in self.parameters() if p.ndim == 2):
                weight.normal_(0, weight.shape[1] ** -0.5, generator=generator)
            for bias in (p for p in self.parameters() if p.ndim == 1):
                bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Cosines ``(..., K)`` of features ``(..., W)``, in float32 at least."""
        y = self.mlp(features)
        # Differences of cosines are divided by small temperatures.
        with torch.autocast(y.device.type, enabled=False):
            y = y.to(torch.promote_types(y.dtype, torch.float32))
            return F.linear(F.normalize(y, dim=-1), F.normalize(self.prototypes, dim=-1).to(y))


class Center(nn.Module):
    r"""Running mean of what the teacher says, which is subtracted from what it says next.

    .. math:: c \leftarrow m c + (1 - m) \frac{1}{n} \sum_i h(z_i)

    (equation 4 of the DINO paper). It keeps one prototype from having everything.

    Parameters
    ----------
    prototypes : int
        Number K of prototypes.
    momentum : float
        What is kept in each update, m.

    Attributes
    ----------
    value : Tensor
        ``(K,)``, c; in the state dict.

    Examples
    --------
    >>> center = Center(prototypes=2, momentum=0.5)
    >>> center.collect(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> center.update()
    >>> center.value
    tensor([1.0000, 1.5000])
    """

    value: Tensor
    sums: Tensor

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))
        # Empty between steps: nothing to be saved.
        self.register_buffer("sums", torch.zeros(prototypes + 1), persistent=False)

    @torch.no_grad()
    def collect(self, logits: Tensor) -> None:
        """Take in ``(..., K)`` answers, to be used in the next update."""
        rows = logits.detach().flatten(0, -2)
        counted = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        self.sums += counted.sum(0).to(self.sums)

    @torch.no_grad()
    def update(self, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Move toward the mean of all answers since the last update, if there were any.

        Parameters
        ----------
        reduce : callable, optional
            Sums a tensor over all processes that train together; the mean is then that of all
            their answers, even if their batches differ in size.
        """
        sums = self.sums if reduce is None else reduce(self.sums)
        if sums[-1] > 0:
            self.value.lerp_(sums[:-1] / sums[-1], 1 - self.momentum)
        self.sums = torch.zeros_like(self.sums)


def teacher_distribution(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    r"""Centered and sharpened distribution of the teacher.

    .. math:: p_k = \frac{\exp((h_k - c_k) / \tau)}{\sum_j \exp((h_j - c_j) / \tau)}

    Parameters
    ----------
    logits : Tensor
        ``(..., K)``, answers h of the head.
    center : Tensor
        ``(K,)``, see `Center`.
    temperature : float
        :math:`\tau`; the lower, the sharper.

    Returns
    -------
    Tensor
        ``(..., K)``, without gradient, in float32 at least.

    Examples
    --------
    >>> teacher_distribution(torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.0]), temperature=0.1)
    tensor([0.5000, 0.5000])
    """
    logits = precise(logits.detach())
    return ((logits - center.detach().to(logits)) / temperature).softmax(-1)


@torch.no_grad()
def momentum_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    r"""Move a teacher toward its student: :math:`t \leftarrow m t + (1 - m) s`.

    All parameters and all buffers of floating-point numbers are averaged; other buffers, such as
    counters, are copied.

    Parameters
    ----------
    teacher, student : torch.nn.Module
        Two modules with the same parameters and buffers.
    momentum : float
        m, from 0 (a copy of the student) to 1 (nothing changes).

    Examples
    --------
    >>> teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> _ = teacher.weight.data.fill_(1.0), student.weight.data.fill_(2.0)
    >>> momentum_update(teacher, student, 0.75)
    >>> teacher.weight.item()
    1.25
    """
    pairs = [
        *zip(teacher.parameters(), student.parameters(), strict=True),
        *zip(teacher.buffers(), student.buffers(), strict=True),
    ]
    for own, new in pairs:
        if own.is_floating_point():
            own.lerp_(new, 1 - momentum)
        else:
            own.copy_(new)


def linear_warmup(step: int, steps: int, *, first: float, last: float, share: float) -> float:
    """Value of a line from the first step on, and constant after a share of the steps.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    steps : int
        Steps of the run.
    first, last : float
        Values at the first step, and when the share is over.
    share : float
        Share of the steps, from 0 to 1.

    Examples
    --------
    >>> [round(linear_warmup(n, 8, first=0.04, last=0.06, share=0.5), 3) for n in range(7)]
    [0.04, 0.045, 0.05, 0.055, 0.06, 0.06, 0.06]
    """
    over = share * steps
    return last if step >= over else first + (last - first) * step / over


def rising_momentum(step: int, steps: int, *, first: float) -> float:
    r"""What a teacher keeps of itself in a step; it would be 1 after the last one.

    .. math:: m_s = 1 - (1 - m_0) \, \frac{1 + \cos(\pi s / S)}{2}

    (section 3.1 of the DINO paper, after Grill et al. 2020, arXiv:2006.07733).

    Parameters
    ----------
    step : int
        Number of the step, s, from 0.
    steps : int
        Steps of the run, S.
    first : float
        Momentum in the first step.

    Examples
    --------
    >>> [round(rising_momentum(step, 4, first=0.9), 3) for step in range(5)]
    [0.9, 0.915, 0.95, 0.985, 1.0]
    """
    return 1 - (1 - first) * 0.5 * (1 + math.cos(math.pi * step / steps))


def precise(x: Tensor) -> Tensor:
    """The same in float32 at least, which sums of many terms and small temperatures need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
