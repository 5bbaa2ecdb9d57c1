from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.tasks import small
from xatmorep.errors import ConfigError
from xatmorep.evaluation.background import Background
from xatmorep.evaluation.climatology import Record
from xatmorep.evaluation.forecasters import BASELINES, _parts, baselines_of, chosen
from xatmorep.evaluation.parts import Case, Forecasts, Predictions
from xatmorep.tasks.engine import Application, Options

FIELDS = ("2m_temperature", "temperature")


@cache
def _part(task: str) -> tuple[dict[str, Case], Background, Application]:
    ds = small.dataset(9)
    ds["2m_temperature"][3, 4, 5] = np.nan
    model = small.model() if task == "predict" else small.forecaster()
    application = Application.of(ds, model, None, Options(), in_time=task == "predict")
    question = (
        Predictions(application, rate=0.5, seed=1)
        if task == "predict"
        else Forecasts.of(application, "12h", None, None)
    )
    record = Record.of(small.dataset(20, seed=1), application, None)
    background = Background.of(record, ds["time"].values, BASELINES[task], lambda words: None)
    (part,) = question.parts()
    return part, background, application


def _said(task: str, field: str, case: Case | None = None, names=None) -> dict:
    part, background, application = _part(task)
    spec = application.model.config.inputs.field(field)
    return baselines_of(names or BASELINES[task], case or part[field], spec, background)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("task", BASELINES)
def test_no_baseline_sees_what_is_hidden(task, field):
    """Other values at all points that aren't visible change nothing that is said there."""
    case = _part(task)[0][field]
    rng = np.random.default_rng(3)
    noise = 1e3 * rng.standard_normal(case.values.shape)
    values = np.where(case.visible, case.values, noise)
    truth = case.truth.copy(data=values[:, case.wanted].reshape(case.truth.shape))
    other = replace(case, values=values, truth=truth.where(case.truth.notnull()))
    for name, said in _said(task, field).items():
        again = _said(task, field, other)[name]
        hidden = case.hidden.values
        np.testing.assert_array_equal(said.mean.values[hidden], again.mean.values[hidden], name)
        if said.std is not None:
            np.testing.assert_array_equal(said.std.values[hidden], again.std.values[hidden], name)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("task", BASELINES)
def test_every_baseline_speaks_at_every_hidden_point(task, field):
    case = _part(task)[0][field]
    said = _said(task, field)
    assert list(said) == list(BASELINES[task])
    for name, one in said.items():
        assert one.mean.dims == case.truth.dims
        assert bool(one.mean.notnull().where(case.hidden, True).all()), name
        assert (one.std is not None) == ("kriging" in name)


def test_persistence_of_a_forecast_is_the_value_at_its_init_time():
    case = _part("forecast")[0]["temperature"]
    said = _said("forecast", "temperature")["persistence"].mean
    ds = small.dataset(9)
    for init in said["init_time"].values:
        twin = ds["temperature"].sel(time=init, level=500)
        for lead in said["lead_time"].values:
            found = said.sel(init_time=init, lead_time=lead, level=500).isel(sample=0)
            np.testing.assert_allclose(found, twin, rtol=1e-6)
    assert case.truth.sizes["lead_time"] == 2


def test_a_point_that_was_never_seen_gets_the_climatology():
    part, background, _ = _part("predict")
    case = part["2m_temperature"]
    visible = case.visible.copy()
    visible[..., 6, 7] = False
    blind = replace(case, visible=visible)
    said = _said("predict", "2m_temperature", blind, names=["persistence", "time_interpolation"])
    usual = background.climatology.at("2m_temperature", case.times)[:, case.wanted]
    for one in said.values():
        np.testing.assert_allclose(one.mean.values[..., 6, 7], usual[..., 6, 7])
        assert not np.allclose(one.mean.values[..., 6, 8], usual[..., 6, 8])


def test_without_a_climatology_it_gets_the_mean_of_what_is_visible():
    part, _, application = _part("predict")
    case = part["2m_temperature"]
    visible = case.visible.copy()
    visible[..., 6, 7] = False
    spec = application.model.config.inputs.field("2m_temperature")
    said = baselines_of(["persistence"], replace(case, visible=visible), spec, Background())
    mean = case.values[visible].mean()
    np.testing.assert_allclose(said["persistence"].mean.values[..., 6, 7], mean, rtol=1e-5)


def test_which_can_be_had():
    assert chosen("predict", None, climatology=True) == list(BASELINES["predict"])
    assert chosen("predict", None, climatology=False) == [
        *("persistence", "time_interpolation", "interpolation")
    ]
    assert chosen("predict", ["kriging", "kriging"], climatology=True) == ["kriging"]
    with pytest.raises(ConfigError, match="baseline 'cliamtology' is unknown; did you mean"):
        chosen("forecast", ["cliamtology"], climatology=True)


@pytest.mark.parametrize("token", [(1, 15, 15), (4, 4, 4), (12, 6, 12), (1, 1, 1), (3, 9, 9)])
def test_parts_of_tokens_are_small_and_no_smaller_than_needed(token):
    parts = _parts(token)
    sizes = [-(-n // k) for n, k in zip(token, parts, strict=True)]
    assert np.prod(sizes) <= 64
    assert np.prod(sizes) >= min(np.prod(token), 16)
