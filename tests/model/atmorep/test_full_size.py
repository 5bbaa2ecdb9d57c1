"""A published configuration at its real size, from files to embeddings and a forecast."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks/atmorep_full_size.py"
MEMORY, DISK = 8e9, 4e9


@pytest.mark.full_size
@pytest.mark.timeout(1500)
def test_vorticity_of_2023_at_full_size(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < MEMORY or shutil.disk_usage(tmp_path).free < DISK:
        pytest.skip(f"needs {MEMORY / 1e9:g} GB of memory and {DISK / 1e9:g} GB of disk")
    # The process checks shapes, and that all results are finite.
    found = subprocess.run(
        [sys.executable, str(SCRIPT)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": str(os.cpu_count())},
    )
    report = json.loads(found.stdout)
    with capsys.disabled():
        print(f"\nat full size: {report}")
    assert report["parameters"] == 679_739_520
    assert report["peak_memory_GB"] < MEMORY / 1e9
    assert sorted(report["seconds"]) == ["embed", "forecast", "load", "open"]
