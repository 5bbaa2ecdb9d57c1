"""Train the demonstration model ``era5-surface-tiny`` on the first five days of the ERA5 sample.

Run it from the root of the repository (how long it took for the shipped model is in its card), put
the best model in the place of the shipped one, then score it and write the scores into its card:

    python examples/train_era5_surface_tiny.py
    rm -r xatmorep/shipped/era5-surface-tiny
    cp -r runs/era5-surface-tiny/best xatmorep/shipped/era5-surface-tiny
    xatmorep evaluate era5-sample --model era5-surface-tiny --time 2026-03-30/2026-03-31 \
        --region=90,0,-89,359 --climatology 2026-03-25/2026-03-29 --write-card
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
