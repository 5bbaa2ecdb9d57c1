"""Held-out loss against model size and data amount, with fitted exponents and a figure.

A small network (see small_runs.py) of several widths learns from the first days of a simulation,
for several numbers of days and always the same number of steps, so that little data are seen over
and over. All predict deviations from the monthly climatology of the whole simulation, which is
subtracted beforehand: otherwise those with more days would know a better climatology, too. The
loss is the CRPS of the last model of a run for hidden tokens of other simulations, in units of the
standard deviation of anomalies.

    python benchmarks/scaling.py train.zarr runs/scaling --test test.zarr

It writes ``scaling.csv``, ``scaling.md`` (also printed) and ``scaling.png``. Every run has a folder
of its own: stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import xarray as xr
from scipy import stats
from scipy.optimize import least_squares
from small_runs import (
    FIELDS,
    METRICS,
    changed,
    log_of,
    markdown,
    open_store,
    score,
    small,
    usual_scores,
    versions,
    write_table,
)

import xatmorep

FRAMES_PER_DAY = 4
GLOBAL = {"normalization": {"mean": "global", "std": "global", "period": "record"}}
LARGEST = 3.0
"""Exponents beyond this are those of a step, not of a power law."""
RESAMPLES = 500
CONFIDENCE = 0.95


@dataclass
class Joint:
    """L = E + A / N^a + B / D^b, of sizes and amounts over their geometric means.

    Attributes
    ----------
    floor, size_term, size_exponent, data_term, data_exponent : float
        E, A, a, B and b.
    """

    floor: float
    size_term: float
    size_exponent: float
    data_term: float
    data_exponent: float

    def __call__(self, size: np.ndarray, data: np.ndarray) -> np.ndarray:
        """Loss for sizes and amounts that were divided by their geometric means."""
        found: np.ndarray = (
            self.floor
            + self.size_term * size**-self.size_exponent
            + self.data_term * data**-self.data_exponent
        )
        return found


def fit_joint(
    size: np.ndarray, data: np.ndarray, loss: np.ndarray, start: Joint | None = None
) -> Joint:
    """The law with the least squared errors of log L.

    Parameters
    ----------
    size, data, loss : (n,) arrays
        Sizes, amounts and losses.
    start : Joint, optional
        Where the search begins; several places, of which the best end counts, if not given.
    """
    size, data = relative(size), relative(data)
    upper = [loss.min(), np.inf, LARGEST, np.inf, LARGEST]

    def errors(parameters: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.log(np.maximum(Joint(*parameters)(size, data), 1e-9) / loss)
        return found

    if start is None:
        term = 0.1 * loss.mean()
        grid = itertools.product((0.2, 0.8), (0.2, 1.0), (0.2, 1.0))
        starts = [[share * loss.min(), term, a, term, b] for share, a, b in grid]
    else:
        starts = [np.clip(dataclasses.astuple(start), 1e-9, np.array(upper) * (1 - 1e-9))]
    fits = [least_squares(errors, place, bounds=([0.0] * 5, upper)) for place in starts]
    return Joint(*min(fits, key=lambda fit: fit.cost).x)


def resampled_exponents(
    size: np.ndarray, data: np.ndarray, loss: np.ndarray, n: int, seed: int = 0
) -> np.ndarray:
    """E, a and b (n, 3) of fits to losses with the errors of other points.

    Errors of log L are widened for the parameters that the fit took.
    """
    rng = np.random.default_rng(seed)
    fit = fit_joint(size, data, loss)
    said = fit(relative(size), relative(data))
    errors = np.log(loss / said) * np.sqrt(len(loss) / max(1, len(loss) - 5))
    draws = [said * np.exp(rng.choice(errors, len(loss))) for _ in range(n)]
    fits = [fit_joint(size, data, draw, fit) for draw in draws]
    return np.array([[fit.floor, fit.size_exponent, fit.data_exponent] for fit in fits])


def relative(x: np.ndarray) -> np.ndarray:
    """Over the geometric mean."""
    found: np.ndarray = x / np.exp(np.log(x).mean())
    return found


def slope(x: np.ndarray, loss: np.ndarray) -> tuple[float, float]:
    """Exponent of L = c / x^k alone, and half of its interval by Student's t."""
    fit = stats.linregress(np.log(x), np.log(loss))
    degrees = len(x) - 2
    half = fit.stderr * stats.t.ppf((1 + CONFIDENCE) / 2, degrees) if degrees > 0 else np.nan
    return -float(fit.slope), float(half)


