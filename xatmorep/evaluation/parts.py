"""A dataset part by part: what was true, what was hidden, and what the model says about it.

A part is small enough for memory whatever the length of the dataset, and the parts together give
what the dataset as a whole would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.errors import ConfigError, ConventionError
from xatmorep.evaluation.climatology import elapsed
from xatmorep.tasks.engine import Application
from xatmorep.tasks.forecast import Forecast, duration, lead_steps
from xatmorep.tasks.lattice import random_points
from xatmorep.tasks.places import exact_times
from xatmorep.tasks.predict import Predict, as_given
from xatmorep.tokens.steps import check_times, times_after
from xatmorep.tokens.tiling import AxisTiling

__all__ = ["Case", "Forecasts", "Part", "Predictions"]

GRID = ("level", "latitude", "longitude")

MOST_BYTES = 2**26
"""Size of the ensembles of a part."""


@dataclass(frozen=True)
class Case:
    """One field of a part.

    Attributes
    ----------
    values : numpy.ndarray
        Data (case, frame, level, latitude, longitude) in the units of the dataset, with frames
        around those that are scored. A case is a sample of the dataset's further dimensions, of a
        forecast one of these from one init time.
    visible : numpy.ndarray
        Which of them may be used to predict the others, bool.
    times : numpy.ndarray
        Times (case, frame).
    wanted : slice
        Frames that are scored.
    reach : int
        How many frames before and after a hidden point are looked at for visible ones.
    truth : xarray.DataArray
        These frames (sample, time, level, latitude, longitude), or of forecasts (sample,
        init_time, lead_time, level, latitude, longitude).
    hidden : xarray.DataArray
        Points that are scored, bool, same dimensions.
    prediction : xarray.DataArray
        The model's members (member, ...), same dimensions.
    """

    values: np.ndarray
    visible: np.ndarray
    times: np.ndarray
    wanted: slice
    reach: int
    truth: xr.DataArray
    hidden: xr.DataArray
    prediction: xr.DataArray

    @property
    def hours(self) -> np.ndarray:
        """Hours (case, frame) since the first frame of each case."""
        return elapsed(self.times)

    def like_truth(self, array: np.ndarray) -> xr.DataArray:
        """Wanted frames (case, frame, level, latitude, longitude) with the labels of the truth."""
        return self.truth.copy(data=array.reshape(self.truth.shape))


Part = dict[str, Case]
"""Cases of all predicted fields, by canonical name."""


@dataclass(frozen=True)
class Predictions:
    """Parts of a dataset of which random cells are hidden and predicted.

    Attributes
    ----------
    application : Application
        The model on the dataset.
    rate : float
        Share of the cells that is hidden.
    seed : int
        Seed of the draw.
    """

    application: Application
    rate: float
    seed: int

    when = ("time",)

    @property
    def times(self) -> np.ndarray:
        """Times of the dataset."""
        return _times(self.application)

    @property
    def reach(self) -> int:
        """How many frames before and after a hidden point are looked at for visible ones."""
        return 2 * self.application.model.config.inputs.neighborhood.shape[0]

    def windows(self) -> list[slice]:
        """Frames of each part: whole time slabs, so that few are shown to the model twice."""
        n_frames, box = len(self.times), self.application.model.config.inputs.neighborhood.shape[0]
        size = box * max(1, _frames_in_memory(self.application) // box)
        # A last part of less than a slab belongs to the one before.
        starts = list(range(0, max(n_frames - box, 0) + 1, size))
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], n_frames], strict=True)]

    def parts(self) -> Iterator[Part]:
        """The parts, one after the other."""
        for window in self.windows():
            yield self._part(window)

    def _part(self, window: slice) -> Part:
        slabs = self.application.tiling.time.reaching(window)
        before = min(window.start - self.reach, slabs.starts[0] - self.application.past)
        context = slice(max(0, before), min(len(self.times), window.stop + self.reach))
        wanted = slice(window.start - context.start, window.stop - context.start)
        application = _loaded(self.application, context)
        spec = application.model.config.inputs
        hidden = {}
        for field in spec.fields:
            *_, rows, columns = application.view.fields[field.name].shape
            hidden[field.name] = random_points(
                field,
                context,
                rows,
                columns,
                application.n_samples,
                rate=self.rate,
                seed=self.seed,
            ).swapaxes(1, 2)
        ensembles = self._ensembles(application, slabs.moved(-context.start), hidden)
        inside = slice(window.start - slabs.starts[0], window.stop - slabs.starts[0])
        part = {}
        for name, ensemble in ensembles.items():
            values = _physical(application, name)
            mask = hidden[name]
            coords = _coords(application, name, "time", wanted)
            dims = ("sample", "time", *GRID)
            part[name] = Case(
                values,
                ~mask & np.isfinite(values),
                np.broadcast_to(_times(application), values.shape[:2]),
                wanted,
                self.reach,
                xr.DataArray(values[:, wanted], coords, dims),
                xr.DataArray(mask[:, wanted], coords, dims),
                _labelled(ensemble.isel(time=inside), ("time",)),
            )
        return part

    def _ensembles(
        self, application: Application, slabs: AxisTiling, hidden: dict[str, np.ndarray]
    ) -> dict[str, xr.DataArray]:
        """Predictions of some time slabs of the loaded frames, under the name of each field."""
        view = application.view
        read = slice(max(0, slabs.starts[0] - application.past), slabs.size)
        fields = {name: field.isel(time=read) for name, field in view.fields.items()}
        tiling = replace(application.tiling, time=slabs.moved(-read.start))
        inner = replace(application, view=replace(view, fields=fields), tiling=tiling)
        masks = {
            name: xr.DataArray(
                mask[:, read].reshape(fields[name].shape), fields[name].coords
            ).chunk()
            for name, mask in hidden.items()
        }
        config = application.model.config
        task = Predict(config.predicted, config.tail.members, "hidden", None, self.seed)
        results = inner.run(task, masks)
        given = {
            name: as_given(inner, name, results[name, "prediction"], members=True)
            for name in config.predicted
        }
        (computed,) = dask.compute(given, scheduler="synchronous")
        return computed


@dataclass(frozen=True)
class Forecasts:
    """Parts of a dataset from whose times forecasts are made.

    Attributes
    ----------
    application : Application
        The model on the dataset, without neighborhoods in time.
    steps : int
        Number of frames ahead.
    last : list of int
        Numbers of the frames at the init times.
    """

    application: Application
    steps: int
    last: list[int]

    when = ("init_time", "lead_time")

    @classmethod
    def of(
        cls, application: Application, lead_time: Any, init_times: Any, init_step: Any
    ) -> Forecasts:
        """Forecasts from given times, or from every time from which they can be scored.

        Raises
        ------
        ConfigError
            If a duration or an init time is impossible.
        ConventionError
            If there is no time from which a forecast can be scored, or a given one is none.
        """
        steps = lead_steps(lead_time, application.model)
        need = application.model.config.inputs.neighborhood.shape[0] - steps
        times = _times(application)
        if init_times is None:
            last = [i for i in range(need - 1, len(times) - steps) if _fits(application, i, steps)]
            last = last[:: _stride(init_step, application)]
            if not last:
                raise ConventionError(
                    f"no forecast can be scored: the model reads {need} frames and is compared "
                    f"with {steps} after them, the data have {len(times)}"
                )
            return cls(application, steps, last)
        if init_step is not None:
            raise ConfigError("give init_times or init_step, not both")
        last = sorted(exact_times(application.view, init_times))
        for i in last:
            if i + steps >= len(times) or i + 1 < need:
                raise ConventionError(
                    f"a forecast from {times[i]} can't be scored: it needs {need} frames up to "
                    f"then and {steps} after it, the data have {i + 1} and {len(times) - 1 - i}"
                )
            _check(application, i, steps)
        return cls(application, steps, last)

    @property
    def times(self) -> np.ndarray:
        """Init times."""
        return _times(self.application)[self.last]

    @property
    def reach(self) -> int:
        """How many frames before a hidden point are looked at for visible ones: all."""
        return self.application.model.config.inputs.neighborhood.shape[0]

    def windows(self) -> list[list[int]]:
        """Init times of each part, close enough to be read together."""
        frames = _frames_in_memory(self.application)
        most, span = max(1, frames // self.steps), max(frames, self.reach)
        groups: list[list[int]] = []
        for i in self.last:
            if groups and len(groups[-1]) < most and i - groups[-1][0] < span:
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups

    def parts(self) -> Iterator[Part]:
        """The parts, one after the other."""
        for group in self.windows():
            yield self._part(group)

    def _part(self, group: list[int]) -> Part:
        need = self.reach - self.steps
        first = group[0] + 1 - need
        past = min(first, self.application.past)
        context = slice(first - past, group[-1] + 1 + self.steps)
        application = _loaded(self.application, context)
        last = [i - context.start for i in group]
        times, wanted = _times(application), slice(need, self.reach)
        frames = np.array(last)[:, None] + 1 - need + np.arange(self.reach)
        part = {}
        for name, ensemble in self._ensembles(application, last).items():
            values = _physical(application, name)[:, frames]
            n_samples, n_init = values.shape[:2]
            coords = _coords(application, name, "lead_time", wanted)
            coords |= {dim: ensemble[dim] for dim in self.when}
            dims = ("sample", *self.when, *GRID)
            truth = xr.DataArray(values[:, :, wanted], coords, dims)
            values = values.reshape(n_samples * n_init, *values.shape[2:])
            ahead = np.arange(self.reach) >= need
            visible = np.isfinite(values) & ~ahead[None, :, None, None, None]
            part[name] = Case(
                values,
                visible,
                np.tile(times[frames], (n_samples, 1)),
                wanted,
                self.reach,
                truth,
                xr.ones_like(truth, bool),
                _labelled(ensemble, self.when),
            )
        return part

    def _ensembles(self, application: Application, last: list[int]) -> dict[str, xr.DataArray]:
        config = application.model.config
        task = Forecast(config.predicted, config.tail.members, "hidden", None, 0)
        answers = [window.run(task) for window in application.windows(last, self.steps)]
        (answers,) = dask.compute(answers, scheduler="synchronous")
        init = _times(application)[last]
        _, leads = times_after(init[0], config.inputs, self.steps)
        result = {}
        for name in config.predicted:
            several = [
                as_given(application, name, answer[name, "prediction"], members=True)
                .drop_vars("time")
                .rename(time="lead_time")
                for answer in answers
            ]
            joined = xr.concat(several, "init_time", join="exact")
            result[name] = joined.assign_coords(init_time=init, lead_time=leads)
        return result


def _times(application: Application) -> np.ndarray:
    return np.asarray(next(iter(application.view.fields.values()))["time"].values)


def _loaded(application: Application, frames: slice) -> Application:
    """The same on some frames, which are read."""
    fields = {name: field.isel(time=frames) for name, field in application.view.fields.items()}
    (fields,) = dask.compute(fields)
    loaded = {name: field.load() for name, field in fields.items()}
    return replace(application, view=replace(application.view, fields=loaded))


def _physical(application: Application, name: str) -> np.ndarray:
    """A field (sample, time, level, latitude, longitude) in the units of the dataset."""
    values = application.view.restore_units(name, application.view.fields[name]).values
    return values.reshape(-1, *values.shape[-4:])


def _coords(application: Application, name: str, dim: str, frames: slice) -> dict[str, Any]:
    """Coordinates of a field's grid, and of some of its times under a name."""
    field = application.view.fields[name]
    coords = {axis: field[axis].values for axis in GRID}
    return coords | ({dim: field["time"].values[frames]} if dim == "time" else {})


