"""One time slab: where it lies, what a task asks of it, and what the network reads of it.

A slab is one time box of the tiling over all latitudes and longitudes, as plain arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import xarray as xr

from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.contexts import Canvas
from xatmorep.tokens.spec import InputSpec, Shape
from xatmorep.tokens.tiling import Box, Tiling
from xatmorep.tokens.tokenize import tokenize

if TYPE_CHECKING:
    import torch

    from xatmorep.data.normalization import Normalizer
    from xatmorep.model.inputs import NetworkInput
    from xatmorep.model.multiformer import Multiformer

__all__ = [
    "Answers",
    "Key",
    "Output",
    "Place",
    "Slab",
    "Task",
    "cut",
    "frames_given",
    "network_input",
    "normalize",
    "stack",
    "touched",
    "visible",
    "whole_times",
    "window",
]

Key = tuple[str, str]
"""A field and the part of the result: ``("2m_temperature", "prediction")``."""


Answers = dict[Key, tuple["torch.Tensor", "torch.Tensor | None"]]
"""Values that a task takes out of the network, and the tokens that count (None: all)."""


@dataclass(frozen=True)
class Output:
    """Shape and place of one array that a task makes of a field.

    Attributes
    ----------
    grid : {"tokens", "points"}
        Whether there is one entry for each token or for each grid point.
    lead, trail : dict of str to int
        Dimensions before and behind those of the grid.
    dtype : str
        Type of the entries.
    normalized : bool
        Of values on points: whether they are normalized, as the network gives them, and are to
        be brought to canonical units.
    """

    grid: Literal["tokens", "points"]
    lead: Mapping[str, int]
    trail: Mapping[str, int]
    dtype: str = "float32"
    normalized: bool = False

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions that aren't those of the grid."""
        return (*self.lead, *self.trail)


@dataclass(frozen=True)
class Place:
    """One neighborhood of the dataset: a sample (of the extra dimensions) and a box."""

    sample: int
    box: Box


class Task(Protocol):
    """What a question hides from the network, and what it takes out of it."""

    def outputs(self, spec: InputSpec) -> dict[Key, Output]:
        """Arrays that `evaluate` returns."""
        ...

    def points(self, slab: Slab, n_samples: int) -> dict[str, np.ndarray]:
        """Points that the task itself hides, bool (sample, level, time, latitude, longitude).

        Of each field the frames ``slab.frames(name)``. Nothing, unless a task says otherwise.
        """
        return {}

    def evaluate(
        self,
        network: Multiformer,
        batch: TokenBatch,
        inputs: NetworkInput,
        hidden: Mapping[str, torch.Tensor],
    ) -> Answers:
        """Values (batch, *lead, level, T, A, O, *trail or t, a, o), and which tokens count."""
        ...


def frames_given(ahead: int) -> slice:
    """Frames of a time box for which results on points are given: those ahead, or else all.

    Examples
    --------
    >>> list("abcd")[frames_given(1)], list("abcd")[frames_given(0)]
    (['d'], ['a', 'b', 'c', 'd'])
    """
    return slice(-ahead or None, None)


@dataclass(frozen=True)
class Slab:
    """One time box: the tiling, which box, and the coordinates of its points.

    Attributes
    ----------
    spec : InputSpec
        What the model reads.
    tiling : Tiling
        Neighborhoods of the dataset.
    index : int
        Which time box of the tiling it is.
    times, latitude, longitude : numpy.ndarray
        Coordinates of its points.
    ahead : int
        Number of its last frames that the data don't have. Where there are any, results on points
        are given for them alone.
    past : numpy.ndarray
        Times of the frames before it that contexts read, as far as the data have them.
    is_global : bool
        Whether longitude covers the whole circle.
    """

    spec: InputSpec
    tiling: Tiling
    index: int
    times: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    ahead: int = 0
    past: np.ndarray = field(default_factory=lambda: np.array([], dtype="datetime64[s]"))
    is_global: bool = False

    @property
    def given(self) -> slice:
        """Frames for which results on points are given."""
        return frames_given(self.ahead)

    def frames(self, name: str) -> slice:
        """Frames of the dataset that are read of a field: of the time box, and of its past."""
        box = self.tiling.time.points(self.index)
        return slice(box.start - min(len(self.past), self.spec.past(name)), box.stop)

    @property
    def canvas(self) -> Canvas:
        """What contexts are cut from."""
        times = np.concatenate([self.past, self.times]) if len(self.past) else self.times
        return Canvas(self.spec, times, self.latitude, self.longitude, self.is_global)

    def labelled(self, name: str, array: np.ndarray, lead: Sequence[str]) -> xr.DataArray:
        """Last frames of a field (*lead, level, time, latitude, longitude) with coordinates."""
        coords = {
            "level": np.array(self.spec.field(name).levels or (0.0,)),
            "time": self.canvas.times[-array.shape[-3] :],
            "latitude": self.latitude,
            "longitude": self.longitude,
        }
        return xr.DataArray(array, coords, (*lead, *coords))

    def places(self, n_samples: int) -> list[Place]:
        """All neighborhoods of the slab, for every sample."""
        boxes = self.tiling.boxes(time=self.index)
        return [Place(sample, box) for sample, box in product(range(n_samples), boxes)]


