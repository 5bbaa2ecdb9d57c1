"""Where a network is run."""

from __future__ import annotations

import torch

from xatmorep.errors import ConfigError

__all__ = ["resolve_device"]


def resolve_device(device: str | None) -> str:
    """Device to compute on: the one asked for, else CUDA where there is one, else the CPU.

    Raises
    ------
    ConfigError
        If the device isn't available.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    cuda = torch.cuda.is_available()
    if device is None:
        return "cuda" if cuda else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not a torch device such as 'cpu'") from error
    if kind == "cuda" and not cuda:
        raise ConfigError(f"device {device!r} was asked for, but torch finds no CUDA device here")
    return device
