"""Train the demonstration model ``era5-surface-tiny`` on the first five days of the ERA5 sample.

Run it from the root of the repository, then score the result and write its card:

    python examples/train_era5_surface_tiny.py
    xatmorep evaluate era5-sample --model runs/era5-surface-tiny/best \
        --time 2026-03-30/2026-03-31 --climatology 2026-03-25/2026-03-29 --write-card
"""

from __future__ import annotations

from pathlib import Path

import torch

import xatmorep

if __name__ == "__main__":
    torch.set_num_threads(1)  # gradients differ in the last digits between numbers of threads
    xatmorep.pretrain(
        xatmorep.open_dataset("era5-sample").load(),
        Path(__file__).with_name("era5_surface_tiny.yaml"),
        out="runs/era5-surface-tiny",
        validation=slice("2026-03-30", "2026-03-31"),
    )
