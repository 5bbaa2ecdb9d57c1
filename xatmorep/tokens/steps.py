"""Does a grid fit a model: sizes, grid steps and time steps, and what would make it fit."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xatmorep.errors import ConventionError
from xatmorep.tokens.spec import AXES, InputSpec

__all__ = [
    "AXES",
    "Labels",
    "check_grid",
    "check_times",
    "frames_before",
    "times_after",
    "times_before",
]

Labels: TypeAlias = "xr.DataArray | xr.Dataset | Mapping[Any, xr.DataArray]"
"""Whatever gives the coordinates ``time``, ``latitude`` and ``longitude`` by name, in canonical
form: latitude from north to south, longitude ascending (beyond 360 where a region goes on)."""

# The mean grid step decides whether the grid is the model's; single steps vary a little on a
# Gaussian grid, but a missing row doubles one.
MEAN_STEP_TOLERANCE = 0.02
SINGLE_STEP_TOLERANCE = 0.1


def check_grid(
    labels: Labels,
    spec: InputSpec,
    *,
    axes: Mapping[str, str] | None = None,
    in_time: bool = True,
) -> None:
    """Refuse a grid that a model can't use, with the line of xarray that would help.

    Parameters
    ----------
    labels : DataArray, Dataset or mapping
        Gives the coordinates ``time``, ``latitude`` and ``longitude``.
    spec : InputSpec
        What the model reads.
    axes : dict of str to str, optional
        Names of the three dimensions in the user's dataset, for the message.
    in_time : bool
        Whether the number and steps of frames are looked at, too.

    Raises
    ------
    ConventionError
        If a dimension is smaller than a neighborhood, or the grid or time steps are not those
        that the model was trained on. One message says everything that is wrong.

    Examples
    --------
    >>> import xarray as xr
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(1, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> grid = xr.Dataset(
    ...     coords={
    ...         "time": [np.datetime64("2021-01-01", "s")],
    ...         "latitude": 60 - 0.5 * np.arange(8),
    ...         "longitude": 0.5 * np.arange(12),
    ...     }
    ... )
    >>> check_grid(grid, spec, axes={"latitude": "lat", "longitude": "lon"})
    Traceback (most recent call last):
    xatmorep.errors.ConventionError: grid steps of 'lat' and 'lon' are 0.5 and 0.5 degrees, the \
model was trained on 1 and 1: regrid with ds.coarsen(lat=2, lon=2, boundary="trim").mean()
    """
    names = {axis: (axes or {}).get(axis, axis) for axis in AXES}
    needs = dict(zip(AXES, spec.neighborhood.shape, strict=True))
    if not in_time:
        del needs["time"]
    problems = [
        *_size_problems(labels, needs, names),
        *_grid_step_problems(labels, spec, names),
    ]
    if in_time:
        problems += _time_step_problems(labels["time"].values, spec, names["time"])
    if problems:
        raise ConventionError("; ".join(problems))


def check_times(
    times: npt.NDArray[Any], spec: InputSpec, *, first: int = 0, name: str = "time"
) -> None:
    """Refuse frames that aren't the model's time step apart, as `check_grid` does.

    Parameters
    ----------
    times : (time,) array of datetime64 or cftime
        Times of the frames, up to the last that is needed.
    spec : InputSpec
        What the model reads.
    first : int
        Number of the first frame that is needed; what lies before may be as it likes.
    name : str
        Name of the dimension in the user's dataset, for the message.

    Raises
    ------
    ConventionError
        If a step is another one, with the line of xarray that would help.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> hours = np.array([0, 3, 9, 15], "timedelta64[h]")
    >>> check_times(np.datetime64("2021-01-01", "s") + hours, spec, first=1)
    """
    problems = _time_step_problems(times, spec, name, first)
    if problems:
        raise ConventionError("; ".join(problems))


def frames_before(times: npt.NDArray[Any], spec: InputSpec, first: int, most: int) -> int:
    """Count the frames right before one, up to `most`, that are the model's time step apart.

    Parameters
    ----------
    times : (time,) array of datetime64 or cftime
        Times of the frames.
    spec : InputSpec
        What the model reads.
    first : int
        Number of the frame before which is looked.
    most : int
        The most that are wanted.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> hours = np.array([0, 3, 9, 15, 21], "timedelta64[h]")
    >>> frames_before(np.datetime64("2021-01-01", "s") + hours, spec, first=3, most=9)
    2
    """
    wanted = _accepted(_hours(times[max(0, first - most) : first + 1]), spec)[::-1]
    return int(wanted.size if wanted.all() else wanted.argmin())


def times_after(time: Any, spec: InputSpec, n: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Times of the frames that would follow one, in the model's time step.

    Parameters
    ----------
    time : datetime64 or cftime.datetime
        Time of the frame.
    spec : InputSpec
        What the model reads.
    n : int
        Number of frames.

    Returns
    -------
    times : (n,) array
        In the dtype or calendar of `time`, exact to the second.
    leads : (n,) timedelta64 array
        Distance from `time`, in the unit of `time`, or in seconds if it is none of datetime64.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> times, leads = times_after(np.datetime64("2020-12-31T18", "s"), spec, 2)
    >>> times
    array(['2021-01-01T00:00:00', '2021-01-01T06:00:00'], dtype='datetime64[s]')
    >>> leads / np.timedelta64(1, "h")
    array([ 6., 12.])
    """
    seconds = [round(k * spec.neighborhood.time_step * 3600) for k in range(1, n + 1)]
    leads = np.array(seconds, dtype="timedelta64[s]")
    if isinstance(time, np.datetime64):
        leads = leads.astype(f"timedelta64[{np.datetime_data(time.dtype)[0]}]")
        return time + leads, leads
    return np.array([time + datetime.timedelta(seconds=s) for s in seconds]), leads


def times_before(time: Any, spec: InputSpec, n: int) -> npt.NDArray[Any]:
    """Times of the frames that would lie before one, in the model's time step; earliest first.

    Parameters are those of `times_after`, and so are type and precision of the result.

    Examples
    --------
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> times_before(np.datetime64("2021-01-01T06", "s"), spec, 2)
    array(['2020-12-31T18:00:00', '2021-01-01T00:00:00'], dtype='datetime64[s]')
    """
    after, leads = times_after(time, spec, n)
    if isinstance(time, np.datetime64):
        return np.asarray(time - leads)[::-1]
    return np.array([time - (later - time) for later in after], dtype=after.dtype)[::-1]


def _size_problems(labels: Labels, needs: Mapping[str, int], names: Mapping[str, str]) -> list[str]:
    return [
        f"dimension {names[axis]!r} has {labels[axis].size} points, fewer than the {need} of one "
        f"neighborhood of the model: take a larger part of the data"
        for axis, need in needs.items()
        if labels[axis].size < need
    ]


def _grid_step_problems(labels: Labels, spec: InputSpec, names: Mapping[str, str]) -> list[str]:
    """Mean steps that are not the model's; or else single ones that are not."""
    wanted = dict(zip(AXES[1:], spec.neighborhood.grid_step, strict=True))
    points = {axis: np.asarray(labels[axis], dtype=np.float64) for axis in wanted}
    steps = {axis: np.abs(np.diff(values)) for axis, values in points.items() if values.size > 1}
    wrong = [
        axis
        for axis, step in steps.items()
        if not abs(step.mean() / wanted[axis] - 1) <= MEAN_STEP_TOLERANCE
    ]
    if wrong:
        plural = "s" if len(wrong) > 1 else ""
        return [
            f"grid step{plural} of {_join(repr(names[axis]) for axis in wrong)} "
            f"{'are' if plural else 'is'} {_join(f'{steps[axis].mean():.4g}' for axis in wrong)} "
            f"degrees, the model was trained on {_join(f'{wanted[axis]:g}' for axis in wrong)}: "
            f"regrid with {_regrid(wrong, points, wanted, names)}"
        ]
    problems = []
    for axis, step in steps.items():
        uneven = ~(np.abs(step / wanted[axis] - 1) <= SINGLE_STEP_TOLERANCE)
        if uneven.any():
            i = int(uneven.argmax())
            problems.append(
                f"{names[axis]!r} goes from {points[axis][i]:g} to {points[axis][i + 1]:g} degrees "
                f"in one step, the model was trained on steps of {wanted[axis]:g}: regrid with "
                f"{_regrid([axis], points, wanted, names)}"
            )
    return problems


def _regrid(
    wrong: list[str],
    points: Mapping[str, npt.NDArray[np.float64]],
    wanted: Mapping[str, float],
    names: Mapping[str, str],
) -> str:
    """Line that averages cells where the model's step is a multiple, or else interpolates."""
    counts = {}
    for axis in wrong:
        ratio = wanted[axis] / np.abs(np.diff(points[axis])).mean()
        whole = round(ratio)
        if whole > 1 and abs(ratio / whole - 1) <= MEAN_STEP_TOLERANCE:
            counts[axis] = whole
    if len(counts) == len(wrong):
        sizes = ", ".join(f"{names[axis]}={count}" for axis, count in counts.items())
        return f'ds.coarsen({sizes}, boundary="trim").mean()'
    targets = []
    for axis in wrong:
        # Counted from the lowest value in the user's own range of longitude.
        n = int(np.ptp(points[axis]) / wanted[axis] + 1e-9) + 1
        lowest = f'float(ds["{names[axis]}"].min())'
        targets.append(f"{names[axis]}={lowest} + {wanted[axis]:g} * np.arange({n})")
    return f"ds.interp({', '.join(targets)})"


def _time_step_problems(
    times: npt.NDArray[Any], spec: InputSpec, name: str, first: int = 0
) -> list[str]:
    wanted = _accepted(_hours(times[first:]), spec)
    if wanted.all():
        return []
    hours = _hours(times)
    step, tolerance = spec.neighborhood.time_step, spec.neighborhood.time_tolerance
    good = _accepted(hours, spec)
    i = first + int(wanted.argmin())
    allowed = f" (within {tolerance:.1%})" if tolerance else ""
    return [
        f"the step of {name!r} from {_text(times[i])} to {_text(times[i + 1])} is {hours[i]:g} "
        f"hours, the model was trained on {step:g}{allowed}: select or regrid with "
        f"{_retime(times, good, spec, name)}"
    ]


def _retime(
    times: npt.NDArray[Any], good: npt.NDArray[np.bool_], spec: InputSpec, name: str
) -> str:
    """Line that thins the frames, or takes the longest sound part, or else interpolates."""
    every = round(spec.neighborhood.time_step / _hours(times)[0])
    if every > 1 and len(times) > every and _accepted(_hours(times[::every]), spec).all():
        return f"ds.isel({name}=slice(None, None, {every}))"
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    runs = edges.reshape(-1, 2)  # steps first .. last - 1 join frames first .. last
    if runs.size:
        first, last = runs[np.diff(runs).argmax()]
        if last - first + 1 >= spec.neighborhood.shape[0]:
            return f'ds.sel({name}=slice("{_text(times[first])}", "{_text(times[last])}"))'
    seconds = round(spec.neighborhood.time_step * 3600)
    freq = f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"
    calendar = getattr(times[0], "calendar", None)
    # xarray compares other units of datetime64 wrongly when it interpolates.
    kind = (
        f'calendar="{calendar}", use_cftime=True'
        if calendar
        else f'unit="{np.datetime_data(times.dtype)[0]}"'
    )
    ends = f'"{_text(times[0])}", "{_text(times[-1])}"'
    return f'ds.interp({name}=xr.date_range({ends}, freq="{freq}", {kind}))'


def _accepted(hours: npt.NDArray[np.float64], spec: InputSpec) -> npt.NDArray[np.bool_]:
    step, tolerance = spec.neighborhood.time_step, spec.neighborhood.time_tolerance
    accepted: npt.NDArray[np.bool_] = np.abs(hours / step - 1) <= tolerance + 1e-9
    return accepted


def _hours(times: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Hours from each time to the next."""
    steps = np.diff(times)
    if steps.dtype.kind == "m":
        return np.asarray(steps / np.timedelta64(1, "h"), dtype=np.float64)
    return np.array([step.total_seconds() / 3600 for step in steps])


def _text(time: Any) -> str:
    """ISO form to the second, which both kinds of time index read."""
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, unit="s"))
    return str(time.isoformat(timespec="seconds"))


def _join(words: Any) -> str:
    return " and ".join(words)
