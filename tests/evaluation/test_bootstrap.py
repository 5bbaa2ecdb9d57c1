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


@pytest.mark.parametrize(
    ("n", "block", "low", "high"),
    [(800, 40, 0.9, 0.98), (320, 40, 0.9, 0.98), (800, 1, 0.2, 0.65)],
)
def test_coverage_of_the_mean_of_a_series_with_memory(n, block, low, high):
    """Blocks longer than the memory cover about as often as they say; single times far too seldom.

    Plain percentiles cover 0.89 and 0.87 of these trials at 20 and 8 blocks, with a nominal 0.95.
    What is still lacking is due to the length of the blocks: neighbors in different blocks are
    alike, too.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        series = _autoregressive(rng, n, memory=0.85)
        means = resampled(n, block, 400, seed=trial) @ series / n
        lower, upper = interval(means, 0.95, n / block)
        covered += lower <= 0 <= upper
    assert low <= covered / 400 <= high


def test_intervals_of_many_blocks_are_percentiles():
    values = np.random.default_rng(0).standard_normal((999, 2))
    np.testing.assert_allclose(
        interval(values, 0.8, n_blocks=1e7), np.quantile(values, [0.1, 0.9], axis=0), atol=1e-5
    )
    few, many = (interval(values, 0.8, n_blocks=n) for n in (5, 50))
    assert (few[0] < many[0]).all()
    assert (few[1] > many[1]).all()


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
