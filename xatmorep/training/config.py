"""Configuration of a pre-training run: read strictly, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from xatmorep.errors import ConfigError
from xatmorep.model.card import DataSource
from xatmorep.model.config import ModelConfig
from xatmorep.objectives.distillation import DistillationConfig, check_views
from xatmorep.objectives.losses import LOSSES, total_loss
from xatmorep.objectives.masking import MaskingConfig, check_strategies
from xatmorep.strict import closest, validate

__all__ = [
    "ExponentialSchedule",
    "NormalizationConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "read_config",
]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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


class ExponentialSchedule(_Strict):
    """The learning rates of AtmoRep (arXiv 2308.13280): constant in an epoch, then divided.

    Attributes
    ----------
    epoch_steps : int
        Steps that count as an epoch.
    warmup_epochs : int
        Epochs of a linear rise from `first` to the highest learning rate, both included.
    first : float
        Learning rate of the first epoch.
    decay : float
        What the learning rate is divided by after each further epoch.
    lowest : float
        Learning rate below which it doesn't fall.
    """

    epoch_steps: int = Field(gt=0)
    warmup_epochs: int = Field(ge=2)
    first: float = Field(ge=0)
    decay: float = Field(ge=1)
    lowest: float = Field(ge=0)


class OptimizerConfig(_Strict):
    """AdamW, with a linear warm-up and a cosine decay to zero unless another schedule is given.

    Attributes
    ----------
    learning_rate : float
        Highest learning rate, reached after the warm-up.
    warmup_steps : int
        Steps of the warm-up.
    exponential : ExponentialSchedule, optional
        Schedule in the place of warm-up and cosine.
    weight_decay : float
        Decay of all weight matrices (not of biases, norms and embeddings of one dimension).
    betas : tuple of float
        Decay rates of the moments.
    gradient_clip : float
        Largest norm of the gradient.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    exponential: ExponentialSchedule | None = None
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    gradient_clip: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> OptimizerConfig:
        schedule = self.exponential
        if schedule is not None and max(schedule.first, schedule.lowest) > self.learning_rate:
            raise ValueError(
                f"exponential rises from {schedule.first} and falls to {schedule.lowest}: "
                f"learning_rate {self.learning_rate} must not be lower"
            )
        return self


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
    distillation : DistillationConfig, optional
        Self-distillation, beside the masked objective or instead of it; none by default.
    field_weights : dict of str to float
        Weights of the predicted fields; 1 where absent.
    level_weights : dict of str to dict of float to float
        For each field, weights of its levels; 1 where absent.
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
    accumulate : int
        Parts in which the network sees a batch, one after the other, to save memory; divides the
        number of slabs in a batch.
    validate_every : int
        Steps between two validations, each of which also saves the model.
    validation_batches : int
        Batches in a validation; always the same ones.
    checkpoint_every : int, optional
        Steps between two checkpoints, from which a run goes on; by default at each validation.
    keep_checkpoints : int
        Checkpoints that are kept, the newest ones.
    ema : float, optional
        Decay rate of a moving average of the weights over the steps; the average is what is
        validated and saved. Without it the weights themselves are.
    precision : {"float32", "bfloat16", "float16"}
        Type in which the network computes; the last two by autocast.
    activation_checkpointing : bool
        Compute activations again in the backward pass instead of keeping them.
    compile : bool
        Whether `torch.compile` makes the network faster; needs a C++ compiler.
    peak_flops : float, optional
        Floating point operations per second that the device can do in this precision, for the
        model FLOPs utilization; known for some GPUs.
    loggers : tuple of {"tensorboard", "mlflow", "wandb"}
        What the log is sent to besides the files; each needs the extra of its name.
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
    distillation: DistillationConfig | None = None
    field_weights: dict[str, Weight] = {}
    level_weights: dict[str, dict[float, Weight]] = {}
    latitude_weighted: bool = True
    optimizer: OptimizerConfig = OptimizerConfig()
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    crops_per_slab: int = Field(default=4, gt=0)
    accumulate: int = Field(default=1, gt=0)
    validate_every: int = Field(default=500, gt=0)
    validation_batches: int = Field(default=8, gt=0)
    checkpoint_every: int | None = Field(default=None, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    activation_checkpointing: bool = False
    compile: bool = False
    peak_flops: float | None = Field(default=None, gt=0)
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> PretrainConfig:
        if self.batch_size % self.crops_per_slab:
            raise ValueError(
                f"crops_per_slab {self.crops_per_slab} does not divide batch_size {self.batch_size}"
            )
        if self.slabs_per_batch % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} does not divide the {self.slabs_per_batch} slabs of "
                f"a batch (batch_size {self.batch_size} / crops_per_slab {self.crops_per_slab})"
            )
        for name in self.loss:
            if name not in LOSSES:
                raise ValueError(f"loss {name!r} is unknown{closest(name, LOSSES)}")
        # These refuse what is impossible before a run begins.
        for name in self.model.predicted:
            total_loss(self.loss, self.model.inputs.field(name).token_shape)
        check_strategies(self.masking, self.model.inputs)
        if self.distillation is not None:
            check_views(self.distillation, self.model.inputs)
        self._check_weights()
        return self

    def _check_weights(self) -> None:
        predicted = self.model.predicted
        for key, names in (
            ("field_weights", self.field_weights),
            ("level_weights", self.level_weights),
        ):
            for name in names:
                if name not in predicted:
                    raise ValueError(
                        f"{key} has {name!r}, which the model doesn't predict"
                        f"{closest(name, predicted)}"
                    )
        if not any(self.field_weights.get(name, 1.0) for name in predicted):
            raise ValueError(
                "field_weights gives all predicted fields weight 0: nothing is learned"
            )
        for name, weights in self.level_weights.items():
            levels = self.model.inputs.field(name).levels
            if unknown := sorted(set(weights) - set(levels)):
                raise ValueError(
                    f"level_weights of {name!r} has {unknown}: its levels are {list(levels)}"
                )
            if not any(weights.get(level, 1.0) for level in levels):
                raise ValueError(f"level_weights gives all levels of {name!r} weight 0")

    @property
    def slabs_per_batch(self) -> int:
        """Time slabs that are read for a batch."""
        return self.batch_size // self.crops_per_slab


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
