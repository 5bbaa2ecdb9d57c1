"""The repr: what was found, by which rule, and what keeps each shipped model from being used."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from hypothesis import given

from tests.strategies import Presentation, canonical_dataset, present, presentations
from tests.tasks import small
from xatmorep.model.checkpoint import Model
from xatmorep.summary import Summary, as_html, as_text, summarize


def twice(ds: xr.Dataset) -> xr.Dataset:
    """2 m temperature under two names, neither of them the canonical one."""
    ds = ds.rename({"2m_temperature": "t2m"})
    return ds.assign(tas=ds["t2m"])


@pytest.fixture
def _shipped(tmp_path, monkeypatch):
    """The small model in place of those that ship."""
    model = small.model()
    copy = Model(model.config, model.network, model.normalizer, model.card)
    copy.save(tmp_path / "small")
    monkeypatch.setattr("xatmorep.summary.shipped", lambda: {"small": tmp_path / "small"})


@pytest.mark.usefixtures("_shipped")
class TestModels:
    @pytest.mark.parametrize("form", [small.flipped, small.rolled, small.renamed])
    def test_a_model_that_fits(self, form):
        assert summarize(form(small.dataset())).models == [("small", "")]
        assert "small: fits" in as_text(summarize(form(small.dataset())))

    @pytest.mark.parametrize(
        ("change", "obstacle"),
        [
            (lambda ds: ds.drop_vars("temperature"), "no variable is recognized as 'temperature'"),
            (lambda ds: ds.sel(level=[500, 700]), "850"),
            (lambda ds: ds.isel(time=[0]), "time"),
            (lambda ds: ds.isel(longitude=slice(None, None, 2)), "longitude"),
            (lambda ds: ds.isel(time=slice(None, None, 2)), "time"),
            (lambda ds: ds.drop_vars("time"), "no time that can be recognized"),
            (twice, "'2m_temperature' could be any of"),
        ],
    )
    def test_a_model_that_does_not_fit(self, change, obstacle):
        ((name, found),) = summarize(change(small.dataset())).models
        assert name == "small"
        assert obstacle in found
        text = as_text(summarize(change(small.dataset())))
        assert "small: doesn't fit\n        " in text

    def test_each_thing_that_is_lacking_has_a_line_and_no_more(self):
        ds = small.dataset().drop_vars(["temperature", "2m_temperature"])
        ((_, found),) = summarize(ds).models
        assert found.splitlines() == [
            "no variable is recognized as '2m_temperature'",
            "no variable is recognized as 'temperature'",
        ]


def test_fields_with_their_levels_and_rules():
    ds = small.renamed(small.dataset())
    summary = summarize(ds)
    fields = {name: row for name, *row in summary.fields}
    assert fields["temperature"] == ["ta", "500, 700, 850 hPa", "alias"]
    assert fields["2m_temperature"] == ["tas", "surface", "alias"]
    assert summary.axes == {
        "time": "time",
        "level": "plev",
        "latitude": "lat",
        "longitude": "lon",
    }


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (("hybrid", [1, 2, 137]), "hybrid 1, 2, 137"),
        (("isobaricInhPa", [1000, 500, 1]), "1000, 500, 1 hPa"),
        (("plev", [1e5, 5e4, 1e2]), "1000, 500, 1 hPa"),
        (("sigma", [1.0, 0.5, 0.1]), "sigma 1, 0.5, 0.1"),
    ],
)
def test_levels_of_each_kind(level, words):
    name, values = level
    ds = small.dataset().rename(level=name)
    ds[name] = (name, values)
    assert ("temperature", "temperature", words, "name") in summarize(ds).fields


def test_a_level_that_is_a_scalar_or_no_index():
    ds = small.dataset().sel(level=500)
    assert ("temperature", "temperature", "500 hPa", "name") in summarize(ds).fields
    # The coordinate has another name than its dimension.
    ds = small.dataset().rename_dims(level="k").drop_indexes("level")
    assert summarize(ds).axes["level"] == "k"
    fields = summarize(ds).fields
    assert ("temperature", "temperature", "500, 700, 850 hPa", "name") in fields


def test_an_ambiguous_field_shows_its_candidates_and_hides_no_other():
    summary = summarize(twice(small.dataset()))
    assert ("2m_temperature", "t2m, tas", "surface", "ambiguous: say which") in summary.fields
    assert ("temperature", "temperature", "500, 700, 850 hPa", "name") in summary.fields
    assert "2m_temperature <- t2m, tas (surface; ambiguous: say which)" in as_text(summary)


@pytest.mark.parametrize(
    "ds",
    [
        xr.Dataset(),
        xr.Dataset({"a": ("x", [1, 2])}),
        xr.Dataset(coords={"lat": (("y", "x"), np.zeros((2, 2))), "lon": (("y", "x"), np.eye(2))}),
        xr.Dataset(coords={"lat": [0.0], "latitude": [1.0], "lon": [0.0]}),
        xr.Dataset(coords={"lat": ("cell", [0.0, 1.0]), "lon": ("cell", [0.0, 1.0])}),
    ],
    ids=["empty", "no grid", "curvilinear", "two latitudes", "unstructured"],
)
def test_a_dataset_that_nothing_can_be_done_with_has_a_repr_all_the_same(ds):
    summary = summarize(ds)
    assert summary.fields == []
    assert "fields: none recognized" in as_text(summary)
    assert all(obstacle for _, obstacle in summary.models)
    assert as_html(summary).startswith("<div>")


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_nothing_in_a_dataset_becomes_markup():
    evil = "<script>alert('1')</script>"
    summary = Summary({"time": evil}, [(evil, evil, evil, evil)], [(evil, f"{evil}\n{evil}")])
    page = Page(as_html(summary))
    assert set(page.tags) == {"div", "strong", "table", "tr", "th", "td"}
    assert page.cells.count(evil) == 6
    assert f"{evil}\n{evil}" in page.cells


@given(presentations())
def test_every_form_of_the_same_data_has_the_same_fields(how: Presentation):
    ds = present(canonical_dataset(), how)
    summary = summarize(ds)
    assert list(summary.axes) == ["time", "level", "latitude", "longitude"]
    names = {name: levels for name, _, levels, _ in summary.fields}
    assert set(names) == {"temperature", "2m_temperature", "geopotential_at_surface"}
    assert names["2m_temperature"] == "surface"
    assert {"500", "850"} <= set(names["temperature"].removesuffix(" hPa").split(", "))
    assert Page(as_html(summary)).cells.count("2m_temperature") >= 1
