"""Months as numbers: months of the year, 1 to 12, and calendar months such as January 2021."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import numpy as np
import xarray as xr

__all__ = ["MONTHS", "Months", "month_names", "month_number", "month_numbers"]

Months = Literal["month", "year_month"]
"""Months of the year (1 to 12), or calendar months (12 * year + month - 1)."""

MONTHS: tuple[Months, Months] = ("month", "year_month")
"""Names of the dimensions along which something differs between months."""

# More separate spans than this tell a reader nothing.
_MOST_SPANS = 6


def month_numbers(time: xr.DataArray, months: Months) -> np.ndarray:
    """Number of the month of each time.

    Parameters
    ----------
    time : xarray.DataArray
        Times, of numpy or of cftime.
    months : {"month", "year_month"}
        What is numbered.

    Returns
    -------
    numpy.ndarray
        int64, shaped as `time`.

    Examples
    --------
    >>> time = xr.DataArray(np.array(["2020-12-31", "2021-01-01"], "datetime64[s]"), dims="time")
    >>> month_numbers(time, "month").tolist(), month_numbers(time, "year_month").tolist()
    ([12, 1], [24251, 24252])
    """
    month = time.dt.month.values.astype(np.int64)
    if months == "month":
        return month
    return 12 * time.dt.year.values.astype(np.int64) + month - 1


def month_number(text: str) -> int:
    """Number of a calendar month.

    Raises
    ------
    ValueError
        If it isn't written as in ``"2021-01"``.

    Examples
    --------
    >>> month_number("2021-01")
    24252
    """
    found = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if found is None:
        raise ValueError(f"{text!r} is no month such as '2021-01'")
    return 12 * int(found[1]) + int(found[2]) - 1


def month_names(numbers: Iterable[int], months: Months = "year_month") -> str:
    """Months for a message: spans without gaps, in ascending order.

    Examples
    --------
    >>> month_names([24252, 24251, 24255])
    '2020-12 to 2021-01, 2021-04'
    >>> month_names([1, 2, 12], "month")
    '1 to 2, 12'
    """
    ascending = np.unique(np.fromiter(numbers, np.int64))
    if not ascending.size:
        return "none"
    spans = np.split(ascending, np.flatnonzero(np.diff(ascending) > 1) + 1)
    names = [
        _name(span[0], months) + (f" to {_name(span[-1], months)}" if span.size > 1 else "")
        for span in spans[:_MOST_SPANS]
    ]
    return ", ".join(names) + (" ..." if len(spans) > _MOST_SPANS else "")


def _name(number: int, months: Months) -> str:
    return str(number) if months == "month" else f"{number // 12:04d}-{number % 12 + 1:02d}"
