"""The order in which a run sees its data: a matter of arithmetic, not of history.

All time slabs that a run will ever read are numbered 0, 1, 2, ... Batch b holds the slabs
``[b * s, (b + 1) * s)``. Where a slab comes from, where its neighborhoods are cut and what is
hidden in them follows from the seed and its number alone. So a run goes on from any batch without
looking at those before, and any number of readers can share the work without telling each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from xatmorep.errors import ConfigError

__all__ = ["DataOrder", "Slab", "derived_seed"]


def derived_seed(seed: int, *parts: str | int) -> int:
    """A seed of its own for each purpose and number, not negative and below 2**63.

    Examples
    --------
    >>> derived_seed(0, "masks", 1) == derived_seed(0, "masks", 1)
    True
    >>> len({derived_seed(seed, "masks", slab) for seed in range(100) for slab in range(100)})
    10000
    """
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


@dataclass(frozen=True)
class Slab:
    """One time slab of a run.

    Attributes
    ----------
    number : int
        Counted from the beginning of the run.
    epoch : int
        How often all data had been through before it.
    source : int
        Which of the sources it is read from.
    index : int
        Number among the slabs of this source in this epoch.
    """

    number: int
    epoch: int
    source: int
    index: int


class DataOrder:
    """Which slabs make up a batch.

    Each epoch has every slab of every source once. The sources take turns in an order that is
    drawn for each epoch.

    Parameters
    ----------
    sizes : sequence of int
        Slabs of each source in an epoch.
    slabs_per_batch : int
        Slabs in a batch; the last batch of an epoch takes some of the next one.
    seed : int
        Seed of the order.

    Examples
    --------
    >>> order = DataOrder([3, 2], slabs_per_batch=4, seed=0)
    >>> [slab.number for slab in order.batch(2)], [slab.epoch for slab in order.batch(2)]
    ([8, 9, 10, 11], [1, 1, 2, 2])
    >>> [[slab.number for slab in order.batch(2, shard=i, n_shards=2)] for i in range(2)]
    [[8, 10], [9, 11]]
    """

    def __init__(self, sizes: Sequence[int], slabs_per_batch: int, seed: int) -> None:
        self.sizes = tuple(sizes)
        self.slabs_per_batch = slabs_per_batch
        self.seed = seed

    def slab(self, number: int) -> Slab:
        """The slab of a number."""
        epoch, place = divmod(number, sum(self.sizes))
        sources, indices = _turns(self.sizes, self.seed, epoch)
        return Slab(number, epoch, int(sources[place]), int(indices[place]))

    def batch(self, number: int, *, shard: int = 0, n_shards: int = 1) -> list[Slab]:
        """The slabs of a batch, or those that one of several readers has to read.

        Parameters
        ----------
        number : int
            Number of the batch, from 0.
        shard, n_shards : int
            Which of how many readers (processes times data workers) asks: slab ``n`` is that of
            reader ``n % n_shards``.

        Raises
        ------
        ConfigError
            If the shard is not one of `n_shards`.
        """
        if not 0 <= shard < n_shards:
            raise ConfigError(f"shard {shard} is not one of {n_shards}: count them from 0")
        first = number * self.slabs_per_batch
        numbers = range(first, first + self.slabs_per_batch)
        return [self.slab(n) for n in numbers if n % n_shards == shard]


@lru_cache(maxsize=4)
def _turns(
    sizes: tuple[int, ...], seed: int, epoch: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Source of each slab of an epoch, and its number there."""
    rng = np.random.default_rng(derived_seed(seed, "order", epoch))
    places = rng.permutation(sum(sizes))
    sources = np.repeat(np.arange(len(sizes)), sizes)
    indices = np.concatenate([np.arange(size) for size in sizes])
    return sources[places], indices[places]
