"""Normalization of fields: mean and standard deviation, fitted, applied, inverted and saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

import dask
import fsspec
import numpy as np
import safetensors
import safetensors.numpy
import xarray as xr

from xatmorep.data.arrange import is_unread
from xatmorep.data.months import MONTHS, Months, month_names, month_numbers
from xatmorep.data.statistics import SPACE, Period, Scope, Weights, statistics, weighted_sums
from xatmorep.errors import CheckpointError, ConfigError, ConventionError

__all__ = ["FILENAME", "Normalizer"]

FILENAME = "normalization.safetensors"
"""Name of the file inside a model's folder."""

_METADATA_KEY = "xatmorep_normalization"
_FORMAT_VERSION = 1
# How far apart two coordinate values are the same place: float32 rounding, never a neighbor.
_TOLERANCE = {"level": 1e-4, "latitude": 1e-3, "longitude": 1e-3}


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Mean and standard deviation of every field, and the transforms made from them.

    Attributes
    ----------
    mean, std : mapping of str to xarray.DataArray
        One float32 array for each field or static field, by canonical name. Dimensions are some
        of (month or year_month, level, latitude, longitude): ``month`` (1 to 12) if statistics
        differ between months of the year, ``year_month`` (12 * year + month - 1) if they do
        between calendar months, ``level`` for every field, the horizontal ones if they differ
        between grid points; none for a static field. `std` is positive everywhere.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> field = xr.DataArray(
    ...     np.array([270.0, 290.0], "float32").reshape(2, 1, 1, 1),
    ...     dims=("time", "level", "latitude", "longitude"),
    ...     coords={"time": np.array(["2020-01-01", "2020-01-02"], "datetime64[s]"),
    ...             "level": [0.0], "latitude": [45.0], "longitude": [10.0]},
    ... )
    >>> normalizer = Normalizer.fit({"2m_temperature": field})
    >>> normalized = normalizer.apply("2m_temperature", field)
    >>> normalized.values.ravel().tolist()
    [-1.0, 1.0]
    >>> normalizer.invert("2m_temperature", normalized).values.ravel().tolist()
    [270.0, 290.0]
    """

    mean: Mapping[str, xr.DataArray]
    std: Mapping[str, xr.DataArray]

    @classmethod
    def fit(
        cls,
        fields: Mapping[str, xr.DataArray],
        statics: Mapping[str, xr.DataArray] | None = None,
        *,
        mean: Scope | Mapping[str, Scope] = "global",
        std: Scope | Mapping[str, Scope] = "global",
        period: Period = "record",
        weights: Weights = "area",
    ) -> Normalizer:
        """Fit from canonical fields, in one pass over the data.

        With weights :math:`w` (for those of area the cosine of latitude, at least 1e-4), `std` is
        the root of the weighted mean of :math:`(x - m)^2`, where :math:`m` is the mean that is
        subtracted: that of each point if `mean` is local, whatever `std` is. So normalized fitting
        data have mean square one at the scope of `std`, and what `std` divides has mean zero at
        the scope of `mean`.

        Values that aren't finite are ignored, and so are their weights. Where a month has no
        value or no variation (within the resolution of float32), the whole record stands in for
        it; where that has none either, the level does; a level that never varies gets `std` 1,
        one without values also `mean` 0. A local `std` is at least 0.001 of that of its level.

        Parameters
        ----------
        fields : mapping of str to xarray.DataArray
            Canonical fields (..., time, level, latitude, longitude). What is backed by dask or a
            file is read once, all fields in one computation, without being held in memory.
        statics : mapping of str to xarray.DataArray, optional
            Constant fields (latitude, longitude); always normalized as a whole.
        mean, std : {"global", "local"} or mapping of str to these
            One value for each level, or one for each level and grid point; for all fields, or by
            the name of each.
        period : {"record", "month", "year_month"}
            Statistics of all times, of each month of the year, or of each calendar month; of the
            last, only those that occur have any.
        weights : {"area", "none"}
            Whether the values of a level count by the area of their grid points, or all alike.

        Raises
        ------
        ConfigError
            If `mean`, `std`, `period` or `weights` is none of the above.
        ConventionError
            If a field isn't canonical or has no time step.
        """
        _check_choices(period=(period, Period), weights=(weights, Weights))
        means, stds = _scopes("mean", mean, fields), _scopes("std", std, fields)
        varying, constant = dask.compute(
            {
                name: weighted_sums(
                    _canonical(name, array),
                    by_point="local" in (means[name], stds[name]),
                    period=period,
                    weights=weights,
                )
                for name, array in fields.items()
            },
            {
                name: weighted_sums(
                    _canonical(name, array, static=True),
                    by_point=False,
                    period="record",
                    weights=weights,
                )
                for name, array in (statics or {}).items()
            },
        )
        fitted = {name: statistics(sums, means[name], stds[name]) for name, sums in varying.items()}
        for name, sums in constant.items():
            fitted[name] = statistics(sums.isel(level=0), "global", "global")
        return cls(
            mean={name: pair[0] for name, pair in fitted.items()},
            std={name: pair[1] for name, pair in fitted.items()},
        )

    def apply(self, name: str, array: xr.DataArray) -> xr.DataArray:
        """Normalize an array of a field: subtract the mean, divide by the standard deviation.

        Values and statistics are taken as float32, and so is every step of the way.

        Parameters
        ----------
        name : str
            Canonical name of the field.
        array : xarray.DataArray
            Values with the dimensions and coordinates of which the statistics depend (``time``
            with monthly ones), and any others, in any order: months, levels and places are found
            by their coordinates, longitudes on the circle.

        Returns
        -------
        xarray.DataArray
            float32, lazy if `array` is, same dimensions and coordinates, without attributes.

        Raises
        ------
        ConventionError
            If the field, a month, a level or a place has no statistics.
        """
        return self._transform(name, array, invert=False)

    def invert(self, name: str, array: xr.DataArray) -> xr.DataArray:
        """Undo `apply`: multiply by the standard deviation, add the mean.

        Parameters and errors are those of `apply`.
        """
        return self._transform(name, array, invert=True)

    def check(self, name: str, array: xr.DataArray) -> None:
        """Refuse what `apply` would refuse, by its coordinates and without reading it.

        Parameters and errors are those of `apply`.
        """
        for part in self._of(name):
            _positions(part, name, array)

    def _of(self, name: str) -> tuple[xr.DataArray, xr.DataArray]:
        if name not in self.mean:
            raise ConventionError(
                f"no statistics of {name!r}; the normalizer has {sorted(self.mean)}"
            )
        return self.mean[name], self.std[name]

    def _transform(self, name: str, array: xr.DataArray, *, invert: bool) -> xr.DataArray:
        mean, std = (_at(part, name, array) for part in self._of(name))
        # The last four in this order: `_scale` adds the axis of time in front of that of level.
        ordered = array.drop_attrs(deep=False).transpose(
            ..., "time", "level", *SPACE, missing_dims="ignore"
        )
        period = _months(mean)
        if period is not None:
            _, position = np.unique(month_numbers(array["time"], period), return_inverse=True)
            months = [xr.DataArray(position, dims="time")]
            core: list[list[str]] = [[], [], [period], [period]]
        else:
            months, core = [], [[], [], []]
        result = xr.apply_ufunc(
            partial(_scale, invert=invert),
            ordered,
            *months,
            mean,
            std,
            input_core_dims=core,
            dask="parallelized",
            output_dtypes=[np.float32],
            keep_attrs=True,
        )
        return result.transpose(*array.dims)

    def to_bytes(self) -> bytes:
        """Serialize to safetensors; the same statistics always give the same bytes."""
        tensors: dict[str, np.ndarray] = {}
        dims: dict[str, list[str]] = {}
        for kind, arrays in (("mean", self.mean), ("std", self.std)):
            for name, array in arrays.items():
                key = f"{kind}/{name}"
                dims[key] = [str(dim) for dim in array.dims]
                tensors[key] = np.asarray(array.values, dtype=np.float32, order="C")
                for dim in dims[key]:
                    tensors[f"{key}/{dim}"] = array[dim].values.astype(np.float64)
        # One key only: safetensors writes several in random order.
        header = json.dumps({"dims": dims, "format_version": _FORMAT_VERSION}, sort_keys=True)
        return safetensors.numpy.save(tensors, metadata={_METADATA_KEY: header})

    @classmethod
    def from_bytes(cls, data: bytes) -> Normalizer:
        """Read what `to_bytes` wrote.

        Raises
        ------
        CheckpointError
            If the bytes are damaged, incomplete or something else.
        """
        try:
            tensors = safetensors.numpy.load(data)
            dims = _read_header(data)
            statistics: dict[str, dict[str, xr.DataArray]] = {"mean": {}, "std": {}}
            for key, names in dims.items():
                kind, _, name = key.partition("/")
                coords = {
                    dim: (dim, _coordinate(dim, tensors.pop(f"{key}/{dim}"))) for dim in names
                }
                statistics[kind][name] = xr.DataArray(tensors.pop(key), coords, names)
        except (
            safetensors.SafetensorError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
        ) as error:
            raise CheckpointError(f"the normalization file is damaged: {error}") from error
        _check_statistics(statistics["mean"], statistics["std"], left_over=list(tensors))
        return cls(**statistics)

    def save(self, url: str) -> None:
        """Write ``normalization.safetensors`` into a folder, given as a path or fsspec URL."""
        filesystem, folder = fsspec.url_to_fs(url)
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(f"{folder}/{FILENAME}", self.to_bytes())

    @classmethod
    def load(cls, url: str) -> Normalizer:
        """Read ``normalization.safetensors`` from a folder, given as a path or fsspec URL.

        Raises
        ------
        CheckpointError
            If the file is missing or damaged.
        """
        filesystem, folder = fsspec.url_to_fs(url)
        try:
            data = filesystem.cat_file(f"{folder}/{FILENAME}")
        except FileNotFoundError as error:
            raise CheckpointError(f"no {FILENAME} in {url}: is it a model's folder?") from error
        try:
            return cls.from_bytes(data)
        except CheckpointError as error:
            raise CheckpointError(f"{url}/{FILENAME}: {error}") from error


def _scopes(
    what: str, choice: Scope | Mapping[str, Scope], fields: Mapping[str, xr.DataArray]
) -> dict[str, Scope]:
    """Scope of each field."""
    by_name = dict(choice) if isinstance(choice, Mapping) else dict.fromkeys(fields, choice)
    missing = [name for name in fields if name not in by_name]
    if missing:
        raise ConfigError(f"{what} has no scope for {missing}; it has those of {sorted(by_name)}")
    for scope in by_name.values():
        _check_choices(**{what: (scope, Scope)})
    return by_name


def _check_choices(**choices: tuple[str, object]) -> None:
    for name, (value, options) in choices.items():
        if value not in get_args(options):
            raise ConfigError(f"{name}={value!r} is unknown: take one of {get_args(options)}")


def _need_dims(name: str, array: xr.DataArray, dims: tuple[str, ...]) -> None:
    missing = [dim for dim in dims if dim not in array.dims]
    if missing:
        raise ConventionError(
            f"{name!r} needs the dimensions {missing} to be normalized; it has {list(array.dims)}"
        )


def _canonical(name: str, array: xr.DataArray, *, static: bool = False) -> xr.DataArray:
    if static:
        array = array.expand_dims(time=1, level=1)
    _need_dims(name, array, ("time", "level", *SPACE))
    if array.sizes["time"] == 0:
        raise ConventionError(f"{name!r} has no time step: nothing can be fitted")
    if is_unread(array.variable):
        array = array.chunk(time="auto")  # else all of it would be read at once
    return array.reset_coords(drop=True)


def _months(statistics: xr.DataArray) -> Months | None:
    """What kind of months the statistics differ between, if they do."""
    return next((dim for dim in MONTHS if dim in statistics.dims), None)


def _at(statistics: xr.DataArray, name: str, array: xr.DataArray) -> xr.DataArray:
    """Statistics (float32) of the months, levels and places of an array.

    Of months, those that occur in ascending order: one for each time would be too much.
    """
    found = statistics.isel(_positions(statistics, name, array)).astype(np.float32)
    return found.assign_coords({dim: array[dim] for dim in statistics.dims if dim not in MONTHS})


def _positions(statistics: xr.DataArray, name: str, array: xr.DataArray) -> dict[str, np.ndarray]:
    """Where the statistics of the months, levels and places of an array are."""
    dims = [dim for dim in _TOLERANCE if dim in statistics.dims]
    period = _months(statistics)
    _need_dims(name, array, (*(() if period is None else ("time",)), *dims))
    positions = {dim: _place_positions(statistics, name, array, dim) for dim in dims}
    if period is not None:
        positions[period] = _month_positions(statistics, name, array, period)
    return positions


def _month_positions(
    statistics: xr.DataArray, name: str, array: xr.DataArray, period: Months
) -> np.ndarray:
    known = statistics[period].values.astype(np.int64)
    wanted = np.unique(month_numbers(array["time"], period))
    lost = np.setdiff1d(wanted, known)
    if lost.size:
        raise ConventionError(
            f"{name!r} has no statistics of the months {month_names(lost, period)}: there are "
            f"those of {month_names(known, period)}; select times in these, or take statistics "
            "of more months"
        )
    found: np.ndarray = (wanted[:, None] == known).argmax(axis=1)
    return found


def _place_positions(
    statistics: xr.DataArray, name: str, array: xr.DataArray, dim: str
) -> np.ndarray:
    known = statistics[dim].values.astype(np.float64)
    wanted = array[dim].values.astype(np.float64)
    distance = wanted[:, None] - known[None, :]
    if dim == "longitude":
        distance = (distance + 180.0) % 360.0 - 180.0
    distance = np.abs(distance)
    lost = wanted[~(distance.min(axis=1) <= _TOLERANCE[dim])]
    if lost.size:
        shown = f"{lost[:3].tolist()}{' ...' if lost.size > 3 else ''}"
        raise ConventionError(
            f"{name!r} has no statistics at {dim} {shown}: they were fitted at {known.size} "
            f"points from {known.min():g} to {known.max():g}; select those, or fit anew"
        )
    found: np.ndarray = distance.argmin(axis=1)
    return found


def _scale(values: np.ndarray, *arguments: np.ndarray, invert: bool) -> np.ndarray:
    """Normalize one block; arguments are mean and std, or months and both with months last."""
    values = values.astype(np.float32, copy=False)
    if len(arguments) == 3:
        month, *by_month = arguments
        mean, std = (np.moveaxis(array[..., month.ravel()], -1, 0) for array in by_month)
    else:
        mean, std = arguments
    return values * std + mean if invert else (values - mean) / std


def _read_header(data: bytes) -> dict[str, list[str]]:
    """Names of the dimensions of every tensor; safetensors gives no metadata of bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_METADATA_KEY])
    if header["format_version"] != _FORMAT_VERSION:
        raise ValueError(f"format_version {header['format_version']} is not {_FORMAT_VERSION}")
    dims: dict[str, list[str]] = header["dims"]
    return dims


