"""What our network computes of a recorded case: every layer, from its inputs and weights alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from xatmorep.model.atmorep.config import field_spec, network_config
from xatmorep.model.atmorep.files import PublishedFolder
from xatmorep.model.atmorep.settings import FieldSettings, Settings
from xatmorep.model.atmorep.weights import (
    build,
    is_per_head,
    is_shared_info,
    pieces,
    their_weights,
)
from xatmorep.model.attention import Attention
from xatmorep.model.encoder import TransformerLayer
from xatmorep.model.inputs import NetworkInput
from xatmorep.testing.parity.losses import ensemble_loss, total
from xatmorep.tokens.spec import InputSpec, Shape

__all__ = ["Network", "outputs"]

GRADIENTS = "param_grads.safetensors"
# Results of a later version of the original code, recorded beside those of the first one.
LATER = "loaded_by_2024_code."


class OwnGrids(InputSpec):
    """Inputs whose fields state their token grids, whatever boxes they cover.

    The original code needs no common box, and neither does the network; data can't be cut so.
    """

    grids: dict[str, Shape]

    def token_grid(self, name: str) -> Shape:
        """Number of tokens of a field in (time, latitude, longitude)."""
        return self.grids[name]


class Network:
    """The network of a recorded case, under AtmoRep's own names of fields.

    Parameters
    ----------
    folder : Path
        With the published files of a model.

    Attributes
    ----------
    settings : Settings
        What the configuration file says.
    network : Multiformer
        The network with its weights.
    """

    def __init__(self, folder: Path) -> None:
        published = PublishedFolder(folder)
        state = published.weights()
        self.settings = published.settings
        self.names = {field.name: field.name for field in self.settings.fields}
        self.form = {"per_head": is_per_head(state), "shared_info": is_shared_info(state)}
        config = network_config(
            self.settings, _inputs(self.settings), self.names, self.form["per_head"], str(folder)
        )
        grids = {field.name: field.tokens for field in self.settings.fields}
        inputs = OwnGrids.model_construct(**dict(config.inputs), grids=grids)
        # Recorded token infos are final, the day of 2023 with its fraction, too.
        config = config.model_copy(update={"inputs": inputs, "token_info": "raw"})
        self.network = build(config, self.settings, self.names, state, str(folder))

    def predict(self, decoded: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor:
        """Ensemble (N, M, P) of the tokens at flat positions (batch * level * token)."""
        return self.network.tails[name](decoded[name].flatten(0, 1)[rows])

    def their_gradients(self) -> dict[str, Tensor]:
        """Gradients under AtmoRep's names of the parameters that have any."""
        found = {
            name: parameter.grad
            for name, parameter in self.network.named_parameters()
            if parameter.grad is not None
        }
        table = pieces(self.settings, self.names, **self.form)
        theirs = their_weights(found, [piece for piece in table if piece.ours in found])
        # What is stored twice goes by its first name.
        return {
            re.sub(r"^encoders\.(\d+)\.embed\.", r"embeds.\1.", name): x
            for name, x in theirs.items()
        }


