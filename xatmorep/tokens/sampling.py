"""Random neighborhoods for training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xatmorep.errors import ConfigError, ConventionError
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.contexts import Canvas
from xatmorep.tokens.spec import InputSpec
from xatmorep.tokens.steps import check_grid

__all__ = ["RandomNeighborhoods"]


class RandomNeighborhoods:
    """Random neighborhoods of a dataset, many from each time slab that is read.

    A slab is as many frames as a neighborhood has, over the whole horizontal grid; its first
    frame is drawn uniformly. It is read once, all fields together, and neighborhoods are cut from
    it at places that are uniform in latitude and longitude of the grid; on a global grid they
    wrap around in longitude. With a slab come the frames before it that contexts read, as far as
    the data have them. Of further dimensions (ensemble members) each slab takes one drawn entry,
    and only that is read.

    Parameters
    ----------
    fields : dict of str to DataArray
        Each field of the spec, normalized, by canonical name, with dimensions (..., time, level,
        latitude, longitude) and the same coordinates except for level, as a canonical view has
        them. Lazy ones are read slab by slab.
    statics : dict of str to (latitude, longitude) DataArray
        Constant fields by canonical name; empty if the spec has none. Read once.
    spec : InputSpec
        What the model reads.
    is_global : bool
        Whether longitude covers the whole circle.
    crops_per_slab : int
        Neighborhoods cut from a slab, that is the size of a batch.
    seed : int
        Seed of all draws.
    slabs_per_epoch : int, optional
        Slabs drawn in an epoch; by default as many as fit side by side into the record (times
        the entries of further dimensions).

    Raises
    ------
    ConventionError
        If the grid does not fit the model, see `check_grid`.
    ConfigError
        If a count is not positive.

    Examples
    --------
    >>> import xarray as xr
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(1, 4, 6), time_step=6, grid_step=(30, 30)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> field = xr.DataArray(
    ...     np.zeros((8, 1, 7, 12), dtype="float32"),
    ...     dims=("time", "level", "latitude", "longitude"),
    ...     coords={
    ...         "time": np.datetime64("2021-01-01", "s") + np.arange(8) * np.timedelta64(6, "h"),
    ...         "level": [0.0],
    ...         "latitude": 90.0 - 30 * np.arange(7),
    ...         "longitude": 30.0 * np.arange(12),
    ...     },
    ... )
    >>> neighborhoods = RandomNeighborhoods(
    ...     {"2m_temperature": field}, {}, spec, is_global=True, crops_per_slab=5, seed=1
    ... )
    >>> [len(batch) for batch in neighborhoods.batches(epoch=0, shard=1, n_shards=3)]
    [5, 5, 5]
    """

    def __init__(
        self,
        fields: Mapping[str, xr.DataArray],
        statics: Mapping[str, xr.DataArray],
        spec: InputSpec,
        *,
        is_global: bool,
        crops_per_slab: int,
        seed: int,
        slabs_per_epoch: int | None = None,
    ) -> None:
        names = [field.name for field in spec.fields]
        if missing := sorted({*names, *(s.name for s in spec.statics)} - {*fields, *statics}):
            raise ConventionError(f"the model reads {missing}, which were not given")
        labels = fields[names[0]]
        check_grid(labels, spec)
        self.spec = spec
        self.is_global = is_global
        self.crops_per_slab = crops_per_slab
        self.seed = seed
        # One dataset, so that a slab is one read; levels differ, so each field has its own.
        self._record = xr.Dataset(
            {
                name: fields[name].drop_vars(fields[name].coords).rename(level=f"level_{name}")
                for name in names
            }
        )
        self._times: npt.NDArray[Any] = labels["time"].values
        self._latitude = labels["latitude"].values.astype(np.float64)
        self._longitude = labels["longitude"].values.astype(np.float64)
        self._statics = {
            s.name: statics[s.name].transpose("latitude", "longitude").values for s in spec.statics
        }
        self._extra = {
            dim: size
            for dim, size in labels.sizes.items()
            if dim not in ("time", "level", "latitude", "longitude")
        }
        fitting = len(self._times) // spec.neighborhood.shape[0] * math.prod(self._extra.values())
        self.slabs_per_epoch = fitting if slabs_per_epoch is None else slabs_per_epoch
        if self.crops_per_slab < 1 or self.slabs_per_epoch < 1:
            raise ConfigError(
                f"crops_per_slab ({self.crops_per_slab}) and slabs_per_epoch "
                f"({self.slabs_per_epoch}) must be positive"
            )

    def batches(self, epoch: int, *, shard: int = 0, n_shards: int = 1) -> Iterator[TokenBatch]:
        """Batches of one epoch, or those of one shard of it.

        Parameters
        ----------
        epoch : int
            Number of the epoch; each has its own draws.
        shard, n_shards : int
            Which of how many readers (process times data worker) asks. Slab ``k`` of the epoch
            goes to shard ``k % n_shards`` and its draws depend on seed, epoch and ``k`` alone: no
            two shards see the same draw, and together they see the same ones however many they
            are.

        Yields
        ------
        TokenBatch
            ``crops_per_slab`` neighborhoods with the same times.

        Raises
        ------
        ConfigError
            If the shard is not one of `n_shards`.
        """
        if not 0 <= shard < n_shards:
            raise ConfigError(f"shard {shard} is not one of {n_shards}: count them from 0")
        for k in range(shard, self.slabs_per_epoch, n_shards):
            yield self.slab(epoch, k)

    def slab(self, epoch: int, k: int) -> TokenBatch:
        """Read one random slab and cut random neighborhoods from it.

        Parameters
        ----------
        epoch, k : int
            Number of the epoch, and that of the slab in it. Together with the seed they decide
            all draws: any slab can be asked for at any time, and none before it is read.

        Returns
        -------
        TokenBatch
            ``crops_per_slab`` neighborhoods with the same times.
        """
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, k]))
        nt, na, no = self.spec.neighborhood.shape
        start = int(rng.integers(len(self._times) - nt + 1))
        extra = {dim: int(rng.integers(size)) for dim, size in self._extra.items()}
        n, columns = self.crops_per_slab, len(self._longitude)
        top = rng.integers(len(self._latitude) - na + 1, size=n)
        rows = top[:, None] + np.arange(na)
        first = rng.integers(columns if self.is_global else columns - no + 1, size=n)
        unwrapped = first[:, None] + np.arange(no)
        turns, places = np.divmod(unwrapped, columns)
        frames = {
            field.name: slice(max(0, start - self.spec.past(field.name)), start + nt)
            for field in self.spec.fields
        }
        slab = self._read(frames, extra)
        cut = (..., rows[:, :, None], places[:, None, :])
        canvas = Canvas(
            self.spec,
            self._times[min(part.start for part in frames.values()) : start + nt],
            self._latitude,
            self._longitude,
            self.is_global,
        )
        return TokenBatch.cut(
            self.spec,
            {name: values[-nt:][cut].transpose(2, 1, 0, 3, 4) for name, values in slab.items()},
            times=np.broadcast_to(self._times[start : start + nt], (n, nt)),
            latitude=self._latitude[rows],
            longitude=self._longitude[places] + 360 * turns,
            statics={name: static[cut] for name, static in self._statics.items()},
            contexts=canvas.cut(
                {name: values.swapaxes(0, 1)[None] for name, values in slab.items()},
                self._statics,
                [(0, int(row), int(column)) for row, column in zip(top, first, strict=True)],
            ),
        )

    def _read(
        self, frames: Mapping[str, slice], extra: Mapping[Any, int]
    ) -> dict[str, npt.NDArray[Any]]:
        """Some frames (time, level, latitude, longitude) of each field, all in one go."""
        parts = {
            name: self._record[name]
            .isel({"time": part, **extra})
            .transpose("time", f"level_{name}", "latitude", "longitude")
            for name, part in frames.items()
        }
        (read,) = dask.compute(parts)
        return {name: part.values for name, part in read.items()}
