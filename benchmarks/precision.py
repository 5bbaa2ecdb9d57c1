"""Time that a step of training takes on a CPU in float32 and in bfloat16, side by side.

Products of matrices and attention as `simulated-multi-small` has them, forward and backward, and
its whole steps on noise. Under autocast attention stays in float32 on a CPU: the lines say why. Run
it from anywhere with the package installed:

    python benchmarks/precision.py --threads 1
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import xatmorep
from xatmorep.model.config import ModelConfig
from xatmorep.model.inputs import NetworkInput
from xatmorep.model.multiformer import Multiformer

PRECISIONS = (torch.float32, torch.bfloat16)
BATCH = 8
"""Neighborhoods of a step."""


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median time of a call, after two that don't count."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(torch.tensor(times[2:]).median())


def line(what: str, of: Callable[[torch.dtype], Callable[[], object]], repeats: int) -> None:
    """Print the time in both precisions and their ratio."""
    single, half = (seconds(of(dtype), repeats) for dtype in PRECISIONS)
    print(f"{what}: {single * 1e3:.1f} ms, {half * 1e3:.1f} ms, ratio {half / single:.2f}")


def product(dtype: torch.dtype, n: int, width: int) -> Callable[[], object]:
    """Queries, keys and values of all tokens."""
    tokens, weight = torch.randn(BATCH * n, width, dtype=dtype), torch.randn(3 * width, width)
    weight = weight.to(dtype).requires_grad_()
    return lambda: F.linear(tokens, weight).sum().backward()


def attention(dtype: torch.dtype, n: int, heads: int, d: int) -> Callable[[], object]:
    """Torch's attention with something added to the scores."""
    query, key, value = (
        torch.randn(BATCH, heads, n, d, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    added = torch.randn(1, heads, n, n, dtype=dtype)

    def run() -> None:
        F.scaled_dot_product_attention(query, key, value, attn_mask=added).sum().backward()

    return run


def noise(config: ModelConfig) -> NetworkInput:
    """Neighborhoods of noise, half of each withheld, at the same place and time."""
    tokens, info, blank, statics = {}, {}, {}, {}
    for field in config.inputs.fields:
        grid = (BATCH, field.n_levels, *config.inputs.token_grid(field.name))
        tokens[field.name] = torch.randn(*grid, field.points_per_token)
        place = torch.tensor([2001.0, 60.0, 12.0, 0.5, 45.0, 10.0, 5.6])
        info[field.name] = place.expand(*grid, len(place))
        blank[field.name] = (torch.arange(tokens[field.name][..., 0].numel()) % 2 == 0).view(grid)
        _, a, o = field.token_shape
        rows, columns = grid[-2:]
        statics[field.name] = torch.randn(BATCH, rows, columns, len(config.inputs.statics) * a * o)
    return NetworkInput(tokens, info, blank, statics)


def step(dtype: torch.dtype, network: Multiformer, inputs: NetworkInput) -> Callable[[], object]:
    """Forward and backward through the whole network, which predicts what is withheld."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            answers = network(inputs, inputs.blank)
        torch.stack([x.square().mean() for x in answers.values()]).sum().backward()

    return run


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--repeats", type=int, default=10, help="calls that are timed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = xatmorep.load("simulated-multi-small")
    config, network = model.config, model.network.train()
    name = config.predicted[0]
    width, heads = config.networks[name].width, config.encoder.heads
    inputs = noise(config)
    n = inputs.blank[name][0].numel()
    print("float32, bfloat16, and the share of the time")
    line("product of matrices", lambda dtype: product(dtype, n, width), options.repeats)
    line("attention", lambda dtype: attention(dtype, n, heads, width // heads), options.repeats)
    line("forward and backward", lambda dtype: step(dtype, network, inputs), options.repeats)


if __name__ == "__main__":
    main()