def normalize(
    normalizer: Normalizer,
    slab: Slab,
    arrays: Mapping[str, np.ndarray],
    statics: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Normalize the fields (sample, level, time, ...) and the constant fields of a slab.

    This is done where the network is, not in the graph, which would have to carry statistics of
    every grid point.
    """
    horizontal = {"latitude": slab.latitude, "longitude": slab.longitude}
    fields = {
        name: normalizer.apply(name, slab.labelled(name, array, ("sample",))).values
        for name, array in arrays.items()
    }
    constants = {
        name: normalizer.apply(name, xr.DataArray(array, horizontal)).values
        for name, array in statics.items()
    }
    return fields, constants


def visible(
    slab: Slab, arrays: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Fields of which there are contexts; points that are hidden anywhere are missing there."""
    sources = {context.field: arrays[context.field] for context in slab.spec.contexts}
    return {
        name: np.where(masks[name], np.float32(np.nan), array) if name in masks else array
        for name, array in sources.items()
    }


def whole_times(points: np.ndarray, size: int) -> np.ndarray:
    """Token times (..., T) of `size` frames with one of which all (latitude, longitude) are True.

    Examples
    --------
    >>> points = np.zeros((4, 2, 2), dtype=bool)
    >>> points[1, 0], points[2] = True, True
    >>> whole_times(points, 2)
    array([False,  True])
    """
    frames = points.all((-2, -1))
    return np.any(frames.reshape(*frames.shape[:-1], -1, size), axis=-1)


def touched(points: np.ndarray, token_shape: Shape) -> np.ndarray:
    """Tokens (..., T, A, O) of which any point (..., time, latitude, longitude) is True.

    Examples
    --------
    >>> touched(np.eye(4, dtype=bool)[None], (1, 2, 2))
    array([[[ True, False],
            [False,  True]]])
    """
    return np.any(tokenize(points, token_shape), axis=(-3, -2, -1))


def cut(
    slab: Slab,
    places: list[Place],
    arrays: Mapping[str, np.ndarray],
    statics: Mapping[str, np.ndarray],
    sources: Mapping[str, np.ndarray],
) -> TokenBatch:
    """Labelled tokens of some neighborhoods of a slab; contexts are cut from `sources`."""
    boxes = [place.box.slices for place in places]
    turns, columns = np.divmod([np.r_[box["longitude"]] for box in boxes], len(slab.longitude))
    return TokenBatch.cut(
        slab.spec,
        {name: stack(slab, places, array) for name, array in arrays.items()},
        times=np.stack([slab.times] * len(places)),
        latitude=np.stack([slab.latitude[box["latitude"]] for box in boxes]),
        longitude=slab.longitude[columns] + 360 * turns,
        statics={
            name: np.stack([window(array, place.box) for place in places])
            for name, array in statics.items()
        },
        contexts=slab.canvas.cut(
            sources,
            statics,
            [
                (place.sample, box["latitude"].start, box["longitude"].start)
                for place, box in zip(places, boxes, strict=True)
            ],
        ),
    )


def stack(slab: Slab, places: list[Place], array: np.ndarray) -> np.ndarray:
    """Neighborhoods (batch, level, time, latitude, longitude) out of a slab with samples."""
    frames = array[:, :, -len(slab.times) :]
    return np.stack([window(frames[place.sample], place.box) for place in places])


def window(array: np.ndarray, box: Box) -> np.ndarray:
    """One neighborhood of an array (..., latitude, longitude), perhaps across its last column.

    Examples
    --------
    >>> box = Box(0, 0, 1, {"latitude": slice(1, 2), "longitude": slice(2, 5)})
    >>> window(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), box)
    array([[6, 7, 4]])
    """
    columns = np.r_[box.slices["longitude"]]
    return array[..., box.slices["latitude"], :].take(columns, axis=-1, mode="wrap")


def network_input(
    network: Multiformer,
    batch: TokenBatch,
    hidden: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray],
) -> tuple[NetworkInput, dict[str, torch.Tensor]]:
    """What the network reads of a batch whose hidden tokens are withheld, and the full masks.

    Parameters
    ----------
    network : Multiformer
        Gives device and type.
    batch : TokenBatch
        The neighborhoods.
    hidden : mapping of str to numpy.ndarray
        Tokens of fields, bool (batch, level, T, A, O); none of those that it lacks.
    whole : mapping of str to numpy.ndarray
        Token times that are hidden everywhere in the dataset, bool (batch, level, T), of the same
        fields.
    """
    import torch

    from xatmorep.model.inputs import NetworkInput
    from xatmorep.objectives.contexts import with_contexts
    from xatmorep.objectives.masking import withhold

    values = {name: torch.from_numpy(array) for name, array in batch.tokens.items()}
    contexts = {context.name: values.pop(context.name) for context in batch.spec.contexts}
    masks = {
        name: torch.from_numpy(hidden[name])
        if name in hidden
        else torch.zeros(tokens.shape[:5], dtype=torch.bool)
        for name, tokens in values.items()
    }
    times = {
        name: torch.from_numpy(whole[name]) if name in whole else mask.new_zeros(mask.shape[:3])
        for name, mask in masks.items()
    }
    masked = with_contexts(withhold(values, masks), contexts, batch.spec, times)
    weight = next(network.parameters())
    inputs = NetworkInput.of(batch, masked.tokens, masked.blank).to(weight.device, weight.dtype)
    return inputs, {name: mask.to(weight.device) for name, mask in masks.items()}
