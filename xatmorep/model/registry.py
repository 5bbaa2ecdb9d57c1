"""The models that ship with the package, and where a model's name leads. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from xatmorep.errors import CheckpointError
from xatmorep.model.card import ModelCard
from xatmorep.model.config import ModelConfig
from xatmorep.model.folder import CARD, CONFIG, MANIFEST, WEIGHTS, parse
from xatmorep.model.tensors import count, header_length, read_shapes
from xatmorep.strict import closest

__all__ = ["locate", "models", "read_card", "read_config", "shipped"]

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{MANIFEST}"))}


def models() -> pd.DataFrame:
    """Models that come with the package.

    Returns
    -------
    pandas.DataFrame
        One row for each model: ``name``; ``fields``, tuple of canonical names; ``grid_step``,
        degrees in (latitude, longitude); ``neighborhood``, grid points in (time, latitude,
        longitude); ``parameters``, their number; ``demonstration``, whether the model only
        shows how things work; ``description``. Read from the models' JSON files and the header
        of their weights.

    Examples
    --------
    >>> list(models().columns)
    ['name', 'fields', 'grid_step', 'neighborhood', 'parameters', 'demonstration', 'description']
    """
    columns = {
        "name": str,
        "fields": object,
        "grid_step": object,
        "neighborhood": object,
        "parameters": int,
        "demonstration": bool,
        "description": str,
    }
    rows = [_row(name, folder) for name, folder in shipped().items()]
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def locate(name: str | os.PathLike[str]) -> str:
    """Address of a model, from the name of a shipped one, a local folder or a URL.

    Raises
    ------
    CheckpointError
        If there is neither a model nor a folder of that name.

    Examples
    --------
    >>> locate("gs://bucket/model")
    'gs://bucket/model'
    """
    text = os.fspath(name)
    known = shipped()
    if text in known:
        return str(known[text])
    if "://" in text or "::" in text or os.path.isdir(text):
        return text
    if os.path.exists(text):
        raise CheckpointError(f"{text!r} is a file; a model is a folder")
    hint = closest(text, known) if known else ""
    raise CheckpointError(f"there is no model and no folder {text!r}{hint}")


def read_config(folder: Path) -> ModelConfig:
    """Configuration of a model in a local folder."""
    return parse(ModelConfig, (folder / CONFIG).read_bytes(), str(folder / CONFIG))


def read_card(folder: Path) -> ModelCard:
    """Card of a model in a local folder."""
    return parse(ModelCard, (folder / CARD).read_bytes(), str(folder / CARD))


def _row(name: str, folder: Path) -> dict[str, object]:
    config, card = read_config(folder), read_card(folder)
    return {
        "name": name,
        "fields": tuple(field.name for field in config.inputs.fields),
        "grid_step": config.inputs.neighborhood.grid_step,
        "neighborhood": config.inputs.neighborhood.shape,
        "parameters": _parameters(folder / WEIGHTS),
        "demonstration": card.demonstration,
        "description": card.description,
    }


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(header_length(start, str(path)))
    return count(read_shapes(start + header, str(path)))
