"""The one place where a model is applied, lazily, to a labelled dataset.

A dataset is brought into canonical form, normalized, and cut into time slabs; a dask task reads
one slab and shows all its neighborhoods to the network; the results are joined, labelled and
brought back to the form of the input. A dataset in memory takes the same way and is computed at
the end, so that both give the same numbers.
"""

from __future__ import annotations

import math
import operator
import os
import uuid
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import dask
import dask.array as da
import numpy as np
import xarray as xr

from xatmorep.data.conventions import CanonicalView, canonical_view
from xatmorep.errors import ConventionError
from xatmorep.tasks.assembly import result_shapes, run_slab
from xatmorep.tasks.options import Options
from xatmorep.tasks.reference import ModelReference, placed_model, reference
from xatmorep.tasks.slab import Key, Output, Slab, Task, frames_given
from xatmorep.tokens.steps import check_times, frames_before, times_after
from xatmorep.tokens.tiling import Tiling, tiling_for

if TYPE_CHECKING:
    from xatmorep.model.checkpoint import Model

__all__ = ["DEFAULT_MODEL", "Application", "ModelLike", "Options"]

ModelLike: TypeAlias = "str | os.PathLike[str] | Model"
"""Name of a shipped model, address of a saved one, or a model."""

DEFAULT_MODEL = "era5-surface-tiny"
"""The demonstration model that ships with the package."""