def outputs(folder: Path, index: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """All tensors of a network case, and the gradients of its parameters where it has them.

    Parameters
    ----------
    folder : Path
        Files of a published model, with ``tensors.safetensors`` (or ``.npz``); of these only
        ``in.*`` is read.
    index : mapping
        Content of ``index.json``: which tensors are wanted.

    Returns
    -------
    dict of str to dict of str to array
        Arrays by file and name.
    """
    file = next(name for name in index["files"] if name.startswith("tensors."))
    inputs = read_inputs(folder / file)
    case = Network(folder)
    with_gradients = (folder / GRADIENTS).exists()
    with torch.set_grad_enabled(with_gradients):
        found = forward(case, inputs)
        results = {file: _wanted(found, index)}
        if with_gradients:
            terms = losses(case, inputs, found)
            total(terms, dict(case.settings.predicted), case.settings.generation).backward()
            theirs = case.their_gradients()
            results[GRADIENTS] = {name: _array(grad) for name, grad in theirs.items()}
    return results


def read_inputs(path: Path) -> dict[str, Tensor]:
    """Tensors that are inputs, and no others."""
    if path.suffix == ".npz":
        with np.load(path) as content:
            names = [name for name in content if name.startswith("in.")]
            return {name: torch.from_numpy(content[name]) for name in names}
    with safetensors.safe_open(path, "pt") as content:
        names = [name for name in content.keys() if name.startswith("in.")]  # noqa: SIM118
        return {name: content.get_tensor(name) for name in names}


def network_input(
    settings: Settings, tokens: Mapping[str, Tensor], infos: Mapping[str, Tensor]
) -> NetworkInput:
    """What our network reads, from AtmoRep's tokens and token infos.

    Parameters
    ----------
    settings : Settings
        The model.
    tokens : mapping of str to Tensor
        (B, L, T, A, O, t, a, o) for each field, after masking.
    infos : mapping of str to Tensor
        (B, L, T * A * O, 8), or without L if there is one level or all are alike.
    """
    described = {}
    for field in settings.fields:
        shape = tokens[field.name].shape[:5]
        info = infos[field.name].reshape(len(tokens[field.name]), -1, *shape[2:], 8)
        year, day, hour, level, colatitude, longitude, _, step = info.expand(*shape, 8).unbind(-1)
        described[field.name] = torch.stack(
            [year, day + 1, hour, level, 90 - colatitude, longitude, step], dim=-1
        )
    return NetworkInput(
        tokens={field.name: tokens[field.name].flatten(-3) for field in settings.fields},
        info=described,
        # What is masked is already part of the values.
        blank={
            field.name: torch.zeros(tokens[field.name].shape[:5], dtype=torch.bool)
            for field in settings.fields
        },
    )


def masked_rows(field: FieldSettings, indices: list[Tensor]) -> Tensor:
    """Positions among (batch, level, token), from those among (batch, token) of each level.

    In AtmoRep's order of predictions: level, then batch, then the order of the list.
    """
    n, n_levels = int(np.prod(field.tokens)), len(field.levels)
    rows = [
        (index // n) * n_levels * n + level * n + index % n for level, index in enumerate(indices)
    ]
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)


def _inputs(settings: Settings) -> dict[str, Any]:
    """Inputs under AtmoRep's names, in some box that all tokens divide."""
    shapes = zip(*(field.token_shape for field in settings.fields), strict=True)
    return {
        "neighborhood": {
            "shape": [math.lcm(*sizes) for sizes in shapes],
            "time_step": 1,
            "grid_step": (1, 1),
        },
        "fields": [field_spec(field, field.name, "1") for field in settings.fields],
    }


def forward(case: Network, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of one forward pass by their recorded names."""
    settings, network = case.settings, case.network
    inputs = network_input(
        settings,
        {field.name: recorded[f"in.source.{field.name}"] for field in settings.fields},
        {field.name: recorded[f"in.token_info.{field.name}"] for field in settings.fields},
    )
    found: dict[str, Tensor] = {}
    with _recording(case, found):
        encoded = network.encode(inputs)
        decoded = network.decode(encoded)
    for field in settings.fields:
        positions = network.embeddings[field.name].positions
        found[f"pos_enc.{field.name}"] = positions.unflatten(0, _grid(field))
        found[f"embed.{field.name}"] = encoded[field.name][0].unflatten(1, _grid(field))
    for name, _ in settings.predicted:
        rows = masked_rows(settings.field(name), _masked(recorded, settings.field(name)))
        found[f"tail_in.{name}"] = decoded[name].flatten(0, 1)[rows]
        ensemble = case.predict(decoded, name, rows)
        found[f"pred_ens.{name}"] = ensemble
        found[f"pred_mean.{name}"] = ensemble.mean(1)
        found[f"pred_std.{name}"] = _spread(ensemble)
    return found


def _grid(field: FieldSettings) -> Shape:
    """Levels, token times, token places of a field."""
    t, a, o = field.tokens
    return len(field.levels), t, a * o


def _masked(recorded: Mapping[str, Tensor], field: FieldSettings) -> list[Tensor]:
    """Masked tokens of each level; none of a field that is not masked."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return [
        recorded.get(f"in.masked_idx.{field.name}.level{level}", nothing)
        for level in range(len(field.levels))
    ]


def _spread(ensemble: Tensor) -> Tensor:
    """Standard deviation of the members with divisor M - 1; zero for one member."""
    several = len(ensemble) and ensemble.shape[1] > 1  # torch warns where there is nothing
    return ensemble.std(1) if several else torch.zeros_like(ensemble[:, 0])


def losses(
    case: Network, recorded: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Each loss that the model was trained with, by masked field and AtmoRep's name of the loss."""
    return {
        name: {
            kind: ensemble_loss(kind, found[f"pred_ens.{name}"], recorded[f"in.target.{name}"])
            for kind in case.settings.losses
        }
        for name, _ in case.settings.predicted
        if f"in.target.{name}" in recorded
    }


@contextmanager
def _recording(case: Network, found: dict[str, Tensor]) -> Iterator[None]:
    """Put what passes through the layers into `found`, under the names of the record."""
    encoders, decoders = case.network.encoders, dict(case.network.decoders.items())
    handles = []
    for field in case.settings.fields:
        name, blocks = field.name, len(encoders[field.name])
        for number, layer in enumerate(encoders[name]):
            read = [name, *field.coupled]
            handles += _hooks(case, layer, f"encoder.{name}.layer{number}", number, read, found)
        for number, layer in enumerate(decoders.get(name, ())):
            read = [name, name]
            place = f"decoder.{name}.layer{number}"
            handles += _hooks(case, layer, place, blocks + number, read, found)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(
    case: Network,
    layer: TransformerLayer,
    place: str,
    block: int,
    read: list[str],
    found: dict[str, Tensor],
) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks of one layer, which reads the fields `read`, its own first."""

    def attended(module: Attention, arguments: tuple[Any, ...], output: Tensor) -> None:
        found[f"{place}.after_attention"] = output
        own, head = _grid(case.settings.field(read[0])), 0
        for other, (query, key, _) in zip(read, module.project(*arguments), strict=True):
            grid = _grid(case.settings.field(other))
            scores = (query @ key.transpose(-1, -2)).unflatten(-1, grid).unflatten(2, own)
            for part in scores.unbind(1):
                found[f"scores.{read[0]}.block{block}.head{head}"] = part
                head += 1

    def finished(module: TransformerLayer, arguments: tuple[Any, ...], output: Tensor) -> None:
        grid = _grid(case.settings.field(read[0]))
        # The layer adds what attention gives to what came in.
        attention = arguments[0] + found[f"{place}.after_attention"]
        found[f"{place}.after_attention"] = attention.unflatten(1, grid)
        found[f"{place}.out"] = output.unflatten(1, grid)

    return [
        layer.attention.register_forward_hook(attended),
        layer.register_forward_hook(finished),
    ]


def _wanted(found: Mapping[str, Tensor], index: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays that the index lists; everything but the scores if it lists none."""
    usual = [name for name in found if not name.startswith("scores.")]
    wanted = [name for name in index.get("tensors", usual) if not name.startswith("in.")]
    return {name: _array(found[name.removeprefix(LATER)]) for name in wanted}


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().numpy())
