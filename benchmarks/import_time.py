"""Time of ``import xatmorep`` beside that of ``import xarray``: it should be less than twice.

Run it from anywhere with the package installed: ``python benchmarks/import_time.py``.
"""

from __future__ import annotations

import subprocess
import sys

REPEATS = 3


def seconds(module: str) -> float:
    """Best of several imports, each in a process of its own."""
    code = f"from time import perf_counter as t; a = t(); import {module}; print(t() - a)"
    command = [sys.executable, "-c", code]
    return min(float(subprocess.check_output(command, text=True)) for _ in range(REPEATS))


if __name__ == "__main__":
    xarray, xatmorep = seconds("xarray"), seconds("xatmorep")
    print(f"xarray {xarray:.2f} s, xatmorep {xatmorep:.2f} s, ratio {xatmorep / xarray:.2f}")
