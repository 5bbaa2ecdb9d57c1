"""What is hidden from the model in training, and what it sees in the place of it.

Strategies such as `random_tokens` say which tokens are hidden (True = hidden); `hide` draws one,
and a rate, and treats the hidden tokens. All randomness comes from the generator that is passed in:
the same seed gives the same masks, wherever the tokens are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from xatmorep.errors import ConfigError
from xatmorep.objectives.alike import alike
from xatmorep.objectives.strategies import STRATEGIES, random_tokens
from xatmorep.strict import closest
from xatmorep.tokens.spec import InputSpec

__all__ = [
    "Masked",
    "MaskingConfig",
    "check_strategies",
    "hide",
    "random_tokens",
    "target_rows",
    "withhold",
]

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Trailing dimensions of the values of a token: (time, latitude, longitude).
POINTS = (-3, -2, -1)

# Samples of a strategy that are looked at, as some have two ways of hiding.
TRIALS = 16


class MaskingConfig(BaseModel):
    """How much is hidden, and what happens to the hidden tokens.

    Attributes
    ----------
    strategies : dict of str to float
        Weights of the strategies, by their names in `xatmorep.objectives.strategies`. One is drawn
        for each sample, the same for all its fields.
    together : bool
        Whether the same places are hidden in all fields of a sample, or each field has a draw of
        its own. Whole times and whole fields are always drawn for all fields. Of ``"levels"`` the
        same are hidden in all fields, or, if this is false, levels of one field.
    rate : tuple of float
        Lowest and highest share of the tokens that is hidden; drawn uniformly for each sample
        and, where each field has a draw of its own, each field.
    replaced, noised, coarsened, left : float
        Shares of the hidden tokens that are withheld (zeros, and marked as blank), mixed with
        noise, averaged over blocks of grid points, and left as they are. They sum to one. The
        model has to predict all four kinds. Where whole times are hidden all tokens are withheld,
        whatever the shares: the others would show something of the future.

    Examples
    --------
    >>> MaskingConfig(rate=(0.5, 0.9)).rate
    (0.5, 0.9)
    >>> MaskingConfig(strategies={"random": 3, "forecast": 1}).strategies
    {'random': 3.0, 'forecast': 1.0}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategies: dict[str, Weight] = {"random": 1.0}
    together: bool = False
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
        for name in self.strategies:
            if name not in STRATEGIES:
                raise ValueError(f"masking strategy {name!r} is unknown{closest(name, STRATEGIES)}")
        if not any(self.strategies.values()):
            raise ValueError(f"one of the strategies must have weight, found {self.strategies}")
        return self

    @property
    def used(self) -> list[str]:
        """Names of the strategies that have weight, sorted."""
        return sorted(name for name, weight in self.strategies.items() if weight)


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


def check_strategies(config: MaskingConfig, inputs: InputSpec) -> None:
    """Refuse strategies that could hide nothing, or leave nothing visible, in a model.

    Parameters
    ----------
    config : MaskingConfig
        The strategies that are to be used.
    inputs : InputSpec
        What the model reads.

    Raises
    ------
    ConfigError
        Naming the first such strategy, what it needs and what the model has.

    Examples
    --------
    >>> inputs = InputSpec.model_validate({
    ...     "neighborhood": {"shape": (2, 8, 8), "time_step": 6, "grid_step": (1, 1)},
    ...     "fields": [{"name": "2m_temperature", "units": "K", "token_shape": (2, 4, 4)}],
    ... })
    >>> check_strategies(MaskingConfig(strategies={"forecast": 1}), inputs)
    Traceback (most recent call last):
    ...
    xatmorep.errors.ConfigError: masking strategy 'forecast' needs at least two token times in
    every field, but the tokens of a neighborhood (level, time, latitude, longitude) are
    2m_temperature 1 x 1 x 2 x 2: change its shape or token_shape, or take 'forecast' out of
    masking.strategies
    """
    grids = {
        field.name: (field.n_levels, *inputs.token_grid(field.name)) for field in inputs.fields
    }
    present = {name: torch.ones(TRIALS, *grid, dtype=torch.bool) for name, grid in grids.items()}
    some = config.model_copy(update={"rate": (0.5, 0.5)})
    for strategy in config.used:
        masks = _shared(strategy, present, some, torch.Generator())
        if masks is None:
            masks = {
                name: _own(strategy, mask, some, torch.Generator())
                for name, mask in present.items()
            }
        if not torch.stack([mask.flatten(1).any(1) for mask in masks.values()]).any(0).all():
            raise ConfigError(_impossible(strategy, config, grids))
    levels = {field.name: field.levels for field in inputs.fields if field.levels}
    if config.together and "levels" in config.used and len(set(levels.values())) > 1:
        raise ConfigError(
            f"masking strategy 'levels' hides the same levels of all fields where masking.together "
            f"is true, but theirs differ: {levels}; give them the same levels, set together to "
            f"false, or take 'levels' out of masking.strategies"
        )


