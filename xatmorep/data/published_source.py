"""What the layouts of published normalization coefficients have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from xatmorep.data.months import month_names
from xatmorep.errors import CheckpointError

if TYPE_CHECKING:
    from xatmorep.data.published import PublishedField

__all__ = ["Layout", "Source", "Span", "wanted_months"]

Span = tuple[int, int]
"""First and last calendar month, as numbers."""


@dataclass(frozen=True)
class Source:
    """Coefficients of one field, not yet read.

    Attributes
    ----------
    months : numpy.ndarray
        Calendar months (int64, ascending) that are there and wanted.
    coords : dict of str to numpy.ndarray
        Latitude (degrees north) and longitude, of coefficients of each grid point; else empty.
    n_levels : int
        Number of levels.
    """

    months: np.ndarray
    coords: dict[str, np.ndarray]
    n_levels: int
    _read: Callable[[tuple[int, ...]], np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is read: (2, month, level, [latitude, longitude])."""
        return (2, self.months.size, self.n_levels, *(axis.size for axis in self.coords.values()))

    def read(self) -> np.ndarray:
        """Means and divisors, float32.

        Raises
        ------
        CheckpointError
            If they can't be read.
        """
        return self._read(self.shape)


class Layout(Protocol):
    """A place with coefficients."""

    def source(self, field: PublishedField, span: Span | None) -> Source:
        """What there is of a field, in all months or in those asked for.

        Raises
        ------
        CheckpointError
            If the field, a level, a month asked for or a file is missing or of another shape.
        """
        ...


def wanted_months(name: str, present: np.ndarray, span: Span | None) -> np.ndarray:
    """Months of the span, or all that are present.

    Raises
    ------
    CheckpointError
        If some of them, or all, are missing.

    Examples
    --------
    >>> wanted_months("vorticity", np.array([24251, 24252, 24253]), (24252, 24253)).tolist()
    [24252, 24253]
    """
    wanted = present if span is None else np.arange(span[0], span[1] + 1)
    missing = np.setdiff1d(wanted, present)
    if missing.size or not wanted.size:
        lacking = f" in the months {month_names(missing)}" if missing.size else ""
        raise CheckpointError(
            f"there are no coefficients of {name!r}{lacking}: at all its levels there are those of "
            f"{month_names(present)}; choose some of them with period"
        )
    return wanted
