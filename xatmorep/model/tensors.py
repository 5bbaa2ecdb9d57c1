"""Weights as safetensors: packed, and unpacked only if they are exactly those expected."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xatmorep.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pack", "read_shapes", "unpack"]

# Nothing wider: float64 would be rounded in silence, integers are no weights.
DTYPES = ("F16", "BF16", "F32")
LARGEST_HEADER = 2**26


def pack(state: Mapping[str, Tensor]) -> bytes:
    """Serialize weights in float16, bfloat16 or float32, as they are; float64 as float32.

    Raises
    ------
    CheckpointError
        If a weight isn't finite.
    """
    import safetensors.torch
    import torch

    tensors = {}
    for name, tensor in state.items():
        dtype = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
        # A clone, because safetensors refuses tensors that share memory.
        tensors[name] = tensor.detach().to("cpu", dtype).contiguous().clone()
    _check_finite(tensors, "the network")
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def unpack(data: bytes, expected: Mapping[str, tuple[int, ...]], what: str) -> dict[str, Tensor]:
    """Read weights as float32.

    Parameters
    ----------
    data : bytes
        A safetensors file.
    expected : mapping of str to tuple of int
        Shape of each tensor that must be in it; nothing else may be.
    what : str
        Name of the file for messages.

    Raises
    ------
    CheckpointError
        If the file is damaged, or tensors are missing, unexpected, mis-shaped or not finite.
    """
    import safetensors
    import safetensors.torch
    import torch

    found = read_shapes(data, what)
    _check_shapes(found, expected, what)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"{what} is not a valid safetensors file: {error}") from error
    _check_finite(tensors, what)
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def read_shapes(data: bytes, what: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a safetensors file, from its beginning; needs no torch.

    Parameters
    ----------
    data : bytes
        The file, or a beginning of it that includes the header.
    what : str
        Name of the file for messages.

    Raises
    ------
    CheckpointError
        If the header is damaged, or a tensor isn't float16, bfloat16 or float32.

    Examples
    --------
    >>> import numpy as np, safetensors.numpy
    >>> read_shapes(safetensors.numpy.save({"weight": np.ones((2, 3), "float32")}), "file")
    {'weight': (2, 3)}
    """
    length = header_length(data, what)
    if length > len(data) - 8:
        raise CheckpointError(
            f"{what} is cut short or not a safetensors file: its header should have {length} "
            f"bytes, {max(len(data) - 8, 0)} are there"
        )
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        dtypes = {name: entry["dtype"] for name, entry in header.items()}
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{what} has a damaged safetensors header: {error!r}") from error
    wrong = {name: dtype for name, dtype in dtypes.items() if dtype not in DTYPES}
    if wrong:
        raise CheckpointError(
            f"{what} holds tensors that are not weights ({_first(wrong)}): only "
            f"{', '.join(DTYPES)} are read"
        )
    return shapes


def header_length(data: bytes, what: str) -> int:
    """Bytes of the header of a safetensors file, from its first eight bytes."""
    if len(data) < 8:
        raise CheckpointError(f"{what} is cut short: it has {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > LARGEST_HEADER:
        raise CheckpointError(f"{what} is not a safetensors file: a header of {length} bytes")
    return length


def count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Numbers in all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())


def _check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], what: str
) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = {
        name: f"{found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    }
    problems = []
    if missing:
        problems.append(f"missing: {_first(missing)}")
    if unexpected:
        problems.append(f"unexpected: {_first(unexpected)}")
    if wrong:
        problems.append(f"of another shape: {_first(wrong)}")
    if problems:
        raise CheckpointError(
            f"{what} does not fit the configuration; tensors {'; '.join(problems)}"
        )


def _check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise CheckpointError(f"{what} has weights that are not finite: {_first(bad)}")


def _first(names: list[str] | dict[str, str]) -> str:
    """The first few, and how many more."""
    words = [f"{n} {names[n]}" for n in names] if isinstance(names, dict) else names
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    return ", ".join(words[:4]) + more
