"""Feed-forward blocks and transformer layers against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.model import networks
from xatmorep.model.encoder import FeedForward, TransformerLayer, encoder_layer, plain_norm


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def test_plain_norm_divides_by_the_biased_deviation() -> None:
    x = torch.randn(3, 7, dtype=torch.float64)
    centered = x - x.mean(-1, keepdim=True)
    expected = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(plain_norm(x), expected)


@pytest.mark.parametrize("output_activation", [False, True])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_feed_forward_equals_its_formula(layers: int, output_activation: bool) -> None:
    block = FeedForward(4, layers, dropout=0.0, output_activation=output_activation).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    y = x
    linears = [module for module in block if isinstance(module, nn.Linear)]
    assert [linear.out_features for linear in linears] == [8] * (layers - 1) + [4]
    # The places of AtmoRep's linear layers: 0, 3, 6, ...
    assert linears == [block[3 * i] for i in range(layers)]
    for linear in linears[:-1]:
        y = gelu(y @ linear.weight.T + linear.bias)
    y = y @ linears[-1].weight.T + linears[-1].bias
    torch.testing.assert_close(block(x), gelu(y) if output_activation else y)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_adds_attention_then_feed_forward(layer_norm: bool) -> None:
    config = networks.config(layer_norm=layer_norm)
    layer = encoder_layer(config, networks.WIND.name).double()
    x, t, v = (torch.randn(2, n, d, dtype=torch.float64) for n, d in [(8, 8), (9, 12), (2, 8)])
    y = x + layer.attention(x, [t, v])
    y = y + layer.feed_forward(plain_norm(y) if layer_norm else y)
    torch.testing.assert_close(layer(x, x, [t, v]), y)


def test_cross_heads_come_on_top_of_the_self_heads() -> None:
    config = networks.config(encoder={"heads": 2, "coupling_heads": 3})
    attention = encoder_layer(config, networks.WIND.name).attention
    assert attention.head_width == 4
    assert attention.out.weight.shape == (8, 4 * (2 + 2 * 3))
    assert [kv.weight.shape for kv in attention.key_value] == [(2 * 3 * 4, 12), (2 * 3 * 4, 8)]


def test_switches_reach_the_layer() -> None:
    layer = encoder_layer(networks.atmorep(dropout=0.25), networks.WIND.name)
    assert isinstance(layer.attention.query_norm, nn.LayerNorm)
    assert not layer.attention.norm_cross_query
    assert isinstance(layer.feed_forward[-1], nn.GELU)
    rates = [module.p for module in layer.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.25, 0.25]


def test_dropout_acts_after_attention_and_hidden_layers_in_training_only() -> None:
    torch.manual_seed(0)
    layer = encoder_layer(networks.config(dropout=0.5), networks.VORTICITY.name)
    x, t = torch.randn(1, 2, 8), torch.randn(1, 9, 12)
    assert not torch.equal(layer(x, x, [t]), layer(x, x, [t]))
    layer.eval()
    assert torch.equal(layer(x, x, [t]), layer(x, x, [t]))


def test_all_dropped_leaves_the_input() -> None:
    layer = encoder_layer(networks.config(), networks.VORTICITY.name)
    assert isinstance(layer, TransformerLayer)
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 1.0
    x, t = torch.randn(1, 2, 8), torch.randn(1, 9, 12)
    assert torch.equal(layer(x, x, [t]), x + layer.feed_forward[-1].bias)