def laws(rows: Sequence[dict[str, Any]]) -> str:
    """What the fits say, and whether they can be trusted."""
    size, data, loss = (np.array([row[k] for row in rows]) for k in ("size", "amount", "loss"))
    lines = []
    joint = fit_joint(size, data, loss)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(resampled_exponents(size, data, loss, RESAMPLES), tails, axis=0)
    for name, value, i in (
        ("E", joint.floor, 0),
        ("a (size)", joint.size_exponent, 1),
        ("b (data)", joint.data_exponent, 2),
    ):
        lines.append(f"- joint fit, {name}: {value:.2f} ({low[i]:.2f} to {high[i]:.2f})")
    loose = [
        name
        for name, i in (("a", 1), ("b", 2))
        if low[i] < 0.01 or high[i] > 0.9 * LARGEST or high[i] > 3 * max(low[i], 1e-9)
    ]
    lines.append(
        f"- {' and '.join(loose)} of the joint fit not identified: the interval reaches a bound or "
        "spans more than a factor of three; take the single ones"
        if loose
        else "- both exponents of the joint fit are identified within a factor of three"
    )
    for key, other, words in (("size", "amount", "days"), ("amount", "width", "width")):
        for fixed in sorted({row[other] for row in rows}):
            some = [row for row in rows if row[other] == fixed]
            k, half = slope(
                np.array([row[key] for row in some]), np.array([r["loss"] for r in some])
            )
            lines.append(f"- power law in {key} alone, {words} {fixed}: {k:+.3f} ± {half:.3f}")
    return "\n".join(lines)


def anomalies(ds: xr.Dataset, usual: xr.Dataset) -> xr.Dataset:
    """Deviations from a monthly climatology, with the static fields as they are."""
    fields = ds[[*FIELDS]]
    month = fields["time"].dt.month
    deviations = (fields - usual.sel(month=month).drop_vars("month")).astype("float32")
    for name in FIELDS:
        deviations[name].attrs = fields[name].attrs
    return ds.assign(deviations)


def parameters(model: xatmorep.Model) -> int:
    """Parameters without those of the embedding, which depend on tokens and static fields."""
    embeddings = model.network.embeddings.parameters()
    return model.network.n_parameters - sum(weights.numel() for weights in embeddings)


