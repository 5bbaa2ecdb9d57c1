"""Programs that draw curves: optional, and imported only if a configuration asks for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from xatmorep.errors import require
from xatmorep.training.config import PretrainConfig

__all__ = ["Logger", "check_loggers", "open_loggers"]

MODULES = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow", "wandb": "wandb"}


class Logger(Protocol):
    """Takes numbers by name."""

    def log(self, step: int, line: Mapping[str, float]) -> None:
        """Numbers after a step."""

    def close(self) -> None:
        """Say that no more come."""


def check_loggers(names: Iterable[str]) -> None:
    """Import the packages of loggers.

    Raises
    ------
    MissingExtraError
        If one isn't installed.
    """
    for name in names:
        require(MODULES[name], extra=name)


def open_loggers(config: PretrainConfig, folder: Path, run: str, step: int) -> list[Logger]:
    """Loggers of a run that begins or goes on.

    Parameters
    ----------
    config : PretrainConfig
        The run; names the loggers.
    folder : Path
        Folder of the run.
    run : str
        Name of the run that no other has, under which a logger finds it again.
    step : int
        Steps that were done.
    """
    makers: dict[str, Callable[..., Logger]] = {
        "tensorboard": _TensorBoard,
        "mlflow": _MLflow,
        "wandb": _WandB,
    }
    return [makers[name](config, folder, run, step) for name in config.loggers]


class _TensorBoard:
    """Writes into the folder ``tensorboard`` of the run."""

    def __init__(self, config: PretrainConfig, folder: Path, run: str, step: int) -> None:
        tensorboard = require(MODULES["tensorboard"], extra="tensorboard")
        # Hides what was written by steps that will be done again.
        self.writer = tensorboard.SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def log(self, step: int, line: Mapping[str, float]) -> None:
        for name, value in line.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _MLflow:
    """A run on the server, or in the folder, that MLflow's own settings name."""

    def __init__(self, config: PretrainConfig, folder: Path, run: str, step: int) -> None:
        mlflow = require(MODULES["mlflow"], extra="mlflow")
        self.metric = mlflow.entities.Metric
        self.client = mlflow.MlflowClient()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
        found = self.client.search_runs([experiment], f"tags.xatmorep_run = '{run}'")
        if not found:
            tags = {"xatmorep_run": run}
            found = [self.client.create_run(experiment, tags=tags, run_name=config.name)]
            self.client.log_dict(
                found[0].info.run_id, config.model_dump(mode="json"), "config.yaml"
            )
        self.run = found[0].info.run_id

    def log(self, step: int, line: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self.metric(name, value, now, step) for name, value in line.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def close(self) -> None:
        self.client.set_terminated(self.run)


class _WandB:
    """A run in the folder ``wandb`` of the run; sent nowhere unless ``WANDB_MODE`` says so."""

    def __init__(self, config: PretrainConfig, folder: Path, run: str, step: int) -> None:
        wandb = require(MODULES["wandb"], extra="wandb")
        self.run = wandb.init(
            project="xatmorep",
            name=config.name,
            id=run,
            resume="allow",
            config=config.model_dump(mode="json"),
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log(self, step: int, line: Mapping[str, float]) -> None:
        self.run.log(dict(line), step=step)

    def close(self) -> None:
        self.run.finish()
