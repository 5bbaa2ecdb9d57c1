"""Where a model comes from and how good it is: a card that is data, not prose."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from xatmorep._version import __version__

__all__ = ["DataSource", "ModelCard", "Score", "TrainingSummary", "installed_versions"]

Period = tuple[str, str]
"""First and last time, as ISO 8601 text in the calendar of the data."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSource(_Strict):
    """Data that a model was trained on.

    Attributes
    ----------
    name : str
        Name of the dataset, for example a catalog entry.
    attribution : str
        Words that the licence of the data asks for.
    licence : str
        Licence of the data; empty if unknown.
    url : str
        Where the data can be had; empty if nowhere.
    """

    name: str
    attribution: str = ""
    licence: str = ""
    url: str = ""


class TrainingSummary(_Strict):
    """How a model was trained.

    Attributes
    ----------
    command : str
        Command or call that repeats the training.
    seed : int
        Seed of all draws.
    steps, samples : int
        Steps of the optimizer, and neighborhoods seen.
    seconds : float
        Wall-clock time.
    device : str
        What it ran on.
    validation : tuple of str, optional
        First and last time of the held-out data.
    """

    command: str
    seed: int
    steps: int = Field(ge=0)
    samples: int = Field(ge=0)
    seconds: float = Field(ge=0)
    device: str
    validation: Period | None = None


class Score(_Strict):
    """One measured number, with the command that gives it again.

    Attributes
    ----------
    metric : str
        For example ``"rmse"``.
    field : str
        Canonical name of the field.
    level : float, optional
        Vertical level; None for a surface field or all levels together.
    baseline : str, optional
        What was scored instead of the model, for example ``"climatology"``; None for the model.
    value : float
        The score, finite.
    units : str
        Units of the value; ``"1"`` if it has none.
    command : str
        Command that computes it.
    rate : float, optional
        Share of the tokens that was hidden, if hidden tokens were predicted.
    lead_time : str, optional
        How far ahead, with its unit, if forecasts were made: ``"24h"``.
    interval : tuple of float, optional
        Lower and upper bound of the value.
    """

    metric: str
    field: str
    level: float | None = None
    baseline: str | None = None
    value: float
    units: str = "1"
    command: str
    rate: float | None = None
    lead_time: str | None = None
    interval: tuple[float, float] | None = None


def installed_versions() -> dict[str, str]:
    """Versions of xatmorep and torch that are installed; torch isn't imported.

    Examples
    --------
    >>> sorted(installed_versions())
    ['torch', 'xatmorep']
    """
    return {"xatmorep": __version__, "torch": importlib.metadata.version("torch")}


class ModelCard(_Strict):
    """Provenance of a model, saved beside its weights as ``card.json``.

    Attributes
    ----------
    name : str
        Name of the model: letters, digits, ``.``, ``_`` and ``-``.
    description : str
        One sentence.
    demonstration : bool
        Whether the model only shows how things work and isn't meant for science.
    fields : tuple of str
        Canonical names of the fields that it reads.
    grid : str
        Grid of the training data in words, for example ``"global, 1 degree"``.
    period : tuple of str
        First and last time of the training data.
    data : DataSource
        The training data.
    licence : str
        Licence of the weights; empty if none is given.
    created : datetime
        When the card was written, with a time zone.
    versions : dict of str to str
        Versions of the software that made the model.
    training : TrainingSummary, optional
        How it was trained.
    scores : tuple of Score
        What it reaches on held-out data.

    Examples
    --------
    >>> card = ModelCard(
    ...     name="my-model", description="Temperature of my region.", fields=("2m_temperature",),
    ...     grid="region, 1 degree", period=("2019-01-01", "2019-12-31"),
    ...     data=DataSource(name="my reanalysis"),
    ... )
    >>> card.demonstration, card.scores
    (False, ())
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str
    demonstration: bool = False
    fields: tuple[str, ...]
    grid: str
    period: Period
    data: DataSource
    licence: str = ""
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    versions: dict[str, str] = Field(default_factory=installed_versions)
    training: TrainingSummary | None = None
    scores: tuple[Score, ...] = ()
