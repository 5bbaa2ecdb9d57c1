"""How a model travels in a dask graph: as its address where it has one, else as itself."""

from __future__ import annotations

import copy
import dataclasses
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from xatmorep.errors import CheckpointError

if TYPE_CHECKING:
    from xatmorep.model.checkpoint import Model

__all__ = ["ModelReference", "placed_model", "reference"]

_lock = threading.Lock()


@dataclass(frozen=True)
class ModelReference:
    """What stands for a model in a graph; equal references give the same model.

    Attributes
    ----------
    digest : str
        Digest of the model when the graph was built.
    url : str or None
        Address from which it can be loaded.
    model : Model or None
        The model itself, if it has no address.
    """

    digest: str
    url: str | None = field(compare=False)
    model: Model | None = field(compare=False)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "xatmorep.ModelReference", self.digest


def reference(model: Model) -> ModelReference:
    """Smallest thing that stands for a model in a graph.

    A model that was loaded or saved is named by its address, so that a graph weighs some bytes
    and every worker process loads the weights once. A model that exists in memory only travels
    whole: save it first when many workers need it.
    """
    url = model.source
    return ModelReference(model.digest, url, model if url is None else None)


def placed_model(address: ModelReference, device: str, dtype: str) -> Model:
    """Model with its network in evaluation mode on a device, made once in each process."""
    with _lock:  # two threads of a worker would load the same weights twice
        return _place(address, device, dtype)


@lru_cache(maxsize=2)
def _place(address: ModelReference, device: str, dtype: str) -> Model:
    import torch

    from xatmorep.model.checkpoint import load

    model = address.model
    if model is None:
        assert address.url is not None
        model = load(address.url)
        if model.digest != address.digest:
            raise CheckpointError(
                f"the model at {address.url} has changed since the computation was set up "
                f"(digest {model.digest[:12]}, was {address.digest[:12]}): set it up again"
            )
    # A copy: the caller's own network is left where and as it is.
    network = copy.deepcopy(model.network).to(device=device, dtype=getattr(torch, dtype))
    return dataclasses.replace(model, network=network.eval().requires_grad_(False))
