"""Linear probes: what can be read off the features of an encoder by a linear map.

The encoder is frozen. Two questions, asked of windows of two days over the whole globe:

- the month of the year, from features averaged over a window, by multinomial logistic regression;
- how much surface pressure, which the encoder doesn't read, changes in the day after a window, at
  the place of each token, from the last tokens there, by ridge regression.

An encoder is told the time. So that only the fields can tell the season, all windows are given the
same two days. Probes are fitted to windows of the training simulation, the last fifth of which
chooses the penalty, and scored on windows of other simulations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.optimize import minimize
from small_runs import FIELDS, Split, markdown, open_store

import xatmorep
from xatmorep.evaluation.bootstrap import LEAST_BLOCKS, interval, resampled
from xatmorep.model.multiformer import Multiformer

WORDS = {"month": "month of the year", "tendency": "pressure of the next day"}
AXES = {"month": "share of windows that is right", "tendency": "explained variance"}
FRAMES, DAY = 8, 4
"""Frames of a window, and of a day."""
EVERY = 2
"""Of the windows of the training simulation each second one is used."""
BLOCK = 5
"""Windows in a block of the bootstrap: ten days."""
RESAMPLES, CONFIDENCE = 2000, 0.95
PENALTIES = 10.0 ** np.arange(-4, 3)
TOKEN = {"latitude": 4, "longitude": 4}


class Features(NamedTuple):
    """Features of windows.

    Attributes
    ----------
    pooled : (window, feature) array
        Averaged over a window.
    places : (window, place, feature) array
        Of the last tokens at each place.
    """

    pooled: np.ndarray
    places: np.ndarray


class Answers(NamedTuple):
    """What the probes shall find.

    Attributes
    ----------
    month : (window,) array
        Month of the year, from 0.
    tendency : (window, place) array
        Change of surface pressure in the next day, as a mean over a token, in Pa.
    area : (place,) array
        Weights of the places.
    """

    month: np.ndarray
    tendency: np.ndarray
    area: np.ndarray


class Result(NamedTuple):
    """Sums over each window of the tests: ``score = sum(part) / sum(whole)``, or one less that."""

    part: np.ndarray
    whole: np.ndarray


@dataclass
class Probed:
    """What the probes found in one kind of features.

    Attributes
    ----------
    name : str
        Whose features they are.
    scores : dict of str to (value, lower, upper)
        By probe; means over the seeds.
    drawn : dict of str to (resample,) array
        The scores of each resample; the same windows for all kinds of features.
    """

    name: str
    scores: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    drawn: dict[str, np.ndarray] = field(default_factory=dict)


def cut(ds: xr.Dataset, every: int = 1) -> tuple[xr.Dataset, Answers]:
    """Windows side by side, all with the same times, and what is to be found in them."""
    starts = np.arange(0, ds.sizes["time"] - FRAMES - DAY + 1, every * FRAMES)
    steps = xr.DataArray(starts, dims="window") + xr.DataArray(np.arange(FRAMES), dims="time")
    times = ds["time"].values[:FRAMES]
    windows = ds[[*FIELDS]].isel(time=steps).drop_vars("time").assign_coords(time=times)
    windows = windows.transpose("window", "time", ...)
    static = {name: ds[name] for name in ds if "time" not in ds[name].dims}
    pressure = ds["surface_pressure"].coarsen(TOKEN).mean()
    last = starts + FRAMES - 1
    change = pressure.isel(time=last + DAY).values - pressure.isel(time=last).values
    area = np.cos(np.deg2rad(pressure["latitude"])).broadcast_like(pressure.isel(time=0))
    return windows.assign(static), Answers(
        ds["time"].dt.month.values[starts] - 1,
        change.reshape(len(starts), -1),
        area.transpose("latitude", "longitude").values.ravel(),
    )


def embedded(windows: xr.Dataset, model: xatmorep.Model) -> Features:
    """Features of the last layer of an encoder."""
    found = xatmorep.embed(windows, model=model)
    return _features([found[name].rename(feature="value") for name in FIELDS])


def values(windows: xr.Dataset, model: xatmorep.Model) -> Features:
    """Normalized values of the tokens, as the encoder reads them."""
    found = xatmorep.tokenize(windows, model=model)
    inside = [f"token_{axis}" for axis in ("time", "latitude", "longitude")]
    arrays = [found[name].stack(value=inside) for name in FIELDS]
    # Of values within a token the mean is taken, of features it would mean nothing.
    pooled = _features([array.mean("value").expand_dims("value", -1) for array in arrays], True)
    return Features(pooled.pooled, _features(arrays).places)


def _features(arrays: Sequence[xr.DataArray], levels: bool = False) -> Features:
    """From (window, time, level, latitude, longitude, value) of each field."""
    kept = ["level"] * levels
    pooled, places = [], []
    for array in arrays:
        area = np.cos(np.deg2rad(array["latitude"]))
        dims = [dim for dim in ("time", "latitude", "longitude", "level") if dim not in kept]
        mean = array.weighted(area).mean(dims).transpose("window", ...)
        pooled.append(mean.values.reshape(len(mean), -1))
        last = array.isel(time=-1).transpose("window", "latitude", "longitude", "level", "value")
        places.append(last.values.reshape(len(last), area.size * last.sizes["longitude"], -1))
    return Features(np.concatenate(pooled, -1), np.concatenate(places, -1))


def ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients of weighted least squares with a penalty, of standardized features.

    Parameters
    ----------
    x, y, weight : (n, feature), (n,) and (n,) arrays
    penalty : float
        In units of the total weight.
    """
    gram = (x * weight[:, None]).T @ x + penalty * weight.sum() * np.eye(x.shape[1])
    found: np.ndarray = np.linalg.solve(gram, (x * weight[:, None]).T @ y)
    return found


