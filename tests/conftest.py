"""Settings of the whole test suite."""

from __future__ import annotations

import os

# Before torch, numpy or gcsfs are imported: one thread is fastest for small tensors, and gcsfs
# would otherwise ask a gRPC service for the type of every bucket, which no emulator answers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import matplotlib
from hypothesis import settings

matplotlib.use("Agg")

settings.register_profile("xatmorep", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("xatmorep")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
