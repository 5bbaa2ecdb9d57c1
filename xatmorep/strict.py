"""Strict reading of configuration: unknown keys are refused with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from xatmorep.errors import ConfigError

__all__ = ["closest", "validate"]

M = TypeVar("M", bound=BaseModel)


def closest(name: str, known: Iterable[str]) -> str:
    """Words that name the nearest known name, else all known names.

    Examples
    --------
    >>> closest("learning_rat", ["learning_rate", "steps"])
    "; did you mean 'learning_rate'?"
    >>> closest("zzz", ["learning_rate", "steps"])
    '; known are learning_rate, steps'
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known) or 'none'}"


def validate(schema: type[M], content: Mapping[str, Any], what: str) -> M:
    """Check a mapping against a pydantic model.

    Parameters
    ----------
    schema : type of pydantic.BaseModel
        The model, with ``extra="forbid"``.
    content : mapping
        What was read.
    what : str
        Name of the source for the message, such as a path.

    Raises
    ------
    ConfigError
        With one line for each mistake.

    Examples
    --------
    >>> from xatmorep.tokens.spec import StaticSpec
    >>> validate(StaticSpec, {"name": "orography", "unit": "m"}, what="orography.yaml")
    Traceback (most recent call last):
    ...
    xatmorep.errors.ConfigError: orography.yaml:
      units: Field required (found nothing)
      unit: unknown key; did you mean 'units'?
    """
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_line(schema, entry) for entry in error.errors()]
        raise ConfigError("\n  ".join([f"{what}:", *lines])) from error


def _line(schema: type[BaseModel], entry: Any) -> str:
    """One mistake in words."""
    place = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        return f"{place}: unknown key{closest(str(entry['loc'][-1]), _keys(schema, entry['loc']))}"
    if entry["type"] == "missing":
        return f"{place}: {entry['msg']} (found nothing)"
    message = entry["msg"].removeprefix("Value error, ")
    # A mistake of the whole model repeats its content as input, which is no help.
    found = "" if isinstance(entry["input"], dict) else f" (found {entry['input']!r})"
    return f"{place}: {message}{found}" if place else message


def _keys(schema: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """Known keys at the place of an unknown one."""
    here: Any = schema
    for part in place[:-1]:
        # Parts that are no field are indices and keys of a tuple or dict of models.
        if part in here.model_fields:
            here = _model_in(here.model_fields[part].annotation)
            if here is None:
                return []
    return list(here.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as ``tuple[FieldSpec, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(argument) for argument in get_args(annotation)]
    return next((found for found in inner if found is not None), None)
