"""A context shows nothing of what is hidden, by an oracle that paints grid points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xatmorep.objectives.contexts import with_contexts
from xatmorep.objectives.masking import Masked, MaskingConfig, hide, withhold
from xatmorep.tokens.spec import InputSpec

FIELD = {
    "name": "u",
    "units": "m s-1",
    "token_shape": (2, 2, 3),
    "levels": (500, 850),
    "level_type": "pressure",
}
SHAPES = [
    # Aligned with the tokens of the source, and not at all; as long as the neighborhood, or longer.
    {"coarsen": (1, 2, 2), "shape": (4, 4, 6), "token_shape": (2, 2, 3)},
    {"coarsen": (1, 2, 3), "shape": (4, 4, 4), "token_shape": (4, 1, 1), "levels": (850,)},
    {"coarsen": (3, 1, 1), "shape": (4, 4, 12), "token_shape": (1, 4, 4), "levels": (850, 500)},
    {"coarsen": (1, 3, 5), "shape": (5, 2, 2), "token_shape": (1, 2, 1)},
]


def spec(**context: Any) -> InputSpec:
    return InputSpec.model_validate(
        {
            "neighborhood": {"shape": (4, 4, 6), "time_step": 6, "grid_step": (1, 1)},
            "fields": [FIELD],
            "contexts": [{"name": "c", "field": "u"} | context],
        }
    )


def values(inputs: InputSpec, batch: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        entry.name: torch.randn(
            (batch, entry.n_levels, *inputs.token_grid(entry.name), *entry.token_shape),
            generator=generator,
        )
        for entry in inputs.entries
    }


def painted(inputs: InputSpec, hidden: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Blank tokens (level, T, A, O) of the context: those with a painted grid point."""
    (context,) = inputs.contexts
    known = inputs.field("u").levels
    t, a, o = inputs.field("u").token_shape
    points = hidden.repeat(t, 1).repeat(a, 2).repeat(o, 3)
    times = whole.repeat(t, 1)
    blank = np.zeros((len(context.levels or known), *inputs.token_grid("c")), dtype=bool)
    first, size = inputs.first_point("c"), inputs.token_extent("c")
    for place in np.ndindex(blank.shape):
        level = known.index((context.levels or known)[place[0]])
        inside = []
        for axis in range(3):
            start = first[axis] + place[1 + axis] * size[axis]
            inside.append(range(start, start + size[axis]))
        here = [[p for p in some if 0 <= p < n] for some, n in zip(inside, (4, 4, 6), strict=True)]
        blank[place] = (
            points[level][np.ix_(*here)].any() or times[level][here[0]].any() or whole[level].all()
        )
    return blank


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_tokens_that_overlap_what_is_hidden_are_blank(
    shape: dict[str, Any], seed: int, rate: float
) -> None:
    inputs = spec(**shape)
    tokens = values(inputs)
    draw = np.random.default_rng(seed).random(tokens["u"].shape[1:5])
    hidden = draw < rate
    masked = withhold({"u": tokens["u"]}, {"u": torch.from_numpy(hidden)[None]})
    for whole in (None, np.random.default_rng(seed).random(hidden.shape[:2]) < rate):
        given = None if whole is None else {"u": torch.from_numpy(whole)[None]}
        shown = with_contexts(masked, {"c": tokens["c"]}, inputs, given)
        expected = painted(inputs, hidden, hidden.all((2, 3)) if whole is None else whole)
        np.testing.assert_array_equal(shown.blank["c"][0], expected)
        seen = ~expected[..., None, None, None]
        np.testing.assert_array_equal(shown.tokens["c"][0], np.where(seen, tokens["c"][0], 0))
        assert not shown.hidden["c"].any()
        assert shown.tokens["u"] is masked.tokens["u"]


@pytest.mark.parametrize("strategy", ["random", "forecast", "hindcast", "levels"])
def test_it_does_not_matter_how_hidden_tokens_are_treated(strategy: str) -> None:
    inputs = spec(**SHAPES[0])
    tokens = values(inputs, batch=8)

    def blank(**shares: float) -> torch.Tensor:
        config = MaskingConfig.model_validate({"strategies": {strategy: 1}, **shares})
        masked = hide({"u": tokens["u"]}, config, torch.Generator().manual_seed(3))
        return with_contexts(masked, {"c": tokens["c"]}, inputs).blank["c"]

    none = {"replaced": 0, "noised": 0, "coarsened": 0, "left": 0}
    withheld, left = blank(**(none | {"replaced": 1})), blank(**(none | {"left": 1}))
    assert withheld.any()
    assert not withheld.all()
    assert torch.equal(withheld, left)


def test_times_without_any_visible_token_are_hidden_everywhere() -> None:
    """Tokens without data are neither visible nor hidden."""
    inputs = spec(**SHAPES[0])
    tokens = values(inputs)
    tokens["u"][0, 0, 1, 0] = torch.nan
    hidden = torch.zeros(tokens["u"].shape[:5], dtype=torch.bool)
    hidden[0, 0, 1, 1] = True  # all that is there of the second time
    masked = withhold({"u": tokens["u"]}, {"u": hidden})
    shown = with_contexts(masked, {"c": tokens["c"]}, inputs)
    assert shown.blank["c"][0, 0, 1].all()
    assert not shown.blank["c"][0, 0, 0].any()
    assert not shown.blank["c"][0, 1].any()
    # Nothing is hidden where there are no data at all.
    tokens["u"][0, 0] = torch.nan
    masked = withhold({"u": tokens["u"]}, {"u": torch.zeros_like(hidden)})
    assert not with_contexts(masked, {"c": tokens["c"]}, inputs).blank["c"].any()


def test_tokens_without_values_are_blank() -> None:
    inputs = spec(**SHAPES[0])
    tokens = values(inputs)
    tokens["c"][0, 0, 0, 0, 0] = torch.nan
    tokens["c"][0, 0, 0, 0, 1, 0, 0, 0] = torch.nan
    masked = withhold(
        {"u": tokens["u"]}, {"u": torch.zeros(tokens["u"].shape[:5], dtype=torch.bool)}
    )
    shown = with_contexts(masked, {"c": tokens["c"]}, inputs)
    assert shown.blank["c"].sum() == 1
    assert shown.blank["c"][0, 0, 0, 0, 0]
    assert shown.tokens["c"].isfinite().all()


def test_without_contexts_nothing_changes() -> None:
    inputs = spec(**SHAPES[0]).model_copy(update={"contexts": ()})
    masked = Masked({}, {}, {})
    assert with_contexts(masked, {}, inputs) is masked
