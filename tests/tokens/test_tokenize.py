"""Tokens against a slow twin, and back to the grid exactly."""

from __future__ import annotations

import itertools

import dask.array
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xatmorep.errors import ConventionError
from xatmorep.tokens.tokenize import tokenize, untokenize

counts = st.tuples(*[st.integers(1, 3)] * 3)
lead = st.lists(st.integers(0, 2), max_size=2).map(tuple)


def slow(grid: np.ndarray, token: tuple[int, int, int]) -> np.ndarray:
    numbers = [n // k for n, k in zip(grid.shape[-3:], token, strict=True)]
    out = np.empty((*grid.shape[:-3], *numbers, *token), grid.dtype)
    for place in itertools.product(*map(range, numbers)):
        block = tuple(slice(i * k, (i + 1) * k) for i, k in zip(place, token, strict=True))
        out[(..., *place, slice(None), slice(None), slice(None))] = grid[(..., *block)]
    return out


@given(st.data(), counts, counts, lead)
def test_against_slow_twin_and_back(
    data: st.DataObject,
    grid: tuple[int, int, int],
    token: tuple[int, int, int],
    first: tuple[int, ...],
) -> None:
    shape = (*first, *(n * k for n, k in zip(grid, token, strict=True)))
    values = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(width=32)))
    tokens = tokenize(values, token)
    np.testing.assert_array_equal(tokens, slow(values, token))
    back = untokenize(tokens)
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()  # NaN, infinities and signed zeros as well


def test_numpy_dask_and_torch_agree() -> None:
    grid = np.random.default_rng(0).normal(size=(2, 4, 6, 8))
    expected = tokenize(grid, (2, 3, 4))
    tokens = tokenize(torch.from_numpy(grid), (2, 3, 4))
    np.testing.assert_array_equal(tokens.numpy(), expected)
    np.testing.assert_array_equal(untokenize(tokens).numpy(), grid)
    lazy = tokenize(dask.array.from_array(grid, chunks=(1, 2, 3, 4)), (2, 3, 4))
    np.testing.assert_array_equal(lazy.compute(), expected)


def test_tokens_are_a_view() -> None:
    grid = np.zeros((2, 4, 6))
    assert np.shares_memory(tokenize(grid, (1, 2, 3)), grid)


@pytest.mark.parametrize("shape", [(2, 4, 5), (1, 4, 6), (4, 6)])
def test_refuses_what_tokens_do_not_divide(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConventionError, match=r"tokens of shape \(2, 2, 3\) do not divide"):
        tokenize(np.zeros(shape), (2, 2, 3))


def test_refuses_what_are_no_tokens() -> None:
    with pytest.raises(ConventionError, match="last six dimensions"):
        untokenize(np.zeros((1, 2, 3, 4, 5)))
