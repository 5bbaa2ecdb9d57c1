"""Maps of what a model gives: predictions, attention, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr

from xatmorep.errors import ConventionError
from xatmorep.plot.maps import MISSING, colors_and_limits, furnish, map, new_axes, new_figure
from xatmorep.plot.place import Place, axes_of, name_of, when

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["attention", "embedding", "prediction"]


def prediction(
    truth: xr.DataArray,
    predicted: xr.DataArray,
    hidden: xr.DataArray,
    *,
    title: str | None = None,
    coastlines: bool = True,
    cmap: Any = None,
) -> Figure:
    """Draw what a model saw, what it predicted, what was there, and how sure it was.

    Parameters
    ----------
    truth : xarray.DataArray
        Data (latitude, longitude).
    predicted : xarray.DataArray
        Prediction (member, latitude, longitude); NaN where nothing was predicted.
    hidden : xarray.DataArray
        True where the data were hidden (latitude, longitude).
    title : str, optional
        Title of the figure; name, level and time of the data if None.
    coastlines, cmap
        As in `map`.

    Returns
    -------
    matplotlib.figure.Figure
        Four maps, three of them in the same colors: the data with hidden tokens in gray; the
        ensemble mean in these tokens and the data elsewhere; the data; the standard deviation of
        the ensemble.

    Raises
    ------
    ConventionError
        If the three aren't on the same grid, or `predicted` has no members.
    MissingExtraError
        If matplotlib isn't installed.

    Examples
    --------
    >>> import xatmorep
    >>> truth = xatmorep.open_dataset("era5-sample")["2m_temperature"].isel(time=0)
    >>> hidden = (truth.latitude > 30) & (truth.longitude < 90)
    >>> predicted = xr.concat([truth - 1, truth, truth + 2], "member").where(hidden)
    >>> figure = prediction(truth, predicted, hidden)
    >>> len(figure.axes)  # four maps and their color bars
    8
    """
    if "member" not in predicted.dims:
        raise ConventionError(
            f"the prediction has the dimensions {list(predicted.dims)}: it needs 'member', so ask "
            "for the members of the ensemble"
        )
    try:
        xr.align(truth, predicted, hidden, join="exact")
    except ValueError as error:
        raise ConventionError(
            f"data, prediction and hidden tokens aren't on the same grid: {error}"
        ) from error
    truth, predicted, hidden = dask.compute(truth, predicted, hidden)
    mean, spread = predicted.mean("member"), predicted.std("member", ddof=1)
    place = Place.of(truth)
    figure = new_figure(place, rows=2, columns=2)
    cmap, limits = colors_and_limits(place.values, cmap)
    shown = {
        "what the model saw": truth.where(~hidden),
        "ensemble mean in hidden tokens": mean.where(hidden, truth),
        "data": truth,
    }
    *axes, last = figure.axes
    for ax, (name, panel) in zip(axes, shown.items(), strict=True):
        labelled = panel.assign_attrs(truth.attrs).rename(truth.name)
        map(labelled, ax=ax, title=name, coastlines=coastlines, cmap=cmap, **limits)
    spread = spread.where(hidden).assign_attrs(
        long_name="standard deviation", units=truth.attrs.get("units", "")
    )
    map(spread, ax=last, title="ensemble spread", coastlines=coastlines, cmap="YlOrRd", vmin=0)
    figure.suptitle(f"{name_of(truth)}, {when(truth)}".rstrip(", ") if title is None else title)
    return figure


def attention(
    weights: xr.DataArray,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    coastlines: bool = True,
    cmap: Any = "YlOrRd",
) -> Axes:
    """Draw where the attention of one place goes, with the place marked.

    Parameters
    ----------
    weights : xarray.DataArray
        A variable of `xatmorep.attention` with one query. Weights are summed over time and
        level, and averaged over heads and layers.
    ax, title, coastlines, cmap
        As in `map`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ConventionError
        If there are several queries, or no map is left.
    MissingExtraError
        If matplotlib isn't installed.

    Examples
    --------
    >>> weights = xr.DataArray(
    ...     np.full((1, 2, 6, 12), 1 / 72),
    ...     {"query": [0], "head": [0, 1], "latitude": np.linspace(60, 30, 6),
    ...      "longitude": np.linspace(0, 66, 12), "query_latitude": ("query", [48.0]),
    ...      "query_longitude": ("query", [11.0])},
    ...     ("query", "head", "latitude", "longitude"),
    ... )
    >>> ax = attention(weights)
    """
    name, attrs = name_of(weights), weights.attrs
    if weights.sizes.get("query", 1) > 1:
        raise ConventionError(
            f"there are {weights.sizes['query']} queries: select one, for example .isel(query=0)"
        )
    weights = weights.squeeze("query") if "query" in weights.dims else weights
    axes = axes_of(weights)
    averaged = [dim for dim in weights.dims if dim in ("layer", "head", "coupling_head")]
    summed = [axes[axis] for axis in ("time", "level") if axes.get(axis) in weights.dims]
    total = weights.mean(averaged).sum(summed, min_count=1).assign_attrs(attrs)
    total.attrs |= {"long_name": "share of the attention", "units": "1"}
    place = Place.of(total)
    ax = map(total, ax=ax, title="", coastlines=coastlines, cmap=cmap, vmin=0)
    if {"query_latitude", "query_longitude"} <= set(weights.coords):
        west = place.lon_edges[0]
        longitude = west + (float(weights["query_longitude"]) - west) % 360
        ax.plot(
            *(longitude, float(weights["query_latitude"])),
            marker="*",
            markersize=16,
            color="white",
            markeredgecolor="black",
            linestyle="none",
            label="query",
        )
    ax.set_title(name if title is None else title)
    return ax


def embedding(
    features: xr.DataArray,
    *,
    time: int = 0,
    ax: Axes | None = None,
    title: str | None = None,
    coastlines: bool = True,
) -> Axes:
    """Draw the first three principal components of an embedding as red, green and blue.

    The components are those of all given tokens, each with its area (cosine of latitude), and
    their 2nd to 98th percentiles span the colors: tokens of equal color have similar features.

    Parameters
    ----------
    features : xarray.DataArray
        A variable of `xatmorep.embed` ([time], latitude, longitude, feature).
    time : int
        Number of the time that is drawn.
    ax, title, coastlines
        As in `map`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ConventionError
        If there is no dimension of features, or no map is left.
    MissingExtraError
        If matplotlib isn't installed.

    Examples
    --------
    >>> features = xr.DataArray(
    ...     np.random.default_rng(0).random((6, 12, 8)),
    ...     {"latitude": np.linspace(75, -75, 6), "longitude": np.linspace(15, 345, 12)},
    ...     ("latitude", "longitude", "feature"),
    ... )
    >>> ax = embedding(features)
    """
    dims = [dim for dim in features.dims if str(dim).split("_")[0] == "feature"]
    if len(dims) != 1:
        raise ConventionError(
            f"an embedding has one dimension 'feature': this array has {list(features.dims)}"
        )
    axes = axes_of(features)
    features = features.transpose(..., dims[0]).compute()
    colors, shares = _principal_colors(features, axes.get("latitude"))
    frame = features.isel({dims[0]: 0})
    if axes.get("time") in frame.dims:
        frame, colors = (part.isel({axes["time"]: time}) for part in (frame, colors))
    place = Place.of(frame)
    if ax is None:
        ax = new_axes(place, colorbar=False)
    rgb = np.stack([Place.of(colors.isel(rgb=i)).values for i in range(3)], axis=-1)
    ax.pcolormesh(place.lon_edges, place.lat_edges, rgb)
    furnish(ax, place, coastlines)
    parts = ", ".join(f"{100 * share:.0f}" for share in shares)
    explained = f"red, green, blue: principal components 1 to 3 ({parts} % of the variance)"
    name = features.attrs.get("long_name", f"embedding of {features.name}")
    head = f"{name}, {when(frame)}".rstrip(", ")
    ax.set_title(f"{head}\n{explained}" if title is None else title)
    return ax


def _principal_colors(
    features: xr.DataArray, latitude: str | None
) -> tuple[xr.DataArray, list[float]]:
    """Three components (..., rgb) scaled to 0..1, and the share of the variance of each."""
    values = features.values.reshape(-1, features.shape[-1]).astype(np.float64)
    valid = np.isfinite(values).all(axis=1)
    values[~valid] = 0.0
    weights = np.ones(features.shape[:-1])
    if latitude in features.dims:
        radians = np.deg2rad(features[latitude].values.astype(np.float64))
        cosine = xr.DataArray(np.cos(radians).clip(min=1e-4), dims=latitude)
        weights = cosine.broadcast_like(features[..., 0]).transpose(*features.dims[:-1]).values
    weights = weights.ravel() * valid
    weights /= weights.sum()
    deviation = values - weights @ values
    variances, vectors = np.linalg.eigh((deviation * weights[:, None]).T @ deviation)
    leading = vectors[:, ::-1][:, :3]
    # The sign of a component is arbitrary: its largest entry is made positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), range(leading.shape[1])])
    components = deviation @ leading
    low, high = np.percentile(components[valid], [2, 98], axis=0)
    colors = np.zeros((len(values), 3))
    colors[:, : leading.shape[1]] = (components - low) / np.where(high > low, high - low, 1)
    colors[~valid] = float(MISSING)
    shares = variances[::-1][:3] / max(variances.sum(), np.finfo(float).tiny)
    dims = features.dims[:-1]
    coords = {dim: features[dim] for dim in dims if dim in features.coords}
    shaped = colors.clip(0, 1).reshape(*features.shape[:-1], 3)
    return xr.DataArray(shaped, coords, (*dims, "rgb"), features.name), shares.tolist()
