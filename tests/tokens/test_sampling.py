"""Random neighborhoods: from the data, everywhere, once read, never the same draw twice."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr

from tests.tokens.strategies import dataset, make_spec
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.sampling import RandomNeighborhoods
from xatmorep.tokens.spec import InputSpec

SPEC = make_spec(
    (2, 4, 6),
    {"a": ((1, 2, 3), (500, 850)), "b": ((2, 2, 2), ())},
    statics=("orography", "land_sea_mask"),
    grid_step=(20, 30),
)


def sampler(
    spec: InputSpec = SPEC, sizes: tuple[int, int, int] = (9, 8, 12), **options: object
) -> RandomNeighborhoods:
    fields, statics = dataset(spec, sizes, north=70.0)
    options = {"is_global": True, "crops_per_slab": 5, "seed": 3, **options}
    return RandomNeighborhoods(fields, statics, spec, **options)  # type: ignore[arg-type]


def content(batch: TokenBatch) -> tuple[bytes, ...]:
    """What makes two batches the same."""
    arrays = [batch.times, batch.latitude, batch.longitude]
    for group in (batch.tokens, batch.info, batch.statics):
        arrays += [group[name] for name in sorted(group)]
    return tuple(array.tobytes() for array in arrays)


def draws(batches: Iterable[TokenBatch]) -> list[tuple[bytes, ...]]:
    return [content(batch) for batch in batches]


@pytest.mark.parametrize("calendar", [None, "360_day"])
def test_neighborhoods_are_pieces_of_the_data(calendar: str | None) -> None:
    fields, statics = dataset(SPEC, (9, 8, 12), north=70.0, calendar=calendar)
    neighborhoods = RandomNeighborhoods(
        fields, statics, SPEC, is_global=True, crops_per_slab=7, seed=0
    )
    n = 0
    for batch in neighborhoods.batches(epoch=0):
        for name, field in fields.items():
            for crop in batch.to_grid(name):
                around = crop.assign_coords(longitude=crop["longitude"] % 360)
                xr.testing.assert_identical(
                    around, field.sel({dim: around[dim] for dim in around.dims})
                )
                n += 1
        crop = batch.to_dataset()
        for number, static in enumerate(statics.values()):
            for i in range(len(batch)):
                there = static.sel(
                    latitude=batch.latitude[i], longitude=batch.longitude[i] % 360
                ).values
                cut = crop["a_statics"].values[i, :, :, number]
                np.testing.assert_array_equal(cut.swapaxes(1, 2).reshape(4, 6), there)
    assert n == 4 * 7 * 2


def test_every_place_is_drawn_and_longitude_wraps_on_a_globe_only() -> None:
    for is_global, starts in ((True, 12), (False, 7)):
        neighborhoods = sampler(is_global=is_global, crops_per_slab=200, slabs_per_epoch=60)
        batches = list(neighborhoods.batches(epoch=0))
        west = np.concatenate([batch.longitude[:, 0] for batch in batches])
        assert np.unique(west).tolist() == [30.0 * i for i in range(starts)]
        north = np.concatenate([batch.latitude[:, 0] for batch in batches])
        assert np.unique(north).tolist() == [-10, 10, 30, 50, 70]
        first = {batch.times[0, 0] for batch in batches}
        assert len(first) == 8
        counts = np.unique(west, return_counts=True)[1]
        assert counts.min() > 0.8 * counts.mean()
        # all crops of a slab share its times
        assert all((batch.times == batch.times[0]).all() for batch in batches)


@pytest.mark.parametrize("is_global", [True, False])
def test_a_dataset_of_one_box(is_global: bool) -> None:
    spec = make_spec((2, 4, 12), {"a": ((1, 2, 3), ())}, grid_step=(20, 30))
    batches = list(sampler(spec, (2, 4, 12), is_global=is_global).batches(epoch=0))
    assert [len(batch) for batch in batches] == [5]
    (batch,) = batches
    assert (batch.latitude[:, 0] == 70).all()
    assert (np.ptp(batch.longitude, axis=1) == 330).all()
    assert (len(np.unique(batch.longitude[:, 0])) > 1) == is_global


class Counter:
    """Array that counts how often it is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.reads: list[tuple[slice, ...]] = []

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        self.reads.append(key)
        return self.values[key]


def test_each_slab_is_read_once_and_computed_once() -> None:
    fields, statics = dataset(SPEC, (8, 8, 12), north=70.0)
    counters = {name: Counter(field.values) for name, field in fields.items()}
    lazy = {
        name: field.copy(
            data=dask.array.from_array(counters[name], chunks=(1, -1, -1, -1), meta=np.empty(0))
        )
        for name, field in fields.items()
    }
    computes = []

    def schedule(graph: object, keys: object, **options: object) -> object:
        computes.append(keys)
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=schedule):
        options = {"is_global": True, "crops_per_slab": 50, "seed": 3}
        neighborhoods = RandomNeighborhoods(lazy, statics, SPEC, **options)
        assert not computes
        found = draws(neighborhoods.batches(epoch=0))
    assert len(found) == len(computes) == 4  # both fields in one compute
    for counter in counters.values():
        assert len(counter.reads) == 4 * 2  # chunks of one frame, two frames in a slab
    assert all(dask.is_dask_collection(field.data) for field in lazy.values())
    eager = RandomNeighborhoods(fields, statics, SPEC, **options)
    assert draws(eager.batches(epoch=0)) == found


