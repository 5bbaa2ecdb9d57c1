"""The guard: entropies written out, and that each kind of collapse is named."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xatmorep.objectives.collapse import LEAST_SPREAD, LEAST_TOLD_APART, CollapseGuard

VIEWS, BATCH, PROTOTYPES, WIDTH = 2, 6, 8, 12


def answers(seed: int = 0, sharpness: float = 5.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(VIEWS, BATCH, PROTOTYPES, generator=generator)
    features = torch.randn(VIEWS, BATCH, WIDTH, generator=generator)
    return (sharpness * logits).softmax(-1), features


def entropy(p: np.ndarray) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


@given(seed=st.integers(0, 1000), sharpness=st.floats(0, 200))
def test_numbers_equal_their_definitions(seed: int, sharpness: float) -> None:
    teacher, features = answers(seed, sharpness)
    guard = CollapseGuard()
    guard.collect(teacher, features)
    numbers = guard.report().numbers
    p, x = teacher.double().numpy(), features.numpy()
    each = np.mean([entropy(q) for view in p for q in view])
    together = np.mean([entropy(view.mean(0)) for view in p])
    assert numbers == {
        "teacher_entropy": pytest.approx(each / math.log(PROTOTYPES), abs=1e-5),
        "teacher_mean_entropy": pytest.approx(together / math.log(PROTOTYPES), abs=1e-5),
        "teacher_told_apart": pytest.approx((together - each) / math.log(BATCH), abs=1e-5),
        "feature_spread": pytest.approx(np.std(x, axis=1).mean(), abs=1e-5),
    }


def test_steps_count_alike_and_begin_anew_after_a_report() -> None:
    guard, single = CollapseGuard(), []
    for seed in (1, 2, 3):
        guard.collect(*answers(seed))
        alone = CollapseGuard()
        alone.collect(*answers(seed))
        single.append(list(alone.report().numbers.values()))
    np.testing.assert_allclose(
        list(guard.report().numbers.values()), np.mean(single, axis=0), rtol=1e-5
    )
    guard.collect(*answers(3))
    np.testing.assert_allclose(list(guard.report().numbers.values()), single[-1], rtol=1e-6)


def constant(p: Tensor) -> Tensor:
    return p.expand(VIEWS, BATCH, PROTOTYPES)


ONE = torch.eye(PROTOTYPES)[2]
EVEN = torch.full((PROTOTYPES,), 1 / PROTOTYPES)
SOME = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (ONE, r"with everything on one of them \(entropy 0.00\).*lower center_momentum"),
        (EVEN, r"spread evenly over all of them \(entropy 1.00\).*lower teacher_temperature"),
        (SOME, r"on some of them \(entropy 0.33\)"),
    ],
    ids=["one", "even", "some"],
)
def test_every_kind_of_collapse_is_named(p: Tensor, words: str) -> None:
    guard = CollapseGuard()
    guard.collect(constant(p), answers()[1])
    warning = guard.report().warning
    assert warning is not None
    assert warning.startswith("self-distillation has collapsed: all samples of a batch have nearly")
    assert re.search(words, warning)


def test_features_that_have_collapsed_are_named() -> None:
    teacher, features = answers()
    guard = CollapseGuard()
    guard.collect(teacher, features[:, :1].expand(VIEWS, BATCH, WIDTH))
    report = guard.report()
    assert report.numbers["feature_spread"] == 0
    assert re.search(r"the same features \(spread 0.0000, should be above 0.01\)", report.warning)
    assert "prototypes" not in report.warning
    guard.collect(constant(EVEN), torch.zeros(VIEWS, BATCH, WIDTH))
    assert "; and all samples" in guard.report().warning


def test_the_healthy_get_no_warning() -> None:
    guard = CollapseGuard()
    guard.collect(*answers())
    assert guard.report().warning is None


def test_thresholds() -> None:
    """Distributions of two samples, the more apart the larger the shift."""
    for shift in (0.02, 0.05, 0.1, 0.3):
        for scale in (0.005, 0.02):
            guard = CollapseGuard()
            teacher = torch.tensor([[0.5 + shift, 0.5 - shift], [0.5 - shift, 0.5 + shift]])[None]
            guard.collect(teacher, scale * torch.tensor([[1.0], [-1.0]])[None])
            report = guard.report()
            apart = report.numbers["teacher_told_apart"] < LEAST_TOLD_APART
            near = report.numbers["feature_spread"] < LEAST_SPREAD
            assert (apart, near) == (shift < 0.09, scale < LEAST_SPREAD)
            assert ("prototypes" in (report.warning or "")) == apart
            assert ("features" in (report.warning or "")) == near


def test_what_is_always_the_same_is_noticed_though_it_wanders() -> None:
    guard = CollapseGuard()
    for prototype in range(PROTOTYPES):
        guard.collect(constant(torch.eye(PROTOTYPES)[prototype]), answers()[1])
    assert "with everything on one of them" in guard.report().warning


def test_a_single_sample_cannot_be_judged() -> None:
    guard = CollapseGuard()
    teacher, features = answers()
    guard.collect(teacher[:, :1], features[:, :1])
    report = guard.report()
    assert all(math.isnan(number) for number in report.numbers.values())
    assert report.warning is None
    guard.collect(teacher[:, :1], features[:, :1])
    guard.collect(teacher, features)
    assert guard.report().numbers["teacher_told_apart"] > 0


def test_numbers_go_on_from_a_checkpoint() -> None:
    guard, other = CollapseGuard(), CollapseGuard()
    guard.collect(*answers(1))
    other.load_state_dict(guard.state_dict())
    for one in (guard, other):
        one.collect(*answers(2))
    assert guard.report() == other.report()


def test_processes_are_averaged() -> None:
    guards = [CollapseGuard() for _ in range(3)]
    whole = CollapseGuard()
    for seed, guard in enumerate(guards):
        guard.collect(*answers(seed))
        whole.collect(*answers(seed))
    total = torch.stack([guard.sums for guard in guards]).sum(0)
    wanted = whole.report().numbers
    for guard in guards:
        assert guard.report(reduce=lambda _: total).numbers == pytest.approx(wanted)
