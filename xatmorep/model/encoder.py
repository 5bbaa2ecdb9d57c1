"""A transformer layer of one field, which may read other fields."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from xatmorep.model.attention import Attention
from xatmorep.model.config import ModelConfig
from xatmorep.model.locality import local_scores

__all__ = ["FeedForward", "TransformerLayer", "encoder_layer", "plain_norm"]


def plain_norm(x: Tensor) -> Tensor:
    """Layer norm over the last axis, without parameters."""
    return F.layer_norm(x, x.shape[-1:])


class FeedForward(nn.Sequential):
    """Linear layers with exact GELU in between; hidden layers are twice as wide.

    Parameters
    ----------
    width : int
        Width D of input and output.
    layers : int
        Number of linear layers, at least 2.
    dropout : float
        Rate of dropout after each hidden GELU.
    output_activation : bool
        GELU after the last linear layer too.

    Examples
    --------
    >>> import torch
    >>> FeedForward(4, layers=3, dropout=0.0, output_activation=False)(torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """

    def __init__(self, width: int, layers: int, dropout: float, output_activation: bool) -> None:
        modules: list[nn.Module] = []
        for size in [width] + [2 * width] * (layers - 2):
            modules += [nn.Linear(size, 2 * width), nn.GELU(), nn.Dropout(dropout)]
        modules.append(nn.Linear(2 * width, width))
        if output_activation:
            modules.append(nn.GELU())
        super().__init__(*modules)

    @property
    def last(self) -> nn.Linear:
        """The last linear layer."""
        return [module for module in self if isinstance(module, nn.Linear)][-1]


class TransformerLayer(nn.Module):
    """Attention and feed-forward block, each added to what came in.

    Parameters
    ----------
    attention : Attention
        To the own and other sequences.
    feed_forward : FeedForward
        For each token by itself.
    dropout : float
        Rate of dropout after attention.
    layer_norm : bool
        Layer norm before the feed-forward block.
    """

    def __init__(
        self, attention: Attention, feed_forward: FeedForward, dropout: float, layer_norm: bool
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = layer_norm

    def forward(self, x: Tensor, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Update one field.

        Parameters
        ----------
        x : Tensor
            The field before this layer, (B, N, D).
        own : Tensor
            The same as attention reads it, that is normalized; passed in because coupled fields
            read it too.
        others : sequence of Tensor
            What attention reads of the other sequences, (B, N_c, D_c).
        """
        x = x + self.dropout(self.attention(own, others))
        y: Tensor = x + self.feed_forward(plain_norm(x) if self.layer_norm else x)
        return y

    def flops(self, n: int, n_others: Sequence[int]) -> int:
        """Floating point operations of the matrix products for N tokens and others of N_c."""
        linear = sum(p.numel() for p in self.feed_forward.parameters() if p.ndim == 2)
        return self.attention.flops(n, n_others) + 2 * n * linear


def encoder_layer(config: ModelConfig, name: str) -> TransformerLayer:
    """One encoder layer of the field `name`; cross heads come on top of the self heads."""
    network, encoder = config.networks[name], config.encoder
    attention = Attention(
        network.width,
        heads=encoder.heads,
        head_width=network.width // encoder.heads,
        coupled_widths=[config.networks[other].width for other in network.coupled],
        coupling_heads=encoder.coupling_heads,
        qk_norm=encoder.qk_norm,
        norm_cross_query=encoder.qk_norm_cross_query,
        scores=[
            local_scores(config.inputs, name, other, heads, encoder.locality)
            for other, heads in [
                (name, encoder.heads),
                *((other, encoder.coupling_heads) for other in network.coupled),
            ]
            if encoder.locality
        ],
    )
    feed_forward = FeedForward(
        network.width, encoder.mlp_layers, config.dropout, config.mlp_output_activation
    )
    return TransformerLayer(attention, feed_forward, config.dropout, config.layer_norm)
