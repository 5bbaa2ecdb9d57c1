"""Show that the embeddings of a place at two token sizes come together in training.

The embedding is of the kind "transformer": it cuts tokens into parts, and takes tokens of any size
that the parts divide. It is pre-trained on tokens of 24 h x 8 x 8 points of the small simulated
sample of the tests (no observations), in less than two minutes on one core; then tokens of held-out
days are compared with the 4 x 4 points in the middle of each. Run it from the root of the
repository:

    python examples/embedding_consistency.py

It writes ``runs/embedding-consistency.png`` and prints, for each field before and after training,
the mean cosine similarity of the same place at both sizes, that of different places (any other
tokens), and how many of the different places are less similar than the same one.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
import xarray as xr

import xatmorep
from xatmorep.model.multiformer import Multiformer

SAMPLE = Path(__file__).parents[1] / "tests/data/simulated-sample.zarr"
OUT = Path("runs/embedding-consistency")
UNITS = {"temperature": "K", "vorticity": "s-1"}
CONFIG = {
    "name": "embedding-consistency",
    "model": {
        "inputs": {
            "neighborhood": {"shape": [8, 16, 32], "time_step": 6, "grid_step": [5.54, 5.625]},
            "fields": [
                {
                    "name": name,
                    "units": units,
                    "token_shape": [4, 8, 8],
                    "levels": [0.2, 0.51, 0.835],
                    "level_type": "sigma",
                }
                for name, units in UNITS.items()
            ],
        },
        "networks": {
            "temperature": {"width": 32, "coupled": ["vorticity"]},
            "vorticity": {"width": 32, "coupled": ["temperature"]},
        },
        "embedding": {"kind": "transformer", "sub_token": [4, 2, 2], "width": 32, "shared": True},
        "encoder": {"layers": 2, "heads": 2, "qk_norm": "affine"},
        "decoder": {"layers": 1, "heads": 2, "qk_norm": "affine"},
        "tail": {"members": 4},
    },
    "normalization": {"mean": "local", "std": "local"},
    "masking": {"rate": [0.3, 0.7]},
    "optimizer": {"learning_rate": 0.002, "warmup_steps": 20},
    "steps": 300,
    "batch_size": 4,
    "validate_every": 300,
    "validation_batches": 4,
    "seed": 0,
}
HELD_OUT = slice("2001-01-17", "2001-01-20")
MIDDLE = (..., slice(2, 6), slice(2, 6))


def similarities(network: Multiformer, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each token (row) and the middle of each token (column)."""
    embed = network.eval().embeddings[name].embed_values
    with torch.no_grad():
        large, small = embed(tokens), embed(tokens[MIDDLE])
    return torch.nn.functional.normalize(large) @ torch.nn.functional.normalize(small).T


def split(similarity: torch.Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Similarity of the same and of different places, and share of these below the same one."""
    different = ~torch.eye(len(similarity), dtype=torch.bool)
    below = (similarity < similarity.diagonal()[:, None])[different].float().mean().item()
    return similarity.diagonal().numpy(), similarity[different].numpy(), below


def tokens_of(ds: xr.Dataset, model: xatmorep.Model, name: str) -> torch.Tensor:
    """Normalized tokens (token, time, latitude, longitude) of a field."""
    tokens = ds.atmorep.tokens(model=model)[name]
    inside = ["token_time", "token_latitude", "token_longitude"]
    outside = [dim for dim in tokens.dims if dim not in inside]
    return torch.from_numpy(tokens.transpose(*outside, *inside).values).flatten(0, -4)


def main() -> None:
    """Train, compare, draw."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    ds = xr.open_zarr(SAMPLE).load()
    model = xatmorep.pretrain(ds, CONFIG, OUT, validation=HELD_OUT)
    # The network as it was before the first step.
    start = Multiformer(model.config, torch.Generator().manual_seed(CONFIG["seed"]))
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
    bins = np.linspace(-1, 1, 61)
    for row, name in zip(axes, UNITS, strict=True):
        tokens = tokens_of(ds.sel(time=HELD_OUT), model, name)
        for ax, when, network in zip(row, ("before", "after"), (start, model.network), strict=True):
            same, different, below = split(similarities(network, name, tokens))
            ax.hist(different, bins, density=True, color="0.7", label="different places")
            ax.hist(same, bins, density=True, color="C0", alpha=0.8, label="same place")
            ax.set_title(f"{name}, {when} training: {below:.1%} below the same place", fontsize=10)
            print(
                f"{name}, {when} training: same place {same.mean():.2f}, different places "
                f"{different.mean():.2f}, {below:.1%} of them below the same place"
            )
        row[0].set_ylabel("density")
    for ax in axes[1]:
        ax.set_xlabel("cosine similarity of embeddings")
    axes[0, 0].legend(loc="upper left", fontsize=9)
    figure.suptitle(
        "Tokens of 24 h x 8 x 8 points and the 4 x 4 points in their middle\n"
        f"simulated atmosphere, held-out days, {CONFIG['steps']} steps"
    )
    figure.savefig(OUT.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
