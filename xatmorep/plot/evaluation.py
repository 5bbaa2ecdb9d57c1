"""Pictures of scores: against the baselines, of the ensemble's reliability, of energy by scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xatmorep.errors import ConfigError, ConventionError, require
from xatmorep.strict import closest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["rank_histogram", "scores", "spectrum"]

MODEL = "#c1272d"
COLORS = {
    "model": MODEL,
    "model_mean": "#e8908f",
    "truth": "black",
    "climatology": "#7f7f7f",
    "persistence": "#b8860b",
    "time_interpolation": "#8c6bb1",
    "interpolation": "#74a9cf",
    "anomaly_interpolation": "#2b6ca3",
    "kriging": "#41ab5d",
    "drifting_kriging": "#00682c",
}
"""Red for the model, other hues for baselines; the same in all pictures."""

LEVEL_COLORS = "viridis"


def scores(result: xr.Dataset, *, metric: str = "rmse") -> Figure:
    """Draw a score of the model and of all baselines relative to the best baseline.

    One panel for each field. Of predictions the levels stand one below the other, of forecasts the
    lead time goes to the right, with one line for each level. Left of (below) the line at one the
    model is better than every baseline. Bars are the intervals of the ratio.

    Parameters
    ----------
    result : xarray.Dataset
        What `xatmorep.evaluate` returned, with at least one baseline.
    metric : str
        A metric that is better when lower: ``"rmse"``, ``"mae"``, ``"crps"``, ``"crps_fair"``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ConventionError
        If there is no baseline.
    ConfigError
        If the metric can't be compared so.
    MissingExtraError
        If matplotlib isn't installed.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(17, 22))
    >>> result = xatmorep.evaluate("era5-surface-tiny", ds, baselines=["persistence"])
    >>> [ax.get_title() for ax in scores(result).axes][:2]
    ['10m u component of wind', '10m v component of wind']
    """
    if "ratio" not in result:
        raise ConventionError("there is no baseline to compare with: evaluate with baselines")
    comparable = result["ratio"].notnull().any([d for d in result["ratio"].dims if d != "metric"])
    names = [str(name) for name in result["metric"].values[comparable.values]]
    if metric not in names:
        raise ConfigError(f"metric {metric!r} has no ratio to baselines{closest(metric, names)}")
    of_forecasts = "lead_time" in result.dims
    figure, axes = _panels(result, "score", height=3.0 if of_forecasts else 0.8)
    for ax, field in zip(axes, _fields(result), strict=True):
        draw = _by_lead_time if of_forecasts else _by_level
        draw(ax, result.sel(field=field, metric=metric))
        ax.set_title(_words(field))
    side = "lead time [h]" if of_forecasts else f"{metric} relative to the best baseline"
    figure.supxlabel(side, fontsize="medium")
    up = f"{metric} relative to the best baseline" if of_forecasts else "level"
    if of_forecasts or result["level"].notnull().any():
        figure.supylabel(up, fontsize="medium")
    _legend(figure, axes, "level" if of_forecasts and result.sizes["level"] > 1 else None)
    figure.suptitle(_heading(result))
    return figure


def rank_histogram(result: xr.Dataset, *, lead_time: Any = None) -> Figure:
    """Draw how often the truth has each rank among the members of the model.

    One panel for each field, one line for each level. A reliable ensemble is as flat as the dashed
    line; a valley says that it is too sure of itself, a hill that it isn't sure enough, a slope
    that it is biased.

    Parameters
    ----------
    result : xarray.Dataset
        What `xatmorep.evaluate` returned.
    lead_time : optional
        Which lead time of forecasts; the last if None.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(17, 22))
    >>> figure = rank_histogram(xatmorep.evaluate("era5-surface-tiny", ds, baselines=()))
    >>> len(figure.axes)
    4
    """
    result = _one_lead_time(result, lead_time)
    figure, axes = _panels(result, "rank_histogram", height=2.2)
    n_ranks = result.sizes["rank"]
    for ax, field in zip(axes, _fields(result), strict=True):
        histogram = result["rank_histogram"].sel(field=field)
        levels = _levels(histogram)
        edges = np.arange(n_ranks + 1) + 0.5
        for level, color in zip(levels, _level_colors(levels), strict=True):
            values = histogram.isel(level=_place(histogram, level)).values
            ax.stairs(values, edges, color=color, linewidth=1.6, label=_level_text(level))
        ax.axhline(1 / n_ranks, color="black", linestyle="--", linewidth=0.8)
        ax.set_ylim(bottom=0)
        ax.set_xlim(edges[0], edges[-1])
        ax.locator_params(axis="x", integer=True)
        ax.set_title(_words(field))
    figure.supxlabel("rank of the truth among the members", fontsize="medium")
    figure.supylabel("share", fontsize="medium")
    _legend(figure, axes, "level")
    figure.suptitle(_heading(result))
    return figure


def spectrum(result: xr.Dataset, *, level: float | None = None, lead_time: Any = None) -> Figure:
    """Draw the energy of forecasts relative to that of the truth by zonal wavenumber.

    One panel for each field. Below one, waves of that size are too weak: the mean of an ensemble
    lacks what can't be foreseen, a single member shouldn't.

    Parameters
    ----------
    result : xarray.Dataset
        What `xatmorep.evaluate` returned of data that go round the circle.
    level : float, optional
        Which level; the middle one of each field if None.
    lead_time : optional
        Which lead time of forecasts; the last if None.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ConventionError
        If the result has no spectrum.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(17, 22))
    >>> figure = spectrum(xatmorep.evaluate("era5-surface-tiny", ds, baselines=()))
    >>> len(figure.axes)
    4
    """
    if "spectrum" not in result:
        raise ConventionError("there is no spectrum: the data don't go round the circle")
    result = _one_lead_time(result, lead_time)
    figure, axes = _panels(result, "spectrum", height=2.6)
    for ax, field in zip(axes, _fields(result), strict=True):
        energy = result["spectrum"].sel(field=field)
        levels = _levels(energy)
        chosen = levels[len(levels) // 2] if level is None or level not in levels else level
        energy = energy.isel(level=_place(energy, chosen))
        truth = energy.sel(source="truth")
        for source in map(str, result["source"].values):
            if source != "truth":
                ratio = energy.sel(source=source) / truth
                ax.plot(
                    energy["wavenumber"],
                    ratio,
                    color=COLORS[source],
                    linewidth=2.2 if source == "model" else 1.2,
                    label=_words(source),
                    zorder=3 if source.startswith("model") else 2,
                )
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(require("matplotlib.ticker", extra="plot").ScalarFormatter())
        ax.set_ylim(0, min(2.0, ax.get_ylim()[1]))
        at = _level_text(chosen)
        ax.set_title(f"{_words(field)}{f' at {at}' if at else ''}")
    figure.supxlabel("zonal wavenumber", fontsize="medium")
    figure.supylabel("energy relative to the truth", fontsize="medium")
    _legend(figure, axes)
    figure.suptitle(_heading(result))
    return figure


def _by_level(ax: Axes, result: xr.Dataset) -> None:
    """Levels one below the other, as they lie in the air."""
    levels = _levels(result["score"])
    best = result["score"].sel(forecaster="model") / result["ratio"].sel(baseline="best")
    for row, level in enumerate(levels):
        here = _place(result, level)
        for name in map(str, result["forecaster"].values):
            if name != "model":
                ratio = (result["score"].sel(forecaster=name) / best).isel(level=here).item()
                label = _words(name) if row == 0 else None
                ax.plot(ratio, row, "|", color=COLORS[name], markersize=13, mew=2.2, label=label)
        value = result["ratio"].sel(baseline="best").isel(level=here).item()
        bounds = result["ratio_interval"].sel(baseline="best").isel(level=here).values
        label = "model" if row == 0 else None
        error = None if np.isnan(bounds).any() else _distance(value, bounds)[:, None]
        ax.errorbar(value, row, xerr=error, fmt="o", color=MODEL, capsize=3, label=label, zorder=3)
    ax.axvline(1, color="black", linewidth=0.8, zorder=1)
    _ratio_axis(ax.xaxis, result)
    ax.set_ylim(len(levels) - 0.5, -0.5)
    ax.set_yticks(range(len(levels)), [_level_text(level) for level in levels])


def _by_lead_time(ax: Axes, result: xr.Dataset) -> None:
    hours = result["lead_time"].values / np.timedelta64(1, "h")
    levels = _levels(result["score"])
    best = result["score"].sel(forecaster="model") / result["ratio"].sel(baseline="best")
    alone = len(levels) == 1
    for level, color in zip(levels, _level_colors(levels), strict=True):
        here = _place(result, level)
        ratio = result["ratio"].sel(baseline="best").isel(level=here).values
        bounds = result["ratio_interval"].sel(baseline="best").isel(level=here).values
        color = MODEL if alone else color
        label = "model" if alone else _level_text(level)
        ax.plot(hours, ratio, "o-", color=color, markersize=4, label=label, zorder=3)
        if not np.isnan(bounds).any():
            ax.fill_between(hours, *bounds, color=color, alpha=0.2, linewidth=0)
        for name in map(str, result["forecaster"].values) if alone else ():
            if name != "model":
                other = (result["score"].sel(forecaster=name) / best).isel(level=here)
                ax.plot(hours, other, color=COLORS[name], linewidth=1.2, label=_words(name))
    ax.axhline(1, color="black", linewidth=0.8, zorder=1)
    _ratio_axis(ax.yaxis, result)
    ax.set_xlim(left=0)
    ax.set_xticks(hours if len(hours) < 7 else hours[:: len(hours) // 6])


def _ratio_axis(axis: Any, result: xr.Dataset) -> None:
    """Logarithmic, so that half and twice are equally far from one; wide enough for the model."""
    ticker = require("matplotlib.ticker", extra="plot")
    model = result[["ratio", "ratio_interval"]].sel(baseline="best").to_array().values
    known = model[np.isfinite(model) & (model > 0)]
    lowest, highest = (known.min(), known.max()) if known.size else (1.0, 1.0)
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_view_interval(min(0.45, lowest / 1.1), max(3.0, highest * 1.1), ignore=True)
    axis.set_major_locator(ticker.LogLocator(2.0))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(ticker.NullLocator())


def _panels(result: xr.Dataset, name: str, *, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure with one panel for each field."""
    pyplot = require("matplotlib.pyplot", extra="plot")
    n_fields = len(_fields(result))
    columns = min(n_fields, 3 if n_fields != 4 else 2)
    rows = -(-n_fields // columns)
    levels = result[name].sizes["level"]
    size = (1.2 + 3.4 * columns, 1.2 + (height + 0.3 * levels) * rows)
    figure = pyplot.figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for empty in axes[n_fields:]:
        empty.remove()
    return figure, axes[:n_fields]


def _legend(figure: Figure, axes: Sequence[Axes], title: str | None = None) -> None:
    """One legend for all panels, of what any of them has."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if any(entries):
        options = {"title": title, "frameon": False, "fontsize": 9}
        figure.legend(entries.values(), entries.keys(), loc="outside right center", **options)


def _heading(result: xr.Dataset) -> str:
    attrs = result.attrs
    if attrs["task"] == "forecast":
        return f"{attrs['model']}: forecasts from {attrs['n_times']} times"
    return f"{attrs['model']}: {attrs['rate']:.0%} of the tokens hidden, {attrs['n_times']} times"


def _one_lead_time(result: xr.Dataset, lead_time: Any) -> xr.Dataset:
    if "lead_time" not in result.dims:
        return result
    return result.isel(lead_time=-1) if lead_time is None else result.sel(lead_time=lead_time)


def _fields(result: xr.Dataset) -> list[str]:
    return [str(name) for name in result["field"].values]


def _levels(array: xr.DataArray) -> list[float]:
    """Levels that a field has."""
    others = [dim for dim in array.dims if dim != "level"]
    return [float(x) for x in array["level"].values[array.notnull().any(others).values]]


def _place(array: xr.DataArray | xr.Dataset, level: float) -> int:
    """Number of a level, which may be NaN."""
    levels = array["level"].values
    same = np.isnan(levels) if np.isnan(level) else levels == level
    return int(np.flatnonzero(same)[0])


def _level_text(level: float) -> str:
    return "" if np.isnan(level) else f"{level:g}"


def _level_colors(levels: Sequence[float]) -> list[Any]:
    colormaps = require("matplotlib", extra="plot").colormaps
    return [colormaps[LEVEL_COLORS](x) for x in np.linspace(0.05, 0.85, len(levels))]


def _distance(value: float, bounds: np.ndarray) -> np.ndarray:
    return np.array([value - bounds[0], bounds[1] - value]).clip(min=0)


def _words(name: str) -> str:
    return name.replace("_", " ")
