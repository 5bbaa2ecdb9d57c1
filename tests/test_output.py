"""Results appear under their name when they are complete, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xatmorep
from xatmorep.errors import ConfigError
from xatmorep.output import check_result, new_path, write
from xatmorep.testing import assert_labelled_equal

ROOT = Path(xatmorep.__file__).parents[1]


def result() -> xr.Dataset:
    """What results have: a mask, NaN, bounds, scalar, text and missing coordinates."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 3, 4)).astype("float32")
    values[0, 0, 0] = np.nan
    return xr.Dataset(
        {
            "t2m": (("member", "time", "lat"), values, {"units": "K"}),
            "t2m_hidden": (("time", "lat"), values[0] > 0),
        },
        {
            "time": np.array(["2020-01-01T00", "2020-01-01T06", "2020-01-01T12"], "M8[ns]"),
            "lat": ("lat", [90.0, 30.0, -30.0, -90.0], {"bounds": "lat_bounds"}),
            "lat_bounds": (("lat", "bounds"), np.arange(8.0).reshape(4, 2)),
            "member": [0, 1],
            "height": 2.0,
        },
        {"model": "small"},
    )


def opened(path: Path) -> xr.Dataset:
    """A result as anybody opens it, without a warning."""
    return (xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path)).load()


@pytest.mark.parametrize("name", ["r.zarr", "r.nc", "a name.with.dots and spaces.zarr", "ü.nc"])
@pytest.mark.parametrize("chunks", [None, {"time": 2}])
def test_a_result_comes_back_as_it_was(tmp_path, name, chunks):
    ds = result() if chunks is None else result().chunk(chunks)
    write(ds, tmp_path / name)
    back = opened(tmp_path / name)
    assert_labelled_equal(back, result())
    assert os.listdir(tmp_path) == [name]
    back.close()


def test_our_own_results_can_be_opened_by_name(tmp_path):
    write(result(), tmp_path / "r.zarr")
    ds = xatmorep.open_dataset(tmp_path / "r.zarr")
    np.testing.assert_array_equal(ds["t2m"], result()["t2m"])


def test_relative_paths_and_trailing_slashes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(result(), "r.zarr/")
    write(result(), "./other.nc")
    assert sorted(os.listdir()) == ["other.nc", "r.zarr"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r.csv", "must end with .zarr or .nc, which says how it is written"),
        ("r", "must end with .zarr or .nc"),
        ("none/r.zarr", "none doesn't exist: make it first"),
        ("gs://bucket/r.zarr", "is a URL: results are written to a local path"),
        ("there.zarr", "there.zarr exists: name a new one, or remove it"),
        ("there.nc", "there.nc exists"),
        ("dangling.zarr", "dangling.zarr exists"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_computed(
    tmp_path, monkeypatch, name, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.zarr").mkdir()
    (tmp_path / "there.nc").write_text("mine")
    (tmp_path / "dangling.zarr").symlink_to("nowhere")
    before = sorted(os.listdir())
    for function in (check_result, lambda path: write(result(), path)):
        with pytest.raises(ConfigError) as error:
            function(name)
        assert message in str(error.value)
    assert sorted(os.listdir()) == before
    assert (tmp_path / "there.nc").read_text() == "mine"


@pytest.mark.parametrize("name", ["r.zarr", "r.nc"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failure_in_the_middle(tmp_path, name, error):
    def block(values, block_id=None):
        if block_id[0] == 2:
            raise error
        return values

    blocks = da.zeros((4, 3), chunks=(1, 3)).map_blocks(block, dtype=float)
    ds = xr.Dataset({"a": (("x", "y"), blocks)})
    with dask.config.set(scheduler="synchronous"), pytest.raises(type(error)):
        write(ds, tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["r.zarr", "r.nc"])
def test_a_killed_process_leaves_nothing_under_the_name(tmp_path, name):
    """``kill -9`` while the third of four blocks is computed: the first two are on disk."""
    code = (
        "import os, signal, sys, dask, dask.array as da, xarray as xr\n"
        "from xatmorep.output import write\n"
        "def block(values, block_id=None):\n"
        "    if block_id[0] == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return values + 1\n"
        "blocks = da.zeros((4, 3), chunks=(1, 3)).map_blocks(block, dtype=float)\n"
        "dask.config.set(scheduler='synchronous')\n"
        "write(xr.Dataset({'a': (('x', 'y'), blocks)}), sys.argv[1])\n"
    )
    final = tmp_path / name
    killed = subprocess.run([sys.executable, "-c", code, str(final)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not final.exists()
    # What remains is hidden, and in nobody's way.
    assert all(left.startswith(f".{name}.") for left in os.listdir(tmp_path))
    write(result(), final)
    np.testing.assert_array_equal(opened(final)["t2m"], result()["t2m"])


def test_a_folder_of_results_appears_at_once(tmp_path):
    with new_path(tmp_path / "demo") as folder:
        folder.mkdir()
        write(result(), folder / "r.zarr")
        assert not (tmp_path / "demo").exists()
    assert os.listdir(tmp_path) == ["demo"]
    assert os.listdir(tmp_path / "demo") == ["r.zarr"]


def test_permissions_are_those_of_any_new_folder(tmp_path):
    """Not those of a temporary one, which nobody else may read."""
    (tmp_path / "usual").mkdir()
    write(result(), tmp_path / "r.zarr")
    assert (tmp_path / "r.zarr").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["r.zarr", "r.nc"])
def test_the_slower_of_two_writers_is_refused(tmp_path, name):
    second = result() + 1
    with ExitStack() as slow:
        temporary = slow.enter_context(new_path(tmp_path / name))
        temporary.write_text("slow")
        write(second, tmp_path / name)
        with pytest.raises(ConfigError, match=r"exists: name a new one"):
            slow.close()
    assert os.listdir(tmp_path) == [name]
    np.testing.assert_array_equal(opened(tmp_path / name)["t2m"], second["t2m"])


def test_writers_side_by_side_do_not_meet(tmp_path):
    """Four at once: of the two that want the same name one wins, and all stores are whole."""
    names = ["same.zarr", "same.zarr", "one.zarr", "two.zarr"]
    start = Barrier(len(names), timeout=30)

    def attempt(name: str) -> bool:
        with ExitStack() as stack:
            temporary = stack.enter_context(new_path(tmp_path / name))
            start.wait()
            result().to_zarr(temporary, consolidated=True)
            try:
                stack.close()
            except (ConfigError, OSError):
                return False
        return True

    with ThreadPoolExecutor(len(names)) as pool:
        won = list(pool.map(attempt, names))
    assert sum(won[:2]) == 1
    assert won[2:] == [True, True]
    assert sorted(os.listdir(tmp_path)) == ["one.zarr", "same.zarr", "two.zarr"]
    for name in set(names):
        np.testing.assert_array_equal(opened(tmp_path / name)["t2m"], result()["t2m"])
