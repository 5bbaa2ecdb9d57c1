"""Self-distillation in a run: its loss, its teacher after a step, and what the log says of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from xatmorep.model.inputs import NetworkInput
from xatmorep.model.multiformer import Multiformer
from xatmorep.objectives.distillation import Distillation
from xatmorep.training.config import PretrainConfig
from xatmorep.training.order import derived_seed

__all__ = ["Teaching", "make_distillation"]


def make_distillation(network: Multiformer, config: PretrainConfig) -> Distillation | None:
    """Head, teacher and all else that self-distillation needs besides the network, if it is used.

    Parameters
    ----------
    network : Multiformer
        The network that is trained, on its device.
    config : PretrainConfig
        The run; the initial weights of the head follow from its seed.
    """
    if config.distillation is None:
        return None
    width = sum(entry.width for entry in config.model.networks.values())
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "head"))
    distillation = Distillation(network, width, config.distillation, generator)
    return distillation.to(next(network.parameters()).device)


class Teaching:
    """What self-distillation does in the steps and validations of a run.

    Parameters
    ----------
    network : Multiformer
        The student.
    distillation : Distillation
        All of its state.
    steps : int
        Steps of the run.
    compile : bool
        Whether `torch.compile` makes the encoders faster.

    Attributes
    ----------
    config : DistillationConfig
        How it is taught.
    collapsed : bool
        Whether the teacher had collapsed at the last report.
    """

    def __init__(
        self, network: Multiformer, distillation: Distillation, steps: int, *, compile: bool = False
    ) -> None:
        self.network = network
        self.distillation = distillation
        self.steps = steps
        self.collapsed = False
        self.config = distillation.config
        self._encode = torch.compile(_last_layer) if compile else _last_layer

    def loss(self, views: Sequence[NetworkInput], step: int) -> Tensor:
        """Loss of a batch, or a part of it, in a step that is numbered from 0."""
        return self.distillation.train()(self.network, views, self._encode, step, self.steps)

    def update(self, step: int) -> None:
        """Move the teacher after a step that is numbered from 0."""
        self.distillation.update(self.network, step, self.steps)

    @torch.no_grad()
    def validate(self, parts: Iterable[Sequence[NetworkInput]], step: int) -> float:
        """Mean loss of the views of neighborhoods, after so many steps; it changes nothing.

        It is the loss of the student itself, also where an average of its weights is saved: there
        is no average of the head.
        """
        network, distillation = self.network.eval(), self.distillation.eval()
        losses = [distillation(network, views, _last_layer, step, self.steps) for views in parts]
        return torch.stack(losses).mean().item()

    def report(self, step: int) -> dict[str, float]:
        """Numbers for the log about the steps since the last report.

        There are none if no part of a batch has two neighborhoods to be told apart.

        Warns
        -----
        UserWarning
            If the teacher has collapsed since then.
        """
        report = self.distillation.guard.report()
        if report.warning and not self.collapsed:
            warnings.warn(f"after step {step}: {report.warning}", stacklevel=2)
        self.collapsed = report.warning is not None
        return {name: x for name, x in report.numbers.items() if math.isfinite(x)}


def _last_layer(network: Multiformer, inputs: NetworkInput) -> Mapping[str, Tensor]:
    return {name: layers[-1] for name, layers in network.encode(inputs).items()}
