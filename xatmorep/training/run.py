"""The folder of a run: which run it is, whether it can go on, and that nobody else works in it."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from xatmorep.data.normalization import FILENAME, Normalizer
from xatmorep.errors import CheckpointError, ConfigError
from xatmorep.model.folder import parse, sync_folder
from xatmorep.training.config import PretrainConfig, read_config

__all__ = ["RunFolder"]

RUN = "run.json"
CONFIG = "config.yaml"
FORMAT = "xatmorep-run"
VERSION = 1
# Differences that a message lists.
LISTED = 4


class _Record(BaseModel):
    """What ``run.json`` holds."""

    model_config = ConfigDict(extra="forbid")

    format: str = FORMAT
    version: int = VERSION
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    config: dict[str, Any]
    data: dict[str, str]
    normalization: str
    finished: bool = False


class RunFolder:
    """A folder that holds a run, or will.

    Parameters
    ----------
    path : str or path
        The folder; it may be missing or empty.

    Attributes
    ----------
    path : Path
        The folder.
    best, last, checkpoints : Path
        The models and the folder of the checkpoints.

    Raises
    ------
    ConfigError
        If the folder holds something else than a run of this version of xatmorep.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.best, self.last = self.path / "best", self.path / "last"
        self.checkpoints = self.path / "checkpoints"
        self._record = self._read()

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return self._record is not None

    @property
    def finished(self) -> bool:
        """Whether the run here has come to its end."""
        return self._record is not None and self._record.finished

    @property
    def id(self) -> str:
        """Name of the run that no other has."""
        assert self._record is not None
        return self._record.id

    def check_config(self, config: PretrainConfig) -> None:
        """Refuse another configuration than that of the run here.

        Raises
        ------
        ConfigError
            It names the first keys that differ.
        """
        if self._record is None:
            return
        # Read again, so that keys that are new since then have their defaults.
        there = read_config(self._record.config).model_dump(mode="json")
        self._refuse(_flat(config.model_dump(mode="json")), _flat(there), "configuration")

    def check_data(self, data: Mapping[str, str]) -> None:
        """Refuse other data than those of the run here.

        Raises
        ------
        ConfigError
            It says what differs.
        """
        if self._record is not None:
            self._refuse(data, self._record.data, "data")

    def begin(
        self, config: PretrainConfig, data: Mapping[str, str], normalizer: Normalizer
    ) -> None:
        """Write down which run this is."""
        content = normalizer.to_bytes()
        self._write(FILENAME, content)
        self._record = _Record(
            config=config.model_dump(mode="json"),
            data=dict(data),
            normalization=hashlib.sha256(content).hexdigest(),
        )
        self._write_record()
        resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        self._write(CONFIG, resolved.encode())

    def finish(self) -> None:
        """Write down that the run has come to its end."""
        assert self._record is not None
        self._record.finished = True
        self._write_record()

    def normalizer(self) -> Normalizer:
        """The statistics with which the run began; the data aren't read for them again.

        Raises
        ------
        CheckpointError
            If the file is missing or damaged.
        """
        assert self._record is not None
        path = self.path / FILENAME
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} can't be read: {error}; begin a new run") from error
        if hashlib.sha256(content).hexdigest() != self._record.normalization:
            raise CheckpointError(f"{path} is not what the run began with; begin a new run")
        return Normalizer.from_bytes(content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here, until the block or this process ends.

        Raises
        ------
        ConfigError
            If another one does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(self.path)
        try:
            self._tidy()
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)
            with suppress(OSError):  # it isn't empty
                self.path.rmdir()

    def _tidy(self) -> None:
        """Remove models that were being written when a process was killed."""
        for model in (self.best, self.last):
            for older in self.path.glob(f".{model.name}.*.tmp.old"):
                if not model.exists():  # killed between two renames
                    older.rename(model)
            for unfinished in self.path.glob(f".{model.name}.*"):
                shutil.rmtree(unfinished)

    def _read(self) -> _Record | None:
        path = self.path
        if not path.exists():
            return None
        if not path.is_dir():
            raise ConfigError(f"{path} exists: name a new folder for the run, or remove it")
        found = {entry.name for entry in path.iterdir()}
        if RUN in found:
            try:
                record = parse(_Record, (path / RUN).read_bytes(), f"{path / RUN}")
            except CheckpointError as error:
                raise ConfigError(f"{error}; name a new folder for the run") from error
            if (record.format, record.version) == (FORMAT, VERSION):
                return record
        elif all(name == FILENAME or name.endswith(".tmp") for name in found):
            return None  # empty, or `begin` was interrupted
        raise ConfigError(f"{path} exists: name a new folder for the run, or remove it")

    def _refuse(self, asked: Mapping[str, Any], there: Mapping[str, Any], what: str) -> None:
        missing = "nothing"
        differing = [
            f"{key} is {asked.get(key, missing)!r}, there {there.get(key, missing)!r}"
            for key in {**asked, **there}
            if asked.get(key, missing) != there.get(key, missing)
        ]
        if differing:
            more = f" and {len(differing) - LISTED} more" * (len(differing) > LISTED)
            raise ConfigError(
                f"{self.path} holds a run with other {what}: {'; '.join(differing[:LISTED])}"
                f"{more}; name a new folder, or go on as it began"
            )

    def _write_record(self) -> None:
        assert self._record is not None
        self._write(RUN, self._record.model_dump_json(indent=2).encode())

    def _write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        fresh = self.path / f".{name}.tmp"
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path / name)
        sync_folder(self.path)


def _lock(folder: Path) -> int | None:
    """Descriptor that holds a lock, which the system lifts when a process ends, however it does."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another process is training in {folder}: wait for it, or name another folder"
        ) from error
    except OSError:  # nor in this file system
        os.close(descriptor)
        return None
    return descriptor


def _flat(content: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{place}{key}.")
        else:
            flat[f"{place}{key}"] = value
    return flat
