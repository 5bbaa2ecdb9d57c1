"""Heads, centering and momentum against their formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xatmorep.objectives.teacher import (
    Center,
    ProjectionHead,
    linear_warmup,
    momentum_update,
    precise,
    rising_momentum,
    teacher_distribution,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_head(seed: int = 0) -> ProjectionHead:
    return ProjectionHead(6, hidden=16, bottleneck=4, prototypes=10, generator=seeded(seed))


def test_head_gives_cosines_of_an_mlp_with_the_prototypes() -> None:
    head, x = make_head().double(), torch.randn(5, 6, generator=seeded(), dtype=torch.float64)
    y = x
    for layer in (0, 2, 4):
        y = y @ head.mlp[layer].weight.T + head.mlp[layer].bias
        y = nn.functional.gelu(y) if layer < 4 else y
    y, w = y.detach().numpy(), head.prototypes.detach().numpy()
    wanted = [
        [w[k] @ y[b] / np.linalg.norm(w[k]) / np.linalg.norm(y[b]) for k in range(10)]
        for b in range(5)
    ]
    np.testing.assert_allclose(head(x).detach().numpy(), wanted, atol=1e-12)


def test_length_of_prototypes_does_not_matter() -> None:
    head, x = make_head(), torch.randn(2, 3, 6, generator=seeded())
    before = head(x)
    with torch.no_grad():
        head.prototypes *= torch.linspace(0.1, 50, 10)[:, None]
    torch.testing.assert_close(head(x), before)
    assert before.shape == (2, 3, 10)
    assert before.abs().max() <= 1 + 1e-6


def test_initial_weights_come_from_the_generator() -> None:
    one, two, other = make_head(1), make_head(1), make_head(2)
    x = torch.randn(3, 6, generator=seeded())
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other(x))
    # Different inputs are told apart from the beginning.
    x = torch.randn(200, 6, generator=seeded())
    assert 0.2 < one(x).std(0).mean() < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosines_are_precise_under_autocast(dtype: torch.dtype) -> None:
    head, x = make_head(), torch.randn(50, 6, generator=seeded())
    with torch.autocast("cpu", dtype):
        y = head.mlp(x)
        found = head(x)
    assert (y.dtype, found.dtype) == (dtype, torch.float32)
    exact = nn.functional.cosine_similarity(y.double()[:, None], head.prototypes.double(), dim=-1)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)


def test_center_is_a_running_mean_of_all_answers() -> None:
    center, value = Center(7, momentum=0.8), np.zeros(7)
    for step in range(4):
        answers = torch.randn(2, 3 + step, 7, generator=seeded(step))
        center.collect(answers)
        center.update()
        value = 0.8 * value + 0.2 * answers.numpy().reshape(-1, 7).mean(0)
        np.testing.assert_allclose(center.value.numpy(), value, atol=1e-6)
    before = center.value.clone()
    center.update()
    assert torch.equal(center.value, before), "nothing was said"


def test_center_of_parts_and_of_several_processes_is_that_of_the_whole() -> None:
    answers = torch.randn(9, 5, generator=seeded())
    whole, parts = Center(5, momentum=0.5), Center(5, momentum=0.5)
    whole.collect(answers)
    whole.update()
    parts.collect(answers[:2])
    parts.collect(answers[2:])
    parts.update()
    torch.testing.assert_close(parts.value, whole.value)

    ranks = [Center(5, momentum=0.5) for _ in range(2)]
    for center, own in zip(ranks, (answers[:2], answers[2:]), strict=True):
        center.collect(own)
    total = ranks[0].sums + ranks[1].sums
    for center in ranks:
        center.update(reduce=lambda _: total)
        torch.testing.assert_close(center.value, whole.value)


def test_center_with_momentum_one_stays() -> None:
    center = Center(3, momentum=1.0)
    center.collect(torch.ones(2, 3))
    center.update()
    assert torch.equal(center.value, torch.zeros(3))


def test_state_of_a_center() -> None:
    center, other = Center(3, momentum=0.5), Center(3, momentum=0.5)
    center.collect(torch.ones(2, 3))
    center.update()
    other.load_state_dict(center.state_dict())
    assert torch.equal(other.value, center.value)
    assert list(center.state_dict()) == ["value"]


@given(seed=st.integers(0, 1000), temperature=st.floats(0.01, 2))
def test_teacher_distribution_equals_its_formula(seed: int, temperature: float) -> None:
    logits = torch.rand(4, 6, generator=seeded(seed), dtype=torch.float64, requires_grad=True)
    center = torch.rand(6, generator=seeded(seed + 1), dtype=torch.float64)
    found = teacher_distribution(logits, center, temperature)
    weight = np.exp((logits.detach().numpy() - center.numpy()) / temperature)
    np.testing.assert_allclose(found.numpy(), weight / weight.sum(1, keepdims=True), rtol=1e-9)
    assert not found.requires_grad


def test_sharpening_and_centering_move_the_entropy_in_opposite_directions() -> None:
    logits = torch.rand(50, 6, generator=seeded()) + torch.tensor([1.0, 0, 0, 0, 0, 0])

    def entropy(center: torch.Tensor, temperature: float) -> float:
        p = teacher_distribution(logits, center, temperature)
        return float(torch.special.entr(p).sum(-1).mean())

    none, mean = torch.zeros(6), logits.mean(0)
    assert entropy(none, 0.05) < entropy(none, 0.1) < entropy(none, 1.0)
    assert entropy(none, 0.1) < entropy(mean, 0.1)


class Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.again = self.linear  # shared weights must not be averaged twice
        with torch.no_grad():
            for x in (*self.parameters(), self.norm.running_mean):
                x.normal_(generator=seeded(seed))
        self.norm.num_batches_tracked.fill_(seed)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.996, 1.0])
def test_momentum_update_is_exact(momentum: float) -> None:
    teacher, student = Net(1).requires_grad_(False), Net(2)
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    untouched = {name: x.clone() for name, x in student.state_dict().items()}
    momentum_update(teacher, student, momentum)
    for name, x in teacher.state_dict().items():
        new = student.state_dict()[name]
        assert torch.equal(new, untouched[name])
        if name == "norm.num_batches_tracked":
            assert x == 2
        else:
            wanted = momentum * before[name].double() + (1 - momentum) * new.double()
            torch.testing.assert_close(x.double(), wanted, rtol=1e-6, atol=1e-7)
            if momentum in (0.0, 1.0):
                assert torch.equal(x, before[name] if momentum else new)


def test_momentum_update_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        momentum_update(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), 0.5)


@given(steps=st.integers(1, 300), share=st.floats(0, 1), values=st.tuples(*[st.floats(0, 1)] * 2))
def test_warmup_stays_between_its_ends(
    steps: int, share: float, values: tuple[float, float]
) -> None:
    first, last = values
    line = [linear_warmup(n, steps, first=first, last=last, share=share) for n in range(steps + 1)]
    assert line[-1] == last
    assert line[0] == (first if share else last)
    assert (np.diff(line) * np.sign(last - first) >= -1e-12).all()
    inner = [n for n in range(steps) if 0 < n < share * steps]
    for n in inner:
        assert line[n] == pytest.approx(np.interp(n, [0, share * steps], values), abs=1e-12)


@given(steps=st.integers(1, 300), first=st.floats(0, 1))
def test_momentum_rises_to_one(steps: int, first: float) -> None:
    rising = [rising_momentum(n, steps, first=first) for n in range(steps + 1)]
    assert rising[0] == pytest.approx(first)
    assert rising[-1] == 1
    assert (np.diff(rising) >= -1e-12).all()
    assert rising[: steps // 2 + 1][-1] <= 1 - (1 - first) / 2 + 1e-9


def test_precise_never_loses() -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    found = [precise(torch.ones(1, dtype=dtype)).dtype for dtype in kinds]
    assert found == [torch.float32] * 3 + [torch.float64]