def _labelled(ensemble: xr.DataArray, when: Sequence[str]) -> xr.DataArray:
    """An ensemble (*extra, ...) as (member, sample, *when, level, latitude, longitude)."""
    ordered = ensemble.transpose("member", ..., *when, *GRID)
    n_kept = len(when) + len(GRID)
    values = ordered.values.reshape(len(ordered), -1, *ordered.shape[-n_kept:])
    coords = {dim: ordered[dim].values for dim in (*when, *GRID)}
    return xr.DataArray(values, coords, ("member", "sample", *when, *GRID))


def _frames_in_memory(application: Application) -> int:
    """How many frames of the ensembles of all fields are held at once."""
    config = application.model.config
    levels = sum(config.inputs.field(name).n_levels for name in config.predicted)
    *_, rows, columns = next(iter(application.view.fields.values())).shape
    points = application.n_samples * config.tail.members * levels * rows * columns
    return max(1, MOST_BYTES // (4 * points))


def _check(application: Application, last: int, steps: int) -> None:
    """Refuse frames around an init time that aren't the model's time step apart."""
    spec = application.model.config.inputs
    first = last + 1 + steps - spec.neighborhood.shape[0]
    times = _times(application)[first : last + 1 + steps]
    check_times(times, spec, name=application.view.axes["time"])


def _fits(application: Application, last: int, steps: int) -> bool:
    try:
        _check(application, last, steps)
    except ConventionError:
        return False
    return True


def _stride(init_step: Any, application: Application) -> int:
    """Number of frames from one init time to the next."""
    if init_step is None:
        return 1
    step = application.model.config.inputs.neighborhood.time_step
    count = duration(init_step, "init_step") / pd.Timedelta(hours=step)
    if count < 1 or abs(count - round(count)) > 1e-6:
        raise ConfigError(
            f"init_step {init_step} is no positive multiple of the model's time step, {step:g}h"
        )
    return round(count)
