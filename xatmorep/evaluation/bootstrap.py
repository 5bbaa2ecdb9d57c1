"""How sure a score is: intervals from times that are drawn anew, in blocks."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, stdtrit

from xatmorep.errors import ConfigError

__all__ = ["LEAST_BLOCKS", "interval", "resampled", "times_in_block"]

LEAST_BLOCKS = 5
"""Fewer blocks say nothing about how far scores vary."""

DAYS = 5.0
"""Length of a block by default: the weather after it is nearly another."""


def times_in_block(hours: np.ndarray, block_hours: float | None) -> int:
    """Number of times in a block.

    Parameters
    ----------
    hours : numpy.ndarray
        Times in hours, ascending.
    block_hours : float or None
        Length of a block; five days if None.

    Raises
    ------
    ConfigError
        If the length isn't positive.

    Examples
    --------
    >>> times_in_block(np.arange(0.0, 240.0, 6.0), None)
    20
    """
    length = 24 * DAYS if block_hours is None else block_hours
    if not length > 0:
        raise ConfigError(f"block must be positive, not {length:g} hours")
    step = float(np.median(np.diff(hours))) if len(hours) > 1 else length
    return max(1, round(length / step))


def resampled(n_times: int, block: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each time is drawn in each resample, by the circular block bootstrap.

    As many blocks of consecutive times as there is room for are drawn with replacement, going on at
    the first time after the last (Politis and Romano 1992), and cut to the number of times.

    Parameters
    ----------
    n_times : int
        Number of times.
    block : int
        Times in a block.
    n_resamples : int
        Number of resamples.
    seed : int
        Seed of the draws.

    Returns
    -------
    (n_resamples, n_times) float64 array

    Examples
    --------
    >>> resampled(6, 3, 2, seed=0).sum(axis=1)
    array([6., 6.])
    """
    rng = np.random.default_rng(seed)
    n_blocks = math.ceil(n_times / block)
    starts = rng.integers(n_times, size=(n_resamples, n_blocks, 1))
    drawn = ((starts + np.arange(block)) % n_times).reshape(n_resamples, -1)[:, :n_times]
    flat = drawn + n_times * np.arange(n_resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=n_resamples * n_times)
    return counts.reshape(n_resamples, n_times).astype("float64")


def interval(values: np.ndarray, confidence: float, n_blocks: float) -> np.ndarray:
    """Lower and upper percentile (2, ...) of resampled values (resample, ...).

    Percentiles alone would be too near to each other where blocks are few: resamples of n blocks
    vary less than samples do, by (n - 1) / n in the variance, and their spread is uncertain itself.
    So the percentiles are further out, as far as the normal distribution puts the quantiles of
    Student's t times the root of n / (n - 1) (Hesterberg 2015, doi:10.1080/00031305.2015.1089789,
    the expanded percentile interval).

    Parameters
    ----------
    values : numpy.ndarray
        Resampled values (resample, ...).
    confidence : float
        Share of samples whose interval should hold what is estimated.
    n_blocks : float
        Blocks in the sample, more than one.

    Returns
    -------
    (2, ...) float64 array
        NaN where a resample has no value.

    Examples
    --------
    >>> interval(np.arange(101.0), 0.9, n_blocks=1e6).round(2)
    array([ 5., 95.])
    >>> interval(np.arange(101.0), 0.9, n_blocks=8).round(2)
    array([ 2.14, 97.86])
    """
    t = stdtrit(n_blocks - 1, (1 - confidence) / 2)
    tail = ndtr(t * math.sqrt(n_blocks / (n_blocks - 1)))
    found: np.ndarray = np.quantile(values, [tail, 1 - tail], axis=0)
    return found
