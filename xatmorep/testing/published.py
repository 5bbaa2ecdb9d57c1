"""Random weights in the layout of the published AtmoRep models."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xatmorep.model.atmorep.config import canonical_names, model_config
from xatmorep.model.atmorep.settings import Settings
from xatmorep.model.atmorep.weights import pieces, their_weights
from xatmorep.model.multiformer import Multiformer

__all__ = ["write_atmorep"]

SMALL: dict[str, Any] = {
    "fields": [
        [
            "vorticity",
            [1, 32, [], 0],
            [96, 105, 114, 123, 137],
            [12, 6, 12],
            [3, 9, 9],
            [0.25, 0.9, 0.1, 0.05],
        ]
    ],
    "fields_prediction": [["vorticity", 1.0]],
    "n_size": [36, 13.5, 27.0],
    "years_train": [2021],
    "with_layernorm": True,
    "with_qk_lnorm": True,
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_num_mlp_layers": 2,
    "decoder_num_layers": 2,
    "decoder_num_heads": 4,
    "decoder_num_mlp_layers": 2,
    "decoder_cross_att_ratio": 0.5,
    "decoder_cross_att_rate": 1.0,
    "net_tail_num_nets": 4,
    "net_tail_num_layers": 0,
    "losses": ["mse_ensemble", "stats"],
}
"""The published model of vorticity, narrow and with few layers."""


def write_atmorep(
    folder: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    *,
    model_id: str = "random00",
    per_head: bool = False,
    seed: int = 0,
) -> Path:
    """Write a model with random weights in the layout of the published ones.

    For trying out, before any weights are fetched: `xatmorep.load_atmorep` reads it.

    Parameters
    ----------
    folder : str or path
        Local folder for ``model_id<ID>.json`` and ``AtmoRep_id<ID>.mod``; made if missing.
    changes : mapping, optional
        Keys of the configuration file that differ from a small model of vorticity, which has the
        levels, tokens and neighborhood of the published one.
    model_id : str
        Eight letters and digits.
    per_head : bool
        Whether attention has one matrix for each head, as until spring 2024.
    seed : int
        Seed of the weights.

    Returns
    -------
    pathlib.Path
        The folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = write_atmorep(tempfile.mkdtemp())
    >>> sorted(path.name for path in folder.iterdir())
    ['AtmoRep_idrandom00.mod', 'model_idrandom00.json']
    """
    content = SMALL | dict(changes or {})
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings.model_validate(content)
    name = f"model_id{model_id}.json"
    network = Multiformer(
        model_config(settings, per_head, name), torch.Generator().manual_seed(seed)
    )
    table = pieces(settings, canonical_names(settings, name), per_head=per_head, shared_info=False)
    weights = {
        name: tensor.clone() for name, tensor in their_weights(network.state_dict(), table).items()
    }
    # Weights that the published files hold as well, and that no model uses.
    shape = (settings.size_token_info_net, settings.size_token_info)
    weights["embed_token_info.weight"] = torch.zeros(shape)
    weights["embed_token_info.bias"] = torch.zeros(shape[0])
    for number in range(len(settings.fields)):
        for part in ("weight", "bias"):
            weights[f"embeds.{number}.{part}"] = weights[f"encoders.{number}.embed.{part}"]
    torch.save(weights, folder / f"AtmoRep_id{model_id}.mod")
    (folder / name).write_text(json.dumps(content))
    return folder
