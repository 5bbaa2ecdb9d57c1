"""Recorded inputs of a case, apart from what is to be reproduced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FILE", "Arrays", "read_inputs"]

FILE = "tensors.npz"
"""File of a case in which inputs and results are recorded."""

Arrays = dict[str, npt.NDArray[Any]]
"""Arrays by name."""


def read_inputs(folder: Path, *parts: str) -> Arrays:
    """Read the recorded arrays whose names have one of these parts, and no others."""
    with np.load(folder / FILE) as recorded:
        return {
            name: recorded[name] for name in recorded.files if any(part in name for part in parts)
        }
