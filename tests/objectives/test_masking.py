"""Masks and what is seen in the place of hidden tokens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xatmorep.objectives.masking import (
    MaskingConfig,
    hide,
    random_tokens,
    target_rows,
    withhold,
)

ONLY = {"replaced": 0.0, "noised": 0.0, "coarsened": 0.0, "left": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field(*grid: int, points: tuple[int, int, int] = (2, 5, 7), seed: int = 3) -> torch.Tensor:
    return torch.randn(*grid, *points, generator=seeded(seed))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": (0.9, 0.1)}, "wrong way round"),
        ({"rate": (0.5, 1.1)}, "less than or equal to 1"),
        ({"replaced": 0.5}, "must sum to one"),
        ({"replaced": -0.1, "left": 0.95}, "greater than or equal to 0"),
        ({"replace": 1.0}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_configurations_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MaskingConfig(**arguments)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MaskingConfig().rate = (0.0, 1.0)  # type: ignore[misc]


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 5),
    rate=st.floats(0, 1),
    seed=st.integers(0, 1000),
    absent=st.floats(0, 1),
)
def test_random_tokens_hides_the_asked_share(
    shape: tuple[int, ...], rate: float, seed: int, absent: float
) -> None:
    present = torch.rand(shape, generator=seeded(seed + 1)) >= absent
    mask = random_tokens(shape, rate, seeded(seed), present)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert not (mask & ~present).any()
    for hidden, n in zip(mask.flatten(1).sum(1), present.flatten(1).sum(1), strict=True):
        wanted = max(round(rate * int(n)), int(rate > 0))
        assert hidden == min(wanted, max(int(n) - 1, 0))
    assert torch.equal(mask, random_tokens(shape, rate, seeded(seed), present))


def test_random_tokens_takes_one_rate_for_each_sample() -> None:
    mask = random_tokens((4, 2, 5, 2, 5), torch.tensor([0.0, 0.25, 0.5, 1.0]), seeded())
    assert mask.flatten(1).sum(1).tolist() == [0, 25, 50, 99]


def test_every_token_is_hidden_equally_often() -> None:
    mask = random_tokens((4000, 1, 2, 2, 3), 0.25, seeded())
    share = mask.double().mean(0)
    assert torch.allclose(share, torch.full_like(share, 0.25), atol=4 * (0.25 * 0.75 / 4000) ** 0.5)


def test_masks_differ_between_samples_draws_and_seeds() -> None:
    generator = seeded()
    first, second = (random_tokens((2, 1, 4, 6, 6), 0.5, generator) for _ in range(2))
    masks = [*first, *second, *random_tokens((2, 1, 4, 6, 6), 0.5, seeded(1))]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(masks, 2))


def test_rates_are_drawn_for_each_sample_and_field() -> None:
    config = MaskingConfig(rate=(0.2, 0.7))
    tokens = {name: torch.randn(200, 1, 2, 10, 10, 1, 1, 1) for name in ("u", "v")}
    masked = hide(tokens, config, seeded())
    rates = {name: mask.flatten(1).double().mean(1) for name, mask in masked.hidden.items()}
    for rate in rates.values():
        assert 0.2 <= rate.min() < 0.22
        assert 0.68 < rate.max() <= 0.7
        assert abs(rate.mean() - 0.45) < 0.04
    together = torch.corrcoef(torch.stack([rates["u"], rates["v"]]))[0, 1]
    assert abs(together) < 0.2


def test_nothing_is_hidden_at_rate_zero() -> None:
    tokens = {"t": field(2, 1, 2, 2, 2)}
    masked = hide(tokens, MaskingConfig(rate=(0.0, 0.0)), seeded())
    assert torch.equal(masked.tokens["t"], tokens["t"])
    assert not masked.hidden["t"].any()
    assert not masked.blank["t"].any()


def test_the_only_token_of_a_field_stays_visible() -> None:
    masked = hide({"t": field(3, 1, 1, 1, 1)}, MaskingConfig(rate=(1.0, 1.0)), seeded())
    assert not masked.hidden["t"].any()


def test_same_seed_same_result_whatever_the_order_of_fields() -> None:
    tokens = {"u": field(2, 2, 3, 2, 2), "v": field(2, 1, 2, 3, 3, points=(1, 4, 4))}
    one = hide(tokens, MaskingConfig(), seeded(5))
    two = hide(dict(reversed(tokens.items())), MaskingConfig(), seeded(5))
    other = hide(tokens, MaskingConfig(), seeded(6))
    for name in tokens:
        for part in ("tokens", "hidden", "blank"):
            assert torch.equal(getattr(one, part)[name], getattr(two, part)[name])
        assert not torch.equal(one.hidden[name], other.hidden[name])


def test_the_input_is_not_changed() -> None:
    tokens = {"t": field(2, 1, 3, 3, 3)}
    before = tokens["t"].clone()
    hide(tokens, MaskingConfig(rate=(1.0, 1.0)), seeded())
    withhold(tokens, {"t": torch.ones(2, 1, 3, 3, 3, dtype=torch.bool)})
    assert torch.equal(tokens["t"], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    config = MaskingConfig(replaced=0.25, noised=0.25, coarsened=0.25, left=0.25)
    masked = hide({"t": field(2, 1, 3, 3, 3).to(dtype)}, config, seeded())
    assert masked.tokens["t"].dtype == dtype


def test_visible_tokens_are_untouched_and_hidden_ones_shared_out() -> None:
    values = field(8, 1, 4, 8, 8, points=(1, 3, 3))
    config = MaskingConfig(rate=(0.5, 0.5), replaced=0.4, noised=0.3, coarsened=0.2, left=0.1)
    masked = hide({"t": values}, config, seeded())
    seen, hidden, blank = masked.tokens["t"], masked.hidden["t"], masked.blank["t"]
    same = (seen == values).flatten(-3).all(-1)
    smooth = (seen - seen.mean((-1, -2), keepdim=True)).abs().flatten(-3).amax(-1) < 1e-6
    assert same[~hidden].all()
    assert not (blank & ~hidden).any()
    assert (seen[blank] == 0).all()
    n = hidden.sum()
    assert abs(blank.sum() / n - 0.4) < 0.05
    assert abs((same & hidden).sum() / n - 0.1) < 0.03
    # Blocks of 3 x 3 make a coarsened token of 3 x 3 constant; they are one half of the factors.
    assert abs((smooth & hidden & ~blank).sum() / n - 0.1) < 0.03


def test_noise_is_as_strong_as_the_signal_and_differs_between_points() -> None:
    values = torch.ones(4, 1, 4, 10, 10, 1, 3, 3)
    config = MaskingConfig(rate=(0.9, 0.9), **{**ONLY, "noised": 1.0})
    masked = hide({"t": values}, config, seeded())
    seen = masked.tokens["t"][masked.hidden["t"]]
    assert not masked.blank["t"].any()
    # E[1 - w] = 1/2; Var[(1 - w) + w e] = Var[w] + E[w^2] = 1/12 + 1/3
    assert abs(seen.mean() - 0.5) < 0.02
    assert abs(seen.var() - 5 / 12) < 0.02
    assert (seen.flatten(1).std(1) > 0).all()


def block_means(values: np.ndarray, finite: np.ndarray, factor: int) -> np.ndarray:
    """Slow twin of coarsening, for one token (t, a, o)."""
    result = np.zeros_like(values)
    frames, rows, columns = values.shape
    for t in range(frames):
        for top in range(0, rows, factor):
            for left in range(0, columns, factor):
                block = (t, slice(top, top + factor), slice(left, left + factor))
                use = finite[block]
                result[block] = values[block][use].mean() if use.any() else 0.0
    return np.where(finite, result, 0.0)


@pytest.mark.parametrize("points", [(1, 6, 6), (2, 5, 7), (3, 1, 4), (1, 3, 1)])
@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_coarsening_is_the_mean_over_blocks(points: tuple[int, int, int], holes: float) -> None:
    values = field(4, 1, 2, 4, 4, points=points).double()
    values[torch.rand(values.shape, generator=seeded(9)) < holes] = torch.nan
    config = MaskingConfig(rate=(0.9, 0.9), **{**ONLY, "coarsened": 1.0})
    masked = hide({"t": values}, config, seeded())
    before = values[masked.hidden["t"]].numpy()
    after = masked.tokens["t"][masked.hidden["t"]].numpy()
    factors = range(2, max(points[1:]) + 1)
    used = set()
    for token, seen in zip(before, after, strict=True):
        finite = np.isfinite(token)
        means = {factor: block_means(token, finite, factor) for factor in factors}
        matching = [f for f, mean in means.items() if np.allclose(mean, seen, atol=1e-12)]
        assert matching
        used.update(matching)
    assert used == set(factors)


def test_tokens_of_one_point_in_space_cannot_be_coarsened() -> None:
    values = field(2, 1, 3, 2, 2, points=(4, 1, 1))
    config = MaskingConfig(rate=(0.9, 0.9), **{**ONLY, "coarsened": 1.0})
    assert torch.equal(hide({"t": values}, config, seeded()).tokens["t"], values)


@given(seed=st.integers(0, 100), holes=st.floats(0, 1), rate=st.floats(0.01, 1))
def test_missing_values_never_reach_the_network_and_are_never_targets(
    seed: int, holes: float, rate: float
) -> None:
    values = field(2, 1, 2, 3, 2, points=(1, 2, 2), seed=seed)
    values[torch.rand(values.shape, generator=seeded(seed)) < holes] = torch.nan
    values[torch.rand(values.shape[:5], generator=seeded(seed)) < holes / 2] = torch.inf
    finite = values.isfinite()
    present = finite.flatten(-3).any(-1)
    config = MaskingConfig(rate=(rate, rate), replaced=0.3, noised=0.3, coarsened=0.3, left=0.1)
    masked = hide({"t": values}, config, seeded(seed))
    assert masked.tokens["t"].isfinite().all()
    assert (masked.tokens["t"][~finite] == 0).all()
    assert masked.blank["t"][~present].all()
    assert not masked.hidden["t"][~present].any()
    for hidden, here in zip(masked.hidden["t"], present, strict=True):
        if here.sum() > 1:
            assert hidden.any()
            assert (here & ~hidden).any()
    target, weight = target_rows(values, masked.hidden["t"])
    assert target.isfinite().all()
    assert torch.equal(weight.bool(), finite[masked.hidden["t"]].flatten(1))
    assert (weight.sum(1) > 0).all()


def test_target_rows_come_in_the_order_of_boolean_indexing() -> None:
    values = torch.arange(2 * 2 * 3 * 2 * 2 * 4.0).reshape(2, 2, 3, 2, 2, 1, 2, 2)
    hidden = random_tokens((2, 2, 3, 2, 2), 0.5, seeded())
    target, weight = target_rows(values, hidden)
    places = [i for i in np.ndindex(*hidden.shape) if hidden[i]]
    assert target.tolist() == [values[i].flatten().tolist() for i in places]
    assert weight.shape == target.shape
    assert (weight == 1).all()
    assert target_rows(values, torch.zeros_like(hidden))[0].shape == (0, 4)


def test_withhold_hides_what_it_is_told() -> None:
    values = field(1, 1, 2, 2, 1)
    values[0, 0, 0, 0, 0] = torch.nan
    values[0, 0, 0, 1, 0, 0, 0, 0] = torch.nan
    hidden = torch.tensor([False, False, True, False]).reshape(1, 1, 2, 2, 1)
    masked = withhold({"t": values}, {"t": hidden})
    assert torch.equal(masked.hidden["t"], hidden)
    assert masked.blank["t"].flatten().tolist() == [True, False, True, False]
    assert (masked.tokens["t"][masked.blank["t"]] == 0).all()
    assert torch.equal(masked.tokens["t"][0, 0, 1, 1], values[0, 0, 1, 1])
    assert torch.equal(masked.tokens["t"][0, 0, 0, 1], values[0, 0, 0, 1].nan_to_num(0.0))
