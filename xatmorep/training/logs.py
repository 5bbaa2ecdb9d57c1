"""What a run writes down: a line for each validation, and a ledger with a line for each step.

The files are cut at a checkpoint when a run goes on from it, so that they hold each line once.
"""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path

from xatmorep.training.loggers import Logger

__all__ = ["LEDGER", "LOG", "RunLog"]

LOG = "log.csv"
LINES = "log.jsonl"
LEDGER = "ledger.csv"


class RunLog:
    """The log files of a run, and what else it is sent to.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    sizes : mapping of str to int
        Bytes of each file to keep, as `sync` returned them; what comes after was written by steps
        that will be done again. Empty for a new run.
    loggers : sequence of Logger
        Where the numbers are sent besides.

    Warns
    -----
    UserWarning
        If a file is shorter than that: then lines are missing.
    """

    def __init__(
        self, folder: Path, sizes: Mapping[str, int], loggers: Sequence[Logger] = ()
    ) -> None:
        self._files = {
            name: _open(folder / name, sizes.get(name, 0)) for name in (LOG, LINES, LEDGER)
        }
        self._loggers = loggers

    def step(self, step: int, used: Mapping[str, float], line: Mapping[str, float]) -> None:
        """Add a step to the ledger: what it used, and what came out."""
        self._csv(LEDGER, {"step": step, **used, **line})
        for logger in self._loggers:
            logger.log(step, line)

    def validation(self, step: int, line: Mapping[str, float]) -> None:
        """Add a validation to the log."""
        full = {"step": step, **line}
        self._csv(LOG, full)
        self._write(LINES, json.dumps(full) + "\n")
        for logger in self._loggers:
            logger.log(step, line)

    def sync(self) -> dict[str, int]:
        """Wait until all lines are on disk; the size of each file."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        for logger in self._loggers:
            logger.close()

    def _csv(self, name: str, line: Mapping[str, float]) -> None:
        file = self._files[name]
        writer = csv.DictWriter(file, fieldnames=list(line))
        if not os.fstat(file.fileno()).st_size:
            writer.writeheader()
        writer.writerow(line)
        file.flush()

    def _write(self, name: str, text: str) -> None:
        self._files[name].write(text)
        self._files[name].flush()


def _open(path: Path, size: int) -> TextIOWrapper:
    """A file for appending, cut to a size."""
    there = path.stat().st_size if path.exists() else 0
    if there < size:
        warnings.warn(
            f"{path} has {there} bytes, the checkpoint says {size}: lines are missing", stacklevel=3
        )
    file = path.open("a", newline="")
    file.truncate(min(size, there))
    return file
