"""Decoder against explicit loops, and which encoder layer it reads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.model import networks
from xatmorep.model.config import ModelConfig
from xatmorep.model.decoder import decoder_layer, encoder_source
from xatmorep.model.encoder import TransformerLayer
from xatmorep.model.multiformer import Multiformer

NAME = networks.TEMPERATURE.name


def norm(x: Tensor) -> Tensor:
    return (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def twin(layer: TransformerLayer, config: ModelConfig, x: Tensor, source: Tensor) -> Tensor:
    """One decoder layer for one batch entry, token by token: (N, D) and (N, D) to (N, D)."""
    attention, feed_forward = layer.attention, layer.feed_forward
    width, n_heads = x.shape[1], config.decoder.heads
    e, n_cross = width // n_heads, int(n_heads * config.decoder.cross_ratio)
    n_self = n_heads - n_cross

    def qk_norm(x: Tensor, which: torch.nn.Module) -> Tensor:
        if config.decoder.qk_norm == "none":
            return x
        y = norm(x)
        affine = config.decoder.qk_norm == "affine"
        return y * which.weight + which.bias if affine else y  # type: ignore[operator]

    xs, sources, result = [norm(t) for t in x], [norm(t) for t in source], []
    for own in range(len(xs)):
        parts = []
        for h in range(n_heads):
            if h < n_self:
                q, k, v = attention.qkv.weight[3 * e * h : 3 * e * (h + 1)].split(e)
                seen = xs
            else:
                c = h - n_self
                q = attention.query.weight[e * c : e * (c + 1)]
                k, v = attention.key_value[0].weight[2 * e * c : 2 * e * (c + 1)].split(e)
                seen = sources
            query = qk_norm(q @ xs[own], attention.query_norm)
            keys = [qk_norm(k @ t, attention.key_norm) for t in seen]
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(e)
            weights = scores.exp() / scores.exp().sum()
            parts.append(sum(w * (v @ t) for w, t in zip(weights, seen, strict=True)))
        y = x[own] + attention.out.weight @ torch.cat(parts)  # type: ignore[arg-type]
        z = norm(y) if config.layer_norm else y
        z = feed_forward[0].weight @ z + feed_forward[0].bias
        z = feed_forward[3].weight @ gelu(z) + feed_forward[3].bias
        result.append(y + (gelu(z) if config.mlp_output_activation else z))
    return torch.stack(result)


@pytest.mark.parametrize(
    "config",
    [
        networks.config(),
        networks.config(decoder={"cross_ratio": 0.25, "qk_norm": "plain"}, layer_norm=False),
        networks.atmorep(),
    ],
)
def test_equals_loops(config: ModelConfig) -> None:
    torch.manual_seed(0)
    layer = decoder_layer(config, NAME).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    network = Multiformer(config).double()
    network.decoders[NAME] = torch.nn.ModuleList([layer, layer])
    del network.decoders[networks.WIND.name]
    layers = [torch.randn(2, 5, 12, dtype=torch.float64) for _ in range(3)]
    with torch.no_grad():
        decoded = network.decode({NAME: layers})[NAME]
        for b in range(2):
            # First layer: the start value itself, the second: one encoder layer down.
            first = twin(layer, config, layers[2][b], layers[2][b])
            second = twin(layer, config, first, layers[1][b])
            torch.testing.assert_close(decoded[b], second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("cross_rate", "sources"), [(1.0, [6, 5, 4]), (0.5, [6, 6, 5]), (2.0, [6, 4, 2]), (0, [6] * 3)]
)
def test_deeper_layers_read_earlier_encoder_layers(cross_rate: float, sources: list[int]) -> None:
    config = networks.config(encoder={"layers": 6}, decoder={"layers": 3, "cross_rate": cross_rate})
    assert [encoder_source(config, layer) for layer in range(3)] == sources


@pytest.mark.parametrize(("ratio", "cross"), [(0.5, 2), (0.25, 1), (0.3, 1), (0.99, 3)])
def test_heads_are_shared_between_self_and_cross(ratio: float, cross: int) -> None:
    attention = decoder_layer(networks.config(decoder={"cross_ratio": ratio}), NAME).attention
    assert (attention.heads, attention.coupling_heads) == (4 - cross, cross)
    assert attention.head_width == 3
    assert attention.out.weight.shape == (12, 12)