def _coordinate(dim: str, values: np.ndarray) -> np.ndarray:
    """Months are whole numbers, which the file holds as float64 like all coordinates."""
    if dim not in MONTHS:
        return values
    if not (np.isfinite(values) & (np.rint(values) == values)).all():
        raise ValueError(f"{dim} must be whole numbers, found {values.tolist()}")
    return values.astype(np.int64)


def _check_statistics(
    mean: Mapping[str, xr.DataArray], std: Mapping[str, xr.DataArray], left_over: list[str]
) -> None:
    if sorted(mean) != sorted(std) or left_over:
        raise CheckpointError(
            f"the normalization file doesn't fit together: mean of {sorted(mean)}, "
            f"std of {sorted(std)}, unexpected tensors {left_over}"
        )
    for name in mean:
        if _months(mean[name]) != _months(std[name]):
            raise CheckpointError(
                f"the normalization of {name!r} is damaged: its mean has the dimensions "
                f"{mean[name].dims}, its standard deviation {std[name].dims}"
            )
        finite = np.isfinite(mean[name]).all() and np.isfinite(std[name]).all()
        if not finite or not (std[name] > 0).all():
            raise CheckpointError(
                f"the normalization of {name!r} is damaged: means must be finite numbers, "
                "standard deviations finite and positive"
            )
