from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from xatmorep.errors import ConfigError
from xatmorep.evaluation.bootstrap import interval, resampled, times_in_block


def _autoregressive(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    noise = np.sqrt(1 - memory**2) * rng.standard_normal(n)
    noise[0] = rng.standard_normal()
    return lfilter([1.0], [1.0, -memory], noise)


@pytest.mark.parametrize(("block", "low", "high"), [(40, 0.84, 1.0), (1, 0.2, 0.65)])
def test_coverage_of_the_mean_of_a_series_with_memory(block, low, high):
    """Blocks longer than the memory cover nearly as often as they say; single times far too seldom.

    Twenty blocks are few, and percentiles of few blocks are known to be somewhat narrow.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        series = _autoregressive(rng, 800, memory=0.85)
        means = resampled(800, block, 200, seed=trial) @ series / 800
        lower, upper = interval(means, 0.95)
        covered += lower <= 0 <= upper
    assert low <= covered / 100 <= high


def test_blocks_are_consecutive_and_go_round():
    counts = resampled(10, 4, 500, seed=1)
    assert set(counts.sum(1)) == {10.0}
    # Every time is drawn as often as any other, the first and last ones too.
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.15)
    one = resampled(6, 6, 50, seed=2)
    np.testing.assert_array_equal(one, np.ones((50, 6)))


def test_seeds_repeat_and_differ():
    assert np.array_equal(resampled(20, 3, 5, seed=1), resampled(20, 3, 5, seed=1))
    assert not np.array_equal(resampled(20, 3, 5, seed=1), resampled(20, 3, 5, seed=2))


def test_the_length_of_a_block():
    assert times_in_block(np.arange(100.0), 24) == 24
    assert times_in_block(24 * np.arange(100.0), None) == 5
    assert times_in_block(6 * np.arange(100.0), 1) == 1
    assert times_in_block(np.array([0.0]), None) == 1
    with pytest.raises(ConfigError, match="block must be positive, not -3 hours"):
        times_in_block(np.arange(4.0), -3)
