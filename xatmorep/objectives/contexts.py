"""What contexts may show of a neighborhood in which tokens are hidden: nothing of those."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xatmorep.objectives.masking import Masked, withhold
from xatmorep.tokens.spec import InputSpec

__all__ = ["with_contexts"]


def with_contexts(
    masked: Masked,
    contexts: Mapping[str, Tensor],
    inputs: InputSpec,
    whole: Mapping[str, Tensor] | None = None,
) -> Masked:
    """Add the contexts to what the network reads of fields, without what would tell what is hidden.

    A token of a context is blank if it

    - overlaps a hidden token of its source, in level, time and place;
    - overlaps a time of the source that is hidden everywhere, wherever it lies: in a forecast
      nobody knows what happens around either;
    - lies at a level of the source of which all times are so hidden, at any time;
    - has no finite value.

    It does not matter how a hidden token is treated (withheld, noised, ...).

    Parameters
    ----------
    masked : Masked
        The fields.
    contexts : mapping of str to Tensor
        Normalized values ``(batch, level, T, A, O, t, a, o)`` of each context by name, as they
        are; may hold NaN.
    inputs : InputSpec
        What the model reads.
    whole : mapping of str to Tensor, optional
        Bool ``(batch, level, T)`` by source: token times that are hidden everywhere. Those of
        which nothing is visible in the neighborhood, if not given.

    Returns
    -------
    Masked
        Contexts are never hidden.

    Examples
    --------
    >>> inputs = InputSpec.model_validate({
    ...     "neighborhood": {"shape": (2, 1, 4), "time_step": 6, "grid_step": (1, 1)},
    ...     "fields": [{"name": "u", "units": "m s-1", "token_shape": (1, 1, 1)}],
    ...     "contexts": [{"name": "u_around", "field": "u", "coarsen": (1, 1, 2),
    ...                   "shape": (2, 1, 4), "token_shape": (1, 1, 1)}],
    ... })
    >>> hidden = torch.zeros(1, 1, 2, 1, 4, dtype=torch.bool)
    >>> hidden[0, 0, 0, 0, 1] = True  # the first time, the second of four places
    >>> hidden[0, 0, 1] = True  # all of the second time
    >>> masked = withhold({"u": torch.ones(1, 1, 2, 1, 4, 1, 1, 1)}, {"u": hidden})
    >>> shown = with_contexts(masked, {"u_around": torch.ones(1, 1, 2, 1, 4, 1, 1, 1)}, inputs)
    >>> shown.blank["u_around"].squeeze().int()
    tensor([[0, 1, 0, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    if not inputs.contexts:
        return masked
    banned = {}
    for context in inputs.contexts:
        source, known = context.field, inputs.field(context.field).levels
        levels = [known.index(level) for level in context.levels or known] or [0]
        hidden = masked.hidden[source][:, levels]
        if whole is None:
            # What has no data can't be hidden, and isn't visible.
            seen = (~hidden & ~masked.blank[source][:, levels]).flatten(3).any(3)
            times = hidden.flatten(3).any(3) & ~seen
        else:
            times = whole[source][:, levels]
        banned[context.name] = _overlapping(inputs, context.name, hidden, times)
    treated = withhold(contexts, banned)
    none = {name: torch.zeros_like(mask) for name, mask in banned.items()}
    return Masked(
        {**masked.tokens, **treated.tokens},
        {**masked.hidden, **none},
        {**masked.blank, **treated.blank},
    )


def _overlapping(inputs: InputSpec, name: str, hidden: Tensor, whole: Tensor) -> Tensor:
    """Tokens (batch, level, T, A, O) of a context that overlap what is hidden of its levels."""
    time, latitude, longitude = (shared.to(hidden.device) for shared in _shared(inputs, name))
    count = torch.einsum("blijk,ti,aj,ok->bltao", hidden.float(), time, latitude, longitude)
    times = torch.einsum("bli,ti->blt", whole.float(), time) > 0
    times |= whole.all(2, keepdim=True)
    return (count > 0) | times[..., None, None]


def _shared(inputs: InputSpec, name: str) -> list[Tensor]:
    """Whether tokens of a context (rows) and of its source (columns) overlap, along each axis."""
    (source,) = (context.field for context in inputs.contexts if context.name == name)
    shared = []
    for axis in range(3):
        own, first = inputs.token_extent(name)[axis], inputs.first_point(name)[axis]
        other = inputs.token_extent(source)[axis]
        start = first + own * torch.arange(inputs.token_grid(name)[axis])[:, None]
        there = other * torch.arange(inputs.token_grid(source)[axis])
        shared.append(((start < there + other) & (there < start + own)).float())
    return shared
