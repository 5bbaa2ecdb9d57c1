"""An installation from a wheel has the catalogs, the sample data and the models."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import xatmorep

ROOT = Path(xatmorep.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    if not (ROOT / "README.md").exists():
        pytest.skip("the build needs README.md")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files(folder: Path) -> set[str]:
    """Files of a folder of the repository, without what Python caches."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_package_is_whole(unpacked):
    assert files(ROOT / "xatmorep") <= files(unpacked / "xatmorep")
    assert (unpacked / "xatmorep" / "py.typed").exists()


def test_catalogs_with_their_data_are_inside(unpacked):
    inside = unpacked / "xatmorep" / "catalogs"
    assert files(inside) == files(ROOT / "catalogs")
    assert len(list(inside.glob("*.yaml"))) >= 4
    assert {path.name for path in inside.glob("data/*.zarr")} == {
        "era5-sample.zarr",
        "era5-eda-sample.zarr",
    }
    for file in files(inside):
        assert (inside / file).read_bytes() == (ROOT / "catalogs" / file).read_bytes()


def test_nothing_else_is_inside(unpacked):
    (about,) = unpacked.glob("*.dist-info")
    assert {path.name for path in unpacked.iterdir()} == {"xatmorep", about.name}
    assert not any("__pycache__" in file for file in files(unpacked))
    assert sum(path.stat().st_size for path in unpacked.rglob("*")) < 50e6


def test_the_metadata(unpacked):
    (about,) = unpacked.glob("*.dist-info")
    metadata = (about / "METADATA").read_text().splitlines()
    assert f"Version: {xatmorep.__version__}" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert (about / "entry_points.txt").read_text().split() == [
        *("[console_scripts]", "xatmorep", "=", "xatmorep.cli:main")
    ]


def test_it_works_away_from_the_repository(unpacked, tmp_path):
    code = (
        "import xatmorep\n"
        "print(xatmorep.__file__)\n"
        "print(dict(xatmorep.open_dataset('era5-sample').sizes))\n"
        "print(*xatmorep.models()['name'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert done.stderr == ""
    where, sizes, models = done.stdout.splitlines()
    assert Path(where) == unpacked / "xatmorep" / "__init__.py"
    assert sizes == "{'time': 24, 'latitude': 181, 'longitude': 360}"
    assert "era5-surface-tiny" in models.split()
