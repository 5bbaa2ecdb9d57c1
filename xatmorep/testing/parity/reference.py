"""Outputs of a recorded case of the original AtmoRep code, computed by this package."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from xatmorep.errors import ConfigError

__all__ = ["reference_outputs"]


def reference_outputs(folder: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """Compute what the original AtmoRep code computed of a recorded case.

    Nothing that is to be compared is read: of ``tensors.*`` only the inputs are. Kinds of cases:

    - **network**: published files of a model, inputs ``in.*``; every layer, the predictions and,
      where ``param_grads.safetensors`` lies beside, the gradients of all parameters;
    - **input pipeline**: raw data, coefficients and random draws; neighborhoods, normalized tokens,
      token infos, masked batches;
    - **whole way**: raw data through a model to values on the grid;
    - **positional encoding**; **losses** with their gradients, learning rates and global tilings.

    Parameters
    ----------
    folder : str or path
        Local folder with ``index.json``, which lists files and tensors with their shapes.

    Returns
    -------
    dict of str to dict of str to array
        Arrays by name of the file and of the tensor, as the record has them.

    Raises
    ------
    ConfigError
        If the folder holds no case of these kinds.

    Examples
    --------
    >>> reference_outputs("no-such-folder")
    Traceback (most recent call last):
    ...
    xatmorep.errors.ConfigError: no-such-folder has no index.json: it is no recorded case
    """
    # Only who compares with a record needs all of this.
    from xatmorep.testing.parity import losses, network, pipeline

    folder = Path(folder)
    try:
        index = json.loads((folder / "index.json").read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} has no index.json: it is no recorded case") from error
    files = index.get("files", {})
    if "learning_rates_per_epoch" in index:
        return losses.outputs(folder, index)
    if any(name.startswith("model_id") for name in files) and "raw_data" not in index:
        return network.outputs(folder, index)
    return pipeline.outputs(folder, index)
