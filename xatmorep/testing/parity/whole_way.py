"""The whole way of a recorded case: raw arrays, tokens, a network, and values on the grid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xatmorep.testing.parity.grid import (
    denormalized,
    forecast_coordinates,
    in_written_months,
    placed,
    token_coordinates,
)
from xatmorep.testing.parity.masking import forecast
from xatmorep.testing.parity.neighborhoods import published_info
from xatmorep.testing.parity.network import Network, masked_rows, network_input
from xatmorep.testing.parity.recorded import Arrays, read_inputs
from xatmorep.testing.parity.store import RecordedBatch, RecordedField
from xatmorep.tokens.tokenize import tokenize

__all__ = ["INPUTS", "arrays"]

INPUTS = ("BERT.source_tokens.", "BERT.masked_idx.")
"""Recorded inputs, by the beginning of their names: the draws that they come from are not there."""

Masked = dict[str, list[list[Tensor]]]
"""Masked tokens of each field, by level and batch entry, counted over the batch."""


class Prediction(NamedTuple):
    """What a network says of the masked tokens of one field.

    Attributes
    ----------
    rows : (N,) int64 Tensor
        Positions among (batch entry, level, token).
    ensemble : (N, M, P) Tensor
    """

    rows: Tensor
    ensemble: Tensor

    @property
    def grids(self) -> dict[str, Tensor]:
        """Mean and members."""
        return {"pred": self.ensemble.mean(1), "ens": self.ensemble}


def arrays(folder: Path, index: Mapping[str, Any]) -> Arrays:
    """Predictions and grids of a forecast and of randomly masked tokens, with their coordinates.

    Parameters
    ----------
    folder : Path
        Published files of a model, and ``tensors.npz``, of which the randomly masked tokens and
        their indices are read.
    index : mapping
        ``raw_data``: where the raw arrays are, as seen from the folder above; their own
        ``index.json`` beside them says what they hold. Otherwise as for `RecordedBatch.cut`.
    """
    raw_file = folder.parent / index["raw_data"]
    store = json.loads((raw_file.parent / "index.json").read_text())
    with np.load(raw_file) as raw:
        batch = RecordedBatch.cut(raw, {**store, **index})
    case = Network(folder)
    settings = next(folder.glob("model_id*.json")).read_text().splitlines()[0]
    n = json.loads(settings).get("forecast_num_tokens", 1)
    recorded = read_inputs(folder, *INPUTS)
    with torch.no_grad():
        return _forecast(batch, case, n) | _random(batch, case, recorded)


def _forecast(batch: RecordedBatch, case: Network, n: int) -> Arrays:
    """The last `n` token times from those before."""
    sources, masked = {}, Masked()
    for field in batch.fields:
        levels = [
            forecast(level, n if field.masked else 0)
            for level in torch.from_numpy(batch.tokens.tokens[field.name]).unbind(1)
        ]
        sources[field.name] = torch.stack([level.source for level in levels], 1)
        masked[field.name] = [level.indices for level in levels]
    predictions = _predict(batch, case, sources, masked)
    found: Arrays = {}
    for field in batch.fields:
        name, hours = field.name, n * field.token_shape[0]
        target = denormalized(batch, field, batch.tokens.tokens[name])
        found[f"forecast.source_grid.{name}"] = denormalized(batch, field, sources[name].numpy())
        found[f"forecast.target_grid.{name}"] = target[..., -hours:, :, :]
        if name not in predictions:
            continue
        predicted = predictions[name]
        found[f"forecast.tail_mean.{name}"] = predicted.ensemble.mean(1).numpy()
        found[f"forecast.tail_ens.{name}"] = predicted.ensemble.numpy()
        for what, values in predicted.grids.items():
            tokens = placed(batch, field, values.numpy(), predicted.rows.numpy())
            # All entries are written with the local statistics of the last one.
            for kind, entry in (("clean", None), ("as_written", -1)):
                grid = denormalized(batch, field, tokens, entry=entry)
                found[f"forecast.{what}_grid_{kind}.{name}"] = grid[..., -hours:, :, :]
    return found | forecast_coordinates(batch, n * batch.fields[0].token_shape[0])


def _random(batch: RecordedBatch, case: Network, recorded: Arrays) -> Arrays:
    """Recorded tokens, some of them masked in some way, and what is predicted of these."""
    sources = {
        field.name: torch.from_numpy(recorded[f"BERT.source_tokens.{field.name}"])
        for field in batch.fields
    }
    masked = {field.name: _recorded_indices(batch, field, recorded) for field in batch.fields}
    predictions, written = _predict(batch, case, sources, masked), in_written_months(batch)
    found: Arrays = {}
    for field in batch.fields:
        name, tokens = field.name, {"target": batch.tokens.tokens[field.name]}
        source = denormalized(batch, field, sources[name].numpy(), statistics=written)
        found[f"BERT.source_grid_as_written.{name}"] = source
        if name in predictions:
            predicted = predictions[name]
            found[f"BERT.tail_mean.{name}"] = predicted.ensemble.mean(1).numpy()
            found[f"BERT.tail_ens.{name}"] = predicted.ensemble.numpy()
            for what, values in predicted.grids.items():
                tokens[what] = placed(batch, field, values.numpy(), predicted.rows.numpy())
        on_grid = {what: denormalized(batch, field, array) for what, array in tokens.items()}
        cut = {what: tokenize(array, field.token_shape) for what, array in on_grid.items()}
        found |= _of_tokens(batch, field, cut, masked[name])
    return found


def _of_tokens(
    batch: RecordedBatch, field: RecordedField, values: Arrays, masked: list[list[Tensor]]
) -> Arrays:
    """Values (B, ..., L, T, A, O, t, a, o) and coordinates of the masked tokens alone."""
    n = int(np.prod(field.tokens))
    found: Arrays = {}
    for level, entries in enumerate(masked):
        for i, indices in enumerate(entries):
            where, tokens = f"{field.name}.level{level}.batch{i}", indices.numpy() % n
            for what, array in values.items():
                of_level = array[i][..., level, :, :, :, :, :, :]
                flat = of_level.reshape(*of_level.shape[:-6], n, *field.token_shape)
                found[f"BERT.{what}.{where}"] = np.moveaxis(flat[..., tokens, :, :, :], -4, 0)
            for axis, coordinate in token_coordinates(batch, field, i, tokens).items():
                found[f"BERT.coords.{where}.{axis}"] = coordinate
    return found


def _predict(
    batch: RecordedBatch, case: Network, sources: Mapping[str, Tensor], masked: Masked
) -> dict[str, Prediction]:
    """Predictions of the masked tokens of each predicted field, levels before batch entries."""
    infos = {
        field.name: torch.from_numpy(published_info(batch.tokens, field.name))
        for field in batch.fields
    }
    decoded = case.network.decode(case.network.encode(network_input(case.settings, sources, infos)))
    found = {}
    for name, _ in case.settings.predicted:
        joined = [torch.cat(entries) for entries in masked[name]]
        rows = masked_rows(case.settings.field(name), joined)
        found[name] = Prediction(rows, case.predict(decoded, name, rows))
    return found


def _recorded_indices(
    batch: RecordedBatch, field: RecordedField, recorded: Arrays
) -> list[list[Tensor]]:
    """Masked tokens of a field by level and batch entry; none where there is no record."""
    nothing = np.zeros(0, dtype=np.int64)
    return [
        [
            torch.from_numpy(
                recorded.get(f"BERT.masked_idx.{field.name}.level{level}.batch{i}", nothing)
            )
            for i in range(len(batch.tokens))
        ]
        for level in range(max(1, len(field.levels)))
    ]
