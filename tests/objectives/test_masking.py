"""Masks and what is seen in the place of hidden tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.tokens.strategies import make_spec
from xatmorep.errors import ConfigError
from xatmorep.objectives import masking
from xatmorep.objectives.masking import (
    MaskingConfig,
    check_strategies,
    hide,
    random_tokens,
    target_rows,
    withhold,
)
from xatmorep.objectives.strategies import STRATEGIES

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
        ({"strategies": {"forcast": 1.0}}, "'forcast' is unknown; did you mean 'forecast'?"),
        ({"strategies": {"random": -1.0}}, "greater than or equal to 0"),
        ({"strategies": {"random": float("inf")}}, "finite number"),
        ({"strategies": {"random": 0.0, "large": 0.0}}, "one of the strategies must have weight"),
        ({"strategies": {}}, "one of the strategies must have weight"),
    ],
)
def test_impossible_configurations_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MaskingConfig(**arguments)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MaskingConfig().rate = (0.0, 1.0)  # type: ignore[misc]


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


def everything_withheld(strategies: dict[str, float], **options: object) -> MaskingConfig:
    return MaskingConfig(strategies=strategies, **{**ONLY, "replaced": 1.0}, **options)


def test_default_is_one_draw_of_random_tokens_for_each_field() -> None:
    tokens = {"v": field(5, 1, 2, 3, 3), "u": field(5, 2, 3, 2, 2)}
    masked = hide(tokens, everything_withheld({"random": 1.0}), seeded(4))
    generator = seeded(4)
    for name in ("u", "v"):
        n = tokens[name][0, ..., 0, 0, 0].numel()
        rates = torch.rand(5, generator=generator, dtype=torch.float64)
        order = torch.rand((5, n), generator=generator, dtype=torch.float64)
        torch.rand((5, n), generator=generator)  # what becomes of the hidden tokens
        for mask, rate, places in zip(masked.hidden[name], rates, order, strict=True):
            first = places.argsort()[: round((0.1 + 0.8 * float(rate)) * n)]
            assert sorted(first.tolist()) == mask.flatten().nonzero().flatten().tolist()


def test_strategies_without_weight_and_their_order_make_no_difference() -> None:
    tokens = {"u": field(20, 2, 3, 2, 2), "v": field(20, 1, 2, 3, 3)}
    for ones, others in (
        ({"random": 1.0}, {"random": 2.0, "forecast": 0.0}),
        ({"large": 1.0, "time": 2.0, "fields": 0.0}, {"time": 1.0, "large": 0.5}),
    ):
        one = hide(tokens, MaskingConfig(strategies=ones), seeded())
        two = hide(tokens, MaskingConfig(strategies=others), seeded())
        assert all(torch.equal(one.hidden[name], two.hidden[name]) for name in tokens)


def strategy_of(hidden: dict[str, torch.Tensor], sample: int) -> str:
    """Which of forecast, hindcast and fields hid the tokens of a sample."""
    masks = {name: mask[sample] for name, mask in hidden.items()}
    if not all(mask.any() for mask in masks.values()):
        assert all(mask.all() or not mask.any() for mask in masks.values())
        return "fields"
    first = {name: bool(mask[:, 0].all()) for name, mask in masks.items()}
    last = {name: bool(mask[:, -1].all()) for name, mask in masks.items()}
    assert len(set(first.values())) == len(set(last.values())) == 1  # alike in all fields
    assert first["u"] != last["u"]
    return "hindcast" if first["u"] else "forecast"


def test_strategies_are_drawn_for_each_sample_by_their_weights() -> None:
    n, weights = 3000, {"hindcast": 1.0, "forecast": 5.0, "fields": 2.0}
    tokens = {"u": torch.zeros(n, 1, 4, 2, 1, 1, 1, 1), "v": torch.zeros(n, 2, 2, 1, 1, 2, 2, 1)}
    masked = hide(tokens, MaskingConfig(strategies=weights), seeded())
    found = [strategy_of(masked.hidden, sample) for sample in range(n)]
    for name, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(found.count(name) / n - share) < 4 * (share * (1 - share) / n) ** 0.5
    # Neighbors in a batch are drawn independently.
    same = sum(one == two for one, two in zip(found[1:], found[:-1], strict=True)) / n
    expected = sum((weight / sum(weights.values())) ** 2 for weight in weights.values())
    assert abs(same - expected) < 0.05


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_hides_and_leaves_something_of_every_sample(
    strategy: str, together: bool
) -> None:
    tokens = {"u": field(30, 2, 6, 4, 4), "v": field(30, 2, 3, 2, 6), "w": field(30, 1, 3, 2, 2)}
    config = everything_withheld({strategy: 1.0}, together=together, rate=(0.01, 1.0))
    masked = hide(tokens, config, seeded())
    per_field = torch.stack([mask.flatten(1).any(1) for mask in masked.hidden.values()])
    visible = torch.stack([(~mask).flatten(1).any(1) for mask in masked.hidden.values()])
    assert per_field.any(0).all()
    assert visible.any(0).all()
    if STRATEGIES[strategy].hides in ("tokens", "times"):
        assert per_field.all()
        assert visible.all()
    again = hide(dict(reversed(tokens.items())), config, seeded())
    other = hide(tokens, config, seeded(1))
    assert all(torch.equal(masked.hidden[name], again.hidden[name]) for name in tokens)
    assert any(not torch.equal(masked.hidden[name], other.hidden[name]) for name in tokens)
    samples = torch.cat([mask.flatten(1) for mask in masked.hidden.values()], dim=1)
    assert len(samples.unique(dim=0)) > 1


@given(
    seed=st.integers(0, 1000),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    together=st.booleans(),
    absent=st.floats(0, 1),
)
def test_tokens_without_data_are_never_hidden(
    seed: int, strategy: str, together: bool, absent: float
) -> None:
    tokens = {"u": field(3, 2, 4, 2, 2, seed=seed), "v": field(3, 2, 2, 3, 2, seed=seed + 1)}
    for values in tokens.values():
        values[torch.rand(values.shape[:5], generator=seeded(seed)) < absent] = torch.nan
    config = everything_withheld({"random": 1.0, strategy: 5.0}, together=together)
    masked = hide(tokens, config, seeded(seed))
    for name, values in tokens.items():
        present = values.isfinite().flatten(-3).all(-1)
        assert not (masked.hidden[name] & ~present).any()
        assert torch.equal(masked.blank[name], masked.hidden[name] | ~present)
        assert masked.tokens[name].isfinite().all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_do_not_depend_on_the_values_of_any_sample(strategy: str) -> None:
    config = MaskingConfig(strategies={strategy: 1.0})
    one = hide({name: field(4, 2, 4, 2, 2, seed=1) for name in "uv"}, config, seeded())
    two = hide({name: field(4, 2, 4, 2, 2, seed=2) for name in "uv"}, config, seeded())
    assert all(torch.equal(one.hidden[name], two.hidden[name]) for name in "uv")


@pytest.mark.parametrize("together", [False, True])
def test_forecast_shows_nothing_of_the_future_of_any_field(together: bool) -> None:
    """Change all values from a time on: what is seen of samples that hide it stays the same."""
    shapes = {"hourly": (12, 1), "long": (3, 4), "odd": (4, 3)}
    frames = {name: torch.randn(50, 1, 12, generator=seeded(1)) for name in shapes}
    config = everything_withheld({"forecast": 1.0}, together=together, rate=(0.05, 0.7))

    def seen(frames: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        cut = {n: x.reshape(50, 1, shapes[n][0], 1, 1, -1, 1, 1) for n, x in frames.items()}
        return hide(cut, config, seeded()).tokens

    before = seen(frames)
    hidden_frames = {name: (tokens.flatten(1) == 0).int() for name, tokens in before.items()}
    cuts = set()
    for sample in range(50):
        # The finest tokens say where the hidden span begins.
        cut = 12 - int(hidden_frames["hourly"][sample].sum())
        cuts.add(cut)
        after = seen({n: x.index_fill(2, torch.arange(cut, 12), 99.0) for n, x in frames.items()})
        assert all(torch.equal(after[name][sample], before[name][sample]) for name in shapes)
        assert all((before[name][sample] != 0).any() for name in shapes)
    assert cuts == set(range(4, 12))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whole_times_are_always_withheld(strategy: str) -> None:
    tokens = {"u": field(40, 2, 4, 3, 3), "v": field(40, 2, 3, 3, 3)}
    config = MaskingConfig(
        strategies={strategy: 1.0}, replaced=0.1, noised=0.3, coarsened=0.3, left=0.3
    )
    masked = hide(tokens, config, seeded())
    for name, hidden in masked.hidden.items():
        withheld = masked.blank[name][hidden].double().mean()
        if STRATEGIES[strategy].hides == "times":
            assert withheld == 1
            assert (masked.tokens[name][hidden] == 0).all()
        else:
            assert abs(withheld - 0.1) < 0.07


def test_beside_whole_times_other_samples_are_drawn_as_if_there_were_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = {"u": field(60, 2, 4, 3, 3), "v": field(60, 1, 2, 2, 2)}
    config = MaskingConfig(strategies={"random": 1.0, "forecast": 1.0}, replaced=0.4, noised=0.5)
    strict = hide(tokens, config, seeded())
    with monkeypatch.context() as patch:
        nobody = torch.zeros(60, dtype=torch.bool)
        patch.setattr(masking, "_of_whole_times", lambda chosen: nobody)
        shared = hide(tokens, config, seeded())
    changed = torch.zeros(60, dtype=torch.bool)
    for name, hidden in strict.hidden.items():
        assert torch.equal(hidden, shared.hidden[name])
        changed |= (strict.blank[name] != shared.blank[name]).flatten(1).any(1)
    last = torch.stack([hidden[:, :, -1].flatten(1).all(1) for hidden in strict.hidden.values()])
    assert 15 < changed.sum() < 45
    assert last.all(0)[changed].all()
    for name in tokens:
        assert torch.equal(strict.tokens[name][~changed], shared.tokens[name][~changed])


def test_a_rate_of_fields_alike_is_one_for_all() -> None:
    tokens = {name: torch.randn(200, 1, 2, 10, 10, 1, 1, 1) for name in ("u", "v")}
    masked = hide(tokens, MaskingConfig(rate=(0.2, 0.7), together=True), seeded())
    assert torch.equal(masked.hidden["u"], masked.hidden["v"])
    rates = masked.hidden["u"].flatten(1).double().mean(1)
    assert 0.2 <= rates.min() < 0.22
    assert 0.68 < rates.max() <= 0.7


LEVELS = (500.0, 850.0)


@pytest.mark.parametrize(
    ("strategy", "together", "box", "fields", "words"),
    [
        ("fields", False, (2, 2, 2), {"u": ((1, 1, 1), LEVELS)}, "at least two fields"),
        ("levels", False, (2, 2, 2), {"u": ((1, 1, 1), ())}, "a field with at least two levels"),
        ("levels", True, (2, 2, 2), {"u": ((1, 1, 1), (500.0,))}, "at least two levels"),
        ("forecast", False, (2, 2, 2), {"u": ((2, 1, 1), ())}, "two token times in every field"),
        ("time", True, (2, 2, 2), {"u": ((2, 1, 1), ())}, "two token times in every field"),
        (
            "hindcast",
            False,
            (2, 2, 2),
            {"u": ((1, 1, 1), ()), "v": ((2, 1, 1), ())},
            r"u 1 x 2 x 2 x 2, v 1 x 1 x 2 x 2",
        ),
        ("interpolation", False, (2, 2, 2), {"u": ((1, 1, 1), ())}, "three token times"),
        ("space", False, (2, 2, 2), {"u": ((1, 2, 2), ())}, "side by side in space,"),
        ("large", False, (2, 2, 2), {"u": ((2, 2, 2), LEVELS)}, "at least two tokens in space"),
        ("random", False, (2, 2, 2), {"u": ((2, 2, 2), ())}, "at least two tokens,"),
        (
            "space",
            True,
            (2, 2, 2),
            {"u": ((1, 2, 1), ()), "v": ((1, 1, 2), ())},
            "side by side in space that all fields have in common",
        ),
        (
            "levels",
            True,
            (2, 2, 2),
            {"u": ((1, 1, 1), LEVELS), "v": ((1, 1, 1), (500.0, 700.0))},
            r"theirs differ: {'u': \(500.0, 850.0\), 'v': \(500.0, 700.0\)}",
        ),
    ],
)
def test_strategies_that_are_impossible_for_a_model_are_refused(
    strategy: str, together: bool, box: tuple, fields: dict, words: str
) -> None:
    config = MaskingConfig(strategies={"random": 0.0, strategy: 1.0}, together=together)
    with pytest.raises(ConfigError, match=words) as error:
        check_strategies(config, make_spec(box, fields))
    assert f"masking strategy '{strategy}'" in str(error.value)


@pytest.mark.parametrize("together", [False, True])
def test_all_strategies_are_possible_for_a_model_that_is_large_enough(together: bool) -> None:
    fields = {"u": ((1, 2, 1), LEVELS), "v": ((2, 1, 2), LEVELS), "w": ((1, 2, 2), ())}
    config = MaskingConfig(
        strategies=dict.fromkeys(STRATEGIES, 1.0), together=together, rate=(0.0, 0.0)
    )
    check_strategies(config, make_spec((6, 4, 4), fields))


def test_strategies_without_weight_are_not_checked() -> None:
    config = MaskingConfig(strategies={"random": 1.0, "fields": 0.0})
    check_strategies(config, make_spec((1, 1, 2), {"u": ((1, 1, 1), ())}))


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
