"""Results on disk: they appear under their name only when they are complete."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr

from xatmorep.errors import ConfigError

__all__ = ["check_new", "check_result", "new_path", "write"]

FORMATS = (".zarr", ".nc")


@contextmanager
def new_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move what was written there to `path` at the end.

    Nothing appears under `path` if the block fails or is interrupted.

    Raises
    ------
    ConfigError
        If something exists at `path`, or its parent folder doesn't.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with new_path(f"{folder}/result.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     os.listdir(folder)
    ['result.txt']
    """
    final = check_new(path)
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield scratch / final.name
        # Somebody else may have been faster.
        check_new(final)
        (scratch / final.name).rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_result(path: str | os.PathLike[str]) -> None:
    """Refuse at once what `write` would refuse after a long computation.

    Raises
    ------
    ConfigError
        If something exists at `path`, its parent folder doesn't, or its name has another ending
        than ``.zarr`` or ``.nc``.

    Examples
    --------
    >>> check_result("result.csv")
    Traceback (most recent call last):
    ...
    xatmorep.errors.ConfigError: result.csv must end with .zarr or .nc, which says how it is written
    """
    if Path(path).suffix not in FORMATS:
        endings = " or ".join(FORMATS)
        raise ConfigError(f"{path} must end with {endings}, which says how it is written")
    check_new(path)


def write(ds: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a result as a zarr store, or as netCDF if the name ends with ``.nc``.

    Raises
    ------
    ConfigError
        As `check_result`.
    """
    check_result(path)
    with new_path(path) as temporary:
        if temporary.suffix == ".nc":
            ds.to_netcdf(temporary)
        else:
            with warnings.catch_warnings():
                # Not in the specification of zarr 3, but xarray warns users at each opening of a
                # store without it.
                warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
                ds.to_zarr(temporary, consolidated=True)


def check_new(path: str | os.PathLike[str]) -> Path:
    """Absolute path at which something new can be made.

    Raises
    ------
    ConfigError
        If something exists there, its parent folder doesn't, or it is a URL.
    """
    text = os.fspath(path)
    if "://" in text:
        raise ConfigError(f"{text} is a URL: results are written to a local path")
    final = Path(text).absolute()
    if os.path.lexists(final):
        raise ConfigError(f"{text} exists: name a new one, or remove it")
    if not final.parent.is_dir():
        raise ConfigError(f"the folder {final.parent} doesn't exist: make it first")
    return final
