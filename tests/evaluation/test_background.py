from __future__ import annotations

import numpy as np
import xarray as xr

from tests.tasks import small
from xatmorep.evaluation.background import RUN, Background, _runs
from xatmorep.evaluation.climatology import Record
from xatmorep.tasks.engine import Application, Options


def _record(ds: xr.Dataset) -> Record:
    application = Application.of(small.dataset(), small.model(), None, Options())
    return Record.of(ds, application, None)


def test_correlations_of_each_level_with_and_without_drift():
    ds, said = small.dataset(30, seed=1), []
    names = ["kriging", "drifting_kriging"]
    found = Background.of(_record(ds), small.dataset()["time"].values, names, said.append)
    assert found.climatology is not None
    assert {key: len(each) for key, each in found.correlations.items()} == {
        (name, field): n
        for name in names
        for field, n in (("2m_temperature", 1), ("temperature", 2))
    }
    assert not found.correlations["kriging", "temperature"][0].drift.any()
    assert found.correlations["drifting_kriging", "temperature"][0].drift.any()
    assert said == [
        "climatology",
        *(f"correlations of {n}" for n in ("2m_temperature", "temperature")),
    ]


def test_nothing_is_fitted_that_nobody_asked_for():
    times = small.dataset()["time"].values
    found = Background.of(_record(small.dataset(30)), times, ["climatology"], lambda words: None)
    assert found.climatology is not None
    assert not found.correlations
    assert Background.of(None, times, [], lambda words: None) == Background()


def test_runs_have_no_gap_and_are_spread_over_the_record():
    times = np.datetime64("2020-01-01", "s") + 6 * np.timedelta64(3600, "s") * np.arange(2000)
    runs = _runs(times, 400)
    assert [run.stop - run.start for run in runs] == [RUN] * 5
    assert runs[0].start == 0
    assert runs[-1].stop == 2000
    with_gap = np.concatenate([times[:100], times[110:130], times[200:]])
    for run in _runs(with_gap, 10_000):
        steps = np.diff(with_gap[run])
        assert (steps == steps[0]).all()
    assert _runs(times[:1], 400) == [slice(0, 1)]
    assert _runs(times[:30], 400) == [slice(0, 30)]
