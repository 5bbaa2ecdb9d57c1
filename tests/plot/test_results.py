"""Maps of predictions, attention and embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from tests.plot.test_maps import drawn, globe
from xatmorep import plot
from xatmorep.errors import ConventionError


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def example() -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Data, prediction of two members with NaN where nothing is hidden, and what is hidden."""
    truth = globe(long_name="height", units="m").assign_coords(time=np.datetime64("2020-01-01"))
    hidden = (truth.latitude > 0) & (truth.longitude < 90)
    predicted = xr.concat([truth - 3, truth + 1], "member").where(hidden)
    return truth, predicted, hidden


@pytest.mark.parametrize("lazy", [False, True])
def test_prediction_shows_what_was_seen_predicted_and_there(lazy: bool) -> None:
    truth, predicted, hidden = example()
    chunked = [part.chunk() if lazy else part for part in (truth, predicted, hidden)]
    figure = plot.prediction(*chunked)
    seen, mean, data, spread = figure.axes[:4]
    where = hidden.transpose(*truth.dims).values
    np.testing.assert_array_equal(drawn(seen), truth.where(~hidden))
    np.testing.assert_allclose(drawn(mean), truth.where(~hidden, truth - 1))
    np.testing.assert_array_equal(drawn(data), truth)
    np.testing.assert_allclose(drawn(spread)[where], np.sqrt(8))
    assert np.isnan(drawn(spread)[~where]).all()
    assert len({ax.collections[0].get_clim() for ax in (seen, mean, data)}) == 1
    assert figure.get_suptitle() == "height, 2020-01-01 00:00"
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "what the model saw",
        "ensemble mean in hidden tokens",
        "data",
        "ensemble spread",
    ]
    labels = {ax.get_xlabel() for ax in figure.axes[4:]}
    assert labels == {"height [m]", "standard deviation [m]"}


def test_prediction_everywhere_is_shown_where_it_was_hidden() -> None:
    truth, _, hidden = example()
    everywhere = xr.concat([truth + 1, truth + 1], "member")
    figure = plot.prediction(truth, everywhere, hidden, title="mine", cmap="gray")
    np.testing.assert_array_equal(drawn(figure.axes[1]), truth.where(~hidden, truth + 1))
    assert figure.get_suptitle() == "mine"
    assert figure.axes[2].collections[0].get_cmap().name == "gray"


def test_prediction_refuses_other_grids_and_means() -> None:
    truth, predicted, hidden = example()
    with pytest.raises(ConventionError, match="needs 'member'"):
        plot.prediction(truth, predicted.mean("member"), hidden)
    with pytest.raises(ConventionError, match=r"aren't on the same grid.*longitude"):
        plot.prediction(truth, predicted.isel(longitude=slice(1, None)), hidden)


def weights(n_query: int = 1) -> xr.DataArray:
    """Attention weights that sum to one for each query, layer and head."""
    rng = np.random.default_rng(0)
    values = rng.random((n_query, 2, 3, 2, 2, 4, 5))
    values /= values.sum(axis=(3, 4, 5, 6), keepdims=True)
    dims = ("query", "layer", "head", "time", "level", "latitude", "longitude")
    coords = {
        "time": np.array(["2020-01-01", "2020-01-02"], "datetime64[s]"),
        "level": [500.0, 850.0],
        "latitude": [60.0, 50, 40, 30],
        "longitude": [340.0, 350, 360, 370, 380],
        "query_latitude": ("query", [51.0] * n_query),
        "query_longitude": ("query", [-5.0] * n_query),
    }
    attrs = {"long_name": "attention of a to b", "units": "1"}
    return xr.DataArray(values, coords, dims, "a_to_b", attrs)


def test_attention_sums_to_one_and_marks_the_query() -> None:
    array = weights()
    ax = plot.attention(array)
    assert drawn(ax).sum() == pytest.approx(1)
    expected = array.isel(query=0).mean(["layer", "head"]).sum(["time", "level"])
    np.testing.assert_allclose(drawn(ax), expected)
    assert ax.lines[-1].get_xydata().tolist() == [[-5.0, 51.0]]
    assert ax.get_xlim() == pytest.approx((-25, 25))
    assert ax.get_title() == "attention of a to b"
    assert ax.figure.axes[1].get_xlabel() == "share of the attention"
    assert array.attrs == weights().attrs


