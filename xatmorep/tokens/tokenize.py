"""Grid points to space-time tokens and back: blocks of an array, nothing else."""

from __future__ import annotations

from typing import Any, TypeVar

from xatmorep.errors import ConventionError

__all__ = ["tokenize", "untokenize"]

# numpy and dask arrays and torch tensors alike: only methods that all of them have are called.
ArrayT = TypeVar("ArrayT")


def tokenize(array: ArrayT, token_shape: tuple[int, int, int]) -> ArrayT:
    """Cut the last three dimensions into tokens.

    Parameters
    ----------
    array : (..., T*t, A*a, O*o) array or tensor
        Values on the grid, (time, latitude, longitude) last.
    token_shape : (t, a, o)
        Grid points of a token in (time, latitude, longitude).

    Returns
    -------
    (..., T, A, O, t, a, o) array or tensor
        Token ``[..., T, A, O]`` and the point inside it, both in (time, latitude, longitude)
        order. A view where the input's memory allows it.

    Raises
    ------
    ConventionError
        If the tokens do not divide the array.

    Examples
    --------
    >>> import numpy as np
    >>> grid = np.arange(2 * 4 * 6).reshape(2, 4, 6)
    >>> tokens = tokenize(grid, (1, 2, 3))
    >>> tokens.shape
    (2, 2, 2, 1, 2, 3)
    >>> tokens[0, 0, 1, 0]
    array([[ 3,  4,  5],
           [ 9, 10, 11]])
    """
    grid: Any = array
    shape = tuple(grid.shape)
    if len(shape) < 3 or any(n % k for n, k in zip(shape[-3:], token_shape, strict=True)):
        raise ConventionError(
            f"tokens of shape {tuple(token_shape)} do not divide an array of shape {shape}: the "
            "last three dimensions (time, latitude, longitude) must be multiples of the token"
        )
    split = [part for n, k in zip(shape[-3:], token_shape, strict=True) for part in (n // k, k)]
    blocks = grid.reshape(*shape[:-3], *split)  # (..., T, t, A, a, O, o)
    tokens: ArrayT = blocks.swapaxes(-5, -4).swapaxes(-3, -2).swapaxes(-4, -3)
    return tokens


def untokenize(tokens: ArrayT) -> ArrayT:
    """Put tokens back on the grid: the exact inverse of `tokenize`.

    Parameters
    ----------
    tokens : (..., T, A, O, t, a, o) array or tensor
        Tokens as `tokenize` gives them.

    Returns
    -------
    (..., T*t, A*a, O*o) array or tensor
        Values on the grid.

    Raises
    ------
    ConventionError
        If the array has fewer than six dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> grid = np.random.default_rng(0).normal(size=(5, 2, 4, 6))
    >>> bool((untokenize(tokenize(grid, (1, 2, 3))) == grid).all())
    True
    """
    blocks: Any = tokens
    shape = tuple(blocks.shape)
    if len(shape) < 6:
        raise ConventionError(
            "tokens have (time, latitude, longitude) and three dimensions inside the token as "
            f"last six dimensions; an array of shape {shape} has not"
        )
    sizes = [n * k for n, k in zip(shape[-6:-3], shape[-3:], strict=True)]
    blocks = blocks.swapaxes(-4, -3).swapaxes(-3, -2).swapaxes(-5, -4)  # (..., T, t, A, a, O, o)
    grid: ArrayT = blocks.reshape(*shape[:-6], *sizes)
    return grid
