"""What is hidden from the model in training, and what it sees in the place of it.

A strategy such as `random_tokens` says which tokens are hidden (True = hidden); `hide` draws the
rate, asks the strategy and treats the hidden tokens. All randomness comes from the generator that
is passed in: the same seed gives the same masks, on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

__all__ = ["Masked", "MaskingConfig", "hide", "random_tokens", "target_rows", "withhold"]

Share = Annotated[float, Field(ge=0, le=1)]

# Trailing dimensions of the values of a token: (time, latitude, longitude).
POINTS = (-3, -2, -1)


class MaskingConfig(BaseModel):
    """How much is hidden, and what happens to the hidden tokens.

    Attributes
    ----------
    rate : tuple of float
        Lowest and highest share of the tokens that is hidden; drawn uniformly for each sample
        and field.
    replaced, noised, coarsened, left : float
        Shares of the hidden tokens that are withheld (zeros, and marked as blank), mixed with
        noise, averaged over blocks of grid points, and left as they are. They sum to one. The
        model has to predict all four kinds.

    Examples
    --------
    >>> MaskingConfig(rate=(0.5, 0.9)).rate
    (0.5, 0.9)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: tuple[Share, Share] = (0.1, 0.9)
    replaced: Share = 0.8
    noised: Share = 0.1
    coarsened: Share = 0.05
    left: Share = 0.05

    @model_validator(mode="after")
    def _check(self) -> MaskingConfig:
        if self.rate[0] > self.rate[1]:
            raise ValueError(f"rate is (lowest, highest): {self.rate} is the wrong way round")
        total = self.replaced + self.noised + self.coarsened + self.left
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"replaced, noised, coarsened and left are shares of the hidden tokens and must "
                f"sum to one: {self.replaced} + {self.noised} + {self.coarsened} + {self.left} "
                f"= {total:g}"
            )
        return self


@dataclass(frozen=True)
class Masked:
    """What the network reads once tokens are hidden; all by field name.

    Attributes
    ----------
    tokens : dict of Tensor
        Values ``(batch, level, T, A, O, t, a, o)``, finite everywhere.
    hidden : dict of Tensor
        Bool ``(batch, level, T, A, O)``: tokens that the model has to predict.
    blank : dict of Tensor
        Bool ``(batch, level, T, A, O)``: tokens whose values are withheld (all zeros).
    """

    tokens: dict[str, Tensor]
    hidden: dict[str, Tensor]
    blank: dict[str, Tensor]


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
    device = generator.device
    if present is None:
        present = torch.ones(shape, dtype=torch.bool, device=device)
    present = present.to(device).flatten(1)
    rates = torch.as_tensor(rate, dtype=torch.float64, device=device).expand(shape[0])
    available = present.sum(1)
    count = torch.maximum((rates * available).round().long(), (rates > 0).long())
    count = torch.minimum(count, (available - 1).clamp(min=0))
    order = torch.rand(present.shape, generator=generator, device=device, dtype=torch.float64)
    place = order.masked_fill(~present, torch.inf).argsort(dim=1).argsort(dim=1)
    return (place < count[:, None]).reshape(shape)


def hide(tokens: Mapping[str, Tensor], config: MaskingConfig, generator: torch.Generator) -> Masked:
    """Hide random tokens of each field, independently of the other fields.

    Parameters
    ----------
    tokens : mapping of str to Tensor
        Normalized values ``(batch, level, T, A, O, t, a, o)`` by field; may hold NaN.
    config : MaskingConfig
        Rates and shares.
    generator : torch.Generator
        Source of all draws. They depend on the names of the fields, not on their order.

    Returns
    -------
    Masked
        Values that aren't finite are zeros for the network. Tokens without any finite value are
        blank and never hidden, since there is nothing to predict. See `target_rows` for what the
        network is compared with.

    Examples
    --------
    >>> tokens = {"2m_temperature": torch.randn(2, 1, 3, 2, 4, 1, 6, 6)}
    >>> masked = hide(tokens, MaskingConfig(rate=(0.5, 0.5)), torch.Generator().manual_seed(1))
    >>> masked.hidden["2m_temperature"].flatten(1).sum(1)
    tensor([12, 12])
    """
    seen, hidden, blank = {}, {}, {}
    low, high = config.rate
    for name in sorted(tokens):
        values = tokens[name]
        present = values.isfinite().any(POINTS)
        draw = torch.rand(
            len(values), generator=generator, device=generator.device, dtype=torch.float64
        )
        mask = random_tokens(
            tuple(present.shape), low + (high - low) * draw, generator, present.to(draw.device)
        )
        hidden[name] = mask.to(values.device)
        seen[name], withheld = _treat(values, hidden[name], config, generator)
        blank[name] = withheld | ~present
    return Masked(seen, hidden, blank)


