"""A tiny encoder and neighborhoods of a few kinds, to see self-distillation learn in seconds."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from xatmorep.objectives.distillation import Distillation, DistillationConfig, draw_views
from xatmorep.objectives.masking import Masked

__all__ = ["WIDTH", "Encoder", "Run", "encode", "neighborhoods", "small"]

KINDS = 8
SHAPES = {"u": (2, 2, 4, 4, 1, 2, 2), "v": (1, 4, 2, 2, 1, 2, 2)}
WIDTHS = {"u": 16, "v": 8}

WIDTH = 24
"""Width of pooled features, of both fields together."""

N_BATCHES = 16


def neighborhoods(n: int, seed: int) -> dict[str, Tensor]:
    """Tokens of n neighborhoods by field: something in common, one of a few patterns, noise."""
    fixed = torch.Generator().manual_seed(99)
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(KINDS, (n,), generator=generator)
    tokens = {}
    for name, shape in SHAPES.items():
        # Each token shows the whole pattern, so that a small view is enough to know it.
        patterns = torch.randn((KINDS, 1, 1, 1, 1, *shape[4:]), generator=fixed)
        common = torch.randn(shape[4:], generator=fixed)
        noise = torch.randn((n, *shape), generator=generator)
        tokens[name] = 2 * common + 0.3 * patterns[kind] + 0.2 * noise
    return tokens


class Encoder(nn.Module):
    """Each token by itself, and then with the mean of the visible ones of both fields."""

    def __init__(self, seed: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.ModuleDict({n: nn.Linear(4, WIDTHS[n]) for n in SHAPES})
            self.last = nn.ModuleDict({n: nn.Linear(WIDTHS[n] + WIDTH, WIDTHS[n]) for n in SHAPES})
        self.dropout = nn.Dropout(dropout)

    def forward(self, view: Masked) -> dict[str, Tensor]:
        features, seen = {}, []
        for name in sorted(SHAPES):
            visible = (~view.blank[name]).flatten(1)[..., None]
            tokens = view.tokens[name].flatten(-3).flatten(1, 4)
            features[name] = self.dropout(nn.functional.gelu(self.first[name](tokens))) * visible
            seen.append(features[name].sum(1) / visible.sum(1).clamp(min=1))
        context = torch.cat(seen, dim=1)[:, None]
        return {
            name: self.last[name](torch.cat([x, context.expand(-1, x.shape[1], -1)], dim=2))
            for name, x in features.items()
        }


def encode(network: Encoder, view: Masked) -> dict[str, Tensor]:
    """Features of the last layer."""
    features: dict[str, Tensor] = network(view)
    return features


def small(**options: object) -> DistillationConfig:
    """A small head, few views, and a teacher that follows fast."""
    size = {"n_local": 1, "prototypes": 32, "hidden": 32, "bottleneck": 16}
    return DistillationConfig(**{**size, "teacher_momentum": 0.95, **options})


@lru_cache
def views(number: int, batch: int) -> list[Masked]:
    """The views of a batch."""
    return draw_views(neighborhoods(batch, number), small(), torch.Generator().manual_seed(number))


class Run:
    """All that changes from step to step, and the steps."""

    def __init__(self, config: DistillationConfig, *, steps: int, dropout: float = 0.0) -> None:
        self.network = Encoder(dropout=dropout)
        self.distillation = Distillation(
            self.network, WIDTH, config, torch.Generator().manual_seed(3)
        )
        parameters = [*self.network.parameters(), *self.distillation.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.0)
        self.steps = steps

    def learn(self, steps: range) -> list[float]:
        """Do some of the steps; all draws follow from their numbers."""
        losses = []
        for step in steps:
            torch.manual_seed(step)  # for dropout
            seen = views(step % N_BATCHES, 16)
            loss = self.distillation(self.network, seen, encode, step, self.steps)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.distillation.update(self.network, step, self.steps)
            losses.append(loss.item())
        return losses

    def content(self) -> dict[str, dict]:
        """What a checkpoint would hold."""
        return {
            name: getattr(self, name).state_dict()
            for name in ("network", "distillation", "optimizer")
        }

    def restore(self, content: dict[str, dict]) -> None:
        for name, state in content.items():
            getattr(self, name).load_state_dict(state)
