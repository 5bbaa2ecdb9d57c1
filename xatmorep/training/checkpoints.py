"""Checkpoints of a run: whole on disk or not there, and read only if every byte is right.

A checkpoint is one file, ``<step>-<sha256>.ckpt``. It is written under another name, synced and
renamed, so that no moment of a crash leaves half a file under this one; and its name says what its
content must be, so that a file that was damaged later is known for what it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from xatmorep.errors import CheckpointError
from xatmorep.model.folder import sync_folder

__all__ = ["newest_checkpoint", "save_checkpoint"]

FORMAT = "xatmorep-checkpoint"
VERSION = 1

_NAME = re.compile(r"(\d+)-([0-9a-f]{64})\.ckpt")


def save_checkpoint(folder: Path, step: int, content: Mapping[str, Any], *, keep: int) -> Path:
    """Write a checkpoint, and remove older ones once it is on disk.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoints; made if it isn't there.
    step : int
        Steps that were done.
    content : mapping of str to object
        Tensors and plain builtins, nested as one likes.
    keep : int
        How many to keep, this one among them: the newest up to this step. Others are removed, and
        so are those of later steps, which `newest_checkpoint` has found to be damaged.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CheckpointError
        If it can't be written. Then all others are still there.
    """
    folder.mkdir(exist_ok=True)
    fresh = folder / f".{step:09d}-{uuid.uuid4().hex[:8]}.tmp"
    try:
        digest = _write(fresh, {"format": FORMAT, "version": VERSION, "step": step, **content})
        path = folder / f"{step:09d}-{digest}.ckpt"
        os.replace(fresh, path)
        sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"no checkpoint can be written to {folder}: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    older = [other for other in _found(folder) if _step(other) < step]
    for other in {*_found(folder), *folder.glob(".*.tmp")} - {path, *older[: keep - 1]}:
        other.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is complete; None if there is none.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoints; it may be missing.

    Returns
    -------
    dict or None
        What was saved, with tensors on the CPU, and its ``step``.

    Warns
    -----
    UserWarning
        For each file that is damaged or only half-written. It is skipped.

    Raises
    ------
    CheckpointError
        If a complete one was written by a later version of xatmorep.
    """
    for half in sorted(folder.glob(".*.tmp")):
        warnings.warn(f"{half} is a checkpoint that was not completed: skipped", stacklevel=2)
    for path in _found(folder):
        try:
            content = _read(path)
        except (OSError, ValueError) as error:
            warnings.warn(f"{path} is damaged and skipped: {error}", stacklevel=2)
            continue
        if content["version"] != VERSION:
            raise CheckpointError(
                f"{path} has format version {content['version']}; this xatmorep reads version "
                f"{VERSION}: install the version that wrote it"
            )
        return content
    return None


def _found(folder: Path) -> list[Path]:
    """Checkpoints by their names, the newest first."""
    paths = [path for path in folder.glob("*.ckpt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (_step(path), path.name), reverse=True)


def _step(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _write(path: Path, content: dict[str, Any]) -> str:
    """Write a file and wait until it is on disk; the digest of its bytes."""
    with path.open("xb") as file:
        target = _Hashing(file)
        try:
            torch.save(content, cast(BinaryIO, target))
        except RuntimeError as error:  # torch hides what went wrong with the file
            raise target.failure or error from error
        file.flush()
        os.fsync(file.fileno())
    return target.sha256.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """Content of a checkpoint whose bytes are what its name says; ValueError if they aren't."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if f"-{digest}." not in path.name:
            size = file.seek(0, os.SEEK_END)
            raise ValueError(f"the sha256 of its {size} bytes is {digest}, not that of its name")
        file.seek(0)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has many: RuntimeError, UnpicklingError, EOFError
            raise ValueError(f"it can't be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("it holds something else")
    return content


class _Hashing:
    """A file that knows the digest of what was written to it, and why it couldn't be."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.file.flush()
