from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.tasks import small
from tests.training.runs import DISTILLATION, RUN, smooth
from xatmorep.training.batches import Batch, Batches
from xatmorep.training.config import read_config
from xatmorep.training.data import open_data

VALIDATION = slice("2021-01-01T00", "2021-01-01T06")
"""In the middle: there are times to train on before and after."""


def made(purpose="training", **changes) -> Batches:
    config = read_config(RUN | changes)
    data = open_data(smooth(), config, VALIDATION)
    return Batches(data, small.model().normalizer, config, purpose)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same numbers."""
    if one.slabs != other.slabs or len(one.parts) != len(other.parts):
        return False
    return all(
        torch.equal(a, b)
        for left, right in zip(one.parts, other.parts, strict=True)
        for group in ("hidden", "target", "weight")
        for a, b in zip(getattr(left, group).values(), getattr(right, group).values(), strict=True)
        if a.shape == b.shape or pytest.fail("shapes differ")
    ) and set(views(one)) == set(views(other))


def views(batch: Batch) -> list[bytes]:
    """All that each view shows of each neighborhood."""
    return [
        b"".join(
            x[sample].numpy().tobytes()
            for group in (view.tokens, view.info, view.blank, view.statics)
            for x in group.values()
        )
        for part in batch.parts
        for view in part.views
        for sample in range(part.n_samples)
    ]


def masks(batch: Batch) -> list[bytes]:
    """What is hidden in each neighborhood."""
    return [
        mask.numpy().tobytes()
        for part in batch.parts
        for mask in torch.cat([x.flatten(1) for x in part.hidden.values()], dim=1)
    ]


def test_a_batch_does_not_depend_on_those_before():
    stream = made().since(0)
    for number in range(5):
        assert same(next(stream), made().batch(number))
    assert [batch.number for batch in made().since(3, 6)] == [3, 4, 5]
    assert list(made().since(6, 6)) == []


def test_what_is_hidden_differs_between_epochs_batches_and_purposes():
    batches = [made().batch(number) for number in range(12)]
    assert {epoch for batch in batches for epoch in batch.epochs} >= {0, 1, 2, 3}
    batches += [made("validation").batch(number) for number in range(4)]
    batches += [made(seed=1).batch(number) for number in range(4)]
    found = [mask for batch in batches for mask in masks(batch)]
    assert len(set(found)) == len(found) == 20 * 4


@pytest.mark.parametrize("n_shards", [2, 4])
def test_readers_share_a_batch_and_hide_what_one_alone_would_hide(n_shards):
    """Ranks times workers of a distributed run: other slabs, other masks, the same union."""
    batches = made(batch_size=8)
    for number in (0, 3):
        whole = batches.batch(number)
        shards = [batches.batch(number, shard=i, n_shards=n_shards) for i in range(n_shards)]
        assert sorted(s.number for shard in shards for s in shard.slabs) == [
            slab.number for slab in whole.slabs
        ]
        found = [mask for shard in shards for mask in masks(shard)]
        assert len(set(found)) == 8
        assert sorted(found) == sorted(masks(whole))


def test_views_follow_from_the_number_of_the_slab():
    """Whoever reads it, whenever, and in how many parts; and the masks don't depend on them."""
    plain, batches = made(batch_size=8), made(batch_size=8, distillation=DISTILLATION)
    stream = batches.since(0)
    for number in range(4):
        whole = next(stream)
        assert same(whole, batches.batch(number))
        assert masks(whole) == masks(plain.batch(number))
        parts = made(batch_size=8, distillation=DISTILLATION, accumulate=4).batch(number)
        shards = [batches.batch(number, shard=i, n_shards=2) for i in range(2)]
        assert len(views(whole)) == 3 * 8
        assert sorted(views(parts)) == sorted(views(whole))
        assert sorted(view for shard in shards for view in views(shard)) == sorted(views(whole))
    assert views(plain.batch(0)) == []


def test_views_differ_between_epochs_batches_purposes_and_seeds():
    changes = {"distillation": DISTILLATION}
    found = [view for number in range(6) for view in views(made(**changes).batch(number))]
    for other in (made("validation", **changes), made(seed=1, **changes)):
        found += [view for number in range(2) for view in views(other.batch(number))]
    assert len(set(found)) == len(found) == 10 * 3 * 4


def test_training_never_sees_a_held_out_time_and_validation_no_other():
    held_out = smooth()["time"].sel(time=VALIDATION).values
    for purpose in ("training", "validation"):
        batches = made(purpose)
        for number in range(6):
            for slab in batches.batch(number).slabs:
                times = batches.sources[slab.source].slab(slab.epoch, slab.index).times
                assert np.isin(times, held_out).all() == (purpose == "validation")
                assert np.isin(times, held_out).any() == (purpose == "validation")


def test_both_runs_around_the_held_out_times_are_used():
    found = {slab.source for number in range(4) for slab in made().batch(number).slabs}
    assert found == {0, 1}


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_parts_hold_the_batch_and_share_its_weight(accumulate):
    whole = made(batch_size=8).batch(2)
    parts = made(batch_size=8, accumulate=accumulate).batch(2)
    assert len(parts.parts) == len(parts.shares) == accumulate
    assert masks(parts) == masks(whole)
    for name, weight in whole.parts[0].weight.items():
        shares = [share[name] for share in parts.shares]
        assert sum(shares) == pytest.approx(1)
        for part, share in zip(parts.parts, shares, strict=True):
            assert float(part.weight[name].sum() / weight.sum()) == pytest.approx(share, rel=1e-5)


def test_a_field_without_any_value_has_no_share():
    config = read_config(RUN)
    ds = smooth()
    ds["2m_temperature"] = ds["2m_temperature"] * np.nan
    ds["2m_temperature"].attrs["units"] = "K"
    batch = Batches(open_data(ds, config, None), small.model().normalizer, config, "training")
    assert batch.batch(0).shares == ({"2m_temperature": 0.0, "temperature": 1.0},)


def test_labels_say_where_a_batch_comes_from():
    batches = made()
    batch = batches.batch(2)
    assert batch.position == {"epoch": 2, "first_slab": 4, "last_slab": 5}
    text = str(batch)
    assert re.match(r"batch 2 of epoch \d", text)
    for slab in batch.slabs:
        crop = batches.sources[slab.source].slab(slab.epoch, slab.index)
        start = np.datetime_as_string(crop.times[0, 0], unit="m")
        north, south = crop.latitude[0, [0, -1]]
        assert f"{start} to " in text
        assert f"{north:g} to {south:g} N {crop.longitude[0, 0]:g} to " in text


def test_many_places_are_not_all_listed():
    text = str(made(batch_size=60, crops_per_slab=6).batch(0))
    assert text.count(" N ") == 4 * 4
    assert text.count(" and 2 more") == 4
    assert text.endswith("; and 6 more")
