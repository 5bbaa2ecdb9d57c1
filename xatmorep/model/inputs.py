"""What the network reads: plain tensors, one entry for each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xatmorep.tokens.batch import TokenBatch

__all__ = ["NetworkInput"]


@dataclass(frozen=True)
class NetworkInput:
    """Tokens of all fields in one batch of neighborhoods.

    Letters: B neighborhoods, L levels, (T, A, O) tokens in (time, latitude, longitude),
    P = t * a * o grid points of a token, S static fields.

    Attributes
    ----------
    tokens : dict of str to Tensor
        Normalized values without NaN, (B, L, T, A, O, P); points in (time, latitude, longitude)
        order.
    info : dict of str to Tensor
        Token info as it is, float32, (B, L, T, A, O, 7): year, day of year (1 on 1 January), hour,
        level, latitude (degrees north), longitude (degrees east), resolution (degrees).
    blank : dict of str to Tensor
        bool, (B, L, T, A, O); True where the values of a token are withheld from the network.
    statics : dict of str to Tensor
        Normalized static fields on the token grid of each field, (B, A, O, S * a * o); empty if
        the model has none.

    Examples
    --------
    >>> inputs = NetworkInput(
    ...     tokens={"2m_temperature": torch.zeros(1, 1, 3, 2, 4, 36)},
    ...     info={"2m_temperature": torch.zeros(1, 1, 3, 2, 4, 7)},
    ...     blank={"2m_temperature": torch.zeros(1, 1, 3, 2, 4, dtype=torch.bool)},
    ... ).to("cpu", torch.float64)
    >>> inputs.tokens["2m_temperature"].dtype, inputs.info["2m_temperature"].dtype
    (torch.float64, torch.float32)
    """

    tokens: dict[str, Tensor]
    info: dict[str, Tensor]
    blank: dict[str, Tensor]
    statics: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, batch: TokenBatch, tokens: Mapping[str, Tensor], blank: Mapping[str, Tensor]
    ) -> NetworkInput:
        """Input from a batch of labelled tokens and what masking made of its values.

        Parameters
        ----------
        batch : TokenBatch
            Gives token info and static fields.
        tokens : mapping of str to Tensor
            Values that the network may see, (B, L, T, A, O, t, a, o), finite.
        blank : mapping of str to Tensor
            bool, (B, L, T, A, O): tokens whose values are withheld.
        """
        return cls(
            tokens={name: x.flatten(-3) for name, x in tokens.items()},
            info={name: torch.from_numpy(x) for name, x in batch.info.items()},
            blank=dict(blank),
            statics={name: torch.from_numpy(x).flatten(-3) for name, x in batch.statics.items()},
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> NetworkInput:
        """Move to a device; `dtype` is that of tokens and statics.

        Token info stays float32: a year has more digits than bfloat16 can hold.
        """
        return NetworkInput(
            tokens={name: x.to(device, dtype) for name, x in self.tokens.items()},
            info={name: x.to(device) for name, x in self.info.items()},
            blank={name: x.to(device) for name, x in self.blank.items()},
            statics={name: x.to(device, dtype) for name, x in self.statics.items()},
        )
