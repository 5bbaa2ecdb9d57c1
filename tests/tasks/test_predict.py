from __future__ import annotations

from itertools import product

import dask
import numpy as np
import pytest
import xarray as xr

from tests.tasks import small
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.tasks.engine import Application, Options
from xatmorep.tasks.lattice import random_mask
from xatmorep.testing import assert_labelled_equal


def _raise(*arguments, **options):
    raise AssertionError("something was computed")


@pytest.fixture(scope="module")
def prediction() -> xr.Dataset:
    return small.dataset().atmorep.predict(model=small.model(), rate=0.4, seed=3)


def test_hidden_tokens_are_predicted_on_the_grid_of_the_data(prediction):
    ds = small.dataset()
    values, hidden = prediction["temperature"], prediction["temperature_hidden"]
    assert values.dims == ("member", "time", "level", "latitude", "longitude")
    assert hidden.dims == values.dims[1:]
    assert values.dtype == "float32"
    assert hidden.dtype == bool
    np.testing.assert_array_equal(values["level"], [500, 850])
    for axis in ("time", "latitude", "longitude"):
        xr.testing.assert_identical(prediction[axis].variable, ds[axis].variable)
    assert values.attrs == {"units": "K", "standard_name": "air_temperature"}
    # A value for every member where it was hidden, and only there.
    assert bool((values.notnull() == hidden).all())
    assert 0.3 < float(hidden.isel(time=slice(0, 2), latitude=slice(0, 6)).mean()) < 0.5


def test_hidden_values_have_no_influence():
    """Other values at the hidden points, the same answers: the model did not see them."""
    ds = small.dataset().isel(time=slice(0, 2), latitude=slice(0, 12))
    expected = ds.atmorep.predict(model=small.model(), rate=0.4, seed=3)
    changed = ds.assign(
        {
            name: ds[name].where(
                ~expected[f"{name}_hidden"].reindex_like(ds[name], fill_value=False), 999
            )
            for name in ("2m_temperature", "temperature")
        }
    )
    assert float(abs(changed["2m_temperature"] - ds["2m_temperature"]).max()) > 600
    again = changed.atmorep.predict(model=small.model(), rate=0.4, seed=3)
    assert_labelled_equal(again.drop_attrs(deep=False), expected.drop_attrs(deep=False), 1e-4)


def test_random_cells_form_one_lattice_over_the_dataset(prediction):
    """Of 10 x 8 cells (19 rows, 24 columns) 40 % are hidden at each time, whatever the tiling."""
    hidden = prediction["2m_temperature_hidden"]
    regular = hidden.isel(latitude=slice(0, 12))  # rows that no shifted neighborhood touches
    cells = regular.coarsen(latitude=2, longitude=3).mean()
    assert set(np.unique(cells)) == {0.0, 1.0}
    # Four of the five times are in one neighborhood each, the last but one in two: same cells.
    counts = [int(cells.isel(time=i).sum()) for i in range(5)]
    assert all(12 <= count <= 26 for count in counts)
    assert not (cells.isel(time=0) == cells.isel(time=1)).all()


def test_times_in_two_neighborhoods_hide_the_same_cells():
    """Without overlap in space the share is exact also where time boxes overlap."""
    ds = small.dataset().isel(latitude=slice(0, 18))
    hidden = ds.atmorep.predict(model=small.model(), rate=0.5)["2m_temperature_hidden"]
    np.testing.assert_allclose(hidden.mean(("latitude", "longitude")), 0.5)


def test_seeds_repeat_and_differ(prediction):
    ds, model = small.dataset(), small.model()
    same = ds.atmorep.predict(model=model, rate=0.4, seed=3)
    assert_labelled_equal(same, prediction)
    other = ds.atmorep.predict(model=model, rate=0.4, seed=4)
    assert bool((other["temperature_hidden"] != prediction["temperature_hidden"]).any())


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 3, "level": 2, "longitude": 7}])
def test_dask_gives_the_same_and_computes_nothing_before(prediction, chunks):
    ds = small.dataset().chunk(chunks)
    with dask.config.set(scheduler=_raise):
        lazy = ds.atmorep.predict(model=small.model(), rate=0.4, seed=3, batch_size=2)
        assert lazy.chunks
    assert_labelled_equal(lazy.drop_attrs(deep=False), prediction.drop_attrs(deep=False), 1e-4)


