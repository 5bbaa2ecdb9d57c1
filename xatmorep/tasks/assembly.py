"""What happens to one time slab: batched, shown to the network, put back together.

This is the unit of work of a dask task; nothing here knows dask, and torch is imported inside
functions, because a scheduler that only passes tasks on imports this module too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xatmorep.tasks.slab import (
    Key,
    Output,
    Place,
    Slab,
    Task,
    cut,
    network_input,
    normalize,
    stack,
    touched,
    visible,
    whole_times,
)
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.tokenize import untokenize

if TYPE_CHECKING:
    from xatmorep.data.normalization import Normalizer
    from xatmorep.model.checkpoint import Model
    from xatmorep.model.multiformer import Multiformer

__all__ = ["result_shapes", "run_slab"]


def run_slab(
    model: Model,
    task: Task,
    slab: Slab,
    arrays: Mapping[str, np.ndarray],
    statics: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    batch_size: int,
) -> dict[Key, tuple[np.ndarray, ...]]:
    """Apply a task to all neighborhoods of a slab.

    Parameters
    ----------
    model : Model
        With its network in evaluation mode, on its device.
    task : Task
        What is hidden and what is taken out.
    slab : Slab
        Where the arrays lie.
    arrays : mapping of str to numpy.ndarray
        Fields (sample, level, time, latitude, longitude) in canonical units, float32: of each the
        frames ``slab.frames(name)``.
    statics : mapping of str to numpy.ndarray
        Constant fields (latitude, longitude) in canonical units.
    masks : mapping of str to numpy.ndarray
        Points that the caller hides, bool, shaped as the arrays; may be empty.
    batch_size : int
        Neighborhoods that the network sees at once.

    Returns
    -------
    dict
        For outputs on tokens one array (sample, *lead, level, T, A, O, *trail); for outputs on
        points two (sample, *lead, level, time, latitude, longitude), of the frames that the slab
        gives: the weighted sum of the values and the sum of the weights (this one without *lead*).
    """
    n_samples = next(iter(arrays.values())).shape[0]
    arrays, statics = normalize(model.normalizer, slab, arrays, statics)
    outputs = task.outputs(slab.spec)
    assemblers: dict[Key, _Tokens | _Points] = {
        key: _ASSEMBLERS[output.grid](slab, key[0], output, n_samples)
        for key, output in outputs.items()
    }
    masks = masks or task.points(slab, n_samples)
    sources = visible(slab, arrays, masks)
    whole = {
        name: whole_times(mask[:, :, -len(slab.times) :], slab.spec.field(name).token_shape[0])
        for name, mask in masks.items()
    }
    places = slab.places(n_samples)
    for start in range(0, len(places), batch_size):
        some = places[start : start + batch_size]
        batch = cut(slab, some, arrays, statics, sources)
        hidden = {
            name: touched(stack(slab, some, mask), slab.spec.field(name).token_shape)
            for name, mask in masks.items()
        }
        samples = [place.sample for place in some]
        times = {name: mask[samples] for name, mask in whole.items()}
        for key, (values, counted) in _ask(model.network, task, batch, hidden, times).items():
            for row, place in enumerate(some):
                assemblers[key].put(place, values[row], None if counted is None else counted[row])
    results = {key: assembler.arrays() for key, assembler in assemblers.items()}
    for (name, part), output in outputs.items():
        if output.normalized:
            values, weights = results[name, part]
            physical = _in_units(model.normalizer, slab, name, output, values, weights)
            results[name, part] = (physical, weights)
    return results


def _in_units(
    normalizer: Normalizer,
    slab: Slab,
    name: str,
    output: Output,
    values: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Weighted sum of values in canonical units, from that of normalized ones."""
    total = weights[(slice(None), *[None] * len(output.lead))]
    mean = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    labelled = slab.labelled(name, mean, ("sample", *output.lead))
    return np.asarray(normalizer.invert(name, labelled).values * total)


