"""Attention of one field to itself and to others: one module for encoders and decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention"]


class Attention(nn.Module):
    """Self-attention with cross-attention heads to other sequences beside the self heads.

    Every head computes ``softmax(q k^T / sqrt(head_width)) v`` over all tokens; queries always come
    from the own sequence, keys and values from the own one (self heads) or from another (cross
    heads). All heads are concatenated, self heads first, and projected back by one matrix. Nothing
    is masked, and the inputs are expected to be normalized already.

    Parameters
    ----------
    width : int
        Width D of the own sequence.
    heads : int
        Number of self heads.
    head_width : int
        Width d of every head, self and cross.
    coupled_widths : sequence of int
        Width of each other sequence.
    coupling_heads : int
        Number of cross heads for each other sequence.
    qk_norm : {"none", "plain", "affine"}
        Layer norm of queries and keys over a head; with ``"affine"`` one pair of parameters is
        shared by all heads.
    norm_cross_query : bool
        Whether `qk_norm` includes the queries of cross heads.
    scores : sequence of Tensor
        What is added to the scores ``q k^T / sqrt(head_width)`` of self heads, (heads, N, N), and
        of the heads to each other sequence, (coupling_heads, N, N_c); nothing if empty. They are
        constants, not saved with the weights.

    Attributes
    ----------
    is_local : bool
        Whether there are `scores`.

    Notes
    -----
    Rows of the weights: ``qkv`` head, then (query, key, value), then d; ``query`` other sequence,
    then head, then d; ``key_value[c]`` head, then (key, value), then d. This is the order of the
    published AtmoRep weights.

    Examples
    --------
    >>> attention = Attention(8, heads=2, head_width=4, coupled_widths=[6], coupling_heads=1)
    >>> own, other = torch.randn(1, 5, 8), torch.randn(1, 3, 6)
    >>> attention(own, [other]).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        coupled_widths: Sequence[int] = (),
        coupling_heads: int = 1,
        qk_norm: Literal["none", "plain", "affine"] = "none",
        norm_cross_query: bool = True,
        scores: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.heads, self.coupling_heads, self.head_width = heads, coupling_heads, head_width
        self.norm_cross_query = norm_cross_query
        cross_width = coupling_heads * head_width
        n_cross = len(coupled_widths)
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        if n_cross:
            self.query = nn.Linear(width, n_cross * cross_width, bias=False)
        self.key_value = cast(
            "Sequence[nn.Linear]",
            nn.ModuleList(
                nn.Linear(other, 2 * cross_width, bias=False) for other in coupled_widths
            ),
        )
        self.out = nn.Linear(heads * head_width + n_cross * cross_width, width, bias=False)
        self.query_norm, self.key_norm = (_head_norm(qk_norm, head_width) for _ in range(2))
        for number, added in enumerate(scores):
            self.register_buffer(f"scores_{number}", added[None], persistent=False)
        self.is_local = bool(scores)

    def project(self, own: Tensor, others: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Queries, keys and values: of the self heads, then of the heads to each other sequence.

        Parameters
        ----------
        own : Tensor
            (B, N, D)
        others : sequence of Tensor
            (B, N_c, D_c) each.

        Returns
        -------
        list of (query, key, value)
            (B, heads, N, d), (B, heads, N_c, d), (B, heads, N_c, d).
        """
        d = self.head_width
        q, k, v = self.qkv(own).unflatten(-1, (self.heads, 3, d)).transpose(1, 2).unbind(3)
        parts = [(self.query_norm(q), self.key_norm(k), v)]
        if others:
            cross_q = self.query(own).unflatten(-1, (len(others), self.coupling_heads, d))
            if self.norm_cross_query:
                cross_q = self.query_norm(cross_q)
            for q, other, key_value in zip(cross_q.unbind(2), others, self.key_value, strict=True):
                kv = key_value(other).unflatten(-1, (self.coupling_heads, 2, d))
                k, v = kv.transpose(1, 2).unbind(3)
                parts.append((q.transpose(1, 2), self.key_norm(k), v))
        return parts

    def forward(self, own: Tensor, others: Sequence[Tensor] = ()) -> Tensor:
        """Attend by torch's fused kernels: (B, N, D) and others (B, N_c, D_c) to (B, N, D)."""
        parts = self.project(own, others)
        heads = [
            _attend(*part, None if added is None else added.to(own))
            for part, added in zip(parts, self._added(len(parts)), strict=True)
        ]
        return self._merge(heads)

    def explicit(
        self, own: Tensor, others: Sequence[Tensor], rows: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Attend with the weights at hand, for some query tokens only.

        Parameters
        ----------
        own, others
            As in `forward`.
        rows : Tensor
            int64, (B, Q): the query tokens of each batch entry.

        Returns
        -------
        output : Tensor
            (B, Q, D), the same rows of what `forward` returns.
        weights : list of Tensor
            (B, heads, Q, N_c) for the own and each other sequence, in float32 at least; every row
            sums to one.

        Examples
        --------
        >>> attention = Attention(8, heads=2, head_width=4)
        >>> x, rows = torch.randn(1, 5, 8), torch.tensor([[3]])
        >>> output, [weights] = attention.explicit(x, [], rows)
        >>> weights.shape
        torch.Size([1, 2, 1, 5])
        >>> torch.allclose(output, attention(x)[:, [3]], atol=1e-5)
        True
        """
        heads, weights = [], []
        parts = self.project(own, others)
        for (query, key, value), added in zip(parts, self._added(len(parts)), strict=True):
            scores = query.take_along_dim(rows[:, None, :, None], 2) @ key.transpose(-1, -2)
            dtype = torch.promote_types(scores.dtype, torch.float32)
            scores = scores.to(dtype) * self.head_width**-0.5
            if added is not None:
                scores = scores + added.to(dtype).take_along_dim(rows[:, None, :, None], 2)
            weights.append(torch.softmax(scores, dim=-1))
            heads.append(weights[-1].to(value.dtype) @ value)
        return self._merge(heads), weights

    @torch.no_grad()
    def tie_keys(self) -> None:
        """Set the weights of keys to those of queries, as far as the widths go.

        An initialization: tokens that are alike then attend to each other from the first step, and
        with positional encodings near ones are alike. Training from untied weights spends hundreds
        of steps on finding this out. Norms with parameters start with a gain that doubles scores:
        those of plainly normalized heads of moderate width are too small to single out a token.
        """
        for norm in (self.query_norm, self.key_norm):
            if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine:
                norm.weight.fill_(2**0.5)
        d = self.head_width
        qkv = self.qkv.weight.unflatten(0, (self.heads, 3, d))
        qkv[:, 1] = qkv[:, 0]
        if self.key_value:
            queries = self.query.weight.unflatten(0, (len(self.key_value), self.coupling_heads, d))
            for query, key_value in zip(queries, self.key_value, strict=True):
                key = key_value.weight.unflatten(0, (self.coupling_heads, 2, d))[:, 0]
                common = min(key.shape[-1], query.shape[-1])
                key[..., :common] = query[..., :common]

    def flops(self, n: int, n_others: Sequence[int] = ()) -> int:
        """Floating point operations of the matrix products for N tokens and others of N_c."""
        linear = n * (self.qkv.weight.numel() + self.out.weight.numel())
        if n_others:
            linear += n * self.query.weight.numel()
        for n_other, key_value in zip(n_others, self.key_value, strict=True):
            linear += n_other * key_value.weight.numel()
        products = 2 * n * (self.heads * n + self.coupling_heads * sum(n_others))
        return 2 * (linear + products * self.head_width)

    def _added(self, n: int) -> list[Tensor | None]:
        """What is added to the scores of the self heads and of those to each other sequence."""
        if not self.is_local:
            return [None] * n
        return [self.get_buffer(f"scores_{number}") for number in range(n)]

    def _merge(self, heads: list[Tensor]) -> Tensor:
        """Concatenate heads (B, heads, N, d) and project them: (B, N, D)."""
        merged: Tensor = self.out(torch.cat(heads, dim=1).transpose(1, 2).flatten(2))
        return merged


def _attend(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None) -> Tensor:
    """Attention of each head by torch's fused kernels: (B, heads, N, d)."""
    if torch.is_autocast_enabled("cpu") and query.device.type == "cpu":
        # On CPUs torch's kernels take up to twice as long in bfloat16 as in float32, even where
        # products of matrices take a third (benchmarks/precision.py).
        with torch.autocast("cpu", enabled=False):
            query, key, value = query.float(), key.float(), value.float()
            added = None if added is None else added.float()
            return F.scaled_dot_product_attention(query, key, value, attn_mask=added)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=added)


def _head_norm(kind: Literal["none", "plain", "affine"], width: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.LayerNorm(width, elementwise_affine=kind == "affine")
