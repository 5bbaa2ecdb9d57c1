"""All that a run is made of at one moment: what a checkpoint holds, and what goes on from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from xatmorep.errors import CheckpointError
from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import PretrainConfig
from xatmorep.training.optimizer import Average, make_optimizer
from xatmorep.training.teaching import make_distillation

__all__ = ["Tally", "TrainingState"]


@dataclass
class Tally:
    """Sums over the steps since the last line of the log.

    Attributes
    ----------
    loss, distillation_loss : float
        Sums of the losses, and of what of them is that of self-distillation, without its weight.
    steps : int
        Number of steps.
    seconds, waited : float
        Wall-clock time of them, and how much of it was spent waiting for data.
    """

    loss: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    distillation_loss: float = 0.0

    def add(self, line: Mapping[str, float], seconds: float, waited: float) -> None:
        """Count one more step, of which `line` has the losses."""
        self.loss += line["loss"]
        self.distillation_loss += line.get("distillation_loss", 0.0)
        self.steps += 1
        self.seconds += seconds
        self.waited += waited


class TrainingState:
    """Network, optimizer and all else that changes from step to step.

    What is not here follows from the configuration and the number of the step: the learning rate,
    the data and what is hidden in them.

    Parameters
    ----------
    network : Multiformer
        The network, on its device.
    config : PretrainConfig
        The run.

    Attributes
    ----------
    distillation : Distillation or None
        Head, teacher and the rest of self-distillation.
    optimizer : torch.optim.AdamW
    scaler : torch.amp.GradScaler
        Does nothing but for float16.
    average : Average or None
        Moving average of the weights.
    step : int
        Steps that were done; also the number of the next batch.
    best : float
        Lowest score so far, see `Learner.score`.
    seconds : float
        Wall-clock time of the steps and validations so far.
    tally : Tally
    """

    def __init__(self, network: Multiformer, config: PretrainConfig) -> None:
        self.network = network
        self.distillation = make_distillation(network, config)
        self.optimizer = make_optimizer(self.parameters, config.optimizer)
        self.device = next(network.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.average = None if config.ema is None else Average(network, config.ema)
        self.step = 0
        self.best = math.inf
        self.seconds = 0.0
        self.tally = Tally()

    @property
    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        head = [] if self.distillation is None else self.distillation.head.parameters()
        return [*self.network.parameters(), *head]

    @property
    def result(self) -> Multiformer:
        """The network that is validated and saved."""
        return self.network if self.average is None else self.average.network

    @property
    def _on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def content(self) -> dict[str, Any]:
        """Tensors and plain builtins from which `restore` makes the same state."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "distillation": None if self.distillation is None else self.distillation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "seconds": self.seconds,
            "tally": asdict(self.tally),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self._on_cuda else None,
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Become what a checkpoint holds, which has its number of steps, too.

        Raises
        ------
        CheckpointError
            If it lacks something or is of another network.
        """
        try:
            self.network.load_state_dict(content["network"])
            if self.average is not None:
                self.average.network.load_state_dict(content["average"])
            if self.distillation is not None:
                self.distillation.load_state_dict(content["distillation"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.step, self.best = content["step"], content["best"]
            self.seconds = content["seconds"]
            self.tally = Tally(**content["tally"])
            torch.set_rng_state(content["random"])
            if self._on_cuda and content["random_cuda"] is not None:
                torch.cuda.set_rng_state(content["random_cuda"], self.device)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint doesn't fit this run: {error}") from error
