"""What self-distillation compares: one vector for each view of a neighborhood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from xatmorep.objectives.teacher import precise
from xatmorep.tokens.info import TOKEN_INFO

__all__ = ["View", "displace", "pool"]

YEAR, DAY, HOUR, _, LATITUDE, LONGITUDE, _ = range(len(TOKEN_INFO))

# Years around 2000 that a view may be told it is from.
YEARS = 50

HOURS_OF_A_YEAR = 24 * 365.25


class View(Protocol):
    """Anything that says which tokens of a neighborhood can't be seen.

    `xatmorep.objectives.masking.Masked` is one, and so is what a network reads.
    """

    @property
    def blank(self) -> Mapping[str, Tensor]:
        """Bool ``(batch, level, T, A, O)`` by field: tokens whose values are withheld."""
        ...


def pool(features: Mapping[str, Tensor], blank: Mapping[str, Tensor]) -> Tensor:
    r"""One vector for each neighborhood: what the encoder says about the tokens that it sees.

    .. math::
        z = \mathrm{concat}_f \, \mathrm{norm} \Big(
        \frac{1}{|V_f|} \sum_{n \in V_f} x_{f, n} \Big)

    with the visible tokens :math:`V_f` of field f, and all of its tokens where none is visible
    (what the encoder concludes from other fields).

    Only visible tokens count, because all of them are visible when a trained model is used, and
    because those without data would dilute the others. Fields are put side by side, not averaged:
    each has a transformer and a width of its own, so that equal numbers mean different things. A
    layer norm without parameters makes fields count alike, and the features of deep encoders,
    whose size is left open, comparable.

    Parameters
    ----------
    features : mapping of str to Tensor
        ``(batch, N, D)`` by field, of the last layer; N = level * T * A * O tokens in that order.
    blank : mapping of str to Tensor
        Bool ``(batch, level, T, A, O)`` by field.

    Returns
    -------
    Tensor
        ``(batch, W)``, W the sum of the widths D; fields sorted by name, whatever their order. In
        float32 at least, also under autocast.

    Examples
    --------
    >>> features = {"t": torch.tensor([[[1.0, 3.0], [8.0, 2.0], [3.0, 5.0]]])}
    >>> blank = {"t": torch.tensor([False, True, False]).reshape(1, 1, 3, 1, 1)}
    >>> pool(features, blank).round(decimals=3)  # the mean of the first and the last is (2, 4)
    tensor([[-1.,  1.]])
    """
    pooled = []
    for name in sorted(features):
        x = features[name]
        x = precise(x)
        visible = ~blank[name].flatten(1)
        counted = visible | ~visible.any(1, keepdim=True)
        share = counted / counted.sum(1, keepdim=True)
        with torch.autocast(x.device.type, enabled=False):
            mean = torch.einsum("bn,bnd->bd", share.to(x), x)
            pooled.append(F.layer_norm(mean, mean.shape[-1:]))
    return torch.cat(pooled, dim=1)


def displace(
    info: Mapping[str, Tensor], statics: Mapping[str, Tensor], generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tell a network that neighborhoods are at another time and place.

    Time and place are the same in all views of a neighborhood, and name it: an encoder that is
    told the true ones has nothing to look for in the values. Each neighborhood is moved as a
    whole, to a time of the year and of the day, a latitude and a longitude that say nothing about
    where it was; its year is one within 50 of 2000. Levels, resolution and the steps between its
    tokens stay. It has the static fields of another neighborhood of the batch, or by chance its
    own.

    Parameters
    ----------
    info : mapping of str to Tensor
        Token info ``(batch, ..., 7)`` by field, in the order of
        `xatmorep.tokens.info.TOKEN_INFO`.
    statics : mapping of str to Tensor
        Static fields ``(batch, ...)`` by field; empty if there are none.
    generator : torch.Generator
        Source of the draws, the same for all fields.

    Returns
    -------
    info, statics : dict of Tensor
        New tensors of the same shapes, dtypes and devices.

    Examples
    --------
    >>> info = torch.tensor([[[2021, 1, 6, 850, 50, 10, 1], [2021, 1, 18, 850, 49, 10, 1.0]]])
    >>> moved, _ = displace({"t": info}, {}, torch.Generator().manual_seed(2))
    >>> moved["t"][0, :, 3:] - info[0, :, 3:]
    tensor([[  0.0000, -12.1335, 194.4941,   0.0000],
            [  0.0000, -12.1335, 194.4941,   0.0000]])
    """
    batch = len(next(iter(info.values())))
    draw = torch.rand((4, batch), generator=generator, device=generator.device, dtype=torch.float64)
    order = torch.randperm(batch, generator=generator, device=generator.device)
    latitudes = [x[..., LATITUDE].flatten(1).double() for x in info.values()]
    south = torch.stack([x.amin(1) for x in latitudes]).amin(0)
    north = torch.stack([x.amax(1) for x in latitudes]).amax(0)
    year, time, place, turn = draw.to(south.device)
    year = 2000 + ((2 * YEARS + 1) * year).floor() - YEARS
    northward = (90 - north + 90 + south) * place - 90 - south
    moved = {}
    for name, x in info.items():
        one = (-1, *[1] * (x.ndim - 2))
        parts = list(x.double().unbind(-1))
        hours = 24 * (parts[DAY] - 1) + parts[HOUR] + HOURS_OF_A_YEAR * time.reshape(one)
        hours = hours % HOURS_OF_A_YEAR
        parts[YEAR] = year.reshape(one).expand(hours.shape)
        parts[DAY], parts[HOUR] = (hours / 24).floor() + 1, hours % 24
        parts[LATITUDE] = parts[LATITUDE] + northward.reshape(one)
        parts[LONGITUDE] = (parts[LONGITUDE] + 360 * turn.reshape(one)) % 360
        moved[name] = torch.stack(parts, dim=-1).to(x.dtype)
    return moved, {name: x[order.to(x.device)] for name, x in statics.items()}
