"""AdamW, its learning rates, and the moving average of what it makes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import ExponentialSchedule, OptimizerConfig

__all__ = ["Average", "learning_rate", "make_optimizer"]


def make_optimizer(parameters: Iterable[Tensor], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only; fused, that is in one pass over each tensor."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=matrices[0].device.type in ("cpu", "cuda"),
    )


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Learning rate of a step.

    A linear warm-up and half a cosine down to zero, or the exponential schedule, if there is one.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    steps : int
        Steps of the run.
    config : OptimizerConfig

    References
    ----------
    The exponential schedule is that of AtmoRep: Lessig et al. (2023), arXiv:2308.13280.

    Examples
    --------
    >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=2)
    >>> [round(learning_rate(step, 6, config), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    >>> published = {"epoch_steps": 2, "warmup_epochs": 2, "first": 0.5, "decay": 2, "lowest": 0.3}
    >>> config = OptimizerConfig(learning_rate=1.0, exponential=published)
    >>> [learning_rate(step, 9, config) for step in range(9)]
    [0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3]
    """
    if config.exponential is not None:
        return _exponential(step, config.learning_rate, config.exponential)
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    gone = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * gone))


def _exponential(step: int, highest: float, config: ExponentialSchedule) -> float:
    epoch, last = step // config.epoch_steps, config.warmup_epochs - 1
    if epoch <= last:
        return config.first + (highest - config.first) * epoch / last
    # In logarithms: a power of the decay overflows in a very long run.
    return max(highest * math.exp((last - epoch) * math.log(config.decay)), config.lowest)


class Average:
    """Exponential moving average of a network's weights.

    Its decay rate rises with the number of steps n as (1 + n) / (10 + n) up to the given one, so
    that the initial weights are soon forgotten.

    Parameters
    ----------
    network : Multiformer
        The network that is trained.
    decay : float
        Decay rate for each step.

    Attributes
    ----------
    network : Multiformer
        A network with the averaged weights.
    """

    def __init__(self, network: Multiformer, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: Multiformer, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for own, new in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(new, 1 - decay)