def logistic(x: np.ndarray, label: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Coefficients (feature + 1, class) of multinomial logistic regression, the last of a one."""
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    truth = np.eye(classes)[label]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(x.shape[1], classes)
        logits = x @ w
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(1, keepdims=True)
        size = w.copy()
        size[-1] = 0  # the constant isn't penalized
        entropy = -np.log(np.maximum((p * truth).sum(1), 1e-300)).mean()
        gradient = x.T @ (p - truth) / len(x) + penalty * size
        return entropy + penalty * (size**2).sum() / 2, gradient.ravel()

    start = np.zeros(x.shape[1] * classes)
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    found: np.ndarray = best.x.reshape(x.shape[1], classes)
    return found


def _standardized(x: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Mean zero and standard deviation one, of the first; the others alike."""
    flat = x.reshape(-1, x.shape[-1]).astype("float64")
    mean, std = flat.mean(0), flat.std(0)
    return [(array - mean) / np.where(std > 0, std, 1.0) for array in (x, *others)]


def probe_month(train: Features, truth: Answers, test: Features, asked: Answers) -> Result:
    """How many windows of the test are given the right month."""
    x, x_test = _standardized(train.pooled, test.pooled)
    fit = slice(0, len(x) * 4 // 5)
    choose = slice(fit.stop, None)
    right = []
    for penalty in PENALTIES:
        w = logistic(x[fit], truth.month[fit], 12, penalty)
        right.append((_class(x[choose], w) == truth.month[choose]).mean())
    w = logistic(x, truth.month, 12, PENALTIES[int(np.argmax(right))])
    correct = (_class(x_test, w) == asked.month).astype("float64")
    return Result(correct, np.ones_like(correct))


def _class(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    found: np.ndarray = (x @ w[:-1] + w[-1]).argmax(1)
    return found


def probe_tendency(train: Features, truth: Answers, test: Features, asked: Answers) -> Result:
    """Squared errors of the pressure tendency, over its standard deviation at each place."""
    x, x_test = _standardized(train.places, test.places)
    mean, std = truth.tendency.mean(0), truth.tendency.std(0)
    y, y_test = (truth.tendency - mean) / std, (asked.tendency - mean) / std
    weight = np.broadcast_to(truth.area, y.shape)

    def fitted(part: slice, penalty: float) -> np.ndarray:
        flat = x[part].reshape(-1, x.shape[-1])
        return ridge(flat, y[part].ravel(), weight[part].ravel(), penalty)

    fit = slice(0, len(x) * 4 // 5)
    choose = slice(fit.stop, None)
    errors = [
        (weight[choose] * (y[choose] - x[choose] @ fitted(fit, penalty)) ** 2).sum()
        for penalty in PENALTIES
    ]
    w = fitted(slice(0, None), PENALTIES[int(np.argmin(errors))])
    area = asked.area
    return Result(((y_test - x_test @ w) ** 2 * area).sum(1), (y_test**2 * area).sum(1))


@dataclass
class Question:
    """Windows to fit probes to, and to score them with.

    Attributes
    ----------
    windows, answers : tuple of Dataset, tuple of Answers
        Those of the training simulation, and those of the tests one after the other.
    counts : (resample, window) array
        How often each window of the tests is drawn.
    folder : Path
        Where results are kept.
    seeds : int
        Number of untrained networks.
    """

    windows: tuple[xr.Dataset, xr.Dataset]
    answers: tuple[Answers, Answers]
    counts: np.ndarray
    folder: Path
    seeds: int

    @classmethod
    def of(
        cls, data: str, tests: Sequence[str], split: Split, seeds: int, folder: Path
    ) -> Question:
        """Windows of the training days of one simulation, and of all days of others."""
        pressure = open_store(data, ["surface_pressure"]).sel(time=split.training["time"])
        train, truth = cut(pressure, EVERY)
        parts = [cut(open_store(test, ["surface_pressure"])) for test in tests]
        dynamic = [windows[[*FIELDS]] for windows, _ in parts]
        test = xr.concat(dynamic, "window", join="override", coords="minimal", compat="override")
        # The same dates as in training, whichever those of the test were.
        test = test.assign_coords(time=train["time"])
        test = test.assign({name: train[name] for name in train if name not in FIELDS})
        asked = Answers(
            np.concatenate([answers.month for _, answers in parts]),
            np.concatenate([answers.tendency for _, answers in parts]),
            truth.area,
        )
        if len(asked.month) < LEAST_BLOCKS * BLOCK:
            raise SystemExit(
                f"error: the tests have {len(asked.month)} windows of two days; intervals need at "
                f"least {LEAST_BLOCKS} blocks of {BLOCK}: name longer ones"
            )
        folder.mkdir(parents=True, exist_ok=True)
        counts = resampled(len(asked.month), BLOCK, RESAMPLES, seed=0)
        return cls((train, test), (truth, asked), counts, folder, seeds)

    def raw(self, model: xatmorep.Model) -> Probed:
        """Probes of the values themselves, normalized as for a model."""
        return self._probed("values of the fields", [self._results("values", model, values)])

    def untrained(self, model: xatmorep.Model) -> Probed:
        """Probes of networks as they are before the first step."""
        results = []
        for seed in range(self.seeds):
            network = Multiformer(model.config, torch.Generator().manual_seed(seed)).eval()
            fresh = dataclasses.replace(model, network=network)
            results.append(self._results(f"untrained-{seed}", fresh, embedded))
        return self._probed("untrained network", results)

    def trained(self, name: str, models: Sequence[xatmorep.Model]) -> Probed:
        """Probes of trained networks."""
        results = [self._results(model.digest[:16], model, embedded) for model in models]
        return self._probed(name, results)

    def _results(
        self, key: str, model: xatmorep.Model, features: Callable[..., Features]
    ) -> dict[str, Result]:
        """Sums of both probes, computed once."""
        path = self.folder / f"{key}.json"
        if path.exists():
            known = json.loads(path.read_text())
            return {name: Result(*map(np.array, sums)) for name, sums in known.items()}
        print(f"probing {key}", flush=True)
        train, test = (features(windows, model) for windows in self.windows)
        found = {
            "month": probe_month(train, self.answers[0], test, self.answers[1]),
            "tendency": probe_tendency(train, self.answers[0], test, self.answers[1]),
        }
        content = {name: [sums.tolist() for sums in result] for name, result in found.items()}
        path.write_text(json.dumps(content))
        return found

    def _probed(self, name: str, results: Sequence[Mapping[str, Result]]) -> Probed:
        """Scores with intervals, each a mean over seeds."""
        probed = Probed(name)
        for key in WORDS:
            once = np.ones((1, self.counts.shape[1]))
            value, drawn = (
                np.mean([_score(key, result[key], counts) for result in results], axis=0)
                for counts in (once, self.counts)
            )
            probed.drawn[key] = drawn
            low, high = self._interval(drawn)
            probed.scores[key] = (float(value[0]), float(low), float(high))
        return probed

    def table(self, found: Sequence[Probed], against: str) -> str:
        """Scores, and how far they are above those of one of them, with intervals."""
        reference = next(one for one in found if one.name == against)
        rows = []
        for one in found:
            row = [one.name]
            for key in WORDS:
                value, low, high = one.scores[key]
                row.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
                low, high = self._interval(one.drawn[key] - reference.drawn[key])
                difference = value - reference.scores[key][0]
                same = one is reference
                row.append("" if same else f"{difference:+.3f} ({low:+.3f} to {high:+.3f})")
            rows.append(row)
        head = ["features of"]
        for key, words in WORDS.items():
            head += [f"{words}: {AXES[key]}", f"above {against!r}"]
        return markdown(head, rows)

    def _interval(self, drawn: np.ndarray) -> np.ndarray:
        return interval(drawn, CONFIDENCE, self.counts.shape[1] / BLOCK)


def _score(key: str, result: Result, counts: np.ndarray) -> np.ndarray:
    """Share that is right, or variance that is explained, in each resample."""
    share: np.ndarray = (counts @ result.part) / (counts @ result.whole)
    return share if key == "month" else 1 - share
