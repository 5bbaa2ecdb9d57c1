from __future__ import annotations

import pytest
import xarray as xr

from xatmorep.demo import demo
from xatmorep.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return demo(out), out


def test_everything_is_made(made):
    text, out = made
    names = {path.name for path in out.iterdir()}
    stores = {"embedding.zarr", "prediction.zarr", "attention.zarr", "scores.nc"}
    assert stores < names
    pictures = {name for name in names if name.endswith(".png")}
    assert names == stores | pictures
    assert len(pictures) == 10
    for name in names:
        assert name in text
    for picture in pictures:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
        assert (out / picture).stat().st_size > 20_000
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_stores_hold_what_they_say(made):
    _, out = made
    embedding = xr.open_zarr(out / "embedding.zarr", consolidated=False)
    assert embedding["2m_temperature"].dims == ("time", "latitude", "longitude", "feature")
    assert embedding.sizes["time"] == 24
    predicted = xr.open_zarr(out / "prediction.zarr", consolidated=False)
    assert predicted["mean_sea_level_pressure"].attrs["units"] == "Pa"
    hidden = predicted["mean_sea_level_pressure_hidden"]
    assert 0.45 < float(hidden.mean()) < 0.55
    weights = xr.open_zarr(out / "attention.zarr", consolidated=False)
    pair = weights["2m_temperature_to_2m_temperature"]
    total = pair.sum(["time", "latitude", "longitude"])
    assert float(abs(total - 1).max()) < 1e-5


def test_the_shipped_model_beats_climatology_and_interpolation(made):
    """What the demonstration is for, on days that it wasn't trained on."""
    text, out = made
    rmse = xr.open_dataset(out / "scores.nc")["score"].sel(metric="rmse")
    model = rmse.sel(forecaster="model")
    for baseline in ("climatology", "interpolation"):
        worse = rmse.sel(forecaster=baseline)
        assert bool((model < worse).all()), f"{baseline}: {(model / worse).values}"
    assert "spread/skill" in text


def test_a_folder_that_exists_is_refused(made):
    with pytest.raises(ConfigError, match="exists: name a new one, or remove it"):
        demo(made[1])
