"""Zarr stores and netCDF files, opened lazily with one dask task for each stored chunk.

The order matters: stores are opened without dask, cut, and only then chunked. dask lists all
chunks of a variable whenever something is computed from it, and the 1.3 million hours of
ARCO-ERA5, half of them empty, make up to 10 million chunks of each of its variables.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import xarray as xr

from xatmorep.errors import CatalogError, require

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["filesystem", "nearest_first", "open_store"]

NETCDF_ENDINGS = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf")


def open_store(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    variables: Sequence[str] = (),
    time: tuple[str | None, str | None] = (None, None),
    limits: tuple[str, str] | None = None,
) -> xr.Dataset:
    """Open one zarr store or netCDF file, dask-backed with its own chunks.

    Parameters
    ----------
    url : str
        Path or any fsspec URL. A local file, or a URL with an ending of netCDF, is read as
        netCDF, everything else as zarr (format 2 or 3).
    storage_options : mapping, optional
        Settings of the fsspec file system; local paths have no use for them.
    variables : sequence of str, optional
        Variables to keep, all by default. Coordinates are kept.
    time : (str, str), optional
        First and last time to keep, both included; a day, month or year is meant as a whole.
    limits : (str, str), optional
        Names of two attributes of the store that hold the first and the last valid day. Times
        outside are cut off; the last day is kept whole.

    Returns
    -------
    xr.Dataset
        Nothing but coordinates has been read.

    Raises
    ------
    CatalogError
        If nothing is there, the kind of URL is unknown, or the store lacks a variable, the
        limits or the time.
    """
    try:
        ds = _open(url, dict(storage_options or {}))
    except FileNotFoundError as error:
        raise CatalogError(f"there is no zarr store or netCDF file at {url!r}") from error
    ds.encoding["source"] = url
    for name in variables:
        if name not in ds:
            known = nearest_first(name, ds.data_vars)
            raise CatalogError(f"there is no variable {name!r} in {url!r}; variables: {known}")
    if variables:
        ds = ds[list(variables)]
    start = 0
    for span in (_valid(ds, limits, url) if limits else (None, None), time):
        if any(span):
            kept = _positions(ds, span, url)
            ds, start = ds.isel(time=kept), start + (kept.start or 0)
    return _chunk(ds, start)


def nearest_first(name: object, choices: Iterable[object], most: int = 20) -> str:
    """List choices, those most like `name` first, for an error message.

    Examples
    --------
    >>> nearest_first("64x23", ["1440x721", "240x121", "64x32"])
    '64x32, 1440x721, 240x121'
    """
    words = [str(choice) for choice in choices]
    near = get_close_matches(str(name), words, n=3)
    words = near + [word for word in words if word not in near]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more or "none"


def filesystem(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Anonymous access to Google Cloud Storage has a class of its own. Whoever brings credentials
    gets the one that gcsfs registers, which zonal buckets need.

    Raises
    ------
    CatalogError
        If fsspec doesn't know the kind of URL.
    """
    import fsspec

    options = dict(storage_options or {})
    protocol = fsspec.utils.get_protocol(url)
    if protocol not in fsspec.available_protocols():
        raise CatalogError(f"{url!r}: fsspec knows no URLs of the kind {protocol!r}")
    if protocol in ("gs", "gcs") and options.get("token") == "anon":
        from xatmorep.data.gcs import PublicBuckets

        return PublicBuckets(**options), PublicBuckets._strip_protocol(url)
    return fsspec.core.url_to_fs(url, **options)


def _open(url: str, options: dict[str, Any]) -> xr.Dataset:
    """Open without dask: every array is still lazy, by xarray's own means."""
    fs, path = filesystem(url, options)
    local = "file" in fs.protocol
    if fs.isfile(path) if local else path.endswith(NETCDF_ENDINGS):
        return _open_netcdf(path if local else fs.open(path), url)
    try:
        with warnings.catch_warnings():
            # A store without consolidated metadata is slower to open, no more.
            warnings.filterwarnings("ignore", "Failed to open Zarr store", RuntimeWarning)
            return xr.open_zarr(path if local else _zarr_store(fs, path), chunks=None)
    except FileNotFoundError:  # of zarr's, this is a ValueError too
        raise
    except ValueError as error:  # an array in the place of a group, broken JSON
        raise CatalogError(f"{url!r} can't be read as a zarr store: {error}") from error


