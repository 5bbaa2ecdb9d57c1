"""Decoder of one field: reads ever earlier encoder layers, as a U-Net does."""

from __future__ import annotations

from xatmorep.model.attention import Attention
from xatmorep.model.config import ModelConfig
from xatmorep.model.encoder import FeedForward, TransformerLayer

__all__ = ["decoder_layer", "encoder_source"]


def encoder_source(config: ModelConfig, layer: int) -> int:
    """Encoder layer (1 to n, 0 is the embedding) that a decoder layer (from 0) attends to.

    Examples
    --------
    With six encoder layers and ``cross_rate=1`` the decoder walks back from the last one: 6, 5, ...
    """
    return config.encoder.layers - int(config.decoder.cross_rate * layer)


def decoder_layer(config: ModelConfig, name: str) -> TransformerLayer:
    """One decoder layer of the field `name`; its heads are shared by self- and cross-attention."""
    width, decoder = config.networks[name].width, config.decoder
    cross_heads = int(decoder.heads * decoder.cross_ratio)
    attention = Attention(
        width,
        heads=decoder.heads - cross_heads,
        head_width=width // decoder.heads,
        coupled_widths=[width],
        coupling_heads=cross_heads,
        qk_norm=decoder.qk_norm,
    )
    feed_forward = FeedForward(
        width, decoder.mlp_layers, config.dropout, config.mlp_output_activation
    )
    return TransformerLayer(attention, feed_forward, config.dropout, config.layer_norm)