@pytest.mark.parametrize("present", [small.flipped, small.rolled, small.renamed])
def test_the_same_in_every_form_of_the_data(prediction, present):
    ds = present(small.dataset())
    result = ds.atmorep.predict(model=small.model(), rate=0.4, seed=3)
    back = small.as_input(result, ds).rename(
        {"tas_hidden": "2m_temperature_hidden", "ta_hidden": "temperature_hidden"}
        if present is small.renamed
        else {}
    )
    for name in prediction:
        found = back[name].transpose(*prediction[name].dims)
        np.testing.assert_allclose(
            found.astype(float), prediction[name].astype(float), atol=1e-4, err_msg=str(name)
        )


def test_units_are_those_of_the_input(prediction):
    ds = small.dataset()
    celsius = (ds["2m_temperature"].astype("float64") - 273.15).assign_attrs(units="degC")
    result = ds.assign({"2m_temperature": celsius}).atmorep.predict(
        model=small.model(), rate=0.4, seed=3
    )
    np.testing.assert_allclose(
        result["2m_temperature"], prediction["2m_temperature"] - 273.15, atol=1e-3
    )
    assert result["2m_temperature"].attrs["units"] == "degC"


def test_a_mask_hides_the_tokens_that_it_touches():
    ds = small.dataset()
    mask = xr.zeros_like(ds["2m_temperature"], dtype=bool)
    mask[0, 3, 4] = True
    result = ds.atmorep.predict(model=small.model(), mask=mask)
    hidden = result["2m_temperature_hidden"]
    rows, columns = slice(2, 4), slice(3, 6)
    assert bool(hidden[0, rows, columns].all())
    assert int(hidden.sum()) == 6
    # The other field has larger tokens, and the mask has no level: all levels are hidden.
    assert int(result["temperature_hidden"].sum()) == 2 * 2 * 3 * 4


def test_fields_can_have_masks_of_their_own():
    ds = small.dataset()
    mask = xr.zeros_like(ds["temperature"], dtype=bool)
    mask.loc[{"level": 500}] = True
    result = ds.atmorep.predict(model=small.model(), mask=mask.to_dataset(name="temperature"))
    hidden = result["temperature_hidden"]
    assert bool(hidden.sel(level=500).all())
    assert not hidden.sel(level=850).any()
    assert not result["2m_temperature_hidden"].any()
    with pytest.raises(ConfigError, match="mask has 't850', which is no field"):
        ds.atmorep.predict(model=small.model(), mask=mask.to_dataset(name="t850"))


def test_a_mask_lies_on_the_data_whatever_their_order():
    ds = small.flipped(small.rolled(small.dataset()))
    mask = ds["2m_temperature"] > ds["2m_temperature"].quantile(0.99).item()
    hidden = ds.atmorep.predict(model=small.model(), mask=mask)["2m_temperature_hidden"]
    assert bool((hidden | ~mask).all())
    assert float(hidden.mean()) < 0.2


def test_everywhere_is_a_reconstruction(prediction):
    result = small.dataset().atmorep.predict(
        model=small.model(), rate=0.4, seed=3, where="all", members=False
    )
    assert result["2m_temperature"].dims == ("time", "latitude", "longitude")
    assert not result["2m_temperature"].isnull().any()
    xr.testing.assert_equal(result["2m_temperature_hidden"], prediction["2m_temperature_hidden"])
    # Where only one neighborhood covers a point, hidden points have the same values.
    first = {"time": slice(0, 2), "latitude": slice(0, 12)}
    mean = prediction["2m_temperature"].mean("member").isel(first)
    np.testing.assert_allclose(
        result["2m_temperature"].isel(first).where(mean.notnull()), mean, rtol=1e-5
    )


