"""Pre-training on one machine: data, network, loss, optimizer, checkpoints, log."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml
from torch import Tensor
from tqdm import tqdm

from xatmorep.data.arrange import is_unread
from xatmorep.data.conventions import CanonicalView, canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.errors import ConfigError, TrainingError
from xatmorep.model.card import ModelCard
from xatmorep.model.checkpoint import Model, load
from xatmorep.model.device import resolve_device
from xatmorep.model.multiformer import Multiformer
from xatmorep.objectives.losses import total_loss
from xatmorep.tokens.sampling import RandomNeighborhoods
from xatmorep.tokens.tiling import tiling_for
from xatmorep.training.card import training_card
from xatmorep.training.config import OptimizerConfig, PretrainConfig, read_config
from xatmorep.training.data import Example, batches, examples, neighborhoods, read_ahead, split

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

    Tokens of each field are hidden at random and predicted from the visible ones. Statistics for
    the normalization are taken from the training times only.

    Parameters
    ----------
    ds : xarray.Dataset
        Any dataset with the fields of the configuration.
    config : str, path, mapping or PretrainConfig
        The run; a path or URL names a YAML file.
    out : str or path
        New folder for the run: ``best`` and ``last``, models that `xatmorep.load` opens;
        ``config.yaml``, the resolved configuration; ``log.csv``, one line for each validation.
    validation : slice of labels, optional
        Times that are held out, for example ``slice("2019", "2019")``. Without it ``best`` is
        chosen by the training loss.
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
        If the configuration is wrong, `out` exists, or `validation` can't be used.
    ConventionError
        If the dataset lacks what the configuration asks for.

    Notes
    -----
    Two runs with equal data, configuration, device and number of threads give equal weights.
    """
    config = read_config(config)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists: name a new folder for the run, or remove it")
    spec = config.model.inputs
    view = canonical_view(ds, spec.fields, spec.statics, fields=variables)
    labels = next(iter(view.fields.values()))
    runs, held_out = split(labels["time"], validation, spec.neighborhood.shape[0])
    tiling_for(labels.isel(time=runs[0]), spec, axes=view.axes)  # refuses another grid or time step
    normalizer = _fit(view, runs, config)
    view = _by_parts(view, spec.neighborhood.shape[0])
    training = [
        neighborhoods(view, normalizer, config, run, seed=config.seed + number)
        for number, run in enumerate(runs)
    ]
    stream = _stream(training, config, config.seed)
    checks = []
    if held_out is not None:
        source = neighborhoods(view, normalizer, config, held_out, seed=config.seed)
        fixed = _stream([source], config, config.seed + 1)
        checks = list(islice(fixed, config.validation_batches))
    card = training_card(config, labels["time"], runs, held_out, view.is_global)
    device = resolve_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    (folder / "config.yaml").write_text(resolved)
    devices = [device] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)  # dropout draws from the global generator
        network = Multiformer(config.model, torch.Generator().manual_seed(config.seed))
        network.activation_checkpointing = config.activation_checkpointing
        model = Model(config.model, network.to(device), normalizer, card)
        ahead = read_ahead(stream)
        try:
            return _train(model, config, ahead, checks, device, folder, progress)
        finally:
            ahead.close()


@dataclass
class _Tally:
    """Sums since the last line of the log."""

    loss: float = 0.0
    steps: int = 0
    waited: float = 0.0
    since: float = field(default_factory=time.perf_counter)


def _train(
    model: Model,
    config: PretrainConfig,
    stream: Iterator[Example],
    checks: list[Example],
    device: str,
    folder: Path,
    progress: bool,
) -> Model:
    network = model.network
    optimizer = _optimizer(network, config.optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(step, config.optimizer.warmup_steps, config.steps),
    )
    best, tally, start = math.inf, _Tally(), time.perf_counter()
    bar = tqdm(range(1, config.steps + 1), desc=config.name, unit="step", disable=not progress)
    for step in bar:
        before = time.perf_counter()
        example = next(stream).to(device)
        tally.waited += time.perf_counter() - before
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss = objective(network, example, config, device)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {loss.item()} at step {step}: lower the learning rate or clip the "
                f"gradients more; the last model before is in {folder / 'last'}"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.gradient_clip)
        optimizer.step()
        schedule.step()
        tally.loss += loss.item()
        tally.steps += 1
        if step % config.validate_every and step != config.steps:
            continue
        network.eval()
        line = _line(step, start, tally, optimizer, config)
        line |= validate(network, checks, config, device)
        _log(folder / "log.csv", line)
        score = line["validation_loss" if checks else "training_loss"]
        bar.set_postfix(loss=f"{score:.4f}")
        model.card = _trained(model.card, step, config, line["seconds"], device)
        model.save(folder / "last")
        if score < best:
            best = score
            model.save(folder / "best")
        tally = _Tally()
    return load(folder / "best")