def test_attention_of_one_of_several_queries() -> None:
    array = weights(2)
    # The neighborhood of the second query is the first time, without its western edge.
    outside = (array.time > array.time[0]) | (array.longitude == 340)
    array = array.where(~outside | (array["query"] == 0))
    with pytest.raises(ConventionError, match=r"there are 2 queries: .*isel\(query=0\)"):
        plot.attention(array)
    shown = drawn(plot.attention(array.isel(query=1), title="mine", coastlines=False))
    assert np.isnan(shown[:, 0]).all()
    assert np.isfinite(shown[:, 1:]).all()


def test_embedding_is_colored_by_its_principal_components() -> None:
    rng = np.random.default_rng(0)
    array = globe()
    parts = rng.standard_normal((3, 2, *array.shape)) * np.array([9, 3, 1])[:, None, None, None]
    basis = np.linalg.qr(rng.standard_normal((8, 3)))[0]
    features = xr.DataArray(
        np.moveaxis(np.tensordot(basis, parts, 1), 0, -1),
        {**array.coords, "time": np.array(["2020-01-01", "2020-01-02"], "datetime64[s]")},
        ("time", *array.dims, "feature"),
        "temperature",
    )
    ax = plot.embedding(features, time=1)
    colors = drawn(ax)
    assert colors.shape == (*array.shape, 3)
    assert colors.min() >= 0
    assert colors.max() <= 1
    weights = np.cos(np.deg2rad(array.latitude)).clip(1e-4).broadcast_like(array).values
    for i in range(3):
        inside = (colors[..., i] > 0) & (colors[..., i] < 1)
        found = np.corrcoef(colors[inside, i], parts[i, 1][inside])[0, 1]
        assert abs(found) > 0.9
    # Independent truth: singular values of the weighted data.
    rows = features.values.reshape(-1, 8)
    area = np.tile(weights.ravel(), 2) / weights.sum() / 2
    singular = np.linalg.svd((rows - area @ rows) * np.sqrt(area)[:, None], compute_uv=False)
    shares = ", ".join(f"{100 * s**2 / (singular**2).sum():.0f}" for s in singular[:3])
    head, explained = ax.get_title().split("\n")
    assert head == "embedding of temperature, 2020-01-02 00:00"
    assert (
        explained == f"red, green, blue: principal components 1 to 3 ({shares} % of the variance)"
    )


def test_embedding_colors_do_not_depend_on_the_sign_or_the_storage() -> None:
    features = globe().expand_dims(feature=4, axis=-1) * np.random.default_rng(1).random((7, 12, 4))
    expected = drawn(plot.embedding(features))
    turned = features.transpose("feature", "longitude", "latitude")[:, ::-1].chunk()
    np.testing.assert_allclose(drawn(plot.embedding(turned)), expected, atol=1e-9)


def test_missing_features_are_gray_and_leave_the_others_alone() -> None:
    features = globe().expand_dims(feature=4, axis=-1) * np.random.default_rng(1).random((7, 12, 4))
    features.attrs["long_name"] = "embedding of something"
    features[2, 3, 1] = np.nan
    ax = plot.embedding(features)
    np.testing.assert_allclose(drawn(ax)[2, 3], 0.8)
    assert np.isfinite(drawn(ax)).all()
    assert ax.get_title().startswith("embedding of something\n")


def test_embedding_whose_axes_carry_the_name_of_the_field() -> None:
    features = globe().expand_dims(feature=4, axis=-1) * np.random.default_rng(1).random((7, 12, 4))
    dims = ("latitude", "longitude", "feature")
    named = features.rename({dim: f"{dim}_field" for dim in dims})
    np.testing.assert_array_equal(drawn(plot.embedding(named)), drawn(plot.embedding(features)))


def test_embedding_of_few_or_equal_features() -> None:
    features = globe().expand_dims(feature_height=2, axis=-1)
    colors = drawn(plot.embedding(features, title="two"))
    assert np.isfinite(colors).all()
    assert (colors[..., 2] == 0).all()
    assert np.isfinite(drawn(plot.embedding(features * 0))).all()
    with pytest.raises(ConventionError, match="one dimension 'feature'"):
        plot.embedding(globe())
    with pytest.raises(ConventionError, match=r"select along \['level'\]"):
        plot.embedding(features.expand_dims(level=2))
