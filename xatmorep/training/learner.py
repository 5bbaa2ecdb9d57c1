"""One step of the optimizer, and one validation."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xatmorep.errors import ConfigError, TrainingError
from xatmorep.model.inputs import NetworkInput
from xatmorep.objectives.consistency import consistency
from xatmorep.objectives.losses import total_loss
from xatmorep.training.batches import Batch
from xatmorep.training.config import PretrainConfig
from xatmorep.training.examples import Example
from xatmorep.training.optimizer import learning_rate
from xatmorep.training.state import TrainingState

__all__ = ["Learner", "check_compiler"]

Forward = Callable[[NetworkInput, Mapping[str, Tensor]], dict[str, Tensor]]

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_compiler() -> None:
    """Refuse `torch.compile` where it can't work.

    Raises
    ------
    ConfigError
        If there is no C++ compiler.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++", "cl"))):
        raise ConfigError(
            "compile needs a C++ compiler, and there is none: install it, or leave it"
        )


class Learner:
    """Changes the state of a run by what a batch teaches.

    Parameters
    ----------
    state : TrainingState
        Network, optimizer and the rest.
    config : PretrainConfig
        The run.
    """

    def __init__(self, state: TrainingState, config: PretrainConfig) -> None:
        self.state = state
        self.config = config
        self._forward: Forward = torch.compile(state.network) if config.compile else state.network
        predicted = config.model.predicted
        weights = {name: config.field_weights.get(name, 1.0) for name in predicted}
        self._weights = {name: weights[name] / sum(weights.values()) for name in predicted}
        embedding = config.model.embedding
        self._consistency = embedding.consistency if embedding.kind == "transformer" else 0.0
        self._losses = {
            name: total_loss(config.loss, config.model.inputs.field(name).token_shape)
            for name in predicted
        }

    def learn(self, batch: Batch) -> dict[str, float]:
        """Do a step of the optimizer.

        The parts of a batch give the gradient of the whole: the loss of each field is a mean with
        weights over all hidden points, and each part counts by its share of the weight.

        Returns
        -------
        dict of str to float
            Learning rate, loss, and norm of the gradient before it was clipped.

        Raises
        ------
        TrainingError
            If the loss or the gradient is no number. Nothing was learned from this batch.
        """
        state, config = self.state, self.config
        rate = learning_rate(state.step, config.steps, config.optimizer)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.network.train()
        state.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part, shares in zip(batch.parts, batch.shares, strict=True):
            part = part.to(str(state.device))
            terms = self._terms(self._predict(self._forward, part), part, shares)
            if self._consistency:
                weight = self._consistency / len(batch.parts)
                terms["the consistency of embeddings"] = weight * consistency(self._pairs(part))
            loss = torch.stack(list(terms.values())).sum()
            total += loss.item()
            if not math.isfinite(total):
                bad = [name for name, term in terms.items() if not bool(term.isfinite())]
                raise self._no_number(f"loss of {', '.join(bad)}", total, batch)
            state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        clip = config.optimizer.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), clip).item()
        # The scaler skips steps whose gradients overflow in float16, and scales less.
        if not math.isfinite(norm) and not state.scaler.is_enabled():
            raise self._no_number("gradient", norm, batch)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        if state.average is not None:
            state.average.update(state.network, state.step)
        return {"learning_rate": rate, "loss": total, "gradient_norm": norm}

    @torch.no_grad()
    def validate(self, checks: Sequence[Batch]) -> dict[str, float]:
        """Loss, and error of the ensemble mean in standard deviations for each field."""
        if not checks:
            return {}
        network = self.state.result.eval()
        losses, errors, weights = 0.0, dict[str, float](), dict[str, float]()
        for batch in checks:
            for part, shares in zip(batch.parts, batch.shares, strict=True):
                part = part.to(str(self.state.device))
                predictions = self._predict(network, part)
                losses += sum(x.item() for x in self._terms(predictions, part, shares).values())
                for name, prediction in predictions.items():
                    square = (prediction.mean(1) - part.target[name]).square() * part.weight[name]
                    errors[name] = errors.get(name, 0.0) + square.sum().item()
                    weights[name] = weights.get(name, 0.0) + part.weight[name].sum().item()
        return {"validation_loss": losses / len(checks)} | {
            f"rmse_{name}": math.sqrt(error / weights[name])
            for name, error in errors.items()
            if weights[name]  # none of its tokens may be hidden in these batches
        }

    def _predict(self, forward: Forward, part: Example) -> dict[str, Tensor]:
        """Hidden tokens of each field (tokens, members, points), in the precision of the run."""
        dtype: Any = AUTOCAST.get(self.config.precision)
        with torch.autocast(self.state.device.type, dtype, enabled=dtype is not None):
            return forward(part.inputs, part.hidden)

    def _pairs(self, part: Example) -> dict[str, tuple[Tensor, Tensor]]:
        """Features of the same places as tokens of two sizes, in the precision of the run."""
        dtype: Any = AUTOCAST.get(self.config.precision)
        with torch.autocast(self.state.device.type, dtype, enabled=dtype is not None):
            return self.state.network.at_two_sizes(part.inputs)

    def _terms(
        self, predictions: Mapping[str, Tensor], part: Example, shares: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """What each field adds to the loss of the batch."""
        return {
            name: weight
            * shares[name]
            * self._losses[name](predictions[name], part.target[name], part.weight[name])
            for name, weight in self._weights.items()
            if weight
        }

    def _no_number(self, what: str, value: float, batch: Batch) -> TrainingError:
        return TrainingError(
            f"the {what} is {value} at step {self.state.step + 1}, in {batch}. Lower the learning "
            "rate, clip the gradients more, or look for impossible values there"
        )
