"""What the network is asked: neighborhoods in which tokens are hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xatmorep.model.inputs import NetworkInput
from xatmorep.objectives.contexts import with_contexts
from xatmorep.objectives.masking import hide, target_rows
from xatmorep.objectives.weighting import latitude_weights, level_weights
from xatmorep.tokens.batch import TokenBatch
from xatmorep.training.config import PretrainConfig

__all__ = ["Example", "example", "join"]


@dataclass(frozen=True)
class Example:
    """A batch with hidden tokens, and what the network has to say about them.

    Attributes
    ----------
    inputs : NetworkInput
        What the network sees.
    hidden : dict of Tensor
        Bool (batch, level, T, A, O) for each predicted field.
    target, weight : dict of Tensor
        (tokens, points) for each predicted field, in the order of the hidden tokens.
    """

    inputs: NetworkInput
    hidden: dict[str, Tensor]
    target: dict[str, Tensor]
    weight: dict[str, Tensor]

    def to(self, device: str) -> Example:
        """The same on another device."""
        return Example(
            self.inputs.to(device),
            *(
                {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
                for tensors in (self.hidden, self.target, self.weight)
            ),
        )


def example(batch: TokenBatch, config: PretrainConfig, seed: int) -> Example:
    """Hide tokens of neighborhoods, with a seed that is theirs alone."""
    values = {name: torch.from_numpy(x) for name, x in batch.tokens.items()}
    contexts = {context.name: values.pop(context.name) for context in batch.spec.contexts}
    masked = hide(values, config.masking, torch.Generator().manual_seed(seed))
    masked = with_contexts(masked, contexts, batch.spec)
    hidden, target, weight = {}, {}, {}
    for name in config.model.predicted:
        hidden[name] = masked.hidden[name]
        target[name], weight[name] = target_rows(values[name], hidden[name])
        if config.latitude_weighted:
            weight[name] = weight[name] * _area(batch, name)[hidden[name]]
        if name in config.level_weights:
            levels = config.model.inputs.field(name).levels
            factors = [config.level_weights[name].get(level, 1.0) for level in levels]
            weight[name] = weight[name] * level_weights(factors, hidden[name])
    return Example(NetworkInput.of(batch, masked.tokens, masked.blank), hidden, target, weight)


def join(examples: Sequence[Example]) -> Example:
    """Examples one after the other, as one."""
    if len(examples) == 1:
        return examples[0]
    inputs = {
        entry.name: _cat([getattr(one.inputs, entry.name) for one in examples])
        for entry in dataclasses.fields(NetworkInput)
    }
    return Example(
        NetworkInput(**inputs),
        _cat([one.hidden for one in examples]),
        _cat([one.target for one in examples]),
        _cat([one.weight for one in examples]),
    )


def _cat(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _area(batch: TokenBatch, name: str) -> Tensor:
    """Cosine of latitude of each point, (batch, level, T, A, O, points)."""
    a = batch.spec.field(name).token_shape[1]
    rows = latitude_weights(torch.from_numpy(batch.latitude)).float()
    area = rows.reshape(len(rows), 1, 1, -1, 1, 1, a, 1)
    shape = batch.tokens[name].shape
    return area.expand(*shape).flatten(-3)
