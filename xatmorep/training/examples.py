"""What the network is asked: neighborhoods in which tokens are hidden, and views of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xatmorep.model.inputs import NetworkInput
from xatmorep.objectives.contexts import with_contexts
from xatmorep.objectives.distillation import DistillationConfig, draw_views
from xatmorep.objectives.masking import hide, target_rows
from xatmorep.objectives.views import displace
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
    views : tuple of NetworkInput
        What student and teacher of self-distillation see of the same neighborhoods: the global
        views, then the local ones. Empty without it.
    """

    inputs: NetworkInput
    hidden: dict[str, Tensor]
    target: dict[str, Tensor]
    weight: dict[str, Tensor]
    views: tuple[NetworkInput, ...] = ()

    @property
    def n_samples(self) -> int:
        """Number of neighborhoods."""
        return len(next(iter(self.inputs.blank.values())))

    def to(self, device: str) -> Example:
        """The same on another device."""
        hidden, target, weight = (
            {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
            for tensors in (self.hidden, self.target, self.weight)
        )
        views = tuple(view.to(device) for view in self.views)
        return Example(self.inputs.to(device), hidden, target, weight, views)


def example(batch: TokenBatch, config: PretrainConfig, seed: int, view_seed: int = 0) -> Example:
    """Hide tokens of neighborhoods, and draw views of them, with seeds that are theirs alone."""
    values, contexts = _values(batch)
    masked = hide(values, config.masking, torch.Generator().manual_seed(seed))
    masked = with_contexts(masked, contexts, batch.spec)
    inputs = NetworkInput.of(batch, masked.tokens, masked.blank)
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
    views: tuple[NetworkInput, ...] = ()
    if config.distillation is not None:
        views = _views(batch, inputs, config.distillation, view_seed)
    return Example(inputs, hidden, target, weight, views)


def join(examples: Sequence[Example]) -> Example:
    """Examples one after the other, as one."""
    if len(examples) == 1:
        return examples[0]
    return Example(
        _join_inputs([one.inputs for one in examples]),
        _cat([one.hidden for one in examples]),
        _cat([one.target for one in examples]),
        _cat([one.weight for one in examples]),
        tuple(_join_inputs(same) for same in zip(*(one.views for one in examples), strict=True)),
    )


def _values(batch: TokenBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values of the fields, and those of the contexts."""
    values = {name: torch.from_numpy(x) for name, x in batch.tokens.items()}
    contexts = {context.name: values.pop(context.name) for context in batch.spec.contexts}
    return values, contexts


def _views(
    batch: TokenBatch, inputs: NetworkInput, config: DistillationConfig, seed: int
) -> tuple[NetworkInput, ...]:
    """What the network reads in each view; `inputs` say where and when the neighborhoods are."""
    generator = torch.Generator().manual_seed(seed)
    values, contexts = _values(batch)
    views = []
    for view in draw_views(values, config, generator):
        view = with_contexts(view, contexts, batch.spec)
        info, statics = inputs.info, inputs.statics
        if config.displaced:
            info, statics = displace(info, statics, generator)
        flat = {name: x.flatten(-3) for name, x in view.tokens.items()}
        views.append(NetworkInput(flat, info, view.blank, statics))
    return tuple(views)


def _join_inputs(inputs: Sequence[NetworkInput]) -> NetworkInput:
    return NetworkInput(
        **{
            entry.name: _cat([getattr(one, entry.name) for one in inputs])
            for entry in dataclasses.fields(NetworkInput)
        }
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