@pytest.mark.parametrize("n_shards", [1, 2, 3, 7, 20])
def test_shards_are_disjoint_and_their_union_is_the_epoch(n_shards: int) -> None:
    neighborhoods = sampler(slabs_per_epoch=10)
    epoch = draws(neighborhoods.batches(epoch=4))
    assert len(set(epoch)) == 10
    shards = [draws(neighborhoods.batches(4, shard=i, n_shards=n_shards)) for i in range(n_shards)]
    assert sorted(draw for shard in shards for draw in shard) == sorted(epoch)
    for i, shard in enumerate(shards):
        assert shard == epoch[i::n_shards]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    runs = {
        (seed, epoch): draws(sampler(seed=seed).batches(epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({draw for run in runs.values() for draw in run}) == 4 * 4
    again = sampler(seed=1)
    list(again.batches(epoch=0))  # what was drawn before has no influence
    assert draws(again.batches(epoch=1)) == runs[1, 1]
    assert draws(pickle.loads(pickle.dumps(again)).batches(epoch=1)) == runs[1, 1]


def test_any_slab_can_be_asked_for_first() -> None:
    epoch = draws(sampler(slabs_per_epoch=10).batches(epoch=4))
    for k in (7, 0, 9, 7):
        assert content(sampler(slabs_per_epoch=10).slab(4, k)) == epoch[k]


def test_members_are_drawn_and_read_one_at_a_time() -> None:
    fields, statics = dataset(SPEC, (4, 8, 12), north=70.0)
    members = {
        name: xr.concat([field.fillna(0) * 0 + i for i in range(3)], dim="number")
        for name, field in fields.items()
    }
    counter = Counter(members["a"].values)
    members["a"] = members["a"].copy(
        data=dask.array.from_array(counter, chunks=(1, -1, -1, -1, -1), meta=np.empty(0))
    )
    options = {"is_global": True, "crops_per_slab": 2, "seed": 0}
    assert RandomNeighborhoods(members, statics, SPEC, **options).slabs_per_epoch == 2 * 3
    neighborhoods = RandomNeighborhoods(members, statics, SPEC, slabs_per_epoch=20, **options)
    batches = list(neighborhoods.batches(epoch=0))
    assert len(counter.reads) == 20  # a chunk holds one member
    seen = [
        {value for tokens in batch.tokens.values() for value in np.unique(tokens)}
        for batch in batches
    ]
    assert all(len(values) == 1 for values in seen)
    assert set.union(*seen) == {0, 1, 2}


def test_order_of_dimensions_does_not_matter() -> None:
    fields, statics = dataset(SPEC, (9, 8, 12), north=70.0)
    turned = {name: field.transpose("level", "longitude", ...) for name, field in fields.items()}
    turned_statics = {name: static.transpose() for name, static in statics.items()}
    options = {"is_global": True, "crops_per_slab": 5, "seed": 3}
    found = RandomNeighborhoods(turned, turned_statics, SPEC, **options)
    assert draws(found.batches(0)) == draws(sampler().batches(0))


def test_a_region_across_greenwich_goes_on_beyond_360() -> None:
    fields, statics = dataset(SPEC, (2, 4, 7), north=70.0, west=270.0)
    options = {"is_global": False, "crops_per_slab": 9, "seed": 0}
    (batch,) = RandomNeighborhoods(fields, statics, SPEC, **options).batches(0)
    assert set(batch.longitude[:, 0]) == {270, 300}
    assert batch.longitude.max() == 450


def test_refuses() -> None:
    fields, statics = dataset(SPEC, (2, 4, 6), north=70.0)
    options = {"is_global": False, "crops_per_slab": 1, "seed": 0}
    with pytest.raises(ConventionError, match=r"reads \['b', 'orography'\], which were not given"):
        RandomNeighborhoods(
            {"a": fields["a"]}, {"land_sea_mask": statics["land_sea_mask"]}, SPEC, **options
        )
    with pytest.raises(ConventionError, match="dimension 'time' has 1 points"):
        RandomNeighborhoods({n: f[:1] for n, f in fields.items()}, statics, SPEC, **options)
    with pytest.raises(ConfigError, match=r"crops_per_slab \(0\)"):
        sampler(crops_per_slab=0)
    with pytest.raises(ConfigError, match=r"slabs_per_epoch \(0\)"):
        sampler(slabs_per_epoch=0)
    for shard, n_shards in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match="count them from 0"):
            next(sampler().batches(0, shard=shard, n_shards=n_shards))
