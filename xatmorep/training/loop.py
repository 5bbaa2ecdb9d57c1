"""Pre-training on one machine: it begins, goes on from where it was, or has come to its end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from tqdm import tqdm

from xatmorep.errors import TrainingInterruptedError
from xatmorep.model.checkpoint import Model, load
from xatmorep.model.device import resolve_device
from xatmorep.model.multiformer import Multiformer
from xatmorep.training.ahead import read_ahead
from xatmorep.training.batches import Batch, Batches
from xatmorep.training.card import trained, training_card
from xatmorep.training.checkpoints import newest_checkpoint, save_checkpoint
from xatmorep.training.config import PretrainConfig, read_config
from xatmorep.training.data import TrainingData, open_data
from xatmorep.training.fingerprint import describe_data
from xatmorep.training.interrupt import Interrupt
from xatmorep.training.learner import Learner, check_compiler
from xatmorep.training.loggers import check_loggers, open_loggers
from xatmorep.training.logs import RunLog
from xatmorep.training.run import RunFolder
from xatmorep.training.speed import Speedometer
from xatmorep.training.state import Tally, TrainingState

__all__ = ["pretrain"]


def pretrain(
    ds: xr.Dataset,
    config: str | Path | Mapping[str, Any] | PretrainConfig,
    out: str | Path,
    *,
    validation: slice | None = None,
    variables: Mapping[str, str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Model:
    """Pre-train a multiformer on a dataset, on one machine.

    Tokens of each field are hidden at random and predicted from the visible ones; if the
    configuration says so, a teacher is followed besides. Statistics for the normalization are taken
    from the training times only.

    The same call on the same `out` goes on from the newest checkpoint, wherever the run was
    stopped or killed; of a run that has come to its end it returns the best model.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields of the configuration.
    config : str, path, mapping or PretrainConfig
        The run; a path or URL names a YAML file.
    out : str or path
        Folder of the run, new or that of the same run: ``best`` and ``last``, models that
        `xatmorep.load` opens; ``config.yaml``, the resolved configuration; ``log.csv`` and
        ``log.jsonl``, one line for each validation; ``ledger.csv``, one line for each step;
        ``checkpoints``.
    validation : slice of labels, optional
        Times that are held out, for example ``slice("2019", "2019")``. Without it ``best`` is
        chosen by the training loss. (With self-distillation alone it is the newest model whose
        teacher had not collapsed.)
    variables : mapping of str to str, optional
        Canonical name of a field to name of the variable, where it isn't recognized.
    device : str, optional
        Torch device; CUDA where there is one, else the CPU.
    progress : bool
        Whether to show a progress bar on standard error.

    Returns
    -------
    Model
        The best model of the run.

    Raises
    ------
    ConfigError
        If the configuration is wrong, `validation` can't be used, or `out` holds something else
        or a run with another configuration or other data.
    ConventionError
        If the dataset lacks what the configuration asks for.
    TrainingError
        If the loss is no longer a number.
    TrainingInterruptedError
        After SIGTERM or Ctrl-C, when a checkpoint is on disk.
    MissingExtraError
        If the configuration asks for a logger that isn't installed.

    Warns
    -----
    UserWarning
        For each checkpoint that is damaged; the newest complete one is used. And if
        self-distillation has collapsed, at the next validation.

    Notes
    -----
    Two runs with equal data, configuration, device and number of threads give equal weights, on
    the CPU to the last digit, however often they were interrupted.
    """
    config = read_config(config)
    check_loggers(config.loggers)
    if config.compile:
        check_compiler()
    folder = RunFolder(out)
    folder.check_config(config)
    data = open_data(ds, config, validation, variables)
    description = describe_data(data)
    folder.check_data(description)
    device = resolve_device(device)
    if folder.finished:
        _say(f"the run in {folder.path} is finished: here is its best model", progress)
        return load(folder.best)
    with folder.locked():
        found = newest_checkpoint(folder.checkpoints) if folder.exists else None
        if found is None:
            if folder.exists:
                _say(f"no complete checkpoint in {folder.path}: the run begins anew", progress)
            folder.begin(config, description, data.fit(config))
        else:
            _say(f"going on after step {found['step']} of {config.steps}", progress)
        _run(config, data, folder, found, device, progress)
        folder.finish()
    return load(folder.best)


def _run(
    config: PretrainConfig,
    data: TrainingData,
    folder: RunFolder,
    found: dict[str, Any] | None,
    device: str,
    progress: bool,
) -> None:
    """Make all parts, put them in the state of a checkpoint if there is one, and train."""
    normalizer = folder.normalizer()
    batches = Batches(data, normalizer, config, "training")
    checks: list[Batch] = []
    if data.held_out is not None:
        fixed = Batches(data, normalizer, config, "validation")
        checks = list(fixed.since(0, config.validation_batches))
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.manual_seed(config.seed)  # dropout draws from the global generator
        network = Multiformer(config.model, torch.Generator().manual_seed(config.seed))
        network.activation_checkpointing = config.activation_checkpointing
        state = TrainingState(network.to(device), config)
        sizes: dict[str, int] = {}
        if found is not None:
            state.restore(found)
            sizes = found["logs"]
            found.clear()  # a few times as large as the model
        model = Model(config.model, state.result, normalizer, training_card(config, data))
        loggers = open_loggers(config, folder.path, folder.id, state.step)
        log = RunLog(folder.path, sizes, loggers)
        ahead = read_ahead(batches.since(state.step, config.steps))
        try:
            _train(model, state, config, ahead, checks, folder, log, progress)
        finally:
            ahead.close()
            log.close()


def _train(
    model: Model,
    state: TrainingState,
    config: PretrainConfig,
    stream: Iterator[Batch],
    checks: Sequence[Batch],
    folder: RunFolder,
    log: RunLog,
    progress: bool,
) -> None:
    """All steps that are left."""
    learner = Learner(state, config)
    speed = Speedometer(state.network, config)
    began = time.perf_counter() - state.seconds
    bar = tqdm(total=config.steps, initial=state.step, desc=config.name, disable=not progress)
    with bar, Interrupt() as interrupt:
        while state.step < config.steps:
            before = time.perf_counter()
            batch = next(stream)
            waited = time.perf_counter() - before
            line = learner.learn(batch)
            log.step(state.step, batch.position, line)
            state.tally.add(line, time.perf_counter() - before, waited)
            state.seconds = time.perf_counter() - began
            bar.set_postfix(_short(line["loss"], speed(state.tally)), refresh=False)
            bar.update()
            last = state.step == config.steps
            if last:
                _say(speed.words(state.tally), progress)
            if last or state.step % config.validate_every == 0:
                _validate_and_save(model, learner, checks, speed, folder, log)
            every = config.checkpoint_every or config.validate_every
            if last or interrupt.signal or state.step % every == 0:
                content = state.content() | {"logs": log.sync()}
                keep = config.keep_checkpoints
                save_checkpoint(folder.checkpoints, state.step, content, keep=keep)
            if interrupt.signal and not last:
                raise TrainingInterruptedError(
                    f"stopped by {interrupt.signal} after step {state.step} of {config.steps}: "
                    f"the same command goes on from there"
                )


def _validate_and_save(
    model: Model,
    learner: Learner,
    checks: Sequence[Batch],
    speed: Speedometer,
    folder: RunFolder,
    log: RunLog,
) -> None:
    """A line of the log, the last model, and the best one if it is."""
    state = learner.state
    line = {
        "seconds": round(state.seconds, 1),
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "training_loss": state.tally.loss / state.tally.steps,
        **speed(state.tally),
        **learner.validate(checks),
        **learner.watch(),
    }
    log.validation(state.step, line)
    model.card = trained(model.card, state.step, learner.config, state.seconds, str(state.device))
    model.save(folder.last)
    score = learner.score(line)
    if score < state.best:
        state.best = score
        model.save(folder.best)
    state.tally = Tally()


def _short(loss: float, speed: Mapping[str, float]) -> dict[str, str]:
    """What the progress bar shows."""
    shown = {
        "loss": f"{loss:.4f}",
        "samples/s": f"{speed['samples_per_second']:.3g}",
        "waiting": f"{speed['data_wait_share']:.0%}",
    }
    if "model_flops_utilization" in speed:
        shown["MFU"] = f"{speed['model_flops_utilization']:.1%}"
    return shown


def _say(text: str, show: bool) -> None:
    """Tell the user on standard error, and programs by the log of Python."""
    logging.getLogger("xatmorep").info(text)
    if show:
        tqdm.write(f"xatmorep: {text}", file=sys.stderr)