def objective(
    network: Multiformer, example: Example, config: PretrainConfig, device: str
) -> Tensor:
    """Weighted mean of the fields' losses at the hidden tokens."""
    return _loss(_predictions(network, example, config, device), example, config)


def _predictions(
    network: Multiformer, example: Example, config: PretrainConfig, device: str
) -> dict[str, Tensor]:
    """Hidden tokens of each field (tokens, members, points), in the precision of the run."""
    with torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"
    ):
        return network(example.inputs, example.hidden)


def _loss(predictions: Mapping[str, Tensor], example: Example, config: PretrainConfig) -> Tensor:
    loss = total_loss(config.loss)
    weights = {name: config.field_weights.get(name, 1.0) for name in predictions}
    terms = [
        weights[name] * loss(prediction, example.target[name], example.weight[name])
        for name, prediction in predictions.items()
    ]
    return torch.stack(terms).sum() / sum(weights.values())


@torch.no_grad()
def validate(
    network: Multiformer, checks: list[Example], config: PretrainConfig, device: str
) -> dict[str, float]:
    """Loss, and error of the ensemble mean in standard deviations for each field."""
    if not checks:
        return {}
    losses, errors, weights = 0.0, dict[str, float](), dict[str, float]()
    for example in checks:
        example = example.to(device)
        predictions = _predictions(network, example, config, device)
        losses += _loss(predictions, example, config).item()
        for name, prediction in predictions.items():
            square = (prediction.mean(1) - example.target[name]).square() * example.weight[name]
            errors[name] = errors.get(name, 0.0) + square.sum().item()
            weights[name] = weights.get(name, 0.0) + example.weight[name].sum().item()
    return {"validation_loss": losses / len(checks)} | {
        f"rmse_{name}": math.sqrt(error / weights[name]) for name, error in errors.items()
    }


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up to one, then half a cosine down to zero.

    Examples
    --------
    >>> [round(learning_rate_factor(step, 2, 6), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _optimizer(network: Multiformer, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,  # one pass over each tensor, on CPU and CUDA alike
    )


def _by_parts(view: CanonicalView, length: int) -> CanonicalView:
    """What is in a file, backed by dask: else normalizing it would read all of it at once."""
    fields = {
        name: field.chunk(time=length) if is_unread(field.variable) else field
        for name, field in view.fields.items()
    }
    return replace(view, fields=fields)


def _fit(view: CanonicalView, runs: list[slice], config: PretrainConfig) -> Normalizer:
    """Statistics of the training times."""
    times = np.concatenate([np.arange(run.start, run.stop) for run in runs])
    return Normalizer.fit(
        {name: array.isel(time=times) for name, array in view.fields.items()},
        view.statics,
        **config.normalization.model_dump(),
    )


def _stream(
    sources: list[RandomNeighborhoods], config: PretrainConfig, seed: int
) -> Iterator[Example]:
    slabs = config.batch_size // config.crops_per_slab
    return examples(batches(sources, slabs), config, torch.Generator().manual_seed(seed))


def _line(
    step: int,
    start: float,
    tally: _Tally,
    optimizer: torch.optim.Optimizer,
    config: PretrainConfig,
) -> dict[str, float]:
    """What the log says about the steps since the last line."""
    seconds = time.perf_counter() - tally.since
    return {
        "step": step,
        "seconds": round(time.perf_counter() - start, 1),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "training_loss": tally.loss / tally.steps,
        "samples_per_second": tally.steps * config.batch_size / seconds,
        "data_wait_share": tally.waited / seconds,
    }


def _trained(
    card: ModelCard, step: int, config: PretrainConfig, seconds: float, device: str
) -> ModelCard:
    """The card with what the training has cost so far."""
    assert card.training is not None
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    threads = "" if name != "CPU" else f", {torch.get_num_threads()} thread(s)"
    training = card.training.model_copy(
        update={
            "steps": step,
            "samples": step * config.batch_size,
            "seconds": seconds,
            "device": name + threads,
        }
    )
    return card.model_copy(update={"training": training})


def _log(path: Path, line: Mapping[str, float]) -> None:
    """Append a line, under a heading if it is the first."""
    first = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(line))
        if first:
            writer.writeheader()
        writer.writerow(line)
