"""The folder of a model: written all at once or not at all, read only if every byte is right.

The manifest guards against damage, not against forgery: whoever can write the folder can write
the manifest too. So nothing in a folder is ever executed or unpickled, and what its files say is
checked again by those who parse them.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from pydantic import BaseModel, ConfigDict, Field

from xatmorep.data.normalization import FILENAME
from xatmorep.errors import CheckpointError, ConfigError
from xatmorep.strict import validate

__all__ = [
    "CARD",
    "CONFIG",
    "MANIFEST",
    "NORMALIZATION",
    "WEIGHTS",
    "parse",
    "read_folder",
    "shared_address",
    "sync_folder",
    "write_folder",
]

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
NORMALIZATION = FILENAME
CARD = "card.json"
FILES = (CONFIG, WEIGHTS, NORMALIZATION, CARD)
MANIFEST = "manifest.json"

FORMAT = "xatmorep-model"
VERSION = 1
# Far more than any configuration needs, far less than what fills a memory.
LARGEST_JSON = 2**24

M = TypeVar("M", bound=BaseModel)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: str
    version: int
    files: dict[str, _Entry]


def write_folder(url: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write the files of a model and their manifest.

    Parameters
    ----------
    url : str or path
        Folder, as a path or any fsspec URL. A local folder appears under its name only when it
        is complete and on disk, and replaces an older model in one step where the system can
        (Linux). Elsewhere the manifest is written last, and removed first from an older model.
    files : mapping of str to bytes
        Contents by name.

    Raises
    ------
    CheckpointError
        If something that isn't a model is there already, or the files can't be written.
    """
    system, path, address = _open(url)
    _check_replaceable(system, path, address)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
        },
    }
    last = json.dumps(manifest, indent=2).encode()
    try:
        if isinstance(system, LocalFileSystem):
            _write_local(os.path.realpath(path), {**files, MANIFEST: last})
        else:
            _write_remote(system, path, files, last)
    except OSError as error:
        raise CheckpointError(f"the model can't be written to {address}: {error}") from error


def read_folder(url: str | os.PathLike[str]) -> dict[str, bytes]:
    """Read the files of a model, each with the size and the digest that its manifest states.

    Raises
    ------
    CheckpointError
        If anything is missing, damaged, unknown or can't be reached.
    """
    system, path, address = _open(url)
    data = _fetch(system, path, MANIFEST, address, None)
    manifest = _check_manifest(data, f"{address}/{MANIFEST}")
    return {name: _fetch(system, path, name, address, manifest.files[name]) for name in FILES}


def shared_address(url: str | os.PathLike[str]) -> str | None:
    """Address under which other processes find a folder, too; None if only this one does.

    Examples
    --------
    >>> shared_address("/models/mine/"), shared_address("memory://mine")
    ('/models/mine', None)
    """
    system, _, address = _open(url)
    return None if system.protocol == "memory" else address


def parse(schema: type[M], data: bytes, what: str) -> M:
    """Read JSON strictly: no unknown, missing or repeated key, no NaN.

    Raises
    ------
    CheckpointError
        Where `what` names the file.

    Examples
    --------
    >>> from xatmorep.tokens.spec import StaticSpec
    >>> parse(StaticSpec, b'{"name": "orography", "units": "m"}', "statics.json").units
    'm'
    """
    try:
        content = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{what} must hold a JSON object, not {type(content).__name__}")
    try:
        return validate(schema, content, what)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _open(url: str | os.PathLike[str]) -> tuple[AbstractFileSystem, str, str]:
    """File system, path in it, and the address for messages and other processes."""
    text = os.fspath(url)
    try:
        system, path = fsspec.url_to_fs(text)
    except (ValueError, ImportError) as error:  # unknown protocol, or its package is missing
        raise CheckpointError(f"{text!r} can't be opened: {error}") from error
    system.invalidate_cache()  # others may have written since it was listed
    path = path.rstrip("/") or path
    return system, path, path if isinstance(system, LocalFileSystem) else text.rstrip("/")


