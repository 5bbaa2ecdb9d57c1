"""Files of a published AtmoRep model: found in a folder, read without trusting them."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from torch import Tensor

from xatmorep.errors import CheckpointError
from xatmorep.model.atmorep.settings import Settings
from xatmorep.model.folder import parse

__all__ = ["PublishedFolder"]

_CONFIG = re.compile(r"model_id([A-Za-z0-9]+)\.json")


class PublishedFolder:
    """The folder of one published model.

    Parameters
    ----------
    url : str or path
        Folder, as a path or any fsspec URL, with ``model_id<ID>.json`` and the weights of that id.

    Attributes
    ----------
    address : str
        The folder, for messages.
    model_id : str
        Eight letters and digits.
    settings : Settings
        What the configuration file says.

    Raises
    ------
    CheckpointError
        If the folder holds no configuration or several, or one that can't be understood.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.address = os.fspath(url).rstrip("/")
        self._system, self._path = _open(self.address)
        self._names = _list(self._system, self._path, self.address)
        self.model_id = self._find_id()
        data = self._read(self.config_name)
        # The original writes one line and reads no other.
        first = data.partition(b"\n")[0].rstrip()
        self.settings = parse(Settings, first if first.endswith(b"}") else data, self.where)

    @property
    def config_name(self) -> str:
        """Name of the configuration file."""
        return f"model_id{self.model_id}.json"

    @property
    def where(self) -> str:
        """Address of the configuration file, for messages."""
        return f"{self.address}/{self.config_name}"

    def weights(self) -> dict[str, Tensor]:
        """Read all weights, under AtmoRep's names.

        One file if there is one, else the files of the parts, which a model of one field can be
        put together from. Tensors of a local file are mapped, not read: they are only good as
        long as the file stays as it is.

        Raises
        ------
        CheckpointError
            If a file is missing, damaged or holds anything but tensors.
        """
        name = self._find_weights()
        return self._load(name) if name else self._load_parts()

    def _find_id(self) -> str:
        found = sorted(m.group(1) for name in self._names if (m := _CONFIG.fullmatch(name)))
        if len(found) == 1:
            return found[0]
        if found:
            raise CheckpointError(
                f"{self.address} holds the models {', '.join(found)}: give each its own folder"
            )
        inner = [name for name in self._names if re.fullmatch("id[A-Za-z0-9]+", name)]
        hint = f"; name the folder inside, {self.address}/{inner[0]}" if inner else ""
        raise CheckpointError(
            f"{self.address} has no model_id<ID>.json: the folder of a published AtmoRep model "
            f"holds model_id<ID>.json and AtmoRep_id<ID>.mod{hint}"
        )

    def _find_weights(self) -> str | None:
        """Name of the file with all weights: the latest, else the only epoch; None if none."""
        latest = f"AtmoRep_id{self.model_id}.mod"
        if latest in self._names:
            return latest
        pattern = re.compile(rf"AtmoRep_id{self.model_id}_epoch\d+\.mod")
        epochs = sorted(name for name in self._names if pattern.fullmatch(name))
        if len(epochs) > 1:
            raise CheckpointError(
                f"{self.address} has weights of several epochs, {', '.join(epochs)}, and no "
                f"{latest}: keep one"
            )
        return epochs[0] if epochs else None

    def _load_parts(self) -> dict[str, Tensor]:
        """Weights of a model of one field from the files of its parts."""
        fields = [field.name for field in self.settings.fields]
        whole = f"AtmoRep_id{self.model_id}.mod"
        if len(fields) > 1:
            raise CheckpointError(f"{self.address} has no {whole}")
        field, end = fields[0], f"id{self.model_id}.mod"
        shared, own = f"AtmoRep_embed_token_info_{end}", f"AtmoRep_embeds_token_info_{end}"
        parts = {
            f"AtmoRep_encoder_{field}_{end}": "encoders.0.",
            f"AtmoRep_decoder_{field}_{end}": "decoders.0.",
            f"AtmoRep_tail_{field}_{end}": "tails.0.",
            **(
                {shared: "embed_token_info."}
                if shared in self._names and own not in self._names
                else {own: "embeds_token_info."}
            ),
        }
        missing = [name for name in parts if name not in self._names]
        if len(missing) == len(parts):
            raise CheckpointError(f"{self.address} has no {whole}")
        if missing:
            raise CheckpointError(
                f"{self.address} has neither {whole} nor all its parts: {', '.join(missing)} "
                "is missing"
            )
        return {
            prefix + key: tensor
            for name, prefix in parts.items()
            for key, tensor in self._load(name).items()
        }

    def _load(self, name: str) -> dict[str, Tensor]:
        where = f"{self.address}/{name}"
        try:
            content = self._unpickle(name)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{where} holds more than tensors, or is damaged, and was not loaded: "
                f"{str(error).splitlines()[0]}"
            ) from error
        except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{where} is damaged or not complete: fetch it again ({error})"
            ) from error
        if not isinstance(content, Mapping) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
        ):
            raise CheckpointError(f"{where} is no state dict: it must map names to tensors")
        return dict(content)

    def _unpickle(self, name: str) -> object:
        """Load tensors and nothing else; a large local file is mapped, not read at once."""
        path = f"{self._path}/{name}"
        if isinstance(self._system, LocalFileSystem):
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return torch.load(io.BytesIO(self._read(name)), map_location="cpu", weights_only=True)

    def _read(self, name: str) -> bytes:
        try:
            data: bytes = self._system.cat_file(f"{self._path}/{name}")
        except OSError as error:
            raise CheckpointError(f"{self.address}/{name} can't be read: {error}") from error
        return data


def _open(address: str) -> tuple[AbstractFileSystem, str]:
    try:
        system, path = fsspec.url_to_fs(address)
    except (ValueError, ImportError) as error:  # unknown protocol, or its package is missing
        raise CheckpointError(f"{address!r} can't be opened: {error}") from error
    system.invalidate_cache()
    return system, path.rstrip("/")


def _list(system: AbstractFileSystem, path: str, address: str) -> list[str]:
    try:
        if system.isfile(path):
            raise CheckpointError(f"{address} is a file: name the folder that holds it")
        found = system.ls(path, detail=False)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no folder {address}") from error
    except OSError as error:
        raise CheckpointError(f"{address} can't be looked at: {error}") from error
    return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]
