from __future__ import annotations

import dask
import numpy as np
import pytest

from tests.training.runs import RUN, smooth
from xatmorep.training.config import read_config
from xatmorep.training.data import open_data
from xatmorep.training.fingerprint import describe_data

CONFIG = read_config(RUN)
MIDDLE = slice("2021-01-01", "2021-01-01T06")


def described(ds=None, validation=MIDDLE):
    return describe_data(open_data(smooth() if ds is None else ds, CONFIG, validation))


def test_it_is_readable_where_that_helps():
    found = described()
    assert found["temperature"] == "8 time x 2 level x 19 latitude x 24 longitude"
    assert found["geopotential_at_surface"] == "19 latitude x 24 longitude"
    assert found["times"].startswith("2020-12-31T06:00 to 2021-01-02T00:00 (")
    assert found["training"] == (
        "2020-12-31T06:00 to 2020-12-31T18:00, 2021-01-01T12:00 to 2021-01-02T00:00"
    )
    assert found["validation"] == "2021-01-01T00:00 to 2021-01-01T06:00"
    assert described(validation=None)["validation"] == "none"


def test_the_form_of_the_data_does_not_matter():
    ds = smooth()
    assert described(ds.chunk(time=3, latitude=5)) == described()
    turned = ds.isel(latitude=slice(None, None, -1)).transpose("longitude", ...)
    assert described(turned) == described()


@pytest.mark.parametrize("name", ["2m_temperature", "temperature", "geopotential_at_surface"])
def test_other_values_of_any_field_are_noticed(name):
    ds = smooth()
    ds[name].values.flat[0] += 1
    assert described(ds)["values"] != described()["values"]


def test_a_time_that_is_missing_in_between_is_noticed():
    ds = smooth(9)
    times = ds["time"].values.copy()
    times[4] += np.timedelta64(1, "m")
    config = CONFIG.model_copy(
        update={"model": CONFIG.model.model_copy(update={"inputs": _tolerant()})}
    )
    one, other = (
        describe_data(open_data(each, config, None))
        for each in (ds, ds.assign_coords(time=("time", times, ds["time"].attrs)))
    )
    assert {key for key in one if one[key] != other[key]} == {"times"}


def _tolerant():
    inputs = CONFIG.model.inputs
    box = inputs.neighborhood.model_copy(update={"time_tolerance": 0.1})
    return inputs.model_copy(update={"neighborhood": box})


def test_only_three_frames_of_a_field_are_read():
    read = []

    def note(block, block_info=None):
        if block_info:
            read.append(block_info[0]["array-location"][0])
        return block

    ds = smooth().chunk(time=1)
    for name in ("2m_temperature", "temperature"):
        attrs = ds[name].attrs
        ds[name] = ds[name].copy(data=ds[name].data.map_blocks(note, dtype="float32"))
        ds[name].attrs = attrs
    with dask.config.set(scheduler="synchronous"):
        described(ds, validation=None)
    assert sorted(read) == [(0, 1), (0, 1), (4, 5), (4, 5), (7, 8), (7, 8)]
