"""Several fields on levels: the simulated sample through training, embedding and forecasts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xatmorep
from tests.simulated import LEVELS, UNITS, open_sample, small_model
from xatmorep.testing import assert_labelled_equal


@pytest.fixture(scope="module")
def sample() -> xr.Dataset:
    return open_sample()


@pytest.fixture(scope="module")
def model(sample: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> xatmorep.Model:
    run = {
        "model": small_model(),
        "normalization": {"mean": "local", "std": "local"},
        "steps": 2,
        "batch_size": 2,
        "crops_per_slab": 2,
        "validate_every": 1,
        "validation_batches": 1,
    }
    out = tmp_path_factory.mktemp("run") / "run"
    held_out = slice("2001-01-17", "2001-01-20")
    return xatmorep.pretrain(sample, run, out, validation=held_out, progress=False)


def test_the_sample_says_that_it_is_simulated(sample: xr.Dataset) -> None:
    assert "not observations" in sample.attrs["title"]
    assert dict(sample.sizes) == {"time": 80, "level": 3, "latitude": 32, "longitude": 64}


def test_embedding_of_all_fields_and_levels(sample: xr.Dataset, model: xatmorep.Model) -> None:
    embedding = sample.isel(time=slice(0, 16)).atmorep.embed(model=model)
    assert set(embedding.data_vars) >= set(UNITS)
    for name in UNITS:
        assert embedding[name].dims == ("time", "level", "latitude", "longitude", "feature")
        assert embedding[name].shape == (4, 3, 8, 16, 16)
        assert np.isfinite(embedding[name]).all()
    assert embedding["level"].values.tolist() == list(LEVELS)


def test_forecast_is_the_same_lazy_or_not_and_flipped(
    sample: xr.Dataset, model: xatmorep.Model
) -> None:
    past = sample.isel(time=slice(0, 12))
    lazy = past.atmorep.forecast("24h", model=model)
    assert lazy["geopotential"].chunks is not None
    assert lazy["geopotential"].dims == (
        *("member", "init_time", "lead_time"),
        *("level", "latitude", "longitude"),
    )
    assert lazy["geopotential"].attrs["units"] == "m2 s-2"
    loaded = past.load().atmorep.forecast("24h", model=model)
    assert_labelled_equal(loaded, lazy.compute(), atol=0.1)
    flipped = past.isel(latitude=slice(None, None, -1)).atmorep.forecast("24h", model=model)
    unflipped = flipped.isel(latitude=slice(None, None, -1)).compute()
    for name in UNITS:
        np.testing.assert_allclose(unflipped[name], loaded[name], rtol=1e-4, atol=1e-9)


def test_predictions_in_physical_units(sample: xr.Dataset, model: xatmorep.Model) -> None:
    prediction = sample.isel(time=slice(0, 8)).atmorep.predict(model=model, rate=0.5, seed=1)
    hidden = prediction["temperature_hidden"]
    values = prediction["temperature"].mean("member").where(hidden)
    assert 150 < float(values.min()) < float(values.max()) < 350
    assert float(hidden.mean()) == pytest.approx(0.5, abs=0.05)
