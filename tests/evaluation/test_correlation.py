from __future__ import annotations

import numpy as np
import pytest
from scipy.special import eval_legendre

from xatmorep.evaluation.correlation import (
    TABLE,
    Correlation,
    Sample,
    _legendre_sums,
    _time_functions,
    fit,
    positions,
    zonal_drift,
)

LATITUDE = np.linspace(84, -84, 15)
LONGITUDE = np.arange(24) * 15.0


def _waves(n_frames: int, *, memory: float = 0.0, speed: float = 0.0, seed: int = 0) -> Sample:
    """Random fields of total wavenumbers up to five, each frame like the one before by `memory`.

    The fields drift to the east by `speed` radians an hour; frames are six hours apart.
    """
    rng = np.random.default_rng(seed)
    longitude, latitude = np.meshgrid(np.deg2rad(LONGITUDE), np.deg2rad(LATITUDE))
    # Sums of P_n(cos angle to random centers) are isotropic random fields.
    runs = []
    for _ in range(3):
        field = np.zeros((n_frames, *latitude.shape))
        for _ in range(60):
            center = np.arcsin(rng.uniform(-1, 1)), rng.uniform(0, 2 * np.pi)
            noise = rng.standard_normal(n_frames)
            amplitude = np.empty(n_frames)
            amplitude[0] = noise[0]
            for i in range(1, n_frames):
                amplitude[i] = memory * amplitude[i - 1] + np.sqrt(1 - memory**2) * noise[i]
            east = longitude[None] - speed * 6 * np.arange(n_frames)[:, None, None] - center[1]
            cosine = np.sin(center[0]) * np.sin(latitude) + np.cos(center[0]) * np.cos(
                latitude
            ) * np.cos(east)
            field += amplitude[:, None, None] * sum(
                (2 * n + 1) * eval_legendre(n, cosine) for n in (3, 4, 5)
            )
        runs.append(field / field.std())
    return Sample(runs, [6.0 * np.arange(n_frames)] * 3, LATITUDE, LONGITUDE)


def test_sums_of_legendre_polynomials():
    cosine = np.linspace(-1, 1, 9)
    edges = (0, 1, 3, 7)
    found = _legendre_sums(cosine, edges)
    for b, (first, stop) in enumerate([(0, 1), (1, 3), (3, 7)]):
        terms = [(2 * n + 1) * eval_legendre(n, cosine) for n in range(first, stop)]
        np.testing.assert_allclose(
            found[b], sum(terms) / sum(2 * n + 1 for n in range(first, stop))
        )


@pytest.mark.parametrize("seed", range(3))
def test_every_function_is_positive_definite(seed):
    """No combination of values at random places and times has a negative variance."""
    rng = np.random.default_rng(seed)
    points = positions(np.arcsin(rng.uniform(-1, 1, 60)), rng.uniform(0, 2 * np.pi, 60))
    for function in _legendre_sums((points @ points.T).clip(-1, 1), (0, 1, 2, 4, 9, 20)):
        assert np.linalg.eigvalsh(function).min() > -1e-9
    hours = rng.uniform(0, 200, 60)
    for function in _time_functions(np.abs(hours[:, None] - hours), (4.0, 24.0, 100.0)):
        assert np.linalg.eigvalsh(function).min() > -1e-9


def test_known_correlations_come_back():
    """Of waves of the numbers 3 to 5 that forget by a fifth in six hours."""
    found = fit(_waves(150, memory=0.8), np.zeros(15))
    angle = np.deg2rad(np.array([15.0, 30.0, 45.0, 60.0, 90.0]))
    weights = [(2 * n + 1) for n in (3, 4, 5)]
    expected = sum(
        w * eval_legendre(n, np.cos(angle)) for w, n in zip(weights, (3, 4, 5), strict=True)
    ) / sum(weights)
    np.testing.assert_allclose(found(angle, np.zeros(1)), expected, atol=0.1)
    assert expected.min() < -0.1  # as a sum of decaying functions could not be
    lags = np.array([6.0, 12.0, 24.0])
    np.testing.assert_allclose(found(np.zeros(1), lags), 0.8 ** (lags / 6), atol=0.08)
    assert found.weights.min() >= 0
    assert found.weights.sum() <= 0.999 + 1e-9


def test_noise_is_not_taken_for_likeness():
    rng = np.random.default_rng(0)
    runs = [rng.standard_normal((80, 15, 24)) for _ in range(3)]
    found = fit(Sample(runs, [6.0 * np.arange(80)] * 3, LATITUDE, LONGITUDE), np.zeros(15))
    assert abs(found(np.deg2rad(np.array([15.0, 40.0])), np.zeros(1))).max() < 0.3
    assert abs(found(np.zeros(1), np.array([6.0, 24.0]))).max() < 0.3


def test_drift_is_found_and_makes_later_fields_alike():
    speed = np.deg2rad(12) / 24
    sample = _waves(100, memory=0.98, speed=speed)
    drift = zonal_drift(sample)
    inner = np.abs(LATITUDE) < 70
    np.testing.assert_allclose(np.rad2deg(drift[inner]) * 24, 12, atol=2)
    still, moving = fit(sample, np.zeros(15)), fit(sample, drift)
    day = np.array([24.0])
    assert moving(np.zeros(1), day) > 0.85
    assert moving(np.zeros(1), day) > still(np.zeros(1), day) + 0.05


def test_drift_to_the_west_and_in_a_region():
    sample = _waves(100, memory=0.98, speed=-np.deg2rad(10) / 24)
    part = Sample(
        [run[:, 3:12, 4:20] for run in sample.runs], sample.hours, LATITUDE[3:12], LONGITUDE[4:20]
    )
    np.testing.assert_allclose(np.rad2deg(zonal_drift(part)) * 24, -10, atol=3)


def test_missing_values_are_left_out():
    whole = _waves(60, memory=0.8)
    gaps = [run.copy() for run in whole.runs]
    rng = np.random.default_rng(1)
    for run in gaps:
        run[rng.random(run.shape) < 0.3] = np.nan
        run[:, 2, 3] = np.nan
    found = fit(Sample(gaps, whole.hours, LATITUDE, LONGITUDE), np.zeros(15))
    twin = fit(whole, np.zeros(15))
    angle = np.deg2rad(np.array([15.0, 30.0, 60.0]))
    np.testing.assert_allclose(found(angle, np.zeros(1)), twin(angle, np.zeros(1)), atol=0.05)
    assert np.isfinite(zonal_drift(Sample(gaps, whole.hours, LATITUDE, LONGITUDE))).all()


def test_one_frame_gives_correlations_in_space_alone():
    sample = _waves(1)
    found = fit(sample, zonal_drift(sample))
    assert np.isfinite(found.weights).all()


def test_the_table_is_the_model():
    weights = np.random.default_rng(2).random((4, 5))
    model = Correlation((0, 1, 3, 5, 9), (10.0,), weights / weights.sum(), np.zeros(1))
    lags = np.array([0.0, 6.0])
    chords = np.linspace(0, 2, TABLE)
    twin = model(2 * np.arcsin(chords / 2)[None], lags[:, None])
    np.testing.assert_allclose(model.table(lags), twin, atol=1e-12)
    assert model.reach[0] > 0