def hide(tokens: Mapping[str, Tensor], config: MaskingConfig, generator: torch.Generator) -> Masked:
    """Hide tokens of each field.

    Parameters
    ----------
    tokens : mapping of str to Tensor
        Normalized values ``(batch, level, T, A, O, t, a, o)`` by field, of one neighborhood; may
        hold NaN.
    config : MaskingConfig
        Strategies, rates and shares.
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
    device = generator.device
    tokens = {name: tokens[name] for name in sorted(tokens)}
    present = {name: values.isfinite().any(POINTS).to(device) for name, values in tokens.items()}
    chosen = _choices(config, present, generator)
    strict = _of_whole_times(chosen)
    shared = {strategy: _shared(strategy, present, config, generator) for strategy in chosen}
    seen, hidden, blank = {}, {}, {}
    for name, values in tokens.items():
        mask = torch.zeros_like(present[name])
        for strategy, samples in chosen.items():
            masks = shared[strategy]
            drawn = masks[name] if masks else _own(strategy, present[name], config, generator)
            mask |= drawn & samples[:, None, None, None, None]
        hidden[name] = mask.to(values.device)
        seen[name], withheld = _treat(values, hidden[name], strict, config, generator)
        blank[name] = withheld | ~present[name].to(values.device)
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


def _impossible(strategy: str, config: MaskingConfig, grids: Mapping[str, tuple[int, ...]]) -> str:
    needs = STRATEGIES[strategy].needs
    if config.together and STRATEGIES[strategy].hides == "tokens":
        needs += " that all fields have in common"
    found = ", ".join(f"{name} {' x '.join(map(str, grid))}" for name, grid in grids.items())
    return (
        f"masking strategy {strategy!r} needs {needs}, but the tokens of a neighborhood (level, "
        f"time, latitude, longitude) are {found}: change its shape or token_shape, or take "
        f"{strategy!r} out of masking.strategies"
    )


def _choices(
    config: MaskingConfig, present: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Samples, bool (batch,), for which each strategy was drawn."""
    batch, device = len(next(iter(present.values()))), generator.device
    if len(config.used) == 1:
        return {config.used[0]: torch.ones(batch, dtype=torch.bool, device=device)}
    weights = [config.strategies[name] for name in config.used]
    bounds = torch.tensor(weights, dtype=torch.float64, device=device).cumsum(0)
    draw = torch.rand(batch, generator=generator, device=device, dtype=torch.float64) * bounds[-1]
    number = (draw[:, None] >= bounds[:-1]).sum(1)
    return {name: number == n for n, name in enumerate(config.used)}


def _of_whole_times(chosen: Mapping[str, Tensor]) -> Tensor:
    """Samples, bool (batch,), for which a strategy was drawn that hides whole times."""
    none = torch.zeros_like(next(iter(chosen.values())))
    times = [samples for name, samples in chosen.items() if STRATEGIES[name].hides == "times"]
    return torch.stack([none, *times]).any(0)


def _shared(
    strategy: str,
    present: Mapping[str, Tensor],
    config: MaskingConfig,
    generator: torch.Generator,
) -> dict[str, Tensor] | None:
    """Masks that were drawn for all fields; None where each field has a draw of its own."""
    if STRATEGIES[strategy].hides == "tokens" and not config.together:
        return None
    batch = len(next(iter(present.values())))
    rates = _rates(config, batch, generator)
    return alike(strategy, present, rates, generator, together=config.together)


def _own(
    strategy: str, present: Tensor, config: MaskingConfig, generator: torch.Generator
) -> Tensor:
    """Mask of one field, (batch, level, T, A, O)."""
    rates = _rates(config, len(present), generator)
    return STRATEGIES[strategy].draw(tuple(present.shape), rates, generator, present)


def _rates(config: MaskingConfig, batch: int, generator: torch.Generator) -> Tensor:
    low, high = config.rate
    draw = torch.rand(batch, generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * draw


def _treat(
    values: Tensor,
    hidden: Tensor,
    strict: Tensor,
    config: MaskingConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Values for the network and the tokens withheld from it, for one field.

    Of the samples in `strict`, bool (batch,), all hidden tokens are withheld. All draws are made
    for them, too, so that those of the other samples don't depend on them.
    """
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
    withheld = withheld | (hidden & strict.to(hidden.device)[:, None, None, None, None])
    return seen.where(finite & ~withheld[..., None, None, None], 0.0), withheld


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
