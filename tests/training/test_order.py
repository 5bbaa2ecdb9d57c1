from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.errors import ConfigError
from xatmorep.training.order import DataOrder, derived_seed

SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any)


@given(SIZES, st.integers(1, 7), st.integers(0, 3))
def test_each_epoch_has_every_slab_of_every_source_once(sizes, per_batch, epoch):
    order = DataOrder(sizes, per_batch, seed=1)
    whole = sum(sizes)
    found = [order.slab(n) for n in range(epoch * whole, (epoch + 1) * whole)]
    assert {slab.epoch for slab in found} == {epoch}
    expected = [(source, i) for source, size in enumerate(sizes) for i in range(size)]
    assert sorted((slab.source, slab.index) for slab in found) == expected


@given(SIZES, st.integers(1, 7), st.integers(1, 5))
def test_batches_follow_each_other_without_gap_however_many_read_them(sizes, per_batch, n_shards):
    order = DataOrder(sizes, per_batch, seed=1)
    batches = [order.batch(number) for number in range(6)]
    assert [slab.number for batch in batches for slab in batch] == list(range(6 * per_batch))
    for number, batch in enumerate(batches):
        shards = [order.batch(number, shard=i, n_shards=n_shards) for i in range(n_shards)]
        together = sorted((s for shard in shards for s in shard), key=lambda slab: slab.number)
        assert together == batch


def test_any_batch_can_be_asked_for_first():
    sizes, numbers = [30, 12], (7, 100, 3, 0)
    one = DataOrder(sizes, 4, seed=5)
    for number in numbers:
        assert one.batch(number) == DataOrder(sizes, 4, seed=5).batch(number)


def test_sources_take_turns_in_another_order_each_epoch():
    order = DataOrder([20, 20], 1, seed=0)
    epochs = [[order.slab(40 * e + k).source for k in range(40)] for e in range(3)]
    for turns in epochs:
        assert sum(a != b for a, b in pairwise(turns)) > 8
    assert len({tuple(turns) for turns in epochs}) == 3
    other = DataOrder([20, 20], 1, seed=1)
    assert [other.slab(k).source for k in range(40)] != epochs[0]


def test_a_shard_that_is_none_is_refused():
    order = DataOrder([3], 2, seed=0)
    for shard, n_shards in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match="count them from 0"):
            order.batch(0, shard=shard, n_shards=n_shards)


def test_seeds_of_purposes_and_numbers_don_t_meet():
    seeds = {
        derived_seed(seed, purpose, word, number)
        for seed in (0, 1, 10, 2**40)
        for purpose in ("training", "validation")
        for word in ("masks", "neighborhoods")
        for number in (0, 1, 10, 11)
    }
    assert len(seeds) == 4 * 2 * 2 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)
