from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
import xarray as xr

from tests.tasks import small
from xatmorep.data.conventions import canonical_view
from xatmorep.errors import ConfigError
from xatmorep.training.config import read_config
from xatmorep.training.data import batches, examples, neighborhoods, read_ahead, split

CONFIG = read_config(
    {
        "model": small.CONFIG,
        "steps": 4,
        "batch_size": 4,
        "crops_per_slab": 2,
        "masking": {"rate": (0.5, 0.5)},
    }
)


def _stream(seed: int = 0, ds: xr.Dataset | None = None):
    ds = small.dataset() if ds is None else ds
    view = canonical_view(ds, small.CONFIG.inputs.fields, small.CONFIG.inputs.statics)
    source = neighborhoods(view, small.model().normalizer, CONFIG, slice(0, 5), seed)
    return examples(batches([source], 2), CONFIG, torch.Generator().manual_seed(seed))


def _times(n: int = 10) -> xr.DataArray:
    times = np.datetime64("2020-01-01") + np.arange(n) * np.timedelta64(1, "D")
    return xr.DataArray(times, coords={"time": times}, dims="time")


def test_split_leaves_runs_before_and_after():
    runs, held_out = split(_times(), slice("2020-01-04", "2020-01-05"), 2)
    assert runs == [slice(0, 3), slice(5, 10)]
    assert held_out == slice(3, 5)


def test_runs_too_short_for_a_neighborhood_are_left_out():
    runs, held_out = split(_times(), slice("2020-01-02", "2020-01-05"), 2)
    assert runs == [slice(5, 10)]
    assert held_out == slice(1, 5)


def test_split_of_climate_model_calendars():
    times = xr.date_range("2001-02-27", periods=6, calendar="noleap", use_cftime=True)
    time = xr.DataArray(times, coords={"time": times}, dims="time")
    assert split(time, slice("2001-03", "2001-03"), 2) == ([slice(0, 2)], slice(2, 6))


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (slice("2021", "2021"), "holds 0 times, a neighborhood has 2; the data have 10 times"),
        (slice("2020-01-01", "2020-01-09"), "leaves no run of 2 times"),
    ],
)
def test_split_that_leaves_nothing_is_refused(validation, message):
    with pytest.raises(ConfigError) as error:
        split(_times(), validation, 2)
    assert message in str(error.value)


def test_examples_hold_what_is_hidden_and_its_target():
    example = next(_stream())
    hidden = example.hidden["2m_temperature"]
    assert hidden.shape == (4, 1, 2, 3, 4)
    assert int(hidden.sum()) == 4 * 12
    assert example.target["2m_temperature"].shape == (48, 6)
    # What is blank for the network is zero there, and only hidden tokens are blank.
    blank = example.inputs.blank["2m_temperature"]
    assert bool((hidden | ~blank).all())
    assert float(example.inputs.tokens["2m_temperature"][blank].abs().max()) == 0


def test_weights_are_the_cosine_of_latitude():
    """Taken from token info, another way than that of the code."""
    example = next(_stream())
    latitude = example.inputs.info["2m_temperature"][..., 4][example.hidden["2m_temperature"]]
    rows = latitude[:, None] + torch.tensor([5.0, -5.0]).repeat_interleave(3)
    expected = torch.deg2rad(rows).cos().clamp(min=0)
    torch.testing.assert_close(example.weight["2m_temperature"], expected, atol=1e-6, rtol=0)


def test_seeds_repeat_and_differ():
    first, again, other = (next(_stream(seed)).target["temperature"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_batches_differ_and_go_on_over_epochs():
    targets = [example.target["2m_temperature"] for example in islice(_stream(), 6)]
    for i, target in enumerate(targets):
        assert not any(torch.equal(target, other) for other in targets[:i])


def test_missing_values_have_no_weight():
    ds = small.dataset()
    ds["2m_temperature"] = ds["2m_temperature"].where(ds["longitude"] < 180)
    example = next(_stream(ds=ds))
    weight, target = example.weight["2m_temperature"], example.target["2m_temperature"]
    assert bool(target.isfinite().all())
    assert bool(example.inputs.tokens["2m_temperature"].isfinite().all())
    assert bool((target[weight > 0] != 0).all())


def test_reading_ahead_keeps_order_and_ends():
    assert list(read_ahead(iter(range(20)), depth=3)) == list(range(20))


def test_reading_ahead_raises_what_went_wrong():
    def broken():
        yield 1
        raise ValueError("disk on fire")

    stream = read_ahead(broken())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="disk on fire"):
        next(stream)


def test_reading_ahead_stops_its_thread():
    import threading

    stream = read_ahead(iter(range(10**9)), depth=2)
    next(stream)
    stream.close()
    assert not any(thread.name == "xatmorep-read-ahead" for thread in threading.enumerate())
