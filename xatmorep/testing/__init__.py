"""For tests, ours and other people's: labelled data, and records of the original AtmoRep code."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xatmorep.testing.labelled import assert_labelled_equal

if TYPE_CHECKING:
    from xatmorep.testing.parity.reference import reference_outputs
    from xatmorep.testing.published import write_atmorep

__all__ = ["assert_labelled_equal", "reference_outputs", "write_atmorep"]

# Who compares labelled data needs no torch.
_PLACES = {
    "reference_outputs": "xatmorep.testing.parity.reference",
    "write_atmorep": "xatmorep.testing.published",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'xatmorep.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
