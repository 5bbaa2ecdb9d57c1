"""From a dataset to batches of hidden tokens: split, normalized, drawn, read ahead."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from xatmorep.data.conventions import CanonicalView
from xatmorep.data.normalization import Normalizer
from xatmorep.errors import ConfigError
from xatmorep.model.inputs import NetworkInput
from xatmorep.objectives.masking import hide, target_rows
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.sampling import RandomNeighborhoods
from xatmorep.training.config import PretrainConfig

__all__ = ["Example", "batches", "examples", "neighborhoods", "read_ahead", "split"]


@dataclass(frozen=True)
class Example:
    """A batch with hidden tokens, and what the network has to say about them.

    Attributes
    ----------
    inputs : NetworkInput
        What the network sees.
    hidden : dict of Tensor
        Bool (batch, level, T, A, O) for each predicted field.
    target, weight : dict of Tensor
        (tokens, points) for each predicted field, in the order of the hidden tokens.
    """

    inputs: NetworkInput
    hidden: dict[str, Tensor]
    target: dict[str, Tensor]
    weight: dict[str, Tensor]

    def to(self, device: str) -> Example:
        """The same on another device."""
        return Example(
            self.inputs.to(device),
            *(
                {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
                for tensors in (self.hidden, self.target, self.weight)
            ),
        )


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
        If the times held out, or those that are left, hold no neighborhood.
    """
    if validation is None:
        return [slice(0, time.size)], None
    positions = xr.DataArray(np.arange(time.size), coords={"time": time.variable}, dims="time")
    held_out = positions.sel(time=validation).values
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


def neighborhoods(
    view: CanonicalView,
    normalizer: Normalizer,
    config: PretrainConfig,
    run: slice,
    seed: int,
) -> RandomNeighborhoods:
    """Random neighborhoods of one run of consecutive times, normalized when they are read."""
    return RandomNeighborhoods(
        {name: normalizer.apply(name, field.isel(time=run)) for name, field in view.fields.items()},
        {name: normalizer.apply(name, static) for name, static in view.statics.items()},
        config.model.inputs,
        is_global=view.is_global,
        crops_per_slab=config.crops_per_slab,
        seed=seed,
    )


def batches(sources: Sequence[RandomNeighborhoods], slabs: int) -> Iterator[TokenBatch]:
    """Endless batches of neighborhoods from several time slabs, epoch after epoch."""
    waiting: list[TokenBatch] = []
    for epoch in itertools.count():
        for source in sources:
            for crops in source.batches(epoch):
                waiting.append(crops)
                if len(waiting) == slabs:
                    yield _joined(waiting)
                    waiting = []


def _joined(parts: Sequence[TokenBatch]) -> TokenBatch:
    """Batches one after the other."""

    def join(name: str) -> dict[str, np.ndarray]:
        first: Mapping[str, np.ndarray] = getattr(parts[0], name)
        return {key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in first}

    return TokenBatch(
        spec=parts[0].spec,
        tokens=join("tokens"),
        info=join("info"),
        times=np.concatenate([part.times for part in parts]),
        latitude=np.concatenate([part.latitude for part in parts]),
        longitude=np.concatenate([part.longitude for part in parts]),
        statics=join("statics"),
    )


def examples(
    stream: Iterator[TokenBatch], config: PretrainConfig, generator: torch.Generator
) -> Iterator[Example]:
    """Hide tokens of each batch."""
    for batch in stream:
        values = {name: torch.from_numpy(x) for name, x in batch.tokens.items()}
        masked = hide(values, config.masking, generator)
        hidden, target, weight = {}, {}, {}
        for name in config.model.predicted:
            hidden[name] = masked.hidden[name]
            target[name], weight[name] = target_rows(values[name], hidden[name])
            if config.latitude_weighted:
                weight[name] = weight[name] * _area(batch, name)[hidden[name]]
        yield Example(NetworkInput.of(batch, masked.tokens, masked.blank), hidden, target, weight)


def _area(batch: TokenBatch, name: str) -> Tensor:
    """Cosine of latitude of each point, (batch, level, T, A, O, points)."""
    a = batch.spec.field(name).token_shape[1]
    rows = np.cos(np.deg2rad(batch.latitude)).clip(min=0).astype("float32")
    area = torch.from_numpy(rows).reshape(len(rows), 1, 1, -1, 1, 1, a, 1)
    shape = batch.tokens[name].shape
    return area.expand(*shape).flatten(-3)


def read_ahead(stream: Iterator[Example], depth: int = 4) -> Generator[Example, None, None]:
    """Prepare the next examples in a thread while the network works on one."""
    ready: queue.Queue[Example | BaseException | None] = queue.Queue(depth)
    done = threading.Event()

    def put(item: Example | BaseException | None) -> None:
        while not done.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def work() -> None:
        try:
            for example in stream:
                put(example)
                if done.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where it can be seen
            put(error)

    thread = threading.Thread(target=work, name="xatmorep-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        done.set()
        thread.join()