def test_overlapping_neighborhoods_are_blended():
    """All hidden: in the overlap lies a mix of what both neighborhoods say, elsewhere one."""
    ds, model = small.dataset().isel(time=slice(0, 2), longitude=slice(0, 12)), small.model()
    ds = ds.isel(latitude=slice(0, 8))  # boxes of rows 0..5 and 2..7
    everything = xr.ones_like(ds["2m_temperature"], dtype=bool)
    both, north, south = (
        part.atmorep.predict(model=model, mask=mask)["2m_temperature"].values
        for part, mask in (
            (ds, everything),
            (ds.isel(latitude=slice(0, 6)), everything[:, 0:6]),
            (ds.isel(latitude=slice(2, 8)), everything[:, 2:8]),
        )
    )
    np.testing.assert_allclose(both[:, :, :2], north[:, :, :2], rtol=1e-6)
    np.testing.assert_allclose(both[:, :, 6:], south[:, :, 4:], rtol=1e-6)
    weight = np.sin((np.arange(4) + 0.5) / 4 * np.pi / 2)[:, None] ** 2
    mixed = (1 - weight) * north[:, :, 2:] + weight * south[:, :, :4]
    np.testing.assert_allclose(both[:, :, 2:6], mixed, rtol=1e-5)


def _ramps(starts: list[int], box: int, closed: int | None = None) -> np.ndarray:
    """Weights (neighborhood, its point) along one axis, perhaps a circle, from the definition."""
    n, weights = len(starts), np.ones((len(starts), box))
    for i, start in enumerate(starts):
        before = starts[i - 1] - (closed or 0) * (i == 0) if i or closed else None
        after = starts[(i + 1) % n] + (closed or 0) * (i + 1 == n) if i + 1 < n or closed else None
        for point in range(start, start + box):
            if before is not None and point < before + box:
                share = (point - start + 0.5) / (before + box - start)
                weights[i, point - start] *= np.sin(share * np.pi / 2) ** 2
            if after is not None and point >= after:
                share = (point - after + 0.5) / (start + box - after)
                weights[i, point - start] *= np.cos(share * np.pi / 2) ** 2
    return weights


def test_overlap_averages_what_each_neighborhood_says():
    """Against a loop over neighborhoods, each predicted alone.

    The last ones are shifted inward in time and latitude, and go round the globe in longitude.
    """
    ds, model = small.dataset(7), small.wide()
    mask = random_mask(Application.of(ds, model, None, Options()), rate=0.4, seed=3)
    result = ds.atmorep.predict(model=model, mask=mask, overlap=0.5)
    times, rows, columns = [0, 2, 3], [0, 6, 7], [0, 6, 12, 18]
    along = _ramps(times, 4), _ramps(rows, 12), _ramps(columns, 12, closed=24)
    for name in ("2m_temperature", "temperature"):
        total = np.zeros(result[name].shape)
        weights = np.zeros(result[f"{name}_hidden"].shape)
        for (i, t), (j, a), (k, o) in product(*map(enumerate, (times, rows, columns))):
            places = (o + np.arange(12)) % 24
            here = {"time": slice(t, t + 4), "latitude": slice(a, a + 12), "longitude": places}
            part, hidden = ds.isel(here), mask.isel(here)
            east = {"longitude": 15.0 * (o + np.arange(12))}
            part = part.assign_coords(east).atmorep.predict(
                model=model, mask=hidden.assign_coords(east)
            )
            np.testing.assert_array_equal(part["longitude"], east["longitude"])
            weight = np.einsum("t,a,o->tao", along[0][i], along[1][j], along[2][k])
            if name == "temperature":
                weight = weight[:, None]
            weight = weight * part[f"{name}_hidden"].values
            window = (here["time"], ..., here["latitude"], places)
            total[:, *window] += np.nan_to_num(part[name].values) * weight
            weights[window] += weight
        np.testing.assert_array_equal(result[f"{name}_hidden"], weights > 0)
        expected = np.where(weights > 0, total / np.maximum(weights, 1e-9), np.nan)
        np.testing.assert_allclose(result[name], expected, rtol=1e-5)
    assert result.attrs["parameters"].endswith("overlap=0.5")