def run_all(
    ds: xr.Dataset, tests: Sequence[xr.Dataset], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train and score every width with every amount of data and seed."""
    rows = []
    combinations = itertools.product(options.amounts, options.widths, range(options.seeds))
    for days, width, seed in combinations:
        folder = Path(options.out) / "runs" / f"width-{width}-days-{days}-seed-{seed}"
        print(f"width {width}, {days} days, seed {seed}: {folder}", flush=True)
        config = changed(small(options.steps, width=width, seed=seed), GLOBAL)
        some = ds.isel(time=slice(0, days * FRAMES_PER_DAY))
        xatmorep.pretrain(some, config, folder, device=options.device)
        # Without held-out days of its own the best model of a run would be that of the training.
        model = xatmorep.load(folder / "last")
        usual = usual_scores(model, ds, tests, Path(options.out) / "climatology.json")
        found = score(model, usual["deviation"], tests, folder)
        log = log_of(folder)
        rows.append(
            {
                "width": width,
                "size": parameters(model),
                "amount": days,
                "seed": seed,
                "steps": options.steps,
                "loss": found["crps"],
                "training_loss": log[-1]["training_loss"],
                "seconds": log[-1]["seconds"],
                **{metric: found[metric] for metric in METRICS},
            }
        )
        print(f"   CRPS {found['crps']:.4f}, RMSE {found['rmse']:.4f}", flush=True)
    return rows


def mean_over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each width and amount of data."""
    means = []
    for point in {(row["width"], row["amount"]): None for row in rows}:
        some = [row for row in rows if (row["width"], row["amount"]) == point]
        losses = [row["loss"] for row in some]
        means.append(
            some[0]
            | {
                "loss": float(np.mean(losses)),
                "range": float(np.ptp(losses)),
                "training_loss": float(np.mean([row["training_loss"] for row in some])),
            }
        )
    return means


def table(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """Loss by width and days, and in brackets the loss of the last training steps."""
    lines = []
    for width in options.widths:
        some = {row["amount"]: row for row in rows if row["width"] == width}
        size = next(iter(some.values()))["size"]
        cells = [f"{some[n]['loss']:.3f} ({some[n]['training_loss']:.2f})" for n in options.amounts]
        lines.append([str(width), f"{size:,}", *cells])
    days = [f"{days} days" for days in options.amounts]
    return markdown(["width", "parameters", *days], lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss over size, and over data, with the joint fit."""
    import matplotlib.pyplot as plt

    size, data, loss = (np.array([row[k] for row in rows]) for k in ("size", "amount", "loss"))
    joint = fit_joint(size, data, loss)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    panels = (
        ("size", size, "amount", "days", "parameters without embedding"),
        ("amount", data, "width", "width", "days of simulation to train with"),
    )
    for ax, (key, x, other, words, label) in zip(axes, panels, strict=True):
        fine = np.geomspace(x.min(), x.max(), 50)
        for number, fixed in enumerate(sorted({row[other] for row in rows})):
            some = [row for row in rows if row[other] == fixed]
            ax.plot(
                [row[key] for row in some],
                [row["loss"] for row in some],
                "o",
                color=f"C{number}",
                label=f"{words} {fixed}",
            )
            same = np.full(50, some[0]["amount" if key == "size" else "size"], dtype="float64")
            pair = (fine, same) if key == "size" else (same, fine)
            centers = [np.exp(np.log(values).mean()) for values in (size, data)]
            said = joint(*(values / c for values, c in zip(pair, centers, strict=True)))
            ax.plot(fine, said, color=f"C{number}", linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.grid(alpha=0.3, which="both")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=9, frameon=False)
        ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
        ax.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
    axes[0].set_ylabel("CRPS on other simulations / anomaly std")
    axes[1].set_xticks(sorted(set(data)), [f"{days:g}" for days in sorted(set(data))])
    axes[1].xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    figure.suptitle("Points: runs; lines: the joint fit", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, score, fit, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="store to train with")
    parser.add_argument("out", help="folder for runs, tables and pictures")
    parser.add_argument("--test", nargs="+", required=True, help="stores of other seeds")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument(
        "--amounts", type=int, nargs="+", default=[2, 8, 30, 120], help="days to train with"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--days", type=int, default=20, help="days of each test that are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device")
    options = parser.parse_args()
    numbers = [*options.widths, *options.amounts, options.steps, options.seeds, options.days]
    if min(*numbers, options.threads) < 1:
        parser.error("all numbers must be positive")
    if min(len(set(options.widths)), len(set(options.amounts))) < 3:
        parser.error("a power law needs at least three widths and three amounts of data")
    matplotlib.use("agg")
    torch.set_num_threads(options.threads)
    everything = open_store(options.data)
    if everything.sizes["time"] < max(options.amounts) * FRAMES_PER_DAY:
        parser.error(
            f"{options.data} has {everything.sizes['time'] // FRAMES_PER_DAY} days, "
            f"--amounts asks for {max(options.amounts)}"
        )
    usual = everything[[*FIELDS]].groupby("time.month").mean()
    tests = [open_store(path).isel(time=slice(0, 4 * options.days)) for path in options.test]
    unknown = {int(month) for test in tests for month in test["time"].dt.month.values}
    if unknown := unknown - {int(month) for month in usual["month"].values}:
        parser.error(f"the data have no climatology of the months {sorted(unknown)} of the tests")
    try:
        rows = run_all(
            anomalies(everything, usual), [anomalies(test, usual) for test in tests], options
        )
    except (xatmorep.XatmorepError, KeyboardInterrupt) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    means = mean_over_seeds(rows)
    text = f"{table(means, options)}\n\n{laws(means)}"
    out = Path(options.out) / "scaling"
    write_table(out.with_suffix(".csv"), rows)
    out.with_suffix(".md").write_text(text + "\n")
    draw(means, out.with_suffix(".png"))
    source = xr.open_zarr(options.data).attrs.get("source", "unknown")
    print(
        f"\nSimulated, coarse atmosphere ({source}), a demonstration. CRPS over {options.days} "
        f"days of {', '.join(options.test)} in units of anomaly standard deviation, mean over "
        f"fields and levels, of {options.seeds} seed(s), {options.steps} steps of 8 neighborhoods; "
        f"in brackets the training loss at the end. {versions()}.\n\n{text}\n\n"
        f"{out}.csv, .md and .png"
    )


if __name__ == "__main__":
    main()
