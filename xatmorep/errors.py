"""The exceptions that users may want to catch.

Every error that xatmorep raises on purpose is one of these: one message that says what was
wrong, what was found and what to do.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

__all__ = [
    "CatalogError",
    "CheckpointError",
    "ConfigError",
    "ConventionError",
    "MissingExtraError",
    "TrainingError",
    "TrainingInterruptedError",
    "XatmorepError",
]


class XatmorepError(Exception):
    """Base class of all errors that xatmorep raises on purpose."""


class ConventionError(XatmorepError, ValueError):
    """A dataset lacks what a model needs, or says it in a way that can't be understood.

    Attributes
    ----------
    problems : tuple of str
        Each thing that is wrong, where the message says more: what is needed, and what was found.
        Otherwise the message.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class ConfigError(XatmorepError, ValueError):
    """A configuration or an argument has an unknown key or an impossible value."""


class CheckpointError(XatmorepError, ValueError):
    """A model folder is incomplete, damaged or from elsewhere."""


class CatalogError(XatmorepError, ValueError):
    """A catalog entry is unknown, or was asked for with parameters it doesn't have."""


class MissingExtraError(XatmorepError, ImportError):
    """An optional package is needed and not installed."""


class TrainingError(XatmorepError, ArithmeticError):
    """Training can't go on, because the loss is no longer a number."""


class TrainingInterruptedError(XatmorepError, KeyboardInterrupt):
    """Training was stopped by a signal, and goes on from a checkpoint when it is started again."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra of xatmorep brings it.

    Parameters
    ----------
    module : str
        Name of the module to import, for example ``"matplotlib.pyplot"``.
    extra : str
        Name of the extra in ``pyproject.toml`` that installs it.

    Raises
    ------
    MissingExtraError
        If the module isn't installed.

    Examples
    --------
    >>> require("json", extra="plot").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name!r} is not installed; it comes with: pip install 'xatmorep[{extra}]'"
        ) from error