def test_overlap_knows_no_seam_at_greenwich():
    """What lies west of it is seen by neighborhoods that go round, and by no others."""
    ds, model = small.dataset(4), small.wide()
    mask = xr.zeros_like(ds["2m_temperature"], dtype=bool)
    mask[1:3, 4:8, [0, 1, 2, 21, 22, 23]] = True
    before = ds.atmorep.predict(model=model, mask=mask, overlap=0.5)
    changed = ds.copy(deep=True)
    changed["2m_temperature"][:, :, 18] += 30
    after = changed.atmorep.predict(model=model, mask=mask, overlap=0.5)
    moved = abs(after["2m_temperature"] - before["2m_temperature"]).max(["member", "time"])
    # Three columns east of Greenwich feel what is changed four columns west of it.
    assert float(moved.isel(longitude=slice(0, 3)).max()) > 1e-3
    tiled = [x.atmorep.predict(model=model, mask=mask)["2m_temperature"] for x in (ds, changed)]
    np.testing.assert_array_equal(*(x.isel(longitude=slice(0, 3)) for x in tiled))


def test_overlap_hides_no_more_than_the_mask():
    """Neighborhoods are moved by whole tokens, so that they agree about what is hidden."""
    ds, model = small.dataset(8).isel(latitude=slice(0, 18)), small.wide()
    single, several = (
        ds.atmorep.predict(model=model, rate=0.4, seed=3, overlap=overlap) for overlap in (0, 0.5)
    )
    for name in ("2m_temperature", "temperature"):
        hidden = several[f"{name}_hidden"]
        np.testing.assert_array_equal(hidden, single[f"{name}_hidden"])
        assert bool((several[name].notnull() == hidden).all())
        assert 0.3 < float(hidden.mean()) < 0.5
        assert float(abs(several[name] - single[name]).max()) > 0.01


