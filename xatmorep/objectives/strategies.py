"""Strategies of masking: which tokens of a neighborhood the model has to predict.

Each is a function of the tokens of one field, see `Draw`; `STRATEGIES` has them by name. In every
mask True means hidden. For what several fields have in common see `xatmorep.objectives.alike`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = [
    "STRATEGIES",
    "Draw",
    "Strategy",
    "block",
    "box",
    "forecast",
    "hindcast",
    "interpolation",
    "large",
    "random_tokens",
    "slab",
    "whole_fields",
    "whole_levels",
]

LEAST_OF_LARGE = 0.75
"""Share of the tokens that `large` hides at rate 0; at rate 1 it hides all but one."""


class Draw(Protocol):
    """A strategy for the tokens of one field."""

    def __call__(
        self,
        shape: tuple[int, ...],
        rate: float | Tensor,
        generator: torch.Generator,
        present: Tensor | None = None,
    ) -> Tensor:
        """Draw a mask.

        Parameters
        ----------
        shape : tuple of int
            ``(batch, level, T, A, O)``: samples, and the tokens of each.
        rate : float or Tensor
            Share to hide, for all samples or one for each (``(batch,)``). Where it is positive at
            least one of the things that are hidden as a whole (tokens, columns, times, levels,
            ...) is hidden; in any case at least one is not.
        generator : torch.Generator
            Source of the draw; the mask is returned on its device.
        present : Tensor, optional
            Bool, of `shape`: tokens that can be hidden because they hold data. Default: all.

        Returns
        -------
        Tensor
            Bool, of `shape`, True = hidden.
        """


def random_tokens(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
) -> Tensor:
    """Hide tokens at random, anywhere in the neighborhood.

    Parameters
    ----------
    shape : tuple of int
        ``(batch, ...)``: samples, and the tokens of each.
    rate : float or Tensor
        Share of the tokens to hide, for all samples or one for each (``(batch,)``).
    generator : torch.Generator
        Source of the draw; the mask is returned on its device.
    present : Tensor, optional
        Bool, of `shape`: tokens that can be hidden because they hold data. Default: all.

    Returns
    -------
    Tensor
        Bool, of `shape`, True = hidden. Of the n present tokens of a sample ``round(rate * n)``
        are hidden; where the rate is positive at least one, and in any case at least one is not.

    Examples
    --------
    >>> mask = random_tokens((2, 1, 1, 3, 4), 0.5, torch.Generator().manual_seed(0))
    >>> mask.flatten(1).sum(1)
    tensor([6, 6])
    """
    return _hide_first(shape, _uniform(shape, generator), rate, present)


def block(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
) -> Tensor:
    """Hide one block in space, through all times and levels; see `Draw`.

    It grows from a random place as a rectangle of random proportions, within the neighborhood,
    until it has the share of the columns that is asked for; its last row or column may be
    incomplete.

    Examples
    --------
    >>> mask = block((1, 2, 3, 4, 6), 0.25, torch.Generator().manual_seed(2))
    >>> mask[0, 0, 0].int()
    tensor([[0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0, 0]], dtype=torch.int32)
    >>> bool((mask == mask[:, :1, :1]).all())
    True
    """
    batch, _, _, rows, columns = shape
    order = _distance(batch, (rows, columns), generator)
    return _hide_first(shape, order[:, None, None], rate, present)


def box(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
) -> Tensor:
    """Hide one box in space and time, through all levels; see `Draw` and `block`.

    Examples
    --------
    >>> mask = box((1, 1, 3, 2, 4), 0.5, torch.Generator().manual_seed(1))
    >>> mask[0, 0, 1].int()
    tensor([[1, 1, 1, 1],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    order = _distance(shape[0], shape[2:], generator)
    return _hide_first(shape, order[:, None], rate, present)


def large(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
) -> Tensor:
    """Hide most of the neighborhood; see `Draw`.

    What stays visible is one box through all levels, or tokens at random; each in every other
    sample on average. The share that is hidden grows with the rate from three quarters to all.

    Examples
    --------
    >>> large((1, 1, 4, 4, 4), 0.5, torch.Generator().manual_seed(0)).double().mean()
    tensor(0.8750, dtype=torch.float64)
    """
    share = LEAST_OF_LARGE + (1 - LEAST_OF_LARGE) * _rates(rate, shape[0], generator.device)
    distance = _distance(shape[0], shape[2:], generator)
    around = _hide_first(shape, -distance[:, None], share, present)
    scattered = random_tokens(shape, share, generator, present)
    coin = _uniform((shape[0], 1, 1, 1, 1), generator) < 0.5
    return torch.where(coin, around, scattered)


def slab(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
    *,
    margin: int = 1,
) -> Tensor:
    """Hide consecutive token times, anywhere; see `Draw`.

    This and the other strategies of whole times go by time alone: where data are missing there may
    be nothing to hide, or nothing to see. The number of times is the rate times their number,
    rounded up or down at random so that it is right on average.

    Parameters
    ----------
    shape, rate, generator, present
        See `Draw`.
    margin : int
        Times that stay visible at one end at least.

    Examples
    --------
    >>> slab((3, 1, 5, 1, 1), 0.4, torch.Generator().manual_seed(0)).flatten(1).int()
    tensor([[0, 0, 0, 1, 1],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 1, 1]], dtype=torch.int32)
    """
    times = shape[2]
    count = _times_to_hide(shape, rate, generator, most=times - margin)
    # Starts that leave the margin behind the slab, and as many that leave it before.
    behind = times - margin - count + 1
    starts = torch.minimum(2 * behind, times - count + 1)
    start = _one_of(starts, generator)
    start = torch.where(start < behind, start, start + times - count + 1 - starts)
    return _hide_times(shape, start, count, present)


def forecast(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
    *,
    margin: int = 1,
) -> Tensor:
    """Hide the last token times; see `slab` (`margin`: times that stay visible).

    Examples
    --------
    >>> forecast((1, 1, 4, 1, 1), 0.5, torch.Generator().manual_seed(0)).flatten().int()
    tensor([0, 0, 1, 1], dtype=torch.int32)
    """
    count = _times_to_hide(shape, rate, generator, most=shape[2] - margin)
    return _hide_times(shape, shape[2] - count, count, present)


def hindcast(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
    *,
    margin: int = 1,
) -> Tensor:
    """Hide the first token times; see `slab` (`margin`: times that stay visible).

    Examples
    --------
    >>> hindcast((1, 1, 4, 1, 1), 0.5, torch.Generator().manual_seed(0)).flatten().int()
    tensor([1, 1, 0, 0], dtype=torch.int32)
    """
    count = _times_to_hide(shape, rate, generator, most=shape[2] - margin)
    return _hide_times(shape, torch.zeros_like(count), count, present)


def interpolation(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
    *,
    margin: int = 1,
) -> Tensor:
    """Hide consecutive token times in between; see `slab` (`margin`: visible at both ends).

    Examples
    --------
    >>> interpolation((1, 1, 3, 1, 1), 0.9, torch.Generator().manual_seed(0)).flatten().int()
    tensor([0, 1, 0], dtype=torch.int32)
    """
    inner = shape[2] - 2 * margin
    count = _times_to_hide(shape, rate, generator, most=inner)
    return _hide_times(shape, margin + _one_of(inner - count + 1, generator), count, present)


def whole_levels(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
) -> Tensor:
    """Hide whole levels, drawn at random; see `Draw`. Their number is rounded as in `slab`.

    Examples
    --------
    >>> mask = whole_levels((1, 4, 1, 1, 2), 0.5, torch.Generator().manual_seed(0))
    >>> mask.flatten(2).int().sum(2).sort().values
    tensor([[0, 0, 2, 2]])
    """
    order = _uniform((*shape[:2], 1, 1, 1), generator)
    return _hide_first(shape, order, rate, present, _uniform(shape[:1], generator))


def whole_fields(
    shape: tuple[int, ...],
    rate: float | Tensor,
    generator: torch.Generator,
    present: Tensor | None = None,
) -> Tensor:
    """Hide whole fields, drawn at random. Their number is rounded as in `slab`.

    As `Draw`, but of shape ``(batch, fields)``; `present` says which fields hold any data.

    Examples
    --------
    >>> whole_fields((2, 4), 0.5, torch.Generator().manual_seed(0)).sum(1)
    tensor([2, 2])
    """
    order = _uniform(shape, generator)
    return _hide_first(shape, order, rate, present, _uniform(shape[:1], generator))


@dataclass(frozen=True)
class Strategy:
    """A strategy, and what has to be known about it to apply it to several fields.

    Attributes
    ----------
    draw : callable
        The function, see `Draw`.
    hides : {"tokens", "times", "levels", "fields"}
        What is hidden as a whole. Times and fields are always drawn for all fields together, and
        hidden times are always withheld, whatever the shares of a configuration.
    needs : str
        What a model has to have so that some can be hidden and some stay visible.
    """

    draw: Callable[..., Tensor]
    hides: Literal["tokens", "times", "levels", "fields"]
    needs: str


_TIMES = "at least {} token times in every field"

STRATEGIES: dict[str, Strategy] = {
    "random": Strategy(random_tokens, "tokens", "at least two tokens"),
    "space": Strategy(block, "tokens", "at least two tokens side by side in space"),
    "time": Strategy(slab, "times", _TIMES.format("two")),
    "space_time": Strategy(box, "tokens", "at least two tokens in space and time"),
    "forecast": Strategy(forecast, "times", _TIMES.format("two")),
    "hindcast": Strategy(hindcast, "times", _TIMES.format("two")),
    "interpolation": Strategy(interpolation, "times", _TIMES.format("three")),
    "fields": Strategy(whole_fields, "fields", "at least two fields"),
    "levels": Strategy(whole_levels, "levels", "a field with at least two levels"),
    "large": Strategy(large, "tokens", "at least two tokens in space and time"),
}
"""Strategies by the names that configurations use."""


def _uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.rand(
        tuple(shape), generator=generator, device=generator.device, dtype=torch.float64
    )


def _one_of(n: Tensor, generator: torch.Generator) -> Tensor:
    """One of the numbers 0, 1, ..., n - 1 for each sample."""
    return (_uniform(n.shape, generator) * n).long()


def _rates(rate: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """One rate for each sample."""
    return torch.as_tensor(rate, dtype=torch.float64, device=device).expand(batch)


def _hide_first(
    shape: tuple[int, ...],
    order: Tensor,
    rate: float | Tensor,
    present: Tensor | None,
    rounding: Tensor | None = None,
) -> Tensor:
    """Hide what comes first in an order, in whole pieces.

    The dimensions in which `order` (batch, ...) has size 1 and `shape` has not are those through
    which a piece reaches. Pieces without data don't count. Their number is rounded to the nearest
    one, or at random by `rounding` (batch,), uniform between 0 and 1.
    """
    device = order.device
    if present is None:
        present = torch.ones(shape, dtype=torch.bool, device=device)
    present = present.to(device)
    through = [d for d, size in enumerate(order.shape) if size < shape[d]]
    pieces = (present.any(through, keepdim=True) if through else present).flatten(1)
    rates = _rates(rate, shape[0], device)
    available = pieces.sum(1)
    wanted = rates * available
    count = wanted.round() if rounding is None else (wanted + rounding).floor()
    count = torch.maximum(count.long(), (rates > 0).long())
    count = torch.minimum(count, (available - 1).clamp(min=0))
    place = order.flatten(1).masked_fill(~pieces, torch.inf).argsort(dim=1).argsort(dim=1)
    return (place < count[:, None]).reshape(order.shape) & present


def _distance(batch: int, sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Distance of the cells of a grid, (batch, *sizes), from a random one in each sample.

    Cells up to a distance are a box of random proportions, since the largest distance along an axis
    counts. The small sum orders the cells of a face, from one on, so that no two are equally far.
    """
    n = len(sizes)
    center, stretch = _uniform((batch, n), generator), _uniform((batch, n), generator)
    largest = total = torch.zeros((batch, *[1] * n), dtype=torch.float64, device=center.device)
    for axis, size in enumerate(sizes):
        position = (torch.arange(size, dtype=torch.float64, device=center.device) + 0.5) / size
        away = (position - center[:, axis, None]).abs() * 4 ** stretch[:, axis, None]
        away = away - away.amin(1, keepdim=True)
        away = away.reshape(batch, *[1] * axis, size, *[1] * (n - axis - 1))
        largest, total = torch.maximum(largest, away), total + away
    return largest + 1e-6 * total


def _times_to_hide(
    shape: tuple[int, ...], rate: float | Tensor, generator: torch.Generator, most: int
) -> Tensor:
    """Number of token times to hide in each sample, (batch,)."""
    rates = _rates(rate, shape[0], generator.device)
    count = (rates * shape[2] + _uniform(shape[:1], generator)).floor()
    return torch.maximum(count, (rates > 0).double()).clamp(max=max(most, 0)).long()


def _hide_times(
    shape: tuple[int, ...], start: Tensor, count: Tensor, present: Tensor | None
) -> Tensor:
    """Hide `count` token times from `start` on, both (batch,)."""
    time = torch.arange(shape[2], device=start.device)
    mask = (time >= start[:, None]) & (time < (start + count)[:, None])
    mask = mask[:, None, :, None, None].expand(shape)
    return mask.clone() if present is None else mask & present.to(start.device)