def _fetch(
    system: AbstractFileSystem, path: str, name: str, address: str, entry: _Entry | None
) -> bytes:
    """Bytes of one file; its size is compared before it is read, its digest afterwards."""
    where = f"{address}/{name}"
    try:
        size = system.info(f"{path}/{name}").get("size")
        if entry is not None and size is not None and size != entry.size:
            raise CheckpointError(f"{where} has {size} bytes, its manifest says {entry.size}")
        if name.endswith(".json") and (size or 0) > LARGEST_JSON:
            raise CheckpointError(f"{where} has {size} bytes: too many for a JSON file of a model")
        data: bytes = system.cat_file(f"{path}/{name}")
    except FileNotFoundError as error:
        hint = " (no model, or not completely written)" if name == MANIFEST else ""
        raise CheckpointError(f"{where} is missing{hint}") from error
    except OSError as error:
        raise CheckpointError(f"{where} can't be read: {error}") from error
    if entry is not None:
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise CheckpointError(
                f"{where} is damaged: its sha256 is {digest}, its manifest says {entry.sha256}"
            )
    return data


def _check_manifest(data: bytes, what: str) -> _Manifest:
    class Head(BaseModel):
        format: str = "none"
        version: int = 0

    head = parse(Head, data, what)
    if head.format != FORMAT:
        raise CheckpointError(f"{what} is not of a model: its format is {head.format!r}")
    if head.version != VERSION:
        raise CheckpointError(
            f"{what} has format version {head.version}; this xatmorep reads version {VERSION}: "
            "install the version that wrote it"
        )
    manifest = parse(_Manifest, data, what)
    for name in manifest.files:
        if name not in FILES:
            outside = "/" in name or "\\" in name or name in (".", "..")
            reason = "leads out of the folder" if outside else "is no file of a model"
            raise CheckpointError(f"{what} names {name!r}, which {reason}")
    missing = [name for name in FILES if name not in manifest.files]
    if missing:
        raise CheckpointError(f"{what} lacks {', '.join(missing)}")
    return manifest


def _check_replaceable(system: AbstractFileSystem, path: str, address: str) -> None:
    """Refuse to write over anything but a model or an empty folder."""
    try:
        if system.isfile(path):
            raise CheckpointError(f"{address} is a file: name a folder for the model")
        found = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in system.ls(path, detail=False)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"{address} can't be looked at: {error}") from error
    foreign = sorted(set(found) - {*FILES, MANIFEST})
    if not found or (MANIFEST in found and not foreign and _is_model(system, path, address)):
        return
    raise CheckpointError(
        f"{address} exists and is not only a model (it holds {', '.join(foreign or found)}): "
        "nothing was written; name another folder"
    )


def _is_model(system: AbstractFileSystem, path: str, address: str) -> bool:
    try:
        _check_manifest(_fetch(system, path, MANIFEST, address, None), address)
    except CheckpointError:
        return False
    return True


def _write_remote(
    system: AbstractFileSystem, path: str, files: Mapping[str, bytes], manifest: bytes
) -> None:
    if system.exists(f"{path}/{MANIFEST}"):
        system.rm_file(f"{path}/{MANIFEST}")
    system.makedirs(path, exist_ok=True)
    for name, data in (*files.items(), (MANIFEST, manifest)):
        system.pipe_file(f"{path}/{name}", data)


def _write_local(target: str, files: Mapping[str, bytes]) -> None:
    """Write beside the target, and rename when all is on disk."""
    parent, name = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    fresh = os.path.join(parent, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        os.mkdir(fresh)
        for file, data in files.items():
            with open(os.path.join(fresh, file), "xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        sync_folder(fresh)
        _move_into_place(fresh, target)
        sync_folder(parent)
    finally:
        # After an error the unfinished folder, after a replacement the older model.
        shutil.rmtree(fresh, ignore_errors=True)


def _move_into_place(fresh: str, target: str) -> None:
    """Give a folder its name, in place of an older one."""
    if not os.path.isdir(target):
        os.rename(fresh, target)
    elif not _exchange(fresh, target):
        aside = f"{fresh}.old"
        os.rename(target, aside)
        try:
            os.rename(fresh, target)
        except OSError:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: str, other: str) -> bool:
    """Swap the names of two folders in one step; False where the system can't."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return (
        rename is not None
        and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
    )


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Wait until what was made and renamed in a folder is on disk."""
    if os.name != "posix":  # elsewhere a folder can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"a key of {[key for key, _ in pairs]} is repeated")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
