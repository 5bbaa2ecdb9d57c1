"""How fast a run is, and how much of what its device can do it uses."""

from __future__ import annotations

import torch

from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import PretrainConfig
from xatmorep.training.state import Tally

__all__ = ["Speedometer"]

PEAKS = {
    "H100 PCIe": {"float32": 51e12, "bfloat16": 756e12, "float16": 756e12},
    "H100": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12},
    "H200": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12},
    "A100": {"float32": 19.5e12, "bfloat16": 312e12, "float16": 312e12},
    "V100": {"float32": 15.7e12, "float16": 125e12},
}
"""Operations per second by a part of the device's name, from NVIDIA's data sheets: dense matrix
products, float32 without TF32."""


class Speedometer:
    """Neighborhoods and floating point operations per second.

    The model's operations per second are 3 F n, with those of a forward pass F
    (`Multiformer.flops`; the backward pass takes twice as many) and n neighborhoods per second.
    What activation checkpointing computes again does not count. Model FLOPs utilization is their
    share of the peak of the device.

    Self-distillation adds 3 S + V passes E of the encoder for each neighborhood: forward and
    backward for its S views, and forward by the teacher for the V global ones. Without the masked
    objective F doesn't count. The heads, which see one vector of a view, never do.

    Parameters
    ----------
    network : Multiformer
        The network, on its device.
    config : PretrainConfig
        The run.

    Attributes
    ----------
    peak : float or None
        Peak of the device, if it is known or was given.
    """

    def __init__(self, network: Multiformer, config: PretrainConfig) -> None:
        self._operations, self._formula = _operations(network, config)
        self.batch_size = config.batch_size
        device = next(network.parameters()).device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        known = next((peaks for part, peaks in PEAKS.items() if part in name), {})
        self.peak = config.peak_flops or known.get(config.precision)

    def __call__(self, tally: Tally) -> dict[str, float]:
        """What the log says about the speed of some steps."""
        samples = tally.steps * self.batch_size / tally.seconds
        line = {
            "samples_per_second": samples,
            "data_wait_share": tally.waited / tally.seconds,
            "flops_per_second": self._operations * samples,
        }
        if self.peak is not None:
            line["model_flops_utilization"] = line["flops_per_second"] / self.peak
        return line

    def words(self, tally: Tally) -> str:
        """The same in words, with the formula."""
        line = self(tally)
        text = (
            f"model FLOPs: {self._formula} x "
            f"{line['samples_per_second']:.3g} neighborhoods/s = {line['flops_per_second']:.3g}/s"
        )
        if self.peak is None:
            return text
        share = line["model_flops_utilization"]
        return f"{text}, {share:.1%} of {self.peak:.3g}/s (model FLOPs utilization)"


def _operations(network: Multiformer, config: PretrainConfig) -> tuple[int, str]:
    """Floating point operations for one neighborhood of a step, and how they are counted."""
    forward = network.flops()
    whole = f"3 x {forward:.3g} of a forward pass"
    if config.distillation is None:
        return 3 * forward, whole
    views = config.distillation.n_global + config.distillation.n_local
    passes = 3 * views + config.distillation.n_global
    encoder = forward - _decoder_flops(network)
    words = f"{passes} x {encoder:.3g} of the encoder"
    if not config.distillation.masked_weight:
        return passes * encoder, words
    return 3 * forward + passes * encoder, f"({whole} + {words})"


def _decoder_flops(network: Multiformer) -> int:
    """What `Multiformer.flops` counts after the encoder."""
    total = 0
    for name, decoder in network.decoders.items():
        n = len(network.embeddings[name].positions)
        total += sum(layer.flops(n, [n]) for layer in decoder) + network.tails[name].flops(n)
    return total
