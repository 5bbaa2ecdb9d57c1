"""Train variations of one small configuration with the same budget, and score them side by side.

Data are simulated (``examples/simulate_atmosphere.py``; docs/how-to/simulate.md), two fields of
them. All variations see the same neighborhoods in the same order, with the same seeds, and are
scored on the same hidden tokens of other simulations. Three studies:

- ``losses``: squared errors; the statistical loss and the divergence of Gaussians, each alone and
  with squared errors; CRPS; and the sum of CRPS and the squared error of the mean;
- ``attention``: heads that begin with one neighbor each, and heads that begin with nothing;
- ``objectives``: predicting hidden tokens, alone and with self-distillation beside it, with linear
  probes of what the encoders know.

    python benchmarks/side_by_side.py train.zarr runs/side-by-side --test test.zarr --study losses

It writes ``<study>.csv``, ``<study>.md`` (also printed) and ``<study>.png``. Every variation is a
run in a folder of its own: stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import probes
import torch
import xarray as xr
from small_runs import (
    METRICS,
    Split,
    changed,
    curve,
    log_of,
    markdown,
    open_store,
    score,
    small,
    speed,
    split,
    usual_scores,
    versions,
    write_table,
)

import xatmorep

WORDS = {"rmse": "RMSE", "mae": "MAE", "crps": "CRPS", "spread_skill_ratio": "spread-skill ratio"}
# Few views, as each costs as much as the masked objective's own: the student says of a local one
# what the teacher says of a global one. The teacher follows faster, as there are few steps.
DISTILLATION = {
    "weight": 0.1,
    "n_global": 1,
    "n_local": 1,
    "prototypes": 256,
    "hidden": 128,
    "bottleneck": 32,
    "teacher_momentum": 0.99,
}
# Monthly statistics take the season out of the fields, which a probe shall find there.
SEASON = {"normalization.period": "record"}
# Without locality the usual rate may be too high, and the comparison unfair.
SLOW = {"optimizer.learning_rate": 0.001}
VARIATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "losses": {
        "mse_ensemble": {"loss": {"mse_ensemble": 1.0}},
        "statistical": {"loss": {"statistical": 1.0}},
        "statistical + mse_ensemble": {"loss": {"mse_ensemble": 1.0, "statistical": 1.0}},
        "gaussian_kl": {"loss": {"gaussian_kl": 1.0}},
        "gaussian_kl + mse_ensemble": {"loss": {"mse_ensemble": 1.0, "gaussian_kl": 1.0}},
        "crps": {"loss": {"crps": 1.0}},
        "crps + 0.5 mse_mean": {},
    },
    "attention": {
        "locality 5": {},
        "locality 0": {"model.encoder.locality": 0.0},
        "locality 5, rate 0.001": SLOW,
        "locality 0, rate 0.001": SLOW | {"model.encoder.locality": 0.0},
    },
    "objectives": {
        "masked": SEASON,
        "masked + distillation": SEASON | {"distillation": DISTILLATION},
    },
}


@dataclass
class Trained:
    """All runs of a variation, one for each seed."""

    name: str
    steps: int
    folders: list[Path] = field(default_factory=list)
    models: list[xatmorep.Model] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    climatology: dict[str, float] = field(default_factory=dict)


def slug(changes: Mapping[str, Any]) -> str:
    """Name of the folder of a variation; the same one has the same in all studies."""
    words = [f"{place.split('.')[-1]}-{value}" for place, value in sorted(changes.items())]
    plain = "".join(c if c.isalnum() or c in "-." else "-" for c in "_".join(words))
    return "-".join(part for part in plain.split("-") if part)[:80] or "base"


def train(
    name: str, changes: Mapping[str, Any], steps: int, data: Split, options: argparse.Namespace
) -> Trained:
    """Train and score a variation with all seeds, or take what is there."""
    trained = Trained(name, steps)
    for seed in range(options.seeds):
        folder = Path(options.out) / "runs" / f"{slug(changes)}-steps-{steps}-seed-{seed}"
        print(f"{name}, seed {seed}: {folder}", flush=True)
        config = changed(small(steps, seed=seed), changes)
        model = xatmorep.pretrain(
            data.everything, config, folder, validation=data.validation, device=options.device
        )
        usual = usual_scores(
            model, data.training, data.tests, Path(options.out) / "climatology.json"
        )
        found = score(model, usual["deviation"], data.tests, folder)
        print("   " + ", ".join(f"{WORDS[m]} {found[m]:.3f}" for m in METRICS), flush=True)
        trained.folders.append(folder)
        trained.models.append(model)
        trained.scores.append(found)
        trained.climatology = usual["scores"]
    return trained


def with_equal_cost(trained: list[Trained], data: Split, options: argparse.Namespace) -> Trained:
    """The second of two variations, with as many steps as the first takes the time for."""
    cost = [1 / max(speed(folder) for folder in one.folders) for one in trained]
    steps = max(1, round(trained[0].steps * cost[0] / cost[1]))
    print(f"a step of {trained[1].name!r} takes {cost[1] / cost[0]:.2f} times as long")
    changes = VARIATIONS["objectives"][trained[1].name]
    return train(f"{trained[1].name}, equal time", changes, steps, data, options)


def of_seeds(values: Sequence[float]) -> str:
    """Mean over seeds, and half of the range."""
    spread = f" ± {np.ptp(values) / 2:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def table(variations: Sequence[Trained]) -> str:
    """Scores of all variations, and of the climatology."""
    rows = [
        [one.name, str(one.steps), *(of_seeds([s[m] for s in one.scores]) for m in METRICS)]
        for one in variations
    ]
    usual = variations[0].climatology
    rows.append(["climatology", "", *(f"{usual[m]:.3f}" for m in METRICS[:-1]), ""])
    return markdown(["", "steps", *WORDS.values()], rows)


def records(variations: Sequence[Trained]) -> list[dict[str, Any]]:
    """One row for each run."""
    return [
        {
            "variation": one.name,
            "seed": seed,
            "steps": one.steps,
            "parameters": model.parameters,
            "seconds": log_of(folder)[-1]["seconds"],
            "samples_per_second": speed(folder),
            **found,
        }
        for one in variations
        for seed, (folder, model, found) in enumerate(
            zip(one.folders, one.models, one.scores, strict=True)
        )
    ]


def draw(variations: Sequence[Trained], found: Sequence[probes.Probed], path: Path) -> None:
    """Curves of the error on held-out days, and what probes found if there were any."""
    import matplotlib.pyplot as plt

    columns = 3 if found else 1
    figure, axes = plt.subplots(
        1, columns, figsize=(4.5 * columns + 2, 4.6), layout="constrained", squeeze=False
    )
    ax = axes[0, 0]
    for number, one in enumerate(variations):
        for folder in one.folders:
            label = one.name if folder == one.folders[0] else None
            ax.plot(*curve(folder), color=f"C{number}", linewidth=1.3, label=label)
    ax.set(
        xlabel="optimizer step",
        ylabel="RMSE on held-out days / normalized units",
        title="50 % of tokens hidden; a line for each seed",
    )
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=columns + 1, fontsize=9)
    colors = {one.name: f"C{number}" for number, one in enumerate(variations)}
    for ax, (key, words) in zip(axes[0, 1:], probes.WORDS.items(), strict=False):
        for place, one in enumerate(reversed(found)):
            value, low, high = one.scores[key]
            bars, color = [[value - low], [high - value]], colors.get(one.name, "0.4")
            ax.errorbar(value, place, xerr=bars, fmt="o", capsize=3, color=color)
        names = [one.name for one in reversed(found)] if ax is axes[0, 1] else [""] * len(found)
        ax.set_yticks(range(len(found)), names)
        ax.set(title=f"linear probe, {words}", xlabel=probes.AXES[key])
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def probe(
    variations: Sequence[Trained], data: Split, options: argparse.Namespace
) -> tuple[list[probes.Probed], str]:
    """What linear probes find in the features of all variations and baselines, and a table."""
    question = probes.Question.of(
        options.data, options.test, data, options.seeds, Path(options.out) / "probes"
    )
    model = variations[0].models[0]
    found = [question.raw(model), question.untrained(model)]
    found += [question.trained(one.name, one.models) for one in variations]
    return found, question.table(found, against=variations[0].name)


def main() -> None:
    """Train, score, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="store to train with; its last 60 days are held out")
    parser.add_argument("out", help="folder for runs, tables and pictures")
    parser.add_argument(
        "--test",
        nargs="+",
        default=[],
        help="stores to score with, of other seeds; the held-out days of the data if not given "
        "(which choose the best model of a run, too)",
    )
    parser.add_argument("--study", choices=list(VARIATIONS), default="losses")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--days", type=int, default=20, help="days of each test that are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device")
    options = parser.parse_args()
    if min(options.steps, options.seeds, options.days, options.threads) < 1:
        parser.error("--steps, --seeds, --days and --threads must be positive")
    if options.study == "objectives" and not options.test:
        parser.error("the probes of --study objectives need --test: days of another simulation")
    matplotlib.use("agg")
    torch.set_num_threads(options.threads)
    tests = [open_store(path) for path in options.test]
    data = split(open_store(options.data), tests, options.days)
    try:
        run(data, options)
    except (xatmorep.XatmorepError, KeyboardInterrupt) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def run(data: Split, options: argparse.Namespace) -> None:
    """One study."""
    variations = [
        train(name, changes, options.steps, data, options)
        for name, changes in VARIATIONS[options.study].items()
    ]
    found: list[probes.Probed] = []
    text = table(variations)
    if options.study == "objectives":
        variations.append(with_equal_cost(variations, data, options))
        found, probed = probe(variations, data, options)
        text = f"{table(variations)}\n\n{probed}"
    out = Path(options.out) / options.study
    write_table(out.with_suffix(".csv"), records(variations))
    out.with_suffix(".md").write_text(text + "\n")
    draw(variations, found, out.with_suffix(".png"))
    source = xr.open_zarr(options.data).attrs.get("source", "unknown")
    print(
        f"\nSimulated, coarse atmosphere ({source}), a demonstration. Scores over {options.days} "
        f"days of {', '.join(options.test) or 'the held-out days'}, means over fields and levels "
        f"in units of anomaly standard deviation; ±: half the range over {options.seeds} seeds. "
        f"{versions()}.\n\n{text}\n\n{out}.csv, .md and .png"
    )


if __name__ == "__main__":
    main()
