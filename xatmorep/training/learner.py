"""One step of the optimizer, and one validation."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from xatmorep.training.teaching import Teaching

__all__ = ["Learner", "check_compiler"]

Forward = Callable[[NetworkInput, Mapping[str, Tensor]], dict[str, Tensor]]

DISTILLATION = "self-distillation"
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
        self.teaching: Teaching | None = None
        self._masked_weight = 1.0
        if state.distillation is not None:
            self.teaching = Teaching(
                state.network, state.distillation, config.steps, compile=config.compile
            )
            self._masked_weight = self.teaching.config.masked_weight
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
        weights over all hidden points, and each part counts by its share of the weight; in that of
        self-distillation by its share of the neighborhoods. Gradients of the two objectives are
        computed one after the other, so that only one of them needs memory at a time.

        Returns
        -------
        dict of str to float
            Learning rate, loss, and norm of the gradient before it was clipped; of
            self-distillation also its loss, without its weight.

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
        total = distilled = 0.0
        for terms in self._objectives(batch):
            loss = torch.stack(list(terms.values())).sum()
            value = loss.item()
            total += value
            if not math.isfinite(total):
                bad = [name for name, term in terms.items() if not bool(term.isfinite())]
                raise self._no_number(f"loss of {', '.join(bad)}", total, batch)
            state.scaler.scale(loss).backward()
            distilled += value if DISTILLATION in terms else 0.0
        state.scaler.unscale_(state.optimizer)
        clip = config.optimizer.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(state.parameters, clip).item()
        # The scaler skips steps whose gradients overflow in float16, and scales less.
        if not math.isfinite(norm) and not state.scaler.is_enabled():
            raise self._no_number("gradient", norm, batch)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        line = {"learning_rate": rate, "loss": total, "gradient_norm": norm}
        if self.teaching is not None:
            self.teaching.update(state.step)
            line["distillation_loss"] = distilled / self.teaching.config.weight
        state.step += 1
        if state.average is not None:
            state.average.update(state.network, state.step)
        return line

    def validate(self, checks: Sequence[Batch]) -> dict[str, float]:
        """Losses of the objectives that are used, each without its weight.

        Of the masked objective also the error of the ensemble mean, in standard deviations for
        each field.
        """
        line: dict[str, float] = {}
        if checks and self._masked_weight:
            line |= self._validate_masked(checks)
        if checks and self.teaching is not None:
            parts = (part.to(str(self.state.device)) for check in checks for part in check.parts)
            with self._autocast():
                loss = self.teaching.validate((part.views for part in parts), self.state.step)
            line["validation_distillation_loss"] = loss
        return line

    def watch(self) -> dict[str, float]:
        """What self-distillation did since the last line of the log, see `Teaching.report`."""
        if self.teaching is None:
            return {}
        tally = self.state.tally
        loss = tally.distillation_loss / tally.steps
        return {"training_distillation_loss": loss, **self.teaching.report(self.state.step)}

    def score(self, line: Mapping[str, float]) -> float:
        """What the best model has least of, from a line of the log.

        The validation loss, or without held-out times the training loss, both of the masked
        objective. The loss of self-distillation says little, since it is that against a teacher
        who changes: it is lowest if all has collapsed. So without the masked objective the newest
        model is best, unless the teacher had collapsed.
        """
        if self.teaching is None:
            return line.get("validation_loss", line["training_loss"])
        if not self._masked_weight:
            return 0.0 if self.teaching.collapsed else -float(self.state.step)
        distilled = self.teaching.config.weight * line["training_distillation_loss"]
        return line.get("validation_loss", line["training_loss"] - distilled)

    def _objectives(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """Terms of the loss of a batch by what they are of: of each part, of each objective."""
        n_samples = sum(part.n_samples for part in batch.parts)
        for part, shares in zip(batch.parts, batch.shares, strict=True):
            part = part.to(str(self.state.device))
            terms: dict[str, Tensor] = {}
            if self._masked_weight:
                own = self._terms(self._predict(self._forward, part), part, shares)
                terms = {name: self._masked_weight * term for name, term in own.items()}
            if self._consistency:
                weight = self._consistency / len(batch.parts)
                terms["the consistency of embeddings"] = weight * consistency(self._pairs(part))
            if terms:
                yield terms
            if self.teaching is not None:
                weight = self.teaching.config.weight * part.n_samples / n_samples
                with self._autocast():
                    loss = self.teaching.loss(part.views, self.state.step)
                yield {DISTILLATION: weight * loss}

    @torch.no_grad()
    def _validate_masked(self, checks: Sequence[Batch]) -> dict[str, float]:
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
        with self._autocast():
            return forward(part.inputs, part.hidden)

    def _pairs(self, part: Example) -> dict[str, tuple[Tensor, Tensor]]:
        """Features of the same places as tokens of two sizes, in the precision of the run."""
        with self._autocast():
            return self.state.network.at_two_sizes(part.inputs)

    def _autocast(self) -> torch.autocast:
        """The precision of the run."""
        dtype: Any = AUTOCAST.get(self.config.precision)
        return torch.autocast(self.state.device.type, dtype, enabled=dtype is not None)

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