def withhold(tokens: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Masked:
    """Withhold the values of given tokens: what a task does, where nothing is drawn.

    Parameters
    ----------
    tokens : mapping of str to Tensor
        Normalized values ``(batch, level, T, A, O, t, a, o)`` by field; may hold NaN.
    hidden : mapping of str to Tensor
        Bool ``(batch, level, T, A, O)`` by field.

    Returns
    -------
    Masked
        All hidden tokens are blank, and so are those without any finite value.

    Examples
    --------
    >>> hidden = {"t": torch.tensor([True, False]).reshape(1, 1, 2, 1, 1)}
    >>> masked = withhold({"t": torch.ones(1, 1, 2, 1, 1, 1, 1, 2)}, hidden)
    >>> masked.tokens["t"].flatten()
    tensor([0., 0., 1., 1.])
    """
    seen, blank = {}, {}
    for name, values in tokens.items():
        finite = values.isfinite()
        blank[name] = hidden[name] | ~finite.any(POINTS)
        seen[name] = values.where(finite & ~blank[name][..., None, None, None], 0.0)
    return Masked(seen, dict(hidden), blank)


def target_rows(values: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Values that the network has to predict, and the weight of each.

    Parameters
    ----------
    values : Tensor
        Normalized values ``(batch, level, T, A, O, t, a, o)`` before anything was hidden.
    hidden : Tensor
        Bool ``(batch, level, T, A, O)``.

    Returns
    -------
    target, weight : Tensor
        Both ``(R, P)``: one row for each hidden token in the order of boolean indexing, one
        column for each of its points. Points that aren't finite have target 0 and weight 0, the
        others weight 1.

    Examples
    --------
    >>> values = torch.tensor([[1.0, 2.0], [3.0, torch.nan]]).reshape(1, 1, 2, 1, 1, 1, 1, 2)
    >>> target_rows(values, torch.tensor([False, True]).reshape(1, 1, 2, 1, 1))
    (tensor([[3., 0.]]), tensor([[1., 0.]]))
    """
    rows = values[hidden].flatten(1)
    finite = rows.isfinite()
    return rows.where(finite, 0.0), finite.to(rows.dtype)


def _treat(
    values: Tensor, hidden: Tensor, config: MaskingConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Values for the network and the tokens withheld from it, for one field."""
    draw = torch.rand(hidden.shape, generator=generator, device=generator.device)
    draw = draw.to(hidden.device)
    noise_from = config.replaced
    coarse_from = noise_from + config.noised
    left_from = coarse_from + config.coarsened
    withheld = hidden & (draw < noise_from)
    noised = hidden & (draw >= noise_from) & (draw < coarse_from)
    coarsened = hidden & (draw >= coarse_from) & (draw < left_from)

    finite = values.isfinite()
    seen = values.where(finite & ~withheld[..., None, None, None], 0.0)
    seen[noised] = _noise(seen[noised], generator)
    seen[coarsened] = _coarsen(seen[coarsened], finite[coarsened], generator)
    return seen.where(finite, 0.0), withheld


def _noise(values: Tensor, generator: torch.Generator) -> Tensor:
    """Mix tokens ``(n, t, a, o)`` with noise: (1 - w) x + w e, w uniform, one for each token.

    The values are normalized, so that noise e of unit variance is as strong as they are. A pure
    sum of signal and noise would give itself away by its variance.
    """
    device = generator.device
    share = torch.rand((len(values), 1, 1, 1), generator=generator, device=device)
    noise = torch.randn(values.shape, generator=generator, device=device)
    share, noise = share.to(values), noise.to(values)
    return (1 - share) * values + share * noise


def _coarsen(values: Tensor, finite: Tensor, generator: torch.Generator) -> Tensor:
    """Replace points of tokens ``(n, t, a, o)`` by means over blocks in latitude and longitude.

    Blocks have f x f points, f drawn for each token between 2 and the longer side of it; those
    at the southern and eastern end are smaller where f doesn't divide the side. The points of a
    block have equal weight, and those that aren't finite none. A token of one point in space
    stays as it is.
    """
    rows, columns = values.shape[-2:]
    longest = max(rows, columns)
    if longest == 1 or not len(values):
        return values
    device = generator.device
    factor = torch.randint(2, longest + 1, (len(values),), generator=generator, device=device)
    factor = factor.to(values.device)
    down, along = _same_block(rows, factor).to(values), _same_block(columns, factor).to(values)
    total = torch.einsum("nij,ntjk,nkl->ntil", down, values, along)
    count = torch.einsum("nij,ntjk,nkl->ntil", down, finite.to(values), along)
    return total / count.clamp(min=1)


def _same_block(size: int, factor: Tensor) -> Tensor:
    """Bool ``(n, size, size)``: whether two points lie in the same block of ``factor`` points."""
    block = torch.arange(size, device=factor.device) // factor[:, None]
    return block[:, :, None] == block[:, None, :]