def _open_netcdf(file: Any, url: str) -> xr.Dataset:
    try:
        return xr.open_dataset(file, chunks=None)
    except (ImportError, ValueError) as error:
        # xarray has no reader for it: one is missing, or it isn't netCDF. Files that aren't on
        # the disk are read by h5netcdf only.
        for module in ("netCDF4",) if isinstance(file, str) else ("h5netcdf", "h5py"):
            require(module, extra="netcdf")
        raise CatalogError(f"{url!r} can't be read as netCDF: {error}") from error


def _zarr_store(fs: Any, path: str) -> Store:
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from zarr.storage import FsspecStore

    if fs.async_impl:
        remote = type(fs)(*fs.storage_args, **{**fs.storage_options, "asynchronous": True})
    else:
        remote = AsyncFileSystemWrapper(fs, asynchronous=True)
    return FsspecStore(remote, path=path.rstrip("/"), read_only=True)


def _valid(ds: xr.Dataset, limits: tuple[str, str], url: str) -> tuple[str, str]:
    """First and last valid day, as the store says."""
    missing = [name for name in limits if name not in ds.attrs]
    if missing:
        raise CatalogError(
            f"{url!r} doesn't say when its data are valid: it lacks the attributes "
            f"{', '.join(missing)}; it has {', '.join(map(str, ds.attrs)) or 'none'}"
        )
    return ds.attrs[limits[0]], ds.attrs[limits[1]]


def _positions(ds: xr.Dataset, span: tuple[str | None, str | None], url: str) -> slice:
    """Where the times between two labels are; both labels are included."""
    times = ds.indexes["time"]
    try:
        found = times.slice_indexer(*span)
    except (TypeError, ValueError) as error:
        raise CatalogError(f"time {span!r} isn't understood: {error}") from error
    if not len(times[found]):
        ends = f"{times[0]} to {times[-1]}" if len(times) else "none"
        raise CatalogError(f"{url!r} has no time within {span!r}; it has {ends}")
    return found


def _chunk(ds: xr.Dataset, start: int = 0) -> xr.Dataset:
    """Back every variable by dask, cut where the store is cut.

    `start` is the position in the store of the first time that is left. All variables share the
    same tuples of chunk sizes: dask remembers sums of them by identity, which for 273 variables of
    750,000 hours is the difference between 10 GB and 0.3 GB.
    """
    shared: dict[tuple[Hashable, int], tuple[int, ...]] = {}

    def sizes(dim: Hashable, step: int) -> tuple[int, ...]:
        if (dim, step) not in shared:
            offset = start if dim == "time" else 0
            shared[dim, step] = _chunk_sizes(offset, ds.sizes[dim], step)
        return shared[dim, step]

    opening = uuid.uuid4().hex
    chunked = {}
    for name, variable in ds.variables.items():
        if name in ds.xindexes or not variable.dims:
            continue
        preferred = variable.encoding.get("preferred_chunks", {})
        chunks = {dim: sizes(dim, preferred.get(dim, ds.sizes[dim])) for dim in variable.dims}
        # A name of our own spares dask the hashing of the sizes.
        named = {"name": f"{name}-{opening}"}
        chunked[name] = variable.chunk(chunks, from_array_kwargs=named)
    return ds.assign(chunked)


def _chunk_sizes(start: int, size: int, step: int) -> tuple[int, ...]:
    """Sizes of the pieces that stored chunks of `step` leave of ``start:start + size``.

    >>> _chunk_sizes(3, 10, 4)
    (1, 4, 4, 1)
    >>> _chunk_sizes(0, 0, 4)
    (0,)
    """
    first = min(size, -start % step)
    whole, last = divmod(size - first, step)
    return ((first,) if first else ()) + (step,) * whole + ((last,) if last else ()) or (0,)
