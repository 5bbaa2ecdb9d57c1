"""Attention against explicit loops, and the explicit path against the fused one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xatmorep.model.attention import Attention

KINDS = [
    {},
    {"coupled_widths": [6, 10], "coupling_heads": 2},
    {"coupled_widths": [6, 10], "coupling_heads": 2, "qk_norm": "plain"},
    {
        "coupled_widths": [6],
        "coupling_heads": 3,
        "qk_norm": "plain",
        "norm_cross_query": False,
    },
    {"coupled_widths": [8], "coupling_heads": 1, "qk_norm": "affine"},
]


def make(kind: dict[str, Any], seed: int = 0) -> tuple[Attention, Tensor, list[Tensor]]:
    torch.manual_seed(seed)
    attention = Attention(8, heads=2, head_width=4, **kind).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    own = torch.randn(2, 5, 8, dtype=torch.float64)
    widths = kind.get("coupled_widths", [])
    others = [torch.randn(2, 3 + i, width, dtype=torch.float64) for i, width in enumerate(widths)]
    return attention, own, others


def norm(x: Tensor, layer: torch.nn.Module) -> Tensor:
    if isinstance(layer, torch.nn.Identity):
        return x
    y = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)
    weight = getattr(layer, "weight", None)
    return y if weight is None else y * layer.weight + layer.bias


def twin(attention: Attention, own: Tensor, others: list[Tensor], b: int, row: int) -> Tensor:
    """One output token, head by head and key by key."""
    d, heads = attention.head_width, []

    def head(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        weights = [math.exp(float(query @ key) / math.sqrt(d)) for key in keys]
        total = sum(weights)
        return sum((w / total) * v for w, v in zip(weights, values, strict=True))  # type: ignore[return-value]

    for h in range(attention.heads):
        q, k, v = attention.qkv.weight[3 * d * h : 3 * d * (h + 1)].split(d)
        heads.append(
            head(
                norm(q @ own[b, row], attention.query_norm),
                [norm(k @ x, attention.key_norm) for x in own[b]],
                [v @ x for x in own[b]],
            )
        )
    for c, other in enumerate(others):
        for h in range(attention.coupling_heads):
            number = c * attention.coupling_heads + h
            query = attention.query.weight[d * number : d * (number + 1)] @ own[b, row]
            if attention.norm_cross_query:
                query = norm(query, attention.query_norm)
            k, v = attention.key_value[c].weight[2 * d * h : 2 * d * (h + 1)].split(d)
            heads.append(
                head(
                    query,
                    [norm(k @ x, attention.key_norm) for x in other[b]],
                    [v @ x for x in other[b]],
                )
            )
    return attention.out.weight @ torch.cat(heads)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_loops(kind: dict[str, Any]) -> None:
    attention, own, others = make(kind)
    with torch.no_grad():
        output = attention(own, others)
        for b in range(2):
            for row in range(5):
                expected = twin(attention, own, others, b, row)
                torch.testing.assert_close(output[b, row], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000))
def test_explicit_equals_fused(kind: dict[str, Any], seed: int) -> None:
    attention, own, others = make(kind, seed)
    attention, own, others = attention.float(), own.float(), [x.float() for x in others]
    rows = torch.stack([torch.randperm(5)[:3], torch.randperm(5)[:3]])
    with torch.no_grad():
        fused = attention(own, others)
        output, weights = attention.explicit(own, others, rows)
    for b in range(2):
        torch.testing.assert_close(output[b], fused[b, rows[b]], rtol=1e-5, atol=1e-5)
    sizes = [(2, 2, 3, 5)] + [(2, attention.coupling_heads, 3, x.shape[1]) for x in others]
    assert [tuple(w.shape) for w in weights] == sizes
    for w in weights:
        assert (w >= 0).all()
        torch.testing.assert_close(w.sum(-1), torch.ones(w.shape[:-1]), rtol=0, atol=1e-6)


def test_one_token_attends_to_itself() -> None:
    attention, own, _ = make({})
    _, [weights] = attention.explicit(own[:, :1], [], torch.zeros(2, 1, dtype=torch.int64))
    assert (weights == 1).all()


def test_rows_sum_to_one_in_bfloat16_too() -> None:
    attention, own, others = make(KINDS[2])
    attention, own, others = attention.bfloat16(), own.bfloat16(), [x.bfloat16() for x in others]
    output, weights = attention.explicit(own, others, torch.tensor([[0], [1]]))
    assert output.dtype == torch.bfloat16
    for w in weights:
        torch.testing.assert_close(w.sum(-1), torch.ones(w.shape[:-1]), rtol=0, atol=1e-6)
    fused = attention(own, others)[torch.arange(2), torch.arange(2)]
    torch.testing.assert_close(output[:, 0], fused, rtol=0.1, atol=0.3)


def test_attention_stays_in_float32_under_autocast_on_a_cpu(monkeypatch) -> None:
    attention, own, others = make(KINDS[4])
    attention, own, others = attention.float(), own.float(), [x.float() for x in others]
    scores = [torch.zeros(heads, 5, n) for heads, n in ((2, 5), (1, 3))]
    for number, added in enumerate(scores):
        attention.register_buffer(f"scores_{number}", added[None], persistent=False)
    attention.is_local = True
    seen: list[torch.dtype] = []
    attend = F.scaled_dot_product_attention

    def watched(*parts: Tensor, attn_mask: Tensor) -> Tensor:
        seen.extend(x.dtype for x in (*parts, attn_mask))
        return attend(*parts, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    exact = attention(own, others)
    with torch.autocast("cpu", torch.bfloat16):
        output = attention(own, others)
    assert set(seen) == {torch.float32}
    assert len(seen) == 2 * 2 * 4
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.1, atol=0.3)


def test_affine_norm_is_shared_by_self_and_cross_heads() -> None:
    attention, own, others = make({"coupled_widths": [6], "qk_norm": "affine"})
    assert attention.query_norm.weight.shape == (4,)
    (self_query, _, _), (cross_query, _, _) = attention.project(own, others)
    before = self_query.clone(), cross_query.clone()
    with torch.no_grad():
        attention.query_norm.bias += 1
    (self_query, _, _), (cross_query, _, _) = attention.project(own, others)
    torch.testing.assert_close(self_query, before[0] + 1)
    torch.testing.assert_close(cross_query, before[1] + 1)


def test_qk_norm_is_blind_to_the_size_of_its_input() -> None:
    attention, own, others = make(KINDS[2])
    attention.query_norm.eps = attention.key_norm.eps = 1e-12
    rows = torch.tensor([[0], [1]])
    _, small = attention.explicit(own, others, rows)
    _, large = attention.explicit(100 * own, [100 * x for x in others], rows)
    for a, b in zip(small, large, strict=True):
        torch.testing.assert_close(a, b)


def test_wrong_number_of_others_is_refused() -> None:
    attention, own, others = make(KINDS[1])
    with pytest.raises((ValueError, RuntimeError)):
        attention(own, others[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_torch_counts(kind: dict[str, Any]) -> None:
    attention, own, others = make(kind)
    # The counter knows no fused kernel of the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        attention(own[:1], [x[:1] for x in others])
    assert attention.flops(5, [x.shape[1] for x in others]) == counter.get_total_flops()


def test_tied_keys_equal_queries_where_the_inputs_are_the_same() -> None:
    attention, own, _ = make({"coupled_widths": [8, 6], "coupling_heads": 2})
    before = [value for _, _, value in attention.project(own, [own, own[..., :6]])]
    attention.tie_keys()
    parts = attention.project(own, [own, own[..., :6]])
    for query, key, _ in parts[:2]:
        assert torch.equal(query, key)
    # A narrower sequence: queries and keys are equal where the rest of the own one is zero.
    own[..., 6:] = 0
    query, key, _ = attention.project(own, [own, own[..., :6]])[2]
    torch.testing.assert_close(query, key)
    for value, (_, _, after) in zip(before, parts, strict=True):
        assert torch.equal(value, after)
