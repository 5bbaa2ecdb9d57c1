"""Recorded cases of the original AtmoRep code, and comparison with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

REFERENCE = Path(__file__).parent / "reference"

# Files of a model with inputs and all that the network makes of them.
NETWORK_CASES = sorted(
    path.parent.name
    for path in REFERENCE.glob("*/model_id*.json")
    if path.parent.name != "end_to_end_grid"
)

STAGES = ("pos_enc", "embed", "encoder", "decoder", "scores", "tail_in", "pred_ens")


def read(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file of either kind."""
    if path.suffix == ".npz":
        with np.load(path) as content:
            return dict(content)
    return safetensors.numpy.load_file(path)


def compare(
    recorded: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
) -> None:
    """Check that all tensors are there and close; name the first one, in order of computation."""
    assert sorted(found) == sorted(recorded)
    for name in sorted(recorded, key=_order):
        ours, theirs = found[name], recorded[name]
        assert ours.shape == theirs.shape, f"{name}: {ours.shape} and {theirs.shape}"
        assert ours.dtype == theirs.dtype, f"{name}: {ours.dtype} and {theirs.dtype}"
        message = f"{name} is the first that differs"
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=message)


def _order(name: str) -> tuple[int, str, str]:
    """Stage, layer, and attention before the whole layer; fields side by side."""
    parts = name.split(".")
    stage = STAGES.index(parts[0]) if parts[0] in STAGES else len(STAGES)
    layer = next((part for part in parts if part.startswith("layer")), "")
    return stage, layer.removeprefix("layer").zfill(3), parts[-1]
