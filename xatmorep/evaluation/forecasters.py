"""Baselines by name, each asked for exactly the points that are hidden from the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from xatmorep.errors import ConfigError
from xatmorep.evaluation.background import KRIGING, Background
from xatmorep.evaluation.baselines import interpolate, interpolate_in_time, persist
from xatmorep.evaluation.kriging import Geometry, krige
from xatmorep.evaluation.metrics import Said
from xatmorep.evaluation.parts import Case
from xatmorep.strict import closest
from xatmorep.tokens.spec import FieldSpec

__all__ = ["BASELINES", "baselines_of", "chosen"]

BASELINES = {
    "predict": (
        *("climatology", "persistence", "time_interpolation", "interpolation"),
        *("anomaly_interpolation", *KRIGING),
    ),
    "forecast": ("climatology", "persistence", *KRIGING),
}
"""Baselines of each task."""

WITH_CLIMATOLOGY = ("climatology", "anomaly_interpolation", *KRIGING)
"""Those that need data for a climatology."""

HOURS = 48.0
"""How far kriging looks back and ahead at least, where the data do."""

MOST_POINTS = 64
"""Hidden points that share one system of equations."""


def chosen(task: str, names: Sequence[str] | None, climatology: bool) -> list[str]:
    """Baselines that are wanted and can be had.

    Raises
    ------
    ConfigError
        If one is unknown, isn't for the task, or needs a climatology that isn't given.

    Examples
    --------
    >>> chosen("forecast", None, climatology=False)
    ['persistence']
    """
    possible = BASELINES[task]
    everything = {name for several in BASELINES.values() for name in several}
    if names is None:
        return [name for name in possible if climatology or name not in WITH_CLIMATOLOGY]
    for name in names:
        if name not in everything:
            raise ConfigError(f"baseline {name!r} is unknown{closest(name, everything)}")
        if name not in possible:
            raise ConfigError(
                f"baseline {name!r} isn't for the task {task!r}, which has {', '.join(possible)}"
            )
        if name in WITH_CLIMATOLOGY and not climatology:
            raise ConfigError(f"baseline {name!r} needs climatology=, usually the training data")
    return list(dict.fromkeys(names))


def baselines_of(
    names: Sequence[str], case: Case, spec: FieldSpec, background: Background
) -> dict[str, Said]:
    """What baselines say at the hidden points of a case.

    Where one has nothing to go by, as persistence at a point that is never visible, it says the
    climatology; without one the mean of what is visible.

    Parameters
    ----------
    names : sequence of str
        Names of the baselines.
    case : Case
        Data, and what of them is visible.
    spec : FieldSpec
        The field.
    background : Background
        Climatology and correlations.
    """
    usual = None
    if background.climatology is not None:
        usual = background.climatology.at(spec.name, case.times)
    fallback = _mean_of_visible(case) if usual is None else usual[:, case.wanted]
    found: dict[str, Said] = _on_maps(names, case, usual)
    for name in names:
        if name == "climatology":
            assert usual is not None
            found[name] = Said(case.like_truth(usual[:, case.wanted]))
        elif name in KRIGING:
            assert usual is not None
            found[name] = _kriged(name, case, spec, usual, background)
        elif name not in found:
            estimate = {"persistence": persist, "time_interpolation": interpolate_in_time}[name]
            values = estimate(case.values, case.visible, case.hours, case.wanted, case.reach)
            found[name] = Said(case.like_truth(values))
    labelled = case.like_truth(np.broadcast_to(fallback, case.values[:, case.wanted].shape))
    for name, said in found.items():
        found[name] = Said(said.mean.fillna(labelled), std=said.std)
    return {name: found[name] for name in names}


def _on_maps(names: Sequence[str], case: Case, usual: np.ndarray | None) -> dict[str, Said]:
    """Interpolation of values and of anomalies on each map, over the same triangles."""
    wanted = [name for name in ("interpolation", "anomaly_interpolation") if name in names]
    if not wanted:
        return {}
    added = case.truth.copy(data=np.zeros(case.truth.shape))
    parts = {"interpolation": added}
    if usual is not None:
        parts["anomaly_interpolation"] = case.like_truth(usual[:, case.wanted])
    means = xr.concat([parts[name] for name in wanted], "of")
    estimate = means + interpolate(case.truth - means, case.hidden, "latitude", "longitude")
    return {name: Said(estimate.isel(of=i)) for i, name in enumerate(wanted)}


def _kriged(
    name: str, case: Case, spec: FieldSpec, usual: np.ndarray, background: Background
) -> Said:
    """Kriging of the anomalies of each level."""
    assert background.climatology is not None
    deviation = background.climatology.deviation[spec.name]
    time_step = float(np.diff(case.hours).mean()) if case.hours.shape[1] > 1 else HOURS
    anomalies = (case.values - usual) / deviation
    visible = case.visible & np.isfinite(anomalies)
    geometry = Geometry(
        case.truth["latitude"].values,
        case.truth["longitude"].values,
        spec.token_shape,
        _parts(spec.token_shape),
        min(case.reach, max(4 * spec.token_shape[0], round(HOURS / time_step))),
    )
    means, variances = [], []
    for i, correlation in enumerate(background.correlations[name, spec.name]):
        estimate, variance = krige(
            anomalies[:, :, i], visible[:, :, i], case.hours, case.wanted, correlation, geometry
        )
        means.append(estimate)
        variances.append(variance)
    mean = usual[:, case.wanted] + deviation * np.stack(means, axis=2)
    std = deviation * np.sqrt(np.stack(variances, axis=2))
    return Said(case.like_truth(mean), std=case.like_truth(std))


def _parts(token: tuple[int, int, int]) -> tuple[int, int, int]:
    """Into how many parts a token is cut along each axis, so that they have few enough points.

    Examples
    --------
    >>> _parts((4, 4, 4)), _parts((1, 15, 15))
    ((1, 1, 1), (1, 2, 2))
    """
    parts = [1, 1, 1]

    def sizes() -> list[int]:
        return [-(-n // k) for n, k in zip(token, parts, strict=True)]

    while np.prod(sizes()) > MOST_POINTS:
        parts[int(np.argmax(sizes()))] += 1
    return parts[0], parts[1], parts[2]


def _mean_of_visible(case: Case) -> np.ndarray:
    """One value for each case and level."""
    axes = (1, 3, 4)
    number = case.visible.sum(axes, keepdims=True)
    total = np.where(case.visible, case.values, 0.0).sum(axes, keepdims=True)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