def test_overlap_of_lazy_data(tmp_path):
    ds, model = small.dataset(9), small.wide()
    expected = ds.atmorep.predict(model=model, rate=0.4, seed=3, overlap=0.5)
    with dask.config.set(scheduler=_raise):
        lazy = ds.chunk(time=2).atmorep.predict(model=model, rate=0.4, seed=3, overlap=0.5)
    lazy.to_zarr(tmp_path / "p.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "p.zarr", consolidated=False)
    np.testing.assert_allclose(back["temperature"], expected["temperature"], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": 1.0}, "overlap must be at least 0 and less than 1, not 1.0"),
        ({"overlap": -0.5}, "overlap must be at least 0 and less than 1, not -0.5"),
        ({"where": "visible"}, "where must be 'hidden' or 'all', not 'visible'"),
        ({"mask": "rndom"}, "mask 'rndom' is no masking strategy; did you mean 'random'?"),
        ({"rate": 1.5}, "rate must lie between 0 and 1, not 1.5"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError) as error:
        small.dataset().atmorep.predict(model=small.model(), **arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask.isel(time=slice(0, 4)), "differs from '2m_temperature' along 'time'"),
        (
            lambda mask: mask.drop_vars("time").isel(time=slice(0, 4)),
            "differs from '2m_temperature' along 'time'",
        ),
        (lambda mask: mask.expand_dims(member=2), "dimension 'member', which"),
        (lambda mask: mask.expand_dims(level=[500, 700, 850]), "dimension 'level', which"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(change, message):
    ds = small.dataset()
    mask = change(xr.zeros_like(ds["2m_temperature"], dtype=bool))
    with pytest.raises(ConventionError) as error:
        ds.atmorep.predict(model=small.model(), mask=mask)
    assert message in str(error.value)


def test_mask_and_rate_contradict():
    ds = small.dataset()
    mask = xr.zeros_like(ds["2m_temperature"], dtype=bool)
    with pytest.raises(ConfigError, match="mask has type float64: it must be boolean"):
        ds.atmorep.predict(model=small.model(), mask=mask.astype(float))
    with pytest.raises(ConfigError, match="give mask or rate, not both"):
        ds.atmorep.predict(model=small.model(), mask=mask, rate=0.5)


def test_files_read_back_identical(prediction, tmp_path):
    prediction.to_zarr(tmp_path / "p.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "p.zarr", consolidated=False).load()
    xr.testing.assert_identical(back, prediction)
    prediction.to_netcdf(tmp_path / "p.nc")
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "p.nc").load(), prediction)


def test_lazy_results_with_overlapping_times_can_be_stored(prediction, tmp_path):
    """Zarr takes chunks of one size only; the time boxes 0-1, 2-3 and 3-4 overlap."""
    ds = small.dataset().chunk(time=2)
    with dask.config.set(scheduler=_raise):
        lazy = ds.atmorep.predict(model=small.model(), rate=0.4, seed=3)
        assert lazy.chunks["time"] == (2, 2, 1)
    lazy.to_zarr(tmp_path / "p.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "p.zarr", consolidated=False)
    np.testing.assert_allclose(back["temperature"], prediction["temperature"], atol=1e-3)


def test_packing_of_the_input_is_not_that_of_the_result(prediction, tmp_path):
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 260.0, "_FillValue": -32768}
    encoding = dict.fromkeys(("2m_temperature", "temperature"), packing)
    small.dataset().to_netcdf(tmp_path / "in.nc", encoding=encoding)
    for chunks in (None, {}):
        with xr.open_dataset(tmp_path / "in.nc", chunks=chunks) as ds:
            result = ds.atmorep.predict(model=small.model(), rate=0.4, seed=3).compute()
        result.to_netcdf(tmp_path / "out.nc")
        xr.testing.assert_identical(xr.load_dataset(tmp_path / "out.nc"), result)
        np.testing.assert_allclose(result["temperature"], prediction["temperature"], atol=0.5)


def test_a_result_gives_the_mask_of_the_next_prediction(prediction):
    """Its levels are those of the model, of which the data have more."""
    ds = small.dataset()
    mask = prediction[["temperature_hidden"]].rename(temperature_hidden="temperature")
    again = ds.atmorep.predict(model=small.model(), mask=mask)
    assert bool((again["temperature_hidden"] | ~mask["temperature"]).all())
    first = {"time": slice(0, 2), "latitude": slice(0, 6)}
    np.testing.assert_array_equal(
        again["temperature_hidden"].isel(first), mask["temperature"].isel(first)
    )


def test_a_scalar_coordinate_gives_way_to_the_members(prediction):
    ds = small.dataset().assign_coords(member=7, step=np.timedelta64(0, "h"))
    result = ds.atmorep.predict(model=small.model(), rate=0.4, seed=3)
    np.testing.assert_array_equal(result["member"], [0, 1, 2])
    assert result["step"].values == np.timedelta64(0, "h")


def test_extra_dimensions_statics_and_masks_go_together():
    ds = small.dataset()
    both = xr.concat([ds, small.dataset(seed=1)], "number", data_vars="all")
    both["geopotential_at_surface"] = ds["geopotential_at_surface"]
    mask = (both["2m_temperature"] > 290).to_dataset(name="2m_temperature")
    result = both.atmorep.predict(model=small.model(), mask=mask)
    assert bool((result["2m_temperature_hidden"] | ~mask["2m_temperature"]).all())
    alone = both.isel(number=1).atmorep.predict(model=small.model(), mask=mask.isel(number=1))
    np.testing.assert_allclose(result["2m_temperature"].isel(number=1), alone["2m_temperature"])
    with pytest.raises(ConventionError, match="'member' of the dataset is named like"):
        both.rename(number="member").atmorep.predict(model=small.model())
