"""Configuration of a pre-training run: read strictly, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xatmorep.errors import ConfigError
from xatmorep.model.card import DataSource
from xatmorep.model.config import ModelConfig
from xatmorep.objectives.losses import LOSSES, total_loss
from xatmorep.objectives.masking import MaskingConfig
from xatmorep.strict import closest, validate

__all__ = ["NormalizationConfig", "OptimizerConfig", "PretrainConfig", "read_config"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NormalizationConfig(_Strict):
    """Statistics that are taken from the training data.

    Attributes
    ----------
    mean, std : {"global", "local"}
        One value for each level, or one for each grid point.
    period : {"record", "month"}
        Over the whole record, or for each month of the year.
    """

    mean: Literal["global", "local"] = "global"
    std: Literal["global", "local"] = "global"
    period: Literal["record", "month"] = "record"


class OptimizerConfig(_Strict):
    """AdamW with a linear warm-up and a cosine decay to zero.

    Attributes
    ----------
    learning_rate : float
        Highest learning rate, reached after the warm-up.
    warmup_steps : int
        Steps of the warm-up.
    weight_decay : float
        Decay of all weight matrices (not of biases, norms and embeddings of one dimension).
    betas : tuple of float
        Decay rates of the moments.
    gradient_clip : float
        Largest norm of the gradient.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    gradient_clip: float = Field(default=1.0, gt=0)


class PretrainConfig(_Strict):
    """Everything that decides a pre-training run, apart from the data.

    Attributes
    ----------
    name : str
        Name of the model.
    description : str
        One sentence for the model card.
    demonstration : bool
        Whether the model is to show how things work only, for the model card.
    data : DataSource, optional
        Where the training data come from, for the model card.
    licence : str
        Licence of the weights, for the model card.
    command : str
        Command that repeats the run, for the model card.
    model : ModelConfig
        What the model reads and how it is built.
    normalization : NormalizationConfig
        Statistics taken from the training data.
    masking : MaskingConfig
        What is hidden.
    loss : dict of str to float
        Weights of the losses, by their names in `xatmorep.objectives.losses`.
    field_weights : dict of str to float
        Weights of the predicted fields; 1 where absent.
    latitude_weighted : bool
        Whether errors are weighted by the cosine of latitude.
    optimizer : OptimizerConfig
        Optimizer and schedule.
    steps : int
        Optimizer steps.
    batch_size : int
        Neighborhoods in a step.
    crops_per_slab : int
        Neighborhoods that are cut from each time slab that is read; divides `batch_size`.
    validate_every : int
        Steps between two validations, each of which also saves the model.
    validation_batches : int
        Batches in a validation; always the same ones.
    precision : {"float32", "bfloat16"}
        Type in which the network computes; bfloat16 by autocast.
    activation_checkpointing : bool
        Compute activations again in the backward pass instead of keeping them.
    seed : int
        Decides weights, neighborhoods, masks and dropout.
    """

    name: str = "model"
    description: str = ""
    demonstration: bool = False
    data: DataSource | None = None
    licence: str = ""
    command: str = ""
    model: ModelConfig
    normalization: NormalizationConfig = NormalizationConfig()
    masking: MaskingConfig = MaskingConfig()
    loss: dict[str, float] = {"mse_ensemble": 1.0, "crps": 1.0}
    field_weights: dict[str, float] = {}
    latitude_weighted: bool = True
    optimizer: OptimizerConfig = OptimizerConfig()
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    crops_per_slab: int = Field(default=4, gt=0)
    validate_every: int = Field(default=500, gt=0)
    validation_batches: int = Field(default=8, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    activation_checkpointing: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> PretrainConfig:
        if self.batch_size % self.crops_per_slab:
            raise ValueError(
                f"crops_per_slab {self.crops_per_slab} does not divide batch_size {self.batch_size}"
            )
        for name in self.loss:
            if name not in LOSSES:
                raise ValueError(f"loss {name!r} is unknown{closest(name, LOSSES)}")
        total_loss(self.loss)  # refuses impossible weights before a run begins
        for name in self.field_weights:
            if name not in self.model.predicted:
                raise ValueError(
                    f"field_weights has {name!r}, which the model doesn't predict"
                    f"{closest(name, self.model.predicted)}"
                )
        return self


def read_config(config: str | Path | Mapping[str, Any] | PretrainConfig) -> PretrainConfig:
    """Configuration from a YAML file (path or URL), a mapping, or as it is.

    Raises
    ------
    ConfigError
        If the file is missing or no YAML mapping, a key is unknown (the nearest known one is
        named) or a value is impossible.
    """
    if isinstance(config, PretrainConfig):
        return config
    if isinstance(config, str | Path):
        try:
            with fsspec.open(str(config), "rt") as file:
                content = yaml.safe_load(file)
        except FileNotFoundError as error:
            raise ConfigError(f"no configuration file at {config}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{config} is not valid YAML: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{config} must hold keys and values, not {type(content).__name__}")
        return validate(PretrainConfig, content, what=str(config))
    return validate(PretrainConfig, config, what="the configuration")