def result_shapes(
    slab: Slab, name: str, output: Output, n_samples: int
) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and types of the arrays that `run_slab` returns for one output."""
    n_levels = slab.spec.field(name).n_levels
    before = (n_samples, *output.lead.values(), n_levels)
    if output.grid == "points":
        grid = (len(slab.times[slab.given]), len(slab.latitude), len(slab.longitude))
        return [((*before, *grid), output.dtype), ((n_samples, n_levels, *grid), "float32")]
    token_shape = slab.spec.field(name).token_shape
    _, rows, columns = slab.tiling.token_grid(token_shape)
    kept = slab.tiling.time.kept_tokens(slab.index, token_shape[0])
    grid = (kept.stop - kept.start, rows, columns)
    return [((*before, *grid, *output.trail.values()), output.dtype)]


def _ask(
    network: Multiformer,
    task: Task,
    batch: TokenBatch,
    hidden: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray],
) -> dict[Key, tuple[np.ndarray, np.ndarray | None]]:
    """Show a batch to the network and bring what the task takes out of it back to numpy."""
    import torch

    inputs, masks = network_input(network, batch, hidden, whole)
    with torch.inference_mode():
        answers = task.evaluate(network, batch, inputs, masks)
    return {
        key: (tensor.float().cpu().numpy(), None if counted is None else counted.cpu().numpy())
        for key, (tensor, counted) in answers.items()
    }


class _Tokens:
    """Puts tokens of neighborhoods side by side; of an overlap, only what is new."""

    def __init__(self, slab: Slab, name: str, output: Output, n_samples: int) -> None:
        self.tiling = slab.tiling
        self.token_shape = slab.spec.field(name).token_shape
        ((shape, dtype),) = result_shapes(slab, name, output, n_samples)
        self.result = np.empty(shape, dtype)
        self.trail = len(output.trail)

    def put(self, place: Place, values: np.ndarray, counted: np.ndarray | None) -> None:
        """Place the tokens (*lead, level, T, A, O, *trail) of one neighborhood."""
        tiling, box = self.tiling, place.box
        t, a, o = self.token_shape
        behind = (slice(None),) * self.trail
        source = (
            tiling.time.kept_tokens(box.time, t),
            tiling.latitude.kept_tokens(box.latitude, a),
            tiling.longitude.kept_tokens(box.longitude, o),
        )
        target = (
            slice(None),  # all kept times of the only time box of the slab
            tiling.latitude.token_places(box.latitude, a),
            tiling.longitude.token_places(box.longitude, o),
        )
        kept: tuple[Any, ...] = (..., *source, *behind)
        places: tuple[Any, ...] = (place.sample, ..., *target, *behind)
        self.result[places] = values[kept]

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The tokens of the slab."""
        return (self.result,)


class _Points:
    """Adds points of neighborhoods with their blending weights."""

    def __init__(self, slab: Slab, name: str, output: Output, n_samples: int) -> None:
        self.tiling = slab.tiling
        self.token_shape = slab.spec.field(name).token_shape
        self.frames = (..., slab.given, slice(None), slice(None))
        self.values, self.weights = (
            np.zeros(shape, dtype) for shape, dtype in result_shapes(slab, name, output, n_samples)
        )

    def put(self, place: Place, values: np.ndarray, counted: np.ndarray | None) -> None:
        """Add the tokens (*lead, level, T, A, O, t, a, o) of one neighborhood that count."""
        box = place.box
        weight = self.tiling.weights(box).astype("float32")
        if counted is not None:
            points = np.broadcast_to(
                counted[..., None, None, None], (*counted.shape, *self.token_shape)
            )
            weight = weight * untokenize(points)
        # On a circle of latitude a neighborhood may go on from the last column to the first.
        columns = np.r_[box.slices["longitude"]] % self.values.shape[-1]
        window = (..., box.slices["latitude"], columns)
        weight = weight[self.frames]
        self.values[place.sample][window] += weight * untokenize(values)[self.frames]
        self.weights[place.sample][window] += weight

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Weighted values and weights of the slab."""
        return self.values, self.weights


_ASSEMBLERS: dict[str, type[_Tokens] | type[_Points]] = {"tokens": _Tokens, "points": _Points}
