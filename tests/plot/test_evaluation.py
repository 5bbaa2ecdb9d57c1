"""Pictures of scores: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

import xatmorep
from tests.tasks import small
from xatmorep import plot
from xatmorep.errors import ConfigError, ConventionError


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def predictions() -> xr.Dataset:
    return xatmorep.evaluate(
        small.model(),
        small.dataset(8),
        climatology=small.dataset(seed=1),
        baselines=["climatology", "persistence"],
        block="6h",
        resamples=20,
    )


@pytest.fixture(scope="module")
def forecasts() -> xr.Dataset:
    return xatmorep.evaluate(
        small.forecaster(),
        small.dataset(12),
        task="forecast",
        lead_time="18h",
        climatology=small.dataset(12, seed=1),
        baselines=["climatology", "persistence"],
        block="6h",
        resamples=20,
    )


def _by_label(ax) -> dict[str, object]:
    return dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))


def test_scores_of_predictions_are_points_by_level(predictions):
    figure = plot.scores(predictions)
    surface, levels = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["2m temperature", "temperature"]
    assert [text.get_text() for text in levels.get_yticklabels()] == ["500", "850"]
    assert [text.get_text() for text in surface.get_yticklabels()] == [""]
    ratio = predictions["ratio"].sel(metric="rmse", baseline="best", field="temperature")
    (container,) = levels.containers[:1]
    x, y = container.lines[0].get_data()
    assert x[0] == pytest.approx(ratio.sel(level=500).item())
    assert y[0] == 0
    low, high = predictions["ratio_interval"].sel(
        metric="rmse", baseline="best", field="temperature", level=500
    )
    (segment,) = container.lines[2][0].get_segments()
    np.testing.assert_allclose(segment[:, 0], [low, high])
    others = [line.get_xdata()[0] for line in levels.lines if line.get_markersize() == 13]
    assert min(others) == pytest.approx(1)  # the best baseline itself
    left, right = levels.get_xlim()
    assert left < x[0] < right


def test_scores_of_forecasts_are_lines_by_level(forecasts):
    figure = plot.scores(forecasts, metric="mae")
    surface, levels = figure.axes
    lines = _by_label(levels)
    assert set(lines) == {"500", "850"}
    x, y = lines["850"].get_data()
    np.testing.assert_array_equal(x, [6, 12, 18])
    place = {"metric": "mae", "baseline": "best", "field": "temperature", "level": 850}
    np.testing.assert_allclose(y, forecasts["ratio"].sel(place))
    # A field with one level has room for the baselines.
    lines = _by_label(surface)
    assert set(lines) == {"model", "climatology", "persistence"}
    best = np.minimum(lines["climatology"].get_ydata(), lines["persistence"].get_ydata())
    np.testing.assert_allclose(best, 1)


def test_rank_histograms(predictions, forecasts):
    figure = plot.rank_histogram(predictions)
    _, levels = figure.axes
    first, second = levels.patches
    twin = predictions["rank_histogram"].sel(field="temperature")
    np.testing.assert_allclose(first.get_data().values, twin.sel(level=500))
    np.testing.assert_allclose(second.get_data().values, twin.sel(level=850))
    (flat,) = [line for line in levels.lines if line.get_linestyle() == "--"]
    assert flat.get_ydata()[0] == 0.25
    lead = forecasts["lead_time"].values[0]
    for figure, chosen in (
        (plot.rank_histogram(forecasts), forecasts["lead_time"].values[-1]),
        (plot.rank_histogram(forecasts, lead_time=lead), lead),
    ):
        found = figure.axes[1].patches[0].get_data().values
        twin = forecasts["rank_histogram"].sel(field="temperature", level=500, lead_time=chosen)
        np.testing.assert_allclose(found, twin)


def test_spectra(predictions):
    figure = plot.spectrum(predictions, level=500)
    surface, levels = figure.axes
    assert levels.get_title() == "temperature at 500"
    assert surface.get_title() == "2m temperature"
    lines = _by_label(levels)
    assert set(lines) == {"model", "model mean", "climatology", "persistence"}
    energy = predictions["spectrum"].sel(field="temperature", level=500)
    ratio = energy.sel(source="model") / energy.sel(source="truth")
    np.testing.assert_allclose(lines["model"].get_ydata(), ratio)


def test_what_is_not_there_cannot_be_drawn(predictions):
    alone = xatmorep.evaluate(small.model(), small.dataset(), baselines=())
    with pytest.raises(ConventionError, match="no baseline to compare with"):
        plot.scores(alone)
    with pytest.raises(ConventionError, match="don't go round the circle"):
        plot.spectrum(alone.drop_dims("source"))
    with pytest.raises(ConfigError, match=r"metric 'rmes' .*; did you mean 'rmse'"):
        plot.scores(predictions, metric="rmes")
    with pytest.raises(ConfigError, match="metric 'bias' has no ratio"):
        plot.scores(predictions, metric="bias")


def test_without_intervals(predictions):
    bare = predictions.copy()
    bare["ratio_interval"] = bare["ratio_interval"] * np.nan
    (container,) = plot.scores(bare).axes[1].containers[:1]
    assert not container.lines[2]
