"""Spectral loss: how strong the waves of each length are, wherever they are."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from xatmorep.errors import ConfigError
from xatmorep.objectives.weighting import prepare, weighted_mean
from xatmorep.tokens.spec import Shape

__all__ = ["spectral", "spectrum"]


def spectral(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    token_shape: Shape | None = None,
    floor: float = 0.01,
) -> Tensor:
    r"""Squared difference of the logarithms of spectra, between each member and the target.

    .. math::
        L = \frac{1}{M K} \sum_k \sum_\kappa
        \Bigl(\frac{1}{2} \log \frac{S_\kappa(e_k) + f^2}{S_\kappa(y) + f^2}\Bigr)^2

    with the variance S in the waves of wavenumber kappa in a frame of the token, see `spectrum`,
    and the floor f; averaged over the frames of all tokens. A wave of half the amplitude costs
    :math:`(\log 2)^2`, whatever its length. Forecasts that are trained on squared errors are
    smooth, because a wave in a wrong place costs twice; here a smooth one costs much more than
    a displaced one. Logarithms are compared, as the variance falls steeply with the wavenumber:
    of amplitudes as they are, those of the longest waves would be all that counts. Members are
    compared, not their mean, since the mean of what is possible is smooth, and should be.

    It knows neither signs nor the token's mean, and places only roughly: use it as an addition to
    another loss. It is not a proper score: best is the mean logarithm of what is possible, for
    all members alike. Where a member has no waves at all, it has no gradient.

    Points without weight are left out of prediction and target alike. Other weights count by
    their sum over the frame, and don't change its waves.

    Parameters
    ----------
    prediction, target, weight : Tensor
        ``(R, M, P)``, ``(R, P)`` and ``(R, P)`` or ``(R, 1)``.
    token_shape : tuple of int
        Points of a token in (time, latitude, longitude); their product is P. Not optional; but
        `xatmorep.objectives.losses.total_loss` passes it on.
    floor : float
        Amplitude below which waves hardly count, above zero, in units of the prediction. The
        default is about what bfloat16 resolves in a normalized field.

    Returns
    -------
    Tensor
        Scalar, never negative.

    Raises
    ------
    ConfigError
        If `token_shape` is missing, isn't that of the tokens, or has one point in space.

    References
    ----------
    Gray and Markel (1976), Distance measures for speech processing,
    doi:10.1109/TASSP.1976.1162849, for the difference of log spectra. Subich, Husain, Separovic
    and Yang (2025), Fixing the double penalty in data-driven weather forecasting through a
    modified spherical harmonic loss function, arXiv:2501.19374, for what it is good for.

    Examples
    --------
    A wave with the opposite sign costs nothing, one of half the amplitude the square of log 2.

    >>> wave = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> spectral(-wave[:, None], wave, token_shape=(1, 2, 2))
    tensor(0.)
    >>> spectral(wave[:, None] / 2, wave, token_shape=(1, 2, 2), floor=1e-6)
    tensor(0.4805)
    """
    if token_shape is None:
        raise ConfigError(
            "the loss 'spectral' needs the shape of a token (time, latitude, longitude): "
            "pass it as token_shape"
        )
    if token_shape[1:] == (1, 1):
        raise ConfigError(
            f"the loss 'spectral' can't be used for tokens of shape {token_shape}: one point in "
            "space has no waves"
        )
    prediction, target, weight = prepare(prediction, target, weight)
    if prediction.shape[2] != math.prod(token_shape):
        raise ConfigError(
            f"tokens of shape {token_shape} have {math.prod(token_shape)} points, the prediction "
            f"has {prediction.shape[2]}"
        )
    weight = weight.unflatten(1, token_shape)
    valid = weight > 0
    wanted = spectrum(target.unflatten(1, token_shape), valid)[:, None] + floor**2
    found = spectrum(prediction.unflatten(2, token_shape), valid[:, None]) + floor**2
    error = ((found / wanted).log() / 2).square().mean((1, 3))
    return weighted_mean(error, weight.sum((2, 3)))


def spectrum(values: Tensor, valid: Tensor) -> Tensor:
    r"""Variance in the waves of each wavenumber, in each frame.

    .. math::
        S_\kappa = \frac{1}{n} \sum_{(i, j) \in \kappa} c_{ij}^2,
        \qquad \kappa = \operatorname{round}
        \Bigl(\max(a, o) \sqrt{(i/a)^2 + (j/o)^2}\Bigr)

    with the orthonormal two-dimensional cosine transform c of a frame of n points, from which
    their mean is taken. The sum of the spectrum is the variance of the frame. Waves of
    wavenumber kappa are 2 max(a, o) / kappa points long. The cosine transform is that of the
    frame and its mirror images, which fit together; a Fourier transform would take the step
    between opposite edges for short waves.

    Parameters
    ----------
    values : Tensor
        ``(..., a, o)``, a x o points in latitude and longitude.
    valid : Tensor
        Bool, of the shape of `values` or one that broadcasts to it: points that exist. The others
        are set to the mean of these.

    Returns
    -------
    Tensor
        ``(..., K)``, for wavenumbers 1 to K.

    References
    ----------
    Denis, Cote and Laprise (2002), Spectral decomposition of two-dimensional atmospheric fields on
    limited-area domains using the discrete cosine transform (DCT), Monthly Weather Review 130,
    1812-1829.

    Examples
    --------
    >>> frame = torch.tensor([[3.0, -3.0], [3.0, -3.0]])
    >>> spectrum(frame, torch.ones(2, 2, dtype=torch.bool)).round(decimals=4)
    tensor([9.])
    """
    count = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    values = values.where(valid, 0.0)
    values = (values - values.sum((-2, -1), keepdim=True) / count).where(valid, 0.0)
    rows, columns = values.shape[-2:]
    # Products of matrices are the one thing here that autocast would do in half precision.
    with torch.autocast(values.device.type, enabled=False):
        waves = _cosines(rows).to(values) @ values @ _cosines(columns).to(values).T
        return waves.square().flatten(-2) @ _bands(rows, columns).to(values) / count[..., 0]


@functools.cache
def _cosines(size: int) -> Tensor:
    """Matrix of the orthonormal cosine transform (type II) of some points, in float64."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    wave = torch.arange(size, dtype=torch.float64)[:, None]
    return torch.where(wave == 0, 1.0, math.sqrt(2)) * (math.pi * wave * place).cos() / size**0.5


@functools.cache
def _bands(rows: int, columns: int) -> Tensor:
    """Matrix ``(rows * columns, K)`` that sums over the waves of each wavenumber from 1 on."""
    down = torch.arange(rows, dtype=torch.float64)[:, None] / rows
    along = torch.arange(columns, dtype=torch.float64) / columns
    number = (max(rows, columns) * (down**2 + along**2).sqrt()).round().long().flatten()
    return torch.nn.functional.one_hot(number)[:, 1:].double()
