"""Ensemble tails: from the features of a token to its grid points, several times over."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xatmorep.model.config import ModelConfig
from xatmorep.model.encoder import plain_norm

__all__ = ["EnsembleTail"]


class EnsembleTail(nn.Module):
    """Independent small networks, one for each member: layer norm, hidden layers, output layer.

    The members are stacked in common parameters, so that all of them cost a few large matrix
    products. They are evaluated in float32 (float64 in a float64 network), also under autocast.

    Parameters
    ----------
    width : int
        Width D of the features.
    points : int
        Grid points P of a token.
    members : int
        Number M of members.
    hidden_layers : int
        Hidden layers (linear, exact GELU) of each member.

    Examples
    --------
    >>> EnsembleTail(width=8, points=12, members=4)(torch.randn(5, 8)).shape
    torch.Size([5, 4, 12])
    """

    def __init__(self, width: int, points: int, members: int, hidden_layers: int = 0) -> None:
        super().__init__()
        self.norm_weight = nn.Parameter(torch.ones(members, width))
        self.norm_bias = nn.Parameter(torch.zeros(members, width))
        sizes = [width] * (hidden_layers + 1) + [points]
        self.weights = nn.ParameterList(
            torch.randn(members, n_out, n_in) * n_in**-0.5 for n_in, n_out in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(members, n_out) for n_out in sizes[1:])

    @classmethod
    def of(cls, config: ModelConfig, name: str) -> EnsembleTail:
        """Tails of the field `name`."""
        return cls(
            config.networks[name].width,
            config.inputs.field(name).points_per_token,
            config.tail.members,
            config.tail.hidden_layers,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (R, D) to values (R, M, P)."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(self.norm_weight.dtype, torch.float32)
            weights = [weight.to(dtype) for weight in self.weights]
            biases = [bias.to(dtype) for bias in self.biases]
            # Norm weight g and bias b of a member go into its first layer, W (g n + b) + c =
            # (W g) n + (W b + c): then n is the same for all and one product serves all members.
            weight = weights[0] * self.norm_weight.to(dtype)[:, None]
            bias = biases[0] + (weights[0] @ self.norm_bias.to(dtype)[..., None])[..., 0]
            y = F.linear(plain_norm(x.to(dtype)), weight.flatten(0, 1), bias.flatten())
            y = y.unflatten(-1, bias.shape)
            for weight, bias in zip(weights[1:], biases[1:], strict=True):
                y = torch.einsum("rmi,moi->rmo", F.gelu(y), weight) + bias
            return y

    def flops(self, rows: int) -> int:
        """Floating point operations of the matrix products for R tokens."""
        return 2 * rows * sum(weight.numel() for weight in self.weights)
