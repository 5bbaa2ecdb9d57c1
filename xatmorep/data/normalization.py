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
from xatmorep.data.statistics import SPACE, Period, Scope, statistics, weighted_sums
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
        of (month, level, latitude, longitude): ``month`` (1 to 12) if statistics differ between
        months, ``level`` for every field, the horizontal ones if they differ between grid points;
        none for a static field. `std` is positive everywhere.

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
        mean: Scope = "global",
        std: Scope = "global",
        period: Period = "record",
    ) -> Normalizer:
        """Fit from canonical fields, in one pass over the data.

        With area weights :math:`w` (the cosine of latitude, at least 1e-4), `std` is the root of
        the weighted mean of :math:`(x - m)^2`, where :math:`m` is the mean that is subtracted:
        that of each point if `mean` is local, whatever `std` is. So normalized fitting data have
        mean square one at the scope of `std`, and what `std` divides has mean zero at the scope
        of `mean`.

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
        mean, std : {"global", "local"}
            One value for each level, area-weighted, or one for each level and grid point.
        period : {"record", "month"}
            Statistics of all times, or of each month of the year.

        Raises
        ------
        ConfigError
            If `mean`, `std` or `period` is none of the above.
        ConventionError
            If a field isn't canonical or has no time step.
        """
        _check_choices(mean=(mean, Scope), std=(std, Scope), period=(period, Period))
        by_point, by_month = "local" in (mean, std), period == "month"
        varying, constant = dask.compute(
            {
                name: weighted_sums(_canonical(name, array), by_point=by_point, by_month=by_month)
                for name, array in fields.items()
            },
            {
                name: weighted_sums(
                    _canonical(name, array, static=True), by_point=False, by_month=False
                )
                for name, array in (statics or {}).items()
            },
        )
        fitted = {name: statistics(sums, mean, std) for name, sums in varying.items()}
        for name, sums in constant.items():
            fitted[name] = statistics(sums.isel(level=0), "global", "global")
        return cls(
            mean={name: pair[0] for name, pair in fitted.items()},
            std={name: pair[1] for name, pair in fitted.items()},
        )

    def apply(self, name: str, array: xr.DataArray) -> xr.DataArray:
        """Normalize an array of a field: subtract the mean, divide by the standard deviation.

        Parameters
        ----------
        name : str
            Canonical name of the field.
        array : xarray.DataArray
            Values with the dimensions and coordinates of which the statistics depend (``time``
            with monthly ones), and any others, in any order: levels and places are found by
            their coordinates, longitudes on the circle.

        Returns
        -------
        xarray.DataArray
            float32, lazy if `array` is, same dimensions and coordinates, without attributes.

        Raises
        ------
        ConventionError
            If the field, a level or a place has no statistics.
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
        self._statistics_at(name, array)

    def _statistics_at(self, name: str, array: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        """Mean and standard deviation at the levels and places of an array."""
        if name not in self.mean:
            raise ConventionError(
                f"no statistics of {name!r}; the normalizer has {sorted(self.mean)}"
            )
        mean, std = _at(self.mean[name], name, array), _at(self.std[name], name, array)
        if "month" in mean.dims:
            _need_dims(name, array, ("time",))
        return mean, std

    def _transform(self, name: str, array: xr.DataArray, *, invert: bool) -> xr.DataArray:
        mean, std = self._statistics_at(name, array)
        # The last four in this order: `_scale` adds the axis of time in front of that of level.
        ordered = array.drop_attrs(deep=False).transpose(
            ..., "time", "level", *SPACE, missing_dims="ignore"
        )
        if "month" in mean.dims:
            months = [array["time"].dt.month.drop_attrs() - 1]
            core = [[], [], ["month"], ["month"]]
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
                coords = {dim: (dim, tensors.pop(f"{key}/{dim}")) for dim in names}
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


def _at(statistics: xr.DataArray, name: str, array: xr.DataArray) -> xr.DataArray:
    """Statistics at the levels and places of an array, in float64 so that only results round."""
    found = statistics.astype(np.float64)
    dims = tuple(dim for dim in _TOLERANCE if dim in statistics.dims)
    _need_dims(name, array, dims)
    for dim in dims:
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
        found = found.isel({dim: distance.argmin(axis=1)}).assign_coords({dim: array[dim]})
    return found


def _scale(values: np.ndarray, *arguments: np.ndarray, invert: bool) -> np.ndarray:
    """Normalize one block; arguments are mean and std, or months and both with months last."""
    if len(arguments) == 3:
        month, *by_month = arguments
        mean, std = (np.moveaxis(array[..., month.ravel()], -1, 0) for array in by_month)
    else:
        mean, std = arguments
    result = values * std + mean if invert else (values - mean) / std
    return result.astype(np.float32)


def _read_header(data: bytes) -> dict[str, list[str]]:
    """Names of the dimensions of every tensor; safetensors gives no metadata of bytes."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_METADATA_KEY])
    if header["format_version"] != _FORMAT_VERSION:
        raise ValueError(f"format_version {header['format_version']} is not {_FORMAT_VERSION}")
    dims: dict[str, list[str]] = header["dims"]
    return dims


def _check_statistics(
    mean: Mapping[str, xr.DataArray], std: Mapping[str, xr.DataArray], left_over: list[str]
) -> None:
    if sorted(mean) != sorted(std) or left_over:
        raise CheckpointError(
            f"the normalization file doesn't fit together: mean of {sorted(mean)}, "
            f"std of {sorted(std)}, unexpected tensors {left_over}"
        )
    for name in mean:
        finite = np.isfinite(mean[name]).all() and np.isfinite(std[name]).all()
        if not finite or not (std[name] > 0).all():
            raise CheckpointError(
                f"the normalization of {name!r} is damaged: means must be finite numbers, "
                "standard deviations finite and positive"
            )
