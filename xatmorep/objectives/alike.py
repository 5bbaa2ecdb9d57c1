"""Masks that the fields of a sample have in common.

Fields share a neighborhood, but not the size of their tokens. What they have in common is told in
coordinates that run from 0 to 1 along each side of the neighborhood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from xatmorep.objectives.strategies import STRATEGIES, whole_levels

__all__ = ["alike"]

Masks = dict[str, Tensor]


def alike(
    strategy: str,
    present: Mapping[str, Tensor],
    rates: Tensor,
    generator: torch.Generator,
    *,
    together: bool,
) -> Masks:
    """Draw one mask for all fields.

    Parameters
    ----------
    strategy : str
        One of `STRATEGIES`.

        What hides tokens is drawn on a common grid, that of the largest tokens in each dimension,
        through all levels. A token is hidden if its center lies in a hidden cell. Where the
        larger tokens are made of whole smaller ones, exactly the same places are hidden in all
        fields, else up to half of a token.

        What hides times draws a span of time, and every token that reaches into it is hidden. At
        least one token time of each field is not (at both ends, for `interpolation`).
    present : mapping of str to Tensor
        Bool ``(batch, level, T, A, O)`` by field, on the device of the generator: tokens that can
        be hidden because they hold data.
    rates : Tensor
        Share to hide in each sample, ``(batch,)``.
    generator : torch.Generator
        Source of the draws. They depend on the names of the fields, not on their order.
    together : bool
        For whole levels: whether those of the same number are hidden in all fields, or levels of
        one field. Fields of one level are left as they are.

    Returns
    -------
    dict of str to Tensor
        Bool ``(batch, level, T, A, O)`` by field, True = hidden.

    Examples
    --------
    >>> present = {"u": torch.ones(1, 1, 6, 1, 1).bool(), "v": torch.ones(1, 1, 3, 1, 1).bool()}
    >>> generator = torch.Generator().manual_seed(0)
    >>> masks = alike("forecast", present, torch.tensor([0.5]), generator, together=False)
    >>> masks["u"].flatten().int(), masks["v"].flatten().int()
    (tensor([0, 0, 0, 1, 1, 1], dtype=torch.int32), tensor([0, 1, 1], dtype=torch.int32))
    """
    present = {name: present[name] for name in sorted(present)}
    hides = STRATEGIES[strategy].hides
    if hides == "times":
        return _times(strategy, present, rates, generator)
    if hides == "fields":
        return _fields(strategy, present, rates, generator)
    if hides == "levels":
        levels = _same_levels if together else _levels_of_one
        return levels(present, rates, generator)
    return _places(strategy, present, rates, generator)


def _times(
    strategy: str, present: Mapping[str, Tensor], rates: Tensor, generator: torch.Generator
) -> Masks:
    """Draw a span on a time axis of which every token has whole steps."""
    times = [mask.shape[2] for mask in present.values()]
    steps = math.lcm(*times)
    span = STRATEGIES[strategy].draw(
        (len(rates), 1, steps, 1, 1), rates, generator, margin=steps // min(times)
    )
    return {
        name: span.unflatten(2, (mask.shape[2], -1)).any(3) & mask for name, mask in present.items()
    }


def _fields(
    strategy: str, present: Mapping[str, Tensor], rates: Tensor, generator: torch.Generator
) -> Masks:
    any_data = torch.stack([mask.flatten(1).any(1) for mask in present.values()], dim=1)
    mask = STRATEGIES[strategy].draw(tuple(any_data.shape), rates, generator, any_data)
    return {
        name: mask[:, number, None, None, None, None] & there
        for number, (name, there) in enumerate(present.items())
    }


def _same_levels(present: Mapping[str, Tensor], rates: Tensor, generator: torch.Generator) -> Masks:
    most = max(mask.shape[1] for mask in present.values())
    any_data = torch.zeros((len(rates), most, 1, 1, 1), dtype=torch.bool, device=rates.device)
    for mask in present.values():
        if mask.shape[1] > 1:
            any_data[:, : mask.shape[1]] |= mask.any((2, 3, 4), keepdim=True)
    hidden = whole_levels(tuple(any_data.shape), rates, generator, any_data)
    return {
        name: (hidden[:, : mask.shape[1]] if mask.shape[1] > 1 else torch.zeros_like(mask)) & mask
        for name, mask in present.items()
    }


def _levels_of_one(
    present: Mapping[str, Tensor], rates: Tensor, generator: torch.Generator
) -> Masks:
    masks = {
        name: whole_levels(tuple(mask.shape), rates, generator, mask)
        for name, mask in present.items()
    }
    any_hidden = torch.stack([mask.flatten(1).any(1) for mask in masks.values()], dim=1)
    order = torch.rand(
        any_hidden.shape, generator=generator, device=rates.device, dtype=torch.float64
    )
    one = order.masked_fill(~any_hidden, -1).argmax(1)
    return {
        name: mask & (one == number)[:, None, None, None, None]
        for number, (name, mask) in enumerate(masks.items())
    }


def _places(
    strategy: str, present: Mapping[str, Tensor], rates: Tensor, generator: torch.Generator
) -> Masks:
    sizes = torch.tensor([mask.shape[2:] for mask in present.values()]).amin(0).tolist()
    any_data = torch.zeros((len(rates), 1, *sizes), dtype=torch.bool, device=rates.device)
    for mask in present.values():
        there = mask.any(1, keepdim=True).double()
        for dim, cells in enumerate(sizes, start=2):
            cell = _cell_of_tokens(mask.shape[dim], cells).to(rates.device)
            shape = (*there.shape[:dim], cells, *there.shape[dim + 1 :])
            there = there.new_zeros(shape).index_add(dim, cell, there)
        any_data |= there > 0
    hidden = STRATEGIES[strategy].draw(tuple(any_data.shape), rates, generator, any_data)
    return {name: _on_tokens(hidden, mask) & mask for name, mask in present.items()}


def _on_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Cells (batch, 1, ...) read at the centers of the tokens of a mask (batch, level, T, A, O)."""
    for dim in (2, 3, 4):
        cell = _cell_of_tokens(mask.shape[dim], hidden.shape[dim]).to(hidden.device)
        hidden = hidden.index_select(dim, cell)
    return hidden


def _cell_of_tokens(tokens: int, cells: int) -> Tensor:
    """Number of the cell that holds the center of each token along an axis (the later of two).

    As there are no more cells than tokens, every cell holds the center of one at least.
    """
    return (2 * torch.arange(tokens) + 1) * cells // (2 * tokens)
