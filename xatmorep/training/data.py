"""The data of a run: in canonical form, split in time, normalized when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xatmorep.data.arrange import is_unread
from xatmorep.data.conventions import CanonicalView, canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.errors import ConfigError
from xatmorep.tokens.sampling import RandomNeighborhoods
from xatmorep.tokens.tiling import tiling_for
from xatmorep.training.config import PretrainConfig

__all__ = ["TrainingData", "open_data", "split"]


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from, and what it is tested with. Nothing is read before it is needed.

    Attributes
    ----------
    view : CanonicalView
        All times.
    time : xarray.DataArray
        Their coordinate.
    training : list of slice
        Positions in time of runs of consecutive times.
    held_out : slice or None
        Positions of the held-out times.
    """

    view: CanonicalView
    time: xr.DataArray
    training: list[slice]
    held_out: slice | None

    def fit(self, config: PretrainConfig) -> Normalizer:
        """Statistics of the training times."""
        times = np.concatenate([np.arange(run.start, run.stop) for run in self.training])
        return Normalizer.fit(
            {name: array.isel(time=times) for name, array in self.view.fields.items()},
            self.view.statics,
            **config.normalization.model_dump(),
        )

    def neighborhoods(
        self, run: slice, normalizer: Normalizer, config: PretrainConfig, seed: int
    ) -> RandomNeighborhoods:
        """Random neighborhoods of consecutive times, normalized when they are read."""
        length = config.model.inputs.neighborhood.shape[0]
        fields = {
            # What is in a file, backed by dask: normalizing it would read all of it at once.
            name: field.chunk(time=length) if is_unread(field.variable) else field
            for name, field in self.view.fields.items()
        }
        return RandomNeighborhoods(
            {name: normalizer.apply(name, x.isel(time=run)) for name, x in fields.items()},
            {name: normalizer.apply(name, static) for name, static in self.view.statics.items()},
            config.model.inputs,
            is_global=self.view.is_global,
            crops_per_slab=config.crops_per_slab,
            seed=seed,
        )


def open_data(
    ds: xr.Dataset,
    config: PretrainConfig,
    validation: slice | None,
    variables: Mapping[str, str] | None = None,
) -> TrainingData:
    """Look at a dataset, and refuse it if the run can't use it.

    Parameters
    ----------
    ds, config, validation, variables
        As in `xatmorep.pretrain`.

    Raises
    ------
    ConventionError
        If a field is missing, or grid or time step are others than the model's.
    ConfigError
        If `validation` can't be used.
    """
    spec = config.model.inputs
    view = canonical_view(ds, spec.fields, spec.statics, fields=variables)
    labels = next(iter(view.fields.values()))
    training, held_out = split(labels["time"], validation, spec.neighborhood.shape[0])
    tiling_for(labels.isel(time=training[0]), spec, axes=view.axes)  # refuses another grid
    return TrainingData(view, labels["time"], training, held_out)


def split(
    time: xr.DataArray, validation: slice | None, length: int
) -> tuple[list[slice], slice | None]:
    """Runs of consecutive times for training, and one for validation.

    Parameters
    ----------
    time : xarray.DataArray
        Time coordinate of the data.
    validation : slice of labels, optional
        Held-out times, for example ``slice("2019", "2019")``.
    length : int
        Time steps of a neighborhood; shorter runs can't be used.

    Returns
    -------
    training : list of slice
        Positions in time before and after the held-out ones.
    validation : slice or None
        Positions of the held-out times.

    Raises
    ------
    ConfigError
        If `validation` is no slice of times, or the wrong way round, or if the times held out, or
        those that are left, hold no neighborhood.
    """
    if validation is None:
        return [slice(0, time.size)], None
    held_out = _held_out(time, validation)
    data = f"the data have {time.size} times from {time.values[0]} to {time.values[-1]}"
    if held_out.size < length:
        raise ConfigError(
            f"validation from {validation.start} to {validation.stop} holds {held_out.size} times, "
            f"a neighborhood has {length}; {data}"
        )
    start, stop = int(held_out[0]), int(held_out[-1]) + 1
    training = [
        run for run in (slice(0, start), slice(stop, time.size)) if run.stop - run.start >= length
    ]
    if not training:
        raise ConfigError(
            f"validation from {validation.start} to {validation.stop} leaves no run of {length} "
            f"times, which a neighborhood has, to train on; {data}"
        )
    return training, slice(start, stop)


def _held_out(time: xr.DataArray, validation: slice) -> np.ndarray:
    """Positions of the times between two labels."""
    positions = xr.DataArray(np.arange(time.size), coords={"time": time.variable}, dims="time")
    try:
        if validation.step is not None:
            raise ValueError("it has a step")
        held_out = positions.sel(time=validation).values
        backward = positions.sel(time=slice(validation.stop, validation.start)).values
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f'validation must be a slice of times, such as slice("2019", "2019"), found '
            f"{validation!r}: {error}"
        ) from error
    if backward.size and not held_out.size:
        raise ConfigError(
            f"validation from {validation.start} to {validation.stop} is the wrong way round"
        )
    return held_out
