"""A model as one thing: configuration, network, normalization and card; saved and loaded."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from xatmorep.data.normalization import Normalizer
from xatmorep.errors import CheckpointError, ConfigError
from xatmorep.model.card import ModelCard
from xatmorep.model.config import ModelConfig
from xatmorep.model.folder import (
    CARD,
    CONFIG,
    NORMALIZATION,
    WEIGHTS,
    parse,
    read_folder,
    shared_address,
    write_folder,
)
from xatmorep.model.multiformer import Multiformer
from xatmorep.model.registry import locate
from xatmorep.model.tensors import count, pack, read_shapes, unpack

__all__ = ["Model", "load"]

# Far more than attention can join; positions of more would fill a memory.
MOST_TOKENS = 2**22


@dataclass(eq=False, repr=False)
class Model:
    """A network and all that is needed to use it.

    Two models are the same if their digests are. A model can be pickled (its network comes back
    in float32, in evaluation mode and on the CPU, as from `load`) and knows its dask token.

    Attributes
    ----------
    config : ModelConfig
        What is read and how the network is built.
    network : Multiformer
        The network.
    normalizer : Normalizer
        Statistics of all fields and static fields; an empty one if the model has none yet, and
        then it can't be applied to data.
    card : ModelCard
        Provenance and scores.

    Raises
    ------
    ConfigError
        If the parts don't belong together.
    """

    config: ModelConfig
    network: Multiformer
    normalizer: Normalizer
    card: ModelCard
    # Address and digest when last saved or loaded.
    _saved: tuple[str, str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        fields = [spec.name for spec in self.config.inputs.fields]
        if sorted(self.card.fields) != sorted(fields):
            raise ConfigError(
                f"the card names the fields {sorted(self.card.fields)}, the configuration "
                f"{sorted(fields)}"
            )
        needed = [*fields, *(static.name for static in self.config.inputs.statics)]
        missing = [name for name in needed if name not in self.normalizer.mean]
        if missing and self.normalizer.mean:
            raise ConfigError(f"the normalization has no statistics of {', '.join(missing)}")

    @property
    def name(self) -> str:
        """Name of the model, from its card."""
        return self.card.name

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def digest(self) -> str:
        """SHA-256 of configuration, weights and normalization, as hexadecimal text.

        Weights count by their float32 values, so that it is the same before saving and after
        loading.
        """
        # Defaults are left out, so that an option added later doesn't change older digests.
        config = self.config.model_dump(mode="json", exclude_defaults=True)
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
        digest.update(self.normalizer.to_bytes())
        return digest.hexdigest()

    @property
    def source(self) -> str | None:
        """Address from which this model can be loaded, as it is now, by another process."""
        if self._saved is None or self._saved[1] != self.digest:
            return None
        return self._saved[0]

    def save(self, url: str | os.PathLike[str]) -> None:
        """Write the model as one folder, which `load` opens.

        Weights keep the dtype of the network (float64 becomes float32).

        Parameters
        ----------
        url : str or path
            Folder, as a path or any fsspec URL. An older model there is replaced; a local folder
            is never seen half-written.

        Raises
        ------
        CheckpointError
            If the folder holds anything but a model, can't be written, or weights aren't finite.
        """
        write_folder(url, self._files())
        self._remember(url)

    def _files(self) -> dict[str, bytes]:
        return {
            CONFIG: self.config.model_dump_json(indent=2).encode(),
            WEIGHTS: pack(self.network.state_dict()),
            NORMALIZATION: self.normalizer.to_bytes(),
            CARD: self.card.model_dump_json(indent=2).encode(),
        }

    def _remember(self, url: str | os.PathLike[str]) -> None:
        address = shared_address(url)
        self._saved = None if address is None else (address, self.digest)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "xatmorep.Model", self.digest

    def __reduce__(self) -> tuple[object, ...]:
        return _build, (self._files(), "a pickled model", self._saved)

    def __repr__(self) -> str:
        box = self.config.inputs.neighborhood
        steps = " x ".join(f"{step:g}" for step in box.grid_step)
        kind = " (a demonstration)" if self.card.demonstration else ""
        return "\n".join(
            [
                f"<xatmorep.Model {self.name!r}{kind}>",
                "fields, with levels, shape of tokens and width:",
                *(f"    {line}" for line in _field_lines(self.config)),
                f"neighborhood: {_product(box.shape)} (time, latitude, longitude), "
                f"every {box.time_step:g} h, {steps} degrees",
                f"members: {self.config.tail.members}",
                f"parameters: {self.parameters:,}",
                *([] if self.normalizer.mean else ["normalization: none yet"]),
            ]
        )


def load(name: str | os.PathLike[str]) -> Model:
    """Load a model, in float32, in evaluation mode and on the CPU.

    Parameters
    ----------
    name : str or path
        Name of a shipped model (see `models`), a local folder, or any fsspec URL of a folder.
        A shipped model goes before a folder of the same name; ``./name`` is always the folder.

    Raises
    ------
    CheckpointError
        If there is no such model, or its files are incomplete, damaged, of an unknown version or
        don't fit together. Nothing from a folder is ever executed.
    """
    address = locate(name)
    model = _build(read_folder(address), address, None)
    model._remember(address)
    return model


def _build(files: Mapping[str, bytes], where: str, saved: tuple[str, str] | None) -> Model:
    """Model from the contents of its files."""
    config = parse(ModelConfig, files[CONFIG], f"{where}/{CONFIG}")
    card = parse(ModelCard, files[CARD], f"{where}/{CARD}")
    try:
        normalizer = Normalizer.from_bytes(files[NORMALIZATION])
    except CheckpointError as error:
        raise CheckpointError(f"{where}/{NORMALIZATION}: {error}") from error
    network = _build_network(config, files[WEIGHTS], where)
    try:
        model = Model(config, network, normalizer, card)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    model._saved = saved
    return model


def _build_network(config: ModelConfig, weights: bytes, where: str) -> Multiformer:
    what = f"{where}/{WEIGHTS}"
    _check_size(config, read_shapes(weights, what), what)
    try:
        with torch.device("meta"):  # no initial weights, which would be thrown away
            network = Multiformer(config)
    except (RuntimeError, MemoryError, ArithmeticError, TypeError, ValueError) as error:
        raise CheckpointError(f"the network of {where}/{CONFIG} can't be built: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(unpack(weights, expected, what), assign=True)
    return network.eval()


def _check_size(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Refuse what the weights can't fill, before a configuration takes any time and memory."""
    encoder, decoder, tail = config.encoder, config.decoder, config.tail
    inside = config.embedding if config.embedding.kind == "transformer" else None
    layers = encoder.layers * encoder.mlp_layers + decoder.layers * decoder.mlp_layers
    layers += tail.hidden_layers + (inside.layers if inside else 0)
    if layers > len(shapes):
        raise CheckpointError(f"{what} holds {len(shapes)} tensors, too few for {layers} layers")
    least = inside.width**2 * inside.layers if inside else 0
    for spec in config.inputs.entries:
        network = config.networks[spec.name]
        width, points = network.width, spec.points_per_token
        embedded = inside.width if inside else points
        least += width**2 * encoder.layers + embedded * (width - config.token_info_width)
        if network.predicted:
            least += width**2 * decoder.layers + tail.members * width * points
        tokens = spec.n_levels * math.prod(config.inputs.token_grid(spec.name))
        if tokens > MOST_TOKENS:
            raise CheckpointError(f"the configuration has {tokens} tokens of {spec.name!r}")
    if count(shapes) < least:
        raise CheckpointError(
            f"{what} holds {count(shapes)} numbers, the configuration needs more than {least}"
        )


def _field_lines(config: ModelConfig) -> list[str]:
    """One line for each field, in columns."""
    rows = []
    for spec in config.inputs.fields:
        network = config.networks[spec.name]
        levels = ", ".join(f"{level:g}" for level in spec.levels)
        rows.append(
            (
                spec.name,
                f"{spec.level_type} {levels}".strip(),
                _product(spec.token_shape),
                f"{network.width}" + ("" if network.predicted else ", not predicted"),
            )
        )
    for context in config.inputs.contexts:
        levels = ", ".join(f"{level:g}" for level in config.inputs.field(context.name).levels)
        around = f"{_product(context.shape)} means of {_product(context.coarsen)} points"
        rows.append(
            (
                context.name,
                f"{context.field} {levels}".strip(),
                _product(context.token_shape),
                f"{config.networks[context.name].width}, context: {around}",
            )
        )
    rows += [(static.name, "static", "", "") for static in config.inputs.statics]
    sizes = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join(c.ljust(n) for c, n in zip(row, sizes, strict=True)).rstrip() for row in rows]


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
