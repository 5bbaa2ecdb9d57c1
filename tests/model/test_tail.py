"""Ensemble tails against one module for each member."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xatmorep.model.tail import EnsembleTail


def make(hidden_layers: int, members: int = 4) -> EnsembleTail:
    torch.manual_seed(0)
    tail = EnsembleTail(width=6, points=5, members=members, hidden_layers=hidden_layers).double()
    for parameter in tail.parameters():
        nn.init.normal_(parameter)
    return tail


def member(tail: EnsembleTail, number: int) -> nn.Sequential:
    """One member as ordinary layers."""
    norm = nn.LayerNorm(6)
    norm.weight.data, norm.bias.data = tail.norm_weight[number], tail.norm_bias[number]
    layers: list[nn.Module] = [norm]
    for weight, bias in zip(tail.weights, tail.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[1])
        linear.weight.data, linear.bias.data = weight[number], bias[number]
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_equals_a_module_for_each_member(hidden_layers: int) -> None:
    tail = make(hidden_layers)
    x = torch.randn(7, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([member(tail, m)(x) for m in range(4)], dim=1)
        torch.testing.assert_close(tail(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hidden_layers", [0, 1])
def test_gradients(hidden_layers: int) -> None:
    tail = make(hidden_layers, members=2)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: tail(x), (x, *tail.parameters()))


def test_members_differ_from_the_start() -> None:
    prediction = EnsembleTail(width=6, points=5, members=3)(torch.randn(7, 6))
    assert (prediction.std(1) > 0).all()


def test_no_rows_and_one_member() -> None:
    assert make(1, members=1)(torch.zeros(0, 6, dtype=torch.float64)).shape == (0, 1, 5)


def test_float32_under_autocast_and_in_a_bfloat16_network() -> None:
    tail, x = make(1).float(), torch.randn(7, 6)
    expected = tail(x)
    with torch.autocast("cpu", torch.bfloat16):
        under = tail(x)
    assert under.dtype == torch.float32
    assert torch.equal(under, expected)
    low = tail.bfloat16()(x.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, rtol=0.1, atol=0.3)
