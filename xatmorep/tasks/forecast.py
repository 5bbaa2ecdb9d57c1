"""Forecasts: the frames after a time, from those up to it."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from xatmorep.errors import ConfigError, ConventionError
from xatmorep.tasks.engine import DEFAULT_MODEL, Application, ModelLike, Options
from xatmorep.tasks.labels import Part, to_dataset
from xatmorep.tasks.places import exact_times
from xatmorep.tasks.predict import Predict, as_given
from xatmorep.tasks.slab import Answers, Key, Output, Slab
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.spec import InputSpec
from xatmorep.tokens.steps import times_after

if TYPE_CHECKING:
    import torch

    from xatmorep.model.checkpoint import Model
    from xatmorep.model.inputs import NetworkInput
    from xatmorep.model.multiformer import Multiformer

__all__ = ["Forecast", "duration", "forecast", "lead_steps"]

DIMS = ("member", "init_time", "lead_time")
"""Dimensions that a result has of its own."""


@dataclass(frozen=True)
class Forecast(Predict):
    """Ensemble predictions of all tokens that reach into the frames ahead."""

    def outputs(self, spec: InputSpec) -> dict[Key, Output]:
        """The ensemble of each predicted field; what is hidden is known."""
        outputs = super().outputs(spec)
        return {(name, "prediction"): outputs[name, "prediction"] for name in self.predicted}

    def points(self, slab: Slab, n_samples: int) -> dict[str, np.ndarray]:
        """All points of the frames ahead, of every field."""
        points = {}
        for field in slab.spec.fields:
            frames = slab.frames(field.name)
            ahead = np.zeros((frames.stop - frames.start, 1, 1), dtype=bool)
            ahead[slab.given] = True
            shape = (len(ahead), len(slab.latitude), len(slab.longitude))
            points[field.name] = np.broadcast_to(ahead, (n_samples, field.n_levels, *shape))
        return points

    def evaluate(
        self,
        network: Multiformer,
        batch: TokenBatch,
        inputs: NetworkInput,
        hidden: Mapping[str, torch.Tensor],
    ) -> Answers:
        """Ensemble (batch, member, level, T, A, O, t, a, o)."""
        answers = super().evaluate(network, batch, inputs, hidden)
        return {(name, "prediction"): answers[name, "prediction"] for name in self.predicted}


def forecast(
    ds: xr.Dataset,
    lead_time: Any,
    *,
    init_times: Any = None,
    model: ModelLike = DEFAULT_MODEL,
    variables: Mapping[str, str] | None = None,
    members: bool = True,
    overlap: float = 0.0,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str = "float32",
) -> xr.Dataset:
    """Predict the frames after a time of a dataset from those up to it.

    The last frame of the neighborhood lies `lead_time` after the init time. All tokens of which
    any frame lies after the init time are hidden; no frame after it is read, whether the dataset
    has it or not.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields that the model needs.
    lead_time : str, timedelta64, datetime.timedelta or pandas.Timedelta
        How far the forecast goes, with its unit: ``"3h"``. A multiple of the model's time step,
        and so much shorter than the neighborhood that one token of each field is seen whole.
    init_times : str, datetime64, cftime.datetime, DataArray, Index or sequence, optional
        Times of `ds` from which to forecast, one or several; the last if not given. As many
        frames as the neighborhood has beside those of the forecast are read up to each.
    model : str, path or Model
        Name of a shipped model, address of a saved one, or a model.
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    members : bool
        Whether to give all members of the ensemble, or their mean only.
    overlap : float
        Share of a neighborhood that the next one has in common with it along latitude and
        longitude, in whole tokens; at least 0 and less than 1. Where neighborhoods overlap their
        predictions are averaged, each with more weight where it is in the middle, for there the
        model sees most around a token. Errors get smaller, and 0.5 takes up to four times as long.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    batch_size : int
        Neighborhoods that the network sees at once.
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Type in which the network computes.

    Returns
    -------
    xarray.Dataset
        For each predicted field, under the name and in the units that it has in `ds`, a float32
        variable (..., member, init_time, lead_time, [level], latitude, longitude) of all lead
        times from one time step to `lead_time`. Coordinates are ``init_time``, ``lead_time``
        (timedelta64) and, under the name of the time in `ds`, the valid time (init_time,
        lead_time). Lazy if `ds` is backed by dask.

    Raises
    ------
    ConventionError
        If the dataset lacks what the model needs, has another grid or time step, or too few
        frames up to an init time.
    ConfigError
        If the lead time or an init time is impossible.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample")
    >>> forecast = xatmorep.forecast(ds, "14.52h", init_times="2026-03-26T05")
    >>> forecast["2m_temperature"].dims
    ('member', 'init_time', 'lead_time', 'latitude', 'longitude')
    >>> forecast["time"].values.astype("datetime64[s]")
    array([['2026-03-26T12:15:36', '2026-03-26T19:31:12']], dtype='datetime64[s]')
    """
    options = Options(device, batch_size, dtype, overlap)
    application = Application.of(ds, model, variables, options, in_time=False)
    application.refuse_dims(DIMS)
    config = application.model.config
    steps = lead_steps(lead_time, application.model)
    last = _last_frames(application, init_times, steps)
    task = Forecast(config.predicted, config.tail.members, where="hidden", rate=None, seed=0)
    answers = [window.run(task) for window in application.windows(last, steps)]
    parts = []
    for name in task.predicted:
        ensemble = _joined(application, [answer[name, "prediction"] for answer in answers])
        values = as_given(application, name, ensemble, members=members)
        parts.append(Part(name, application.view.variables[name], values))
    reach = f"{steps * config.inputs.neighborhood.time_step:g}h"
    result = to_dataset(
        application, parts, task="forecast", lead_time=reach, members=members, overlap=overlap
    )
    return result.assign_coords(_coordinates(application, last, steps))


def lead_steps(lead_time: Any, model: Model) -> int:
    """Number of frames that a lead time reaches over.

    Raises
    ------
    ConfigError
        If it is no multiple of the model's time step, or leaves it nothing to see.
    """
    spec = model.config.inputs
    frames, step = spec.neighborhood.shape[0], spec.neighborhood.time_step
    longest = max(spec.fields, key=lambda field: field.token_shape[0])
    most = frames - longest.token_shape[0]
    if most < 1:
        raise ConfigError(
            f"the model {model.name} can't forecast: one token of {longest.name} takes all "
            f"{frames} frames of its neighborhood"
        )
    allowed = f"the largest lead time of the model {model.name} is {most * step:g}h"
    count = duration(lead_time, "lead_time") / pd.Timedelta(hours=step)
    steps = round(count)
    if steps < 1 or abs(count - steps) > 1e-6:
        raise ConfigError(
            f"lead_time {lead_time} is no positive multiple of the model's time step, {step:g}h; "
            f"{allowed}"
        )
    if steps > most:
        raise ConfigError(
            f"lead_time {lead_time} leaves the model no whole token of {longest.name} to see: "
            f"{allowed}"
        )
    return steps


def duration(value: Any, what: str) -> pd.Timedelta:
    """Read a duration with its unit; pandas would take a number for nanoseconds.

    Parameters
    ----------
    value : str, timedelta64, datetime.timedelta or pandas.Timedelta
        For example ``"3h"``.
    what : str
        Name of the argument, for the message.

    Raises
    ------
    ConfigError
        If it has no unit or is no duration.

    Examples
    --------
    >>> duration("1.5h", "lead_time")
    Timedelta('0 days 01:30:00')
    """
    if _is_bare_number(value):
        raise ConfigError(f'{what} {value} has no unit: write it as "3h"')
    try:
        found = pd.Timedelta(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f'{what} {value!r} is no duration: write it as "3h"') from error
    if found is pd.NaT:
        raise ConfigError(f'{what} {value!r} is no duration: write it as "3h"')
    return found


def _is_bare_number(value: Any) -> bool:
    if isinstance(value, np.timedelta64):
        return np.datetime_data(value)[0] == "generic"
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, numbers.Number)


def _last_frames(application: Application, init_times: Any, steps: int) -> list[int]:
    """Numbers of the frames at the init times, each with enough frames before it."""
    view, spec = application.view, application.model.config.inputs
    index = view.grid["time"].index
    last = [len(index) - 1] if init_times is None else exact_times(view, init_times)
    need, step = spec.neighborhood.shape[0] - steps, spec.neighborhood.time_step
    for frame in last:
        if frame + 1 < need:
            raise ConventionError(
                f"a forecast of {steps * step:g}h by the model {application.model.name} reads "
                f"{need} frames up to its init time, the data have {frame + 1} up to "
                f"{index[frame]}: start later, or take more of the past"
            )
    return last


def _joined(application: Application, ensembles: list[xr.DataArray]) -> xr.DataArray:
    """Forecasts of several init times side by side; canonical but for the time."""
    arrays = [array.drop_vars("time").rename(time="lead_time") for array in ensembles]
    joined = xr.concat(arrays, "init_time", coords="minimal", compat="override", join="override")
    return joined.transpose(*application.view.extra_dims, *DIMS, "level", "latitude", "longitude")


def _coordinates(application: Application, last: list[int], steps: int) -> dict[str, Any]:
    """Init, lead and valid times, with the attributes that the dataset's times have."""
    axis, spec = application.view.grid["time"], application.model.config.inputs
    init = axis.index.values[last]
    valid, leads = zip(*(times_after(time, spec, steps) for time in init), strict=True)
    since = "the last frame that the model sees"
    known = {"standard_name": "forecast_reference_time", "long_name": f"time of {since}"}
    ahead = {"standard_name": "forecast_period", "long_name": f"time since {since}"}
    own = {key: value for key, value in axis.stored.attrs.items() if key != "bounds"}
    return {
        "init_time": ("init_time", init, known),
        "lead_time": ("lead_time", leads[0], ahead),
        axis.match.coord: (DIMS[1:], np.stack(valid), own | {"standard_name": "time"}),
    }
