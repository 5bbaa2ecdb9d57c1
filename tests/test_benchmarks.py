"""Comparisons that users can repeat: their fits and probes against truths, and each in small."""

from __future__ import annotations

import csv
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.simulated import SAMPLE, open_sample
from xatmorep.training.config import read_config

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts, as Python finds them if one is run; what is held out fits the short sample."""
    import importlib

    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("small_runs", "probes", "side_by_side", "scaling")
    modules = {name: importlib.import_module(name) for name in names}
    monkeypatch.setattr(modules["small_runs"], "HELD_OUT_DAYS", 4)
    return modules


def run(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words), "--threads", "1"])
    module.main()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- configurations


def test_every_variation_is_a_configuration_with_a_folder_of_its_own(scripts):
    small, side = scripts["small_runs"], scripts["side_by_side"]
    seen: dict[str, Any] = {}
    for study, variations in side.VARIATIONS.items():
        configs = [read_config(small.changed(small.small(20), c)) for c in variations.values()]
        assert len({config.model_dump_json() for config in configs}) == len(variations), study
        for changes, config in zip(variations.values(), configs, strict=True):
            # The same variation in two studies is the same run.
            assert seen.setdefault(side.slug(changes), config) == config
    assert set(small.FIELDS) < {*open_sample().data_vars}


def test_changes_leave_the_original_as_it_was(scripts):
    changed = scripts["small_runs"].changed
    original = {"a": {"b": 1, "c": 2}, "d": 3}
    assert changed(original, {"a.b": 5, "e.f": {"g": 1}}) == {
        "a": {"b": 5, "c": 2},
        "d": 3,
        "e": {"f": {"g": 1}},
    }
    assert original == {"a": {"b": 1, "c": 2}, "d": 3}


# ---- scaling


def law(size: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return 0.3 + 0.15 * (size / 2e5) ** -0.4 + 0.1 * (amount / 4) ** -0.6


def points() -> tuple[np.ndarray, np.ndarray]:
    grid = np.array(list(itertools.product([5e4, 2e5, 8e5], [1, 4, 16])), dtype="float64")
    return grid[:, 0], grid[:, 1]


def test_fit_finds_a_law(scripts):
    size, amount = points()
    found = scripts["scaling"].fit_joint(size, amount, law(size, amount))
    assert found.floor == pytest.approx(0.3, abs=1e-3)
    assert found.size_exponent == pytest.approx(0.4, abs=5e-3)
    assert found.data_exponent == pytest.approx(0.6, abs=5e-3)
    assert found.size_term == pytest.approx(0.15, rel=5e-2)


def test_intervals_hold_the_truth_and_narrow_with_the_noise(scripts):
    size, amount = points()
    noise = np.random.default_rng(0).normal(size=len(size))
    widths = []
    for scale in (0.002, 0.0005):
        loss = law(size, amount) * np.exp(scale * noise)
        drawn = scripts["scaling"].resampled_exponents(size, amount, loss, 40)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        assert (low <= [0.3, 0.4, 0.6]).all()
        assert (high >= [0.3, 0.4, 0.6]).all()
        widths.append(high - low)
    assert (widths[1] < widths[0]).all()


def test_slope_is_an_exponent(scripts):
    x = np.array([1.0, 2.0, 8.0])
    found, half = scripts["scaling"].slope(x, 3 * x**-0.25)
    assert found == pytest.approx(0.25)
    assert half == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("noise", [0.0005, 0.2])
def test_laws_say_whether_they_can_be_trusted(scripts, noise, monkeypatch):
    monkeypatch.setattr(scripts["scaling"], "RESAMPLES", 30)
    size, amount = points()
    loss = law(size, amount) * np.exp(noise * np.random.default_rng(1).normal(size=len(size)))
    table = [
        {"size": s, "width": s, "amount": m, "loss": v}
        for s, m, v in zip(size, amount, loss, strict=True)
    ]
    text = scripts["scaling"].laws(table)
    assert ("not identified" in text) == (noise > 0.01)
    assert text.count("alone") == 6


def test_anomalies_have_no_monthly_mean(scripts):
    ds = open_sample().load()
    usual = ds[["vorticity", "temperature"]].groupby("time.month").mean()
    found = scripts["scaling"].anomalies(ds, usual)
    assert found["temperature"].attrs["units"] == "K"
    assert float(abs(found["temperature"].mean("time")).max()) < 1e-3
    difference = found["temperature"] - ds["temperature"]
    assert float(difference.std("time").max()) < 1e-3
    xr.testing.assert_identical(found["orography"], ds["orography"])


# ---- probes


def test_ridge_is_least_squares_without_penalty_and_zero_with_a_large_one(scripts):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(50, 3)), rng.uniform(0.5, 2, size=50)
    y = x @ [1.0, -2.0, 0.5] + rng.normal(size=50)
    root = np.sqrt(weight)
    expected = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    np.testing.assert_allclose(scripts["probes"].ridge(x, y, weight, 0.0), expected)
    assert abs(scripts["probes"].ridge(x, y, weight, 1e9)).max() < 1e-6


def test_logistic_regression_is_at_its_minimum(scripts):
    """The gradient, by finite differences of a loss that is written another way."""
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(30, 2)), rng.integers(3, size=30)
    found = scripts["probes"].logistic(x, label, 3, 0.1)

    def loss(w: np.ndarray) -> float:
        logits = x @ w[:2] + w[2]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        likelihood = np.mean([np.log(row[k]) for row, k in zip(p, label, strict=True)])
        return -likelihood + 0.05 * (w[:2] ** 2).sum()

    for place in np.ndindex(found.shape):
        step = np.zeros_like(found)
        step[place] = 1e-4
        assert abs(loss(found + step) - loss(found - step)) / 2e-4 < 2e-4


def answers(scripts, rng: np.random.Generator, n: int) -> Any:
    probes = scripts["probes"]
    return probes.Answers(np.arange(n) // 4 % 12, rng.normal(size=(n, 6)), np.ones(6))


def test_probes_find_what_is_there_and_nothing_else(scripts):
    probes, rng = scripts["probes"], np.random.default_rng(0)
    truth, asked = answers(scripts, rng, 240), answers(scripts, rng, 96)

    def features(of: Any, informed: bool) -> Any:
        season = np.eye(12)[of.month] if informed else 0
        change = of.tendency[..., None] if informed else 0
        n = len(of.month)
        return probes.Features(
            season + 0.1 * rng.normal(size=(n, 12)), 3 * change + rng.normal(size=(n, 6, 5)) / 10
        )

    for informed in (True, False):
        train, test = features(truth, informed), features(asked, informed)
        part, whole = probes.probe_month(train, truth, test, asked)
        right = part.sum() / whole.sum()
        errors, total = probes.probe_tendency(train, truth, test, asked)
        explained = 1 - errors.sum() / total.sum()
        assert right > 0.95 if informed else right < 0.3
        assert explained > 0.95 if informed else explained < 0.05


def test_windows_have_one_date_and_the_change_of_the_next_day(scripts):
    probes = scripts["probes"]
    ds = open_sample().load()
    windows, found = probes.cut(ds)
    assert windows["temperature"].dims[:2] == ("window", "time")
    assert windows.sizes["window"] == 9  # of ten, as the last has no next day
    assert windows["time"].values.tolist() == ds["time"].values[:8].tolist()
    np.testing.assert_array_equal(
        windows["vorticity"].isel(window=3, time=2).values, ds["vorticity"].isel(time=26).values
    )
    pressure = ds["surface_pressure"].values
    change = pressure[31 + 4] - pressure[31]  # after the window that ends with frame 31
    row, column = 2, 5
    expected = change[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean()
    assert found.tendency[3, row * 16 + column] == pytest.approx(expected, rel=1e-3)
    assert found.area.reshape(8, 16)[0].max() < found.area.reshape(8, 16)[3].min()
    assert set(found.month) == {0}


# ---- from the command


def test_side_by_side_goes_on_where_it_was(scripts, monkeypatch, tmp_path, capsys):
    side = scripts["side_by_side"]
    variations = side.VARIATIONS["objectives"]
    monkeypatch.setattr(side, "VARIATIONS", {"objectives": variations})
    monkeypatch.setattr(scripts["probes"], "BLOCK", 1)
    command = [SAMPLE, tmp_path, "--test", SAMPLE, "--study", "objectives"]
    command += ["--steps", "2", "--seeds", "1", "--days", "4"]
    run(monkeypatch, side, *command)
    table = rows(tmp_path / "objectives.csv")
    assert [row["variation"] for row in table] == [
        "masked",
        "masked + distillation",
        "masked + distillation, equal time",
    ]
    assert all(0.1 < float(row["crps"]) < 3 for row in table)
    printed = capsys.readouterr().out
    text = (tmp_path / "objectives.md").read_text()
    assert text in printed + "\n"
    for words in ("climatology", "untrained network", "values of the fields", "Simulated"):
        assert words in printed
    assert (tmp_path / "objectives.png").stat().st_size > 10_000

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is trained or scored twice")

    monkeypatch.setattr("xatmorep.training.loop._train", fail)
    monkeypatch.setattr("xatmorep.evaluate", fail)
    monkeypatch.setattr("xatmorep.embed", fail)
    run(monkeypatch, side, *command)
    assert rows(tmp_path / "objectives.csv") == table


def test_scaling_from_the_command(scripts, monkeypatch, tmp_path, capsys):
    """One run is real; the others, which would take long, are told their losses."""
    scaling, (size, amount) = scripts["scaling"], points()
    train = scaling.run_all
    monkeypatch.setattr(scaling, "RESAMPLES", 3)
    monkeypatch.setattr(scaling, "FRAMES_PER_DAY", 1)

    def run_all(ds: xr.Dataset, tests: list[xr.Dataset], options: Any) -> list[dict[str, Any]]:
        widths, amounts = options.widths, options.amounts
        options.widths, options.amounts = widths[:1], amounts[-1:]
        (real,) = train(ds, tests, options)
        options.widths, options.amounts = widths, amounts
        assert real["amount"] == 64
        assert 0.1 < real["loss"] < 3
        losses = law(size, amount)
        keys = itertools.product(range(3), amounts)
        return [
            real | {"width": widths[i], "size": int(n), "amount": m, "loss": loss}
            for (i, m), n, loss in zip(keys, size, losses, strict=True)
        ]

    monkeypatch.setattr(scaling, "run_all", run_all)
    command = [SAMPLE, tmp_path, "--test", SAMPLE, "--widths", "8", "16", "24"]
    command += ["--amounts", "4", "16", "64", "--steps", "1", "--days", "4"]
    run(monkeypatch, scaling, *command)
    assert [float(row["loss"]) for row in rows(tmp_path / "scaling.csv")] == pytest.approx(
        law(size, amount)
    )
    text = (tmp_path / "scaling.md").read_text()
    assert text in capsys.readouterr().out + "\n"
    assert re.search(r"joint fit, a \(size\): 0\.40", text)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("side_by_side", ["nothing.zarr", "out"], "no zarr store at nothing.zarr"),
        ("side_by_side", [SAMPLE, "out", "--study", "objectives"], "need --test"),
        ("side_by_side", [SAMPLE, "out", "--steps", "0"], "must be positive"),
        ("scaling", [SAMPLE, "out", "--test", SAMPLE, "--amounts", "8", "30"], "at least three"),
        ("scaling", [SAMPLE, "out", "--test", SAMPLE], "has 20 days, --amounts asks for 120"),
    ],
)
def test_mistakes(scripts, monkeypatch, tmp_path, capsys, name, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        run(monkeypatch, scripts[name], *words)
    assert message in f"{error.value} {capsys.readouterr().err}"
    assert not (tmp_path / "out").exists()


def test_stores_that_lack_something(scripts, tmp_path):
    small = scripts["small_runs"]
    for name, ds, message in (
        ("fields", open_sample().drop_vars("vorticity"), "no vorticity; it has"),
        ("levels", open_sample().isel(level=[0, 1]), "lacks some of the levels"),
    ):
        ds.drop_encoding().load().to_zarr(tmp_path / name, consolidated=True)
        with pytest.raises(SystemExit, match=message):
            small.open_store(str(tmp_path / name))
    short = open_sample().isel(time=slice(0, 30)).load()
    with pytest.raises(SystemExit, match="4 days are held"):
        small.split(short, [], 4)
