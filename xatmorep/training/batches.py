"""Batches by their number: read, hidden and labelled, the same whenever they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from xatmorep.data.normalization import Normalizer
from xatmorep.tokens.batch import TokenBatch
from xatmorep.training.card import iso
from xatmorep.training.config import PretrainConfig
from xatmorep.training.data import TrainingData
from xatmorep.training.examples import Example, example, join
from xatmorep.training.order import DataOrder, Slab, derived_seed

__all__ = ["Batch", "Batches"]

# More would not help to find what is wrong with the data.
LISTED = 4


@dataclass(frozen=True)
class Batch:
    """What the network sees in one step.

    Attributes
    ----------
    number : int
        Number of the batch, from 0.
    slabs : tuple of Slab
        The time slabs that it was cut from.
    parts : tuple of Example
        The examples, in as many parts as are accumulated.
    shares : tuple of dict of str to float
        For each part and field its share of the weight of all hidden points of the batch. The
        losses of the parts times these shares sum to the loss of the whole batch.
    places : tuple of str
        Times and neighborhoods of each slab, in words.
    """

    number: int
    slabs: tuple[Slab, ...]
    parts: tuple[Example, ...]
    shares: tuple[dict[str, float], ...]
    places: tuple[str, ...]

    @property
    def epochs(self) -> list[int]:
        """Epochs of the slabs; two where a batch holds the end of one."""
        return sorted({slab.epoch for slab in self.slabs})

    @property
    def position(self) -> dict[str, float]:
        """Epoch and number of the first slab, and number of the last one, for the ledger."""
        first, last = self.slabs[0], self.slabs[-1]
        return {"epoch": first.epoch, "first_slab": first.number, "last_slab": last.number}

    def __str__(self) -> str:
        epochs = " and ".join(map(str, self.epochs))
        more = f"; and {len(self.places) - LISTED} more" * (len(self.places) > LISTED)
        return f"batch {self.number} of epoch {epochs}: {'; '.join(self.places[:LISTED])}{more}"


class Batches:
    """All batches that a run will ever see, each made when it is asked for.

    Parameters
    ----------
    data : TrainingData
        The data.
    normalizer : Normalizer
        Their statistics.
    config : PretrainConfig
        The run.
    purpose : {"training", "validation"}
        Whether to draw from the training or the held-out times; each has draws of its own.
    """

    def __init__(
        self,
        data: TrainingData,
        normalizer: Normalizer,
        config: PretrainConfig,
        purpose: Literal["training", "validation"],
    ) -> None:
        self.config = config
        self.purpose = purpose
        held_out = [] if data.held_out is None else [data.held_out]
        self.sources = [
            data.neighborhoods(run, normalizer, config, self._seed("neighborhoods", number))
            for number, run in enumerate(data.training if purpose == "training" else held_out)
        ]
        sizes = [source.slabs_per_epoch for source in self.sources]
        self.order = DataOrder(sizes, config.slabs_per_batch, self._seed("order"))

    def batch(self, number: int, *, shard: int = 0, n_shards: int = 1) -> Batch:
        """The batch of a number, or the share of it that one of several readers prepares.

        Parameters
        ----------
        number : int
            Number of the batch, from 0.
        shard, n_shards : int
            Which of how many readers asks, see `DataOrder.batch`. A slab is the same, and so is
            what is hidden in it and in its views, whoever reads it.
        """
        slabs = self.order.batch(number, shard=shard, n_shards=n_shards)
        crops = [self.sources[slab.source].slab(slab.epoch, slab.index) for slab in slabs]
        examples = [
            example(
                batch,
                self.config,
                self._seed("masks", slab.number),
                self._seed("views", slab.number),
            )
            for slab, batch in zip(slabs, crops, strict=True)
        ]
        parts = _parts(examples, self.config.accumulate)
        return Batch(
            number, tuple(slabs), parts, tuple(_shares(parts)), tuple(_place(b) for b in crops)
        )

    def since(self, number: int, stop: int | None = None) -> Iterator[Batch]:
        """Batches from a number on, up to another or without end."""
        while stop is None or number < stop:
            yield self.batch(number)
            number += 1

    def _seed(self, *parts: str | int) -> int:
        return derived_seed(self.config.seed, self.purpose, *parts)


def _parts(examples: Sequence[Example], n: int) -> tuple[Example, ...]:
    """Join the examples of slabs to n parts of about the same size, none of them empty."""
    ends = [len(examples) * i // n for i in range(n + 1)]
    return tuple(join(examples[start:stop]) for start, stop in pairwise(ends) if stop > start)


def _shares(parts: Sequence[Example]) -> Iterator[dict[str, float]]:
    """Share of each part in the weight of each field."""
    sums = [{name: weight.sum().item() for name, weight in part.weight.items()} for part in parts]
    for own in sums:
        whole = {name: sum(each[name] for each in sums) for name in own}
        yield {name: own[name] / whole[name] if whole[name] else 0.0 for name in own}


def _place(batch: TokenBatch) -> str:
    """Times and places of the neighborhoods of one slab."""
    boxes = [
        f"{rows[0]:g} to {rows[-1]:g} N {columns[0]:g} to {columns[-1]:g} E"
        for rows, columns in zip(batch.latitude, batch.longitude, strict=True)
    ]
    more = f" and {len(boxes) - LISTED} more" * (len(boxes) > LISTED)
    times = f"{iso(batch.times[0, 0])} to {iso(batch.times[0, -1])}"
    return f"{times} at {', '.join(boxes[:LISTED])}{more}"
