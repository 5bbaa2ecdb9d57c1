"""What our functions give for the recorded input pipeline of the original code.

Raw arrays, statistics, positions and random draws are read; nothing that is to be reproduced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xatmorep.errors import ConfigError
from xatmorep.model.positions import atmorep_positions
from xatmorep.testing.parity import cut_2023, whole_way
from xatmorep.testing.parity.masking import bert, forecast, temporal_interpolation
from xatmorep.testing.parity.neighborhoods import published_info
from xatmorep.testing.parity.recorded import FILE, Arrays, read_inputs
from xatmorep.testing.parity.store import RecordedBatch, RecordedField
from xatmorep.testing.parity.tiling import latitude_weight_table
from xatmorep.tokens.tokenize import tokenize, untokenize

__all__ = ["outputs"]


def outputs(folder: Path, index: Mapping[str, Any]) -> dict[str, Arrays]:
    """All tensors of a case of the input pipeline, of the encoding of positions, or of grids.

    Parameters
    ----------
    folder : Path
        With ``tensors.npz``, of which only recorded inputs are read, and with ``raw.npz`` or the
        files of a model where the case needs them.
    index : mapping
        Content of ``index.json``; its keys say which kind of case it is.

    Returns
    -------
    dict of str to dict of str to array
        Arrays by file and name: those that the index lists under ``tensors``, all if it lists
        none. Recorded inputs are given back as they are, but not the random draws.

    Raises
    ------
    ConfigError
        If the case is of no kind that is known here.
    """
    kinds: dict[str, tuple[Callable[[Path, Mapping[str, Any]], Arrays], tuple[str, ...]]] = {
        "configs": (_positions, (".rows", ".columns")),
        "years_months": (cut_2023.arrays, cut_2023.INPUTS),
        "raw_data": (whole_way.arrays, whole_way.INPUTS),
        "raw": (_pipeline, ("tokenize.in",)),
    }
    for key, (compute, inputs) in kinds.items():
        if key in index:
            found = read_inputs(folder, *inputs) | compute(folder, index)
            wanted = index.get("tensors", found)
            return {FILE: {name: found[name] for name in wanted if name in found}}
    raise ConfigError(
        f"{folder}/index.json describes no case of the input pipeline: it has none of the keys "
        f"{', '.join(kinds)}"
    )


def _positions(folder: Path, index: Mapping[str, Any]) -> Arrays:
    """Selected rows and columns of the encoding of positions."""
    recorded = read_inputs(folder, ".rows", ".columns")
    found = {}
    for name, config in index["configs"].items():
        values = atmorep_positions(config["levels"], tuple(config["num_tokens"]), config["D"])
        chosen = np.ix_(recorded[f"{name}.rows"], recorded[f"{name}.columns"])
        found[f"{name}.values"] = values.numpy()[chosen]
    return found


def _pipeline(folder: Path, index: Mapping[str, Any]) -> Arrays:
    """From the raw arrays of 2024 to tokens, infos and masked batches."""
    recorded = read_inputs(folder, ".draws.", "tokenize.in")
    with np.load(folder / "raw.npz") as raw:
        batch = RecordedBatch.cut(raw, index)
    found: Arrays = {}
    for i in range(len(batch.tokens)):
        found[f"cut.batch{i}.time_idx"] = batch.places.frames[i]
        found[f"cut.batch{i}.lat_idx"] = batch.places.rows[i]
        found[f"cut.batch{i}.lon_idx"] = batch.places.columns[i]
    for field in batch.fields:
        tokens, info = batch.tokens.tokens[field.name], published_info(batch.tokens, field.name)
        found[f"normalized_tokens.{field.name}"] = tokens.swapaxes(0, 1)
        found[f"token_info_per_level.{field.name}"] = info.swapaxes(0, 1)[:, :, None]
        found[f"detokenized.{field.name}"] = untokenize(tokens)
        for mode in ("BERT", "forecast", "temporal_interpolation"):
            found[f"{mode}.token_info.{field.name}"] = info
            found |= _masked(mode, batch, field, index, recorded)
        if f"single_field_forecast.lat_weights.{field.name}.entry0" in index.get("tensors", ()):
            found |= _latitude_weights(batch, field, index)
    return found | _blocks(recorded, index)


def _masked(
    mode: str,
    batch: RecordedBatch,
    field: RecordedField,
    index: Mapping[str, Any],
    recorded: Arrays,
) -> Arrays:
    """Source, target and indices of one field in one mode of masking."""
    tokens = torch.from_numpy(batch.tokens.tokens[field.name])
    if not field.masked:
        return {f"{mode}.source.{field.name}": tokens.numpy()}
    if mode == "forecast":
        n = _forecast_tokens(field, index)
        levels = [forecast(level, n) for level in tokens.unbind(1)]
    elif mode == "temporal_interpolation":
        times = index.get("idx_time_mask", [field.tokens[0] // 2])
        levels = [temporal_interpolation(level, times) for level in tokens.unbind(1)]
    else:
        levels = [
            bert(level, _draws(recorded, field, number), field.rates)
            for number, level in enumerate(tokens.unbind(1))
        ]
    found: Arrays = {
        f"{mode}.source.{field.name}": torch.stack([level.source for level in levels], 1).numpy(),
        f"{mode}.target.{field.name}": torch.cat([level.target for level in levels]).numpy(),
    }
    for number, level in enumerate(levels):
        for i, indices in enumerate(level.indices):
            found[f"{mode}.masked_idx.{field.name}.level{number}.batch{i}"] = indices.numpy()
    return found


def _draws(recorded: Arrays, field: RecordedField, level: int) -> dict[str, torch.Tensor]:
    prefix = f"BERT.draws.{field.name}.level{level}."
    return {
        name.removeprefix(prefix): torch.from_numpy(draw)
        for name, draw in recorded.items()
        if name.startswith(prefix)
    }


def _forecast_tokens(field: RecordedField, index: Mapping[str, Any]) -> int:
    """Token times that are forecast: stated, or as many as the recorded indices need."""
    if "forecast_num_tokens" in index:
        return int(index["forecast_num_tokens"])
    name = f"forecast.masked_idx.{field.name}.level0.batch0"
    described = index.get("tensors", {}).get(name)
    return described["shape"][0] // (field.tokens[1] * field.tokens[2]) if described else 1


def _latitude_weights(
    batch: RecordedBatch, field: RecordedField, index: Mapping[str, Any]
) -> Arrays:
    """Weights of the rows of each forecast token, level after level, batch entry after entry."""
    rows = latitude_weight_table()[batch.places.rows].reshape(
        len(batch.tokens), field.tokens[1], -1
    )
    weights = np.repeat(rows, field.tokens[2], axis=1)
    weights = np.tile(weights, (max(1, len(field.levels)), _forecast_tokens(field, index), 1))
    return {
        f"single_field_forecast.lat_weights.{field.name}.entry{entry}": array
        for entry, array in enumerate(weights)
    }


def _blocks(recorded: Arrays, index: Mapping[str, Any]) -> Arrays:
    """A small array cut into tokens, whose sizes are in its name, and put together again."""
    found: Arrays = {}
    for name in index.get("tensors", ()):
        if name.startswith("tokenize.out_"):
            t, a, o = map(int, name.removeprefix("tokenize.out_").split("_"))
            found[name] = tokenize(recorded["tokenize.in"], (t, a, o))
            found["detokenize.out"] = untokenize(found[name])
    return found
