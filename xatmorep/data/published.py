"""AtmoRep's published normalization: its coefficients read, or fitted anew as they were made.

The weights were trained on fields of which every calendar month is normalized by its own mean and
standard deviation, of a whole level ("global") or of each grid point ("local").
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import fsspec
import numpy as np
import xarray as xr

from xatmorep.data.months import month_names, month_number
from xatmorep.data.normalization import Normalizer
from xatmorep.data.published_files import FileLayout
from xatmorep.data.published_source import Layout, Source, Span
from xatmorep.data.published_store import StoreLayout
from xatmorep.data.statistics import Scope
from xatmorep.errors import CheckpointError, ConfigError

__all__ = ["PublishedField", "fit_normalization", "has_normalization", "read_normalization"]

# Coefficients of each grid point of one level and month are 8 MB: decades of them fill a memory.
_LARGEST = 4 * 2**30


@dataclass(frozen=True)
class PublishedField:
    """A field of a published model.

    Attributes
    ----------
    name : str
        Canonical name.
    published_name : str
        AtmoRep's name, by which files and stores call it.
    levels : tuple of float
        Model levels; none at the surface.
    scope : {"global", "local"}
        Coefficients of a whole level, or of each grid point.

    Raises
    ------
    ConfigError
        If `published_name` could be part of a path, or `scope` is none of these.
    """

    name: str
    published_name: str
    levels: tuple[float, ...]
    scope: Scope

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.published_name):
            raise ConfigError(f"{self.published_name!r} is no name of a field of AtmoRep's")
        if self.scope not in ("global", "local"):
            raise ConfigError(f"scope={self.scope!r} is unknown: take 'global' or 'local'")


def read_normalization(
    url: str | os.PathLike[str],
    fields: Sequence[PublishedField],
    *,
    period: tuple[str, str] | None = None,
) -> Normalizer:
    """Read published coefficients, of either generation.

    2023: files in folders of each field, ``global_normalization_mean_var_<field>_ml<level>.bin``
    (float32 rows of year, month, mean, divisor) and
    ``normalization_mean_var_<field>_y<year>_m<mm>_ml<level>.bin`` (float32 (721, 1440, 2): mean
    and divisor at 0.25 degrees, from 90 degrees north and from Greenwich). 2024: a zarr store with
    the group ``normalization``, of which only the chunks of the fields, levels and months asked
    for are read.

    Parameters
    ----------
    url : str or path
        The zarr store, the folder that holds ``<field>/``, or one that holds ``normalization/``
        with that.
    fields : sequence of PublishedField
        What is needed.
    period : tuple of str, optional
        First and last month, such as ``("2021-01", "2021-03")``. By default all months of which a
        field has coefficients at all its levels; those without any divisor but zero, which nobody
        filled, are left out.

    Returns
    -------
    Normalizer
        Mean and standard deviation (float32) of each calendar month: (year_month, level), and for
        "local" also latitude and longitude. A grid point with the divisor zero, which never varied
        in its month, gets the average divisor of that level and month.

    Raises
    ------
    ConfigError
        If `period` is no two months in order, or what it leaves takes more than 4 GiB.
    CheckpointError
        If there is nothing at `url`, a field, level, month or file is missing, has another size
        or holds values that are no means and divisors, or all divisors of a month are zero.

    Examples
    --------
    >>> import fsspec
    >>> rows = np.array([[2021, 1, 2.0, 0.5], [2021, 2, 3.0, 0.25]], "<f4")
    >>> file = "vorticity/global_normalization_mean_var_vorticity_ml137.bin"
    >>> fsspec.filesystem("memory").pipe_file(f"/coefficients/{file}", rows.tobytes())
    >>> field = PublishedField("vorticity", "vorticity", (137.0,), "global")
    >>> normalizer = read_normalization("memory://coefficients", [field])
    >>> normalizer.std["vorticity"].sel(year_month=12 * 2021 + 1, level=137).item()
    0.25
    """
    address = os.fspath(url)
    span = None if period is None else _span(period)
    layout = _find_layout(address)
    if layout is None:
        raise CheckpointError(
            f"there are no published coefficients at {address}: neither a zarr store with the "
            "group 'normalization' nor files such as "
            "<field>/global_normalization_mean_var_<field>_ml<level>.bin"
        )
    sources = [layout.source(field, span) for field in fields]
    _refuse_too_much(sources)
    mean, std = {}, {}
    for field, source in zip(fields, sources, strict=True):
        mean[field.name], std[field.name] = _statistics(field, source, asked=span is not None)
    return Normalizer(mean, std)


def has_normalization(url: str | os.PathLike[str]) -> bool:
    """Whether `read_normalization` finds coefficients of any field at a path or URL.

    Examples
    --------
    >>> import tempfile
    >>> has_normalization(tempfile.mkdtemp())
    False
    """
    return _find_layout(os.fspath(url)) is not None


def fit_normalization(
    view_fields: Mapping[str, xr.DataArray], fields: Sequence[PublishedField]
) -> Normalizer:
    """Fit mean and standard deviation of each calendar month, as the published ones were made.

    All points count alike, whatever area they stand for. What has no values or hardly any
    variation in a month is treated as in `Normalizer.fit`. Of a month of which only some times are
    given, the statistics are those of these times.

    Parameters
    ----------
    view_fields : mapping of str to xarray.DataArray
        Canonical fields (..., time, level, latitude, longitude) by name; more may be there. What is
        lazy is read once, all fields in one computation.
    fields : sequence of PublishedField
        What is needed; its levels are those of the arrays.

    Returns
    -------
    Normalizer
        Of the calendar months that occur: (year_month, level), and for "local" also latitude and
        longitude.

    Raises
    ------
    ConventionError
        If a field isn't canonical or has no time step.
    """
    scopes = {field.name: field.scope for field in fields}
    arrays = {name: view_fields[name] for name in scopes}
    return Normalizer.fit(arrays, mean=scopes, std=scopes, period="year_month", weights="none")


def _find_layout(url: str) -> Layout | None:
    system, path = fsspec.url_to_fs(url)
    root = path.rstrip("/")
    inner = f"{root}/normalization"
    if any(system.exists(f"{inner}/{name}") for name in (".zgroup", "zarr.json")):
        return StoreLayout(url)
    files = FileLayout(system, inner if system.isdir(inner) else root)
    return files if files.any() else None


def _span(period: tuple[str, str]) -> Span:
    try:
        first, last = (month_number(text) for text in period)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"period={period!r} must be the first and the last month, such as "
            f"('2021-01', '2021-03'): {error}"
        ) from error
    if last < first:
        raise ConfigError(f"period={period!r} ends before it begins")
    return first, last


def _refuse_too_much(sources: Sequence[Source]) -> None:
    needed = sum(4 * int(np.prod(source.shape, dtype=np.int64)) for source in sources)
    if needed > _LARGEST:
        months = np.unique(np.concatenate([source.months for source in sources]))
        raise ConfigError(
            f"coefficients of {months.size} months ({month_names(months)}) take "
            f"{needed / 2**30:.1f} GiB, more than {_LARGEST // 2**30}: choose fewer months with "
            "period, for example period=('2021-01', '2021-03')"
        )


def _statistics(
    field: PublishedField, source: Source, *, asked: bool
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean and standard deviation of a field, with their labels."""
    mean, divisor = source.read()
    months = source.months
    points = tuple(range(2, divisor.ndim))
    filled = divisor.any(axis=points).all(axis=1)
    if not filled.all():
        if asked or not filled.any():
            raise CheckpointError(
                f"all divisors of {field.published_name!r} are zero, at one level or more, in the "
                f"months {month_names(months[~filled])}: choose others with period"
            )
        mean, divisor, months = mean[filled], divisor[filled], months[filled]
    if not (np.isfinite(mean).all() and np.isfinite(divisor).all() and (divisor >= 0).all()):
        raise CheckpointError(
            f"the coefficients of {field.published_name!r} are damaged: means must be finite "
            "numbers, divisors finite and not negative"
        )
    if points:
        divisor = _without_zeros(divisor, points)
    coords = {"year_month": months, "level": np.array(field.levels or (0.0,)), **source.coords}
    return xr.DataArray(mean, coords, tuple(coords)), xr.DataArray(divisor, coords, tuple(coords))


def _without_zeros(divisor: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
    """Divisors with the average of their month and level in the place of zeros."""
    positive = divisor > 0
    total = divisor.sum(axis=points, dtype=np.float64, keepdims=True)
    average = total / positive.sum(axis=points, keepdims=True)
    return np.where(positive, divisor, average.astype(np.float32))
