"""Values of a map from west to east, their cells, and what labels say about them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xatmorep.data.axes import find_axes
from xatmorep.errors import ConventionError

__all__ = ["Place", "axes_of", "full_label", "name_of", "when"]


@dataclass(frozen=True)
class Place:
    """Values (latitude, longitude) from west to east, and the edges of their cells."""

    values: np.ndarray
    lat_edges: np.ndarray
    lon_edges: np.ndarray

    @classmethod
    def of(cls, array: xr.DataArray) -> Place:
        """Put one field in order, or say why it is no map."""
        axes = axes_of(array)
        dims = [axes.get("latitude"), axes.get("longitude")]
        if not set(dims) <= set(array.dims):
            raise ConventionError(
                f"a map needs latitude and longitude: this array has {dict(array.sizes)}"
            )
        array = array.squeeze(
            [dim for dim in array.dims if dim not in dims and array[dim].size == 1]
        )
        left = [dim for dim in array.dims if dim not in dims]
        if left:
            raise ConventionError(
                f"a map has one value for each place: select along {left}, "
                f"for example .isel({left[0]}=0)"
            )
        array = array.transpose(*dims)
        latitude, longitude = (array[dim].values.astype(np.float64) for dim in dims)
        longitude = _unwrapped(longitude)
        order = np.argsort(longitude, kind="stable")
        edges = _edges(latitude), _edges(longitude[order])
        return cls(array.values[:, order], edges[0].clip(-90, 90), edges[1])

    @property
    def width(self) -> float:
        """Degrees from west to east."""
        return float(np.ptp(self.lon_edges))

    @property
    def aspect(self) -> float:
        """Length of a degree of latitude in degrees of longitude; 1 on maps of large parts."""
        south, north = min(self.lat_edges), max(self.lat_edges)
        if north - south > 90:
            return 1.0
        return float(1 / np.cos(np.deg2rad((south + north) / 2)))

    @property
    def height(self) -> float:
        """Size from south to north on paper, in degrees of longitude."""
        return float(np.ptp(self.lat_edges)) * self.aspect


def _unwrapped(longitude: np.ndarray) -> np.ndarray:
    """Longitudes without a jump: a region starts east of the widest gap on the circle."""
    ring = np.sort(longitude % 360)
    gaps = np.diff(ring, append=ring[0] + 360)
    if longitude.size < 2 or gaps.max() < 1.5 * np.median(gaps):
        return longitude
    west = ring[(gaps.argmax() + 1) % ring.size]
    west = west - 360 if west >= 180 else west
    # Rounding must not throw the western edge to the eastern one.
    return west + (longitude - west + 1e-6) % 360 - 1e-6


def _edges(centers: np.ndarray) -> np.ndarray:
    if centers.size == 1:
        return centers[0] + np.array([-0.5, 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def axes_of(array: xr.DataArray) -> dict[str, str]:
    """Find the axes of an array, also those that carry its name (``latitude_temperature``).

    Examples
    --------
    >>> array = xr.DataArray([[0.0]], {"lat_t2m": [0.0], "lon_t2m": [5.0]}, name="msl_to_t2m")
    >>> axes_of(array)
    {'latitude': 'lat_t2m', 'longitude': 'lon_t2m'}
    """
    suffix = "_" + str(array.name).split("_to_")[-1]
    long = {str(name).removesuffix(suffix): str(name) for name in array.coords}
    short = {name: plain for plain, name in long.items() if plain != name}
    axes = find_axes(array.to_dataset(name="array").rename(short))
    return {axis: long.get(name, name) for axis, name in axes.items()}


def name_of(array: xr.DataArray) -> str:
    """Long name of a field, or its name."""
    return str(array.attrs.get("long_name", array.name or ""))


def full_label(array: xr.DataArray) -> str:
    """Name and units for a color bar, with raised exponents."""
    units = re.sub(r"(?<=[A-Za-z])(?:\*\*|\^)?([+-]?\d+)", r"$^{\1}$", array.attrs.get("units", ""))
    return f"{name_of(array)} [{units}]" if units not in ("", "1") else name_of(array)


def when(array: xr.DataArray) -> str:
    """Level and time of an array that has one of each, or nothing."""
    axes = axes_of(array)
    parts = []
    if "level" in axes and array[axes["level"]].size == 1:
        level = array[axes["level"]]
        parts.append(f"{level.item():g} {level.attrs.get('units', '')}".rstrip())
    if "time" in axes and array[axes["time"]].size == 1:
        parts.append(array[axes["time"]].dt.strftime("%Y-%m-%d %H:%M").item())
    return ", ".join(parts)
