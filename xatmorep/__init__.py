"""Learned representations of the atmosphere for xarray.

Importing this package registers the accessor ``.atmorep`` on Dataset and DataArray. Everything
else is imported when it is first used, torch included.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xatmorep._version import __version__
from xatmorep.accessor import AtmorepAccessor

if TYPE_CHECKING:
    from xatmorep.data.catalog import open_catalog, open_dataset
    from xatmorep.errors import (
        CatalogError,
        CheckpointError,
        ConfigError,
        ConventionError,
        MissingExtraError,
        TrainingError,
        TrainingInterruptedError,
        XatmorepError,
    )
    from xatmorep.evaluation.scores import evaluate
    from xatmorep.model.atmorep.loading import load_atmorep
    from xatmorep.model.checkpoint import Model, load
    from xatmorep.model.registry import models
    from xatmorep.tasks.attention import attention
    from xatmorep.tasks.embed import embed
    from xatmorep.tasks.forecast import forecast
    from xatmorep.tasks.predict import predict
    from xatmorep.tasks.tokens import tokenize
    from xatmorep.training.config import PretrainConfig
    from xatmorep.training.loop import pretrain

__all__ = [
    "AtmorepAccessor",
    "CatalogError",
    "CheckpointError",
    "ConfigError",
    "ConventionError",
    "MissingExtraError",
    "Model",
    "PretrainConfig",
    "TrainingError",
    "TrainingInterruptedError",
    "XatmorepError",
    "__version__",
    "attention",
    "embed",
    "evaluate",
    "forecast",
    "load",
    "load_atmorep",
    "models",
    "open_catalog",
    "open_dataset",
    "predict",
    "pretrain",
    "tokenize",
]

_SUBMODULES = ("plot", "testing")

_PLACES = {
    "attention": "xatmorep.tasks.attention",
    "embed": "xatmorep.tasks.embed",
    "evaluate": "xatmorep.evaluation.scores",
    "forecast": "xatmorep.tasks.forecast",
    "load": "xatmorep.model.checkpoint",
    "load_atmorep": "xatmorep.model.atmorep.loading",
    "Model": "xatmorep.model.checkpoint",
    "models": "xatmorep.model.registry",
    "open_catalog": "xatmorep.data.catalog",
    "open_dataset": "xatmorep.data.catalog",
    "predict": "xatmorep.tasks.predict",
    "pretrain": "xatmorep.training.loop",
    "PretrainConfig": "xatmorep.training.config",
    "tokenize": "xatmorep.tasks.tokens",
} | {name: "xatmorep.errors" for name in __all__ if name.endswith("Error")}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"xatmorep.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'xatmorep' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, *_SUBMODULES})