@dataclass(frozen=True)
class Application:
    """A model on a dataset: everything is checked, nothing is read.

    Attributes
    ----------
    model : Model
        The model.
    view : CanonicalView
        The dataset in canonical form; what is not backed by dask is read by parts.
    tiling : Tiling
        Neighborhoods of the dataset; frames before the first one are read by contexts only.
    lazy : bool
        Whether the input was dask-backed, so that results are to be as well.
    options : Options
        How the network is run.
    reference : ModelReference
        What stands for the model in a graph; known once, for it takes digests of the weights.
    token : str
        Tells the arrays of this dataset from those of others in a graph.
    ahead : int
        Frames at the end of `view` that the data don't have; where there are any, results on
        points are given for them alone.
    """

    model: Model
    view: CanonicalView
    tiling: Tiling
    lazy: bool
    options: Options
    reference: ModelReference
    token: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)
    ahead: int = 0

    @classmethod
    def of(
        cls,
        ds: xr.Dataset,
        model: ModelLike,
        variables: Mapping[str, str] | None,
        options: Options,
        *,
        in_time: bool = True,
    ) -> Application:
        """Check a dataset against a model and lay out the neighborhoods.

        Parameters
        ----------
        ds : xarray.Dataset
            Any dataset.
        model : str, path or Model
            Name, address or model.
        variables : mapping of str to str, optional
            Canonical name of a field to name of the variable.
        options : Options
            How the network is run.
        in_time : bool
            Whether neighborhoods are laid over the times, too; if not, `windows` has to place
            them there, and looks at the times that they need.

        Raises
        ------
        ConventionError
            If the dataset lacks what the model needs or has another grid or time step.
        """
        from xatmorep.model.checkpoint import Model, load

        if isinstance(ds, xr.DataArray):
            ds = ds.to_dataset(name=ds.name or "field")
        model = model if isinstance(model, Model) else load(str(model))
        if not model.normalizer.mean:
            raise ConventionError(
                f"the model {model.name!r} has no normalization: load it with the published "
                "coefficients or your own data, xatmorep.load_atmorep(folder, normalization=...)"
            )
        spec = model.config.inputs
        view = canonical_view(ds, spec.fields, spec.statics, fields=variables, deferred=True)
        coords = next(iter(view.fields.values())).coords
        tiling = tiling_for(
            coords,
            spec,
            axes=view.axes,
            in_time=in_time,
            overlap=options.overlap,
            is_global=view.is_global,
        )
        for name, array in {**(view.fields if in_time else {}), **view.statics}.items():
            model.normalizer.check(name, array)
        lazy = any(ds[name].chunks is not None for name in view.variables.values())
        return cls(model, view, tiling, lazy, options, reference(model))

    def windows(self, last: Sequence[int], ahead: int) -> list[Application]:
        """The same model on neighborhoods that reach beyond a frame, one for each such frame.

        Parameters
        ----------
        last : sequence of int
            Numbers of the last frames of the dataset that are read.
        ahead : int
            Number of frames after it. They are missing, whether the dataset has them or not, and
            follow in the model's time step.

        Raises
        ------
        ConventionError
            If frames that are read aren't the model's time step apart, or a time has no
            statistics.
        """
        windows = [self._window(frame, ahead) for frame in last]
        for name in self.view.fields:
            first, *others = (window.view.fields[name] for window in windows)
            self.model.normalizer.check(name, first)
            for other in others:
                # All have the same places; only times can lack statistics, and anywhere.
                corner = {"latitude": slice(1), "longitude": slice(1)}
                self.model.normalizer.check(name, other.isel(corner))
        return windows

    def _window(self, last: int, ahead: int) -> Application:
        spec = self.model.config.inputs
        times = next(iter(self.view.fields.values()))["time"].values
        frames = spec.neighborhood.shape[0]
        first = last + 1 + ahead - frames
        check_times(times[: last + 1], spec, first=first, name=self.view.axes["time"])
        past = frames_before(times, spec, first, self.past)
        known = slice(first - past, last + 1)
        labels = np.concatenate([times[known], times_after(times[last], spec, ahead)[0]])
        # A chunk of its own for the past, which isn't read of all fields.
        parts = {"time": (past, frames - ahead)} if past else {}
        fields = {
            name: _followed(
                self._chunked(field.isel(time=known), f"{known.start} to {last}", parts), labels
            )
            for name, field in self.view.fields.items()
        }
        tiling = replace(self.tiling, time=self.tiling.time.moved(past))
        return replace(self, view=replace(self.view, fields=fields), tiling=tiling, ahead=ahead)

    @property
    def past(self) -> int:
        """Frames before a neighborhood that contexts read, where the data have them."""
        spec = self.model.config.inputs
        return max(spec.past(field.name) for field in spec.fields)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions that the model doesn't know, such as ensemble members."""
        first = next(iter(self.view.fields.values()))
        return tuple(first.sizes[dim] for dim in self.view.extra_dims)

    def refuse_dims(self, names: Collection[str]) -> None:
        """Refuse a dataset that has dimensions of which a result has its own."""
        axes = (*self.view.grid.values(), *self.view.levels.values())
        taken = {*self.view.extra_dims, *(axis.dim for axis in axes)}
        for dim in sorted({"bounds", *names} & taken):
            raise ConventionError(
                f"dimension {dim!r} of the dataset is named like one of the result: rename it, "
                f"for example with ds.rename({dim}='dataset_{dim}')"
            )

    @property
    def n_samples(self) -> int:
        """Number of datasets side by side along those dimensions."""
        return math.prod(self.sample_shape)

    @cached_property
    def _reference(self) -> Any:
        # A key of its own in the graph: dask brings a model in memory to each worker once.
        name = f"xatmorep-model-{self.reference.digest}"
        return dask.delayed(self.reference, name=name, traverse=False)

    def delayed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A dask task that calls a function with the model on its device and other arguments.

        Dask arrays among the arguments reach the function as numpy arrays, whatever their chunks.
        """
        from xatmorep.model.device import resolve_device

        task = dask.delayed(_with_model, pure=True)
        device = resolve_device(self.options.device)
        return task(function, self._reference, device, self.options.dtype, *arguments)

    def arrays(self, index: int) -> dict[str, da.Array]:
        """Fields of one time box, and of the past that contexts of them read.

        In canonical units, each (sample, level, time, latitude, longitude).
        """
        slab = self.slab(index)
        return {
            name: self._plain(self._chunked(field.isel(time=slab.frames(name)), index))
            for name, field in self.view.fields.items()
        }

    @cached_property
    def statics(self) -> dict[str, da.Array]:
        """Constant fields in canonical units, each (latitude, longitude)."""
        return {name: self._chunked(x).data for name, x in self.view.statics.items()}

    def _chunked(
        self,
        array: xr.DataArray,
        part: int | str = "all",
        sizes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> xr.DataArray:
        """An array backed by dask; what isn't yet is one chunk, read when its turn comes.

        Along some dimensions it is several chunks, if their sizes are given.
        """
        if array.chunks is not None:
            return array
        # With a token dask doesn't hash the values, which would read them.
        return array.chunk(sizes or {}, token=f"{self.token} {array.name} {part}")

    def slab(self, index: int) -> Slab:
        """One time box with its coordinates."""
        coords = next(iter(self.view.fields.values())).coords
        box = self.tiling.time.points(index)
        return Slab(
            self.model.config.inputs,
            self.tiling,
            index,
            coords["time"].values[box],
            coords["latitude"].values,
            coords["longitude"].values,
            self.ahead,
            coords["time"].values[max(0, box.start - self.past) : box.start],
            self.view.is_global,
        )

    def run(
        self, task: Task, masks: Mapping[str, xr.DataArray] | None = None
    ) -> dict[Key, xr.DataArray]:
        """Apply a task to all neighborhoods.

        Parameters
        ----------
        task : Task
            What is hidden and what is taken out.
        masks : mapping of str to xarray.DataArray, optional
            For each field the points that the caller hides, in canonical form.

        Returns
        -------
        dict
            Canonical DataArrays (*extra, *lead, time, level, latitude, longitude, *trail). Arrays
            on tokens have no coordinates yet, arrays on points those of the data (of the frames
            ahead only, if there are any); points that no neighborhood counts are NaN.
        """
        outputs = task.outputs(self.model.config.inputs)
        self.refuse_dims({dim for output in outputs.values() for dim in output.dims})
        hidden = {name: self._plain(mask) for name, mask in (masks or {}).items()}
        pieces: dict[Key, list[list[da.Array]]] = {key: [] for key in outputs}
        for index in range(len(self.tiling.time)):
            slab = self.slab(index)
            result = self.delayed(
                run_slab,
                task,
                slab,
                self.arrays(index),
                self.statics,
                {name: mask[:, :, slab.frames(name)] for name, mask in hidden.items()},
                self.options.batch_size,
            )
            for key, output in outputs.items():
                shapes = result_shapes(slab, key[0], output, self.n_samples)
                pieces[key].append(
                    [
                        # With meta dask doesn't have to call anything to know the type.
                        da.from_delayed(
                            result[key][i], shape, meta=np.empty((0,) * len(shape), dtype)
                        )
                        for i, (shape, dtype) in enumerate(shapes)
                    ]
                )
        return {key: self._join(key, outputs[key], pieces[key]) for key in outputs}

    def finish(self, ds: xr.Dataset) -> xr.Dataset:
        """Leave a result lazy if the input was, else compute it."""
        # One slab after the other: the network itself uses the cores.
        return ds if self.lazy else ds.compute(scheduler="synchronous")

    def _plain(self, array: xr.DataArray) -> da.Array:
        """Canonical field as (sample, level, time, latitude, longitude)."""
        array = array.transpose(*self.view.extra_dims, "level", "time", "latitude", "longitude")
        return array.data.reshape(self.n_samples, *array.shape[len(self.view.extra_dims) :])

    def _join(self, key: Key, output: Output, pieces: list[list[da.Array]]) -> xr.DataArray:
        """Slabs one after the other in time, with labels."""
        time_axis = len(output.lead) + 2
        if output.grid == "tokens":
            (tokens,) = zip(*pieces, strict=True)
            return self._labelled(da.concatenate(tokens, axis=time_axis), key[0], output)
        values, weights = zip(*pieces, strict=True)
        total = self._overlapped(list(weights), 2)
        # Adding the dimensions of the values (such as the member) to the weights.
        total = total[(slice(None), *[None] * len(output.lead))]
        mean = self._overlapped(list(values), time_axis) / da.where(total > 0, total, np.nan)
        return self._labelled(mean.astype(output.dtype), key[0], output)

    def _overlapped(self, pieces: list[da.Array], axis: int) -> da.Array:
        """Slabs added where they overlap."""
        starts, size = self.tiling.time.starts, self.tiling.time.box
        if len(starts) == 1:
            return pieces[0]
        edges = sorted({edge for start in starts for edge in (start, start + size)})
        before, parts = (slice(None),) * axis, []
        for first, last in pairwise(edges):
            covering = range(bisect_right(starts, first - size), bisect_right(starts, first))
            inside = [
                pieces[i][*before, slice(first - starts[i], last - starts[i])] for i in covering
            ]
            parts.append(reduce(operator.add, inside))
        # zarr can store chunks of one size only, and a shorter last one.
        return da.concatenate(parts, axis=axis).rechunk({axis: size})

    def _labelled(self, array: da.Array, name: str, output: Output) -> xr.DataArray:
        """Plain result of a field as a DataArray with canonical dimensions."""
        grid = ("level", "time", "latitude", "longitude")
        dims = (*self.view.extra_dims, *output.lead, *grid, *output.trail)
        # What lies before the first neighborhood is there for contexts only.
        boxes = self.view.fields[name].isel(time=slice(self.tiling.time.starts[0], None))
        given = boxes.isel(time=frames_given(self.ahead))
        labelled = xr.DataArray(
            array.reshape(*self.sample_shape, *array.shape[1:]),
            dims=dims,
            coords={
                name: coord
                for name, coord in given.coords.items()
                if output.grid == "points" or set(coord.dims) <= set(self.view.extra_dims)
            },
        )
        order = (*self.view.extra_dims, *output.lead, "time", "level", "latitude", "longitude")
        return labelled.transpose(*order, *output.trail)


def _followed(field: xr.DataArray, times: np.ndarray) -> xr.DataArray:
    """A field backed by dask with missing values after its last frame, up to the last time."""
    axis = field.get_axis_num("time")
    widths = [(0, len(times) - n if i == axis else 0) for i, n in enumerate(field.shape)]
    coords = {name: coord for name, coord in field.coords.items() if name != "time"}
    values = da.pad(field.data, widths, constant_values=np.nan)
    return xr.DataArray(values, {**coords, "time": times}, field.dims, field.name)


def _with_model(
    function: Callable[..., Any],
    address: ModelReference,
    device: str,
    dtype: str,
    *arguments: Any,
) -> Any:
    """Body of a dask task."""
    return function(placed_model(address, device, dtype), *arguments)
