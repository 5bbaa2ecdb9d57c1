"""Network inputs made of a labelled batch, and moved."""

from __future__ import annotations

import numpy as np
import torch

from tests.model import networks
from xatmorep.model.inputs import NetworkInput
from xatmorep.model.multiformer import Multiformer
from xatmorep.tokens.batch import TokenBatch

NAME = networks.TEMPERATURE.name


def batch() -> TokenBatch:
    """Two neighborhoods in which every value is its place in the array."""
    spec = networks.spec(statics=True)
    shapes = {field.name: (2, field.n_levels, 2, 4, 6) for field in spec.fields}
    return TokenBatch.cut(
        spec,
        {name: np.arange(np.prod(shape)).reshape(shape) for name, shape in shapes.items()},
        times=np.array([["2020-12-31T18", "2021-01-01T00"]] * 2, dtype="datetime64[s]"),
        latitude=np.tile(53.0 - np.arange(4), (2, 1)),
        longitude=np.tile(357.0 + np.arange(6), (2, 1)),
        statics={networks.OROGRAPHY.name: np.arange(48).reshape(2, 4, 6)},
    )


def inputs() -> NetworkInput:
    labelled = batch()
    tokens = {name: torch.from_numpy(x) for name, x in labelled.tokens.items()}
    blank = {name: torch.zeros(x.shape[:5], dtype=torch.bool) for name, x in tokens.items()}
    return NetworkInput.of(labelled, tokens, blank)


def test_points_of_a_token_are_flattened_in_time_latitude_longitude_order() -> None:
    made = inputs()
    # Second neighborhood, level 2, third token in longitude: 2 x 4 x 2 points.
    grid = np.arange(2 * 3 * 2 * 4 * 6).reshape(2, 3, 2, 4, 6)
    expected = grid[1, 2, :, :, 4:6].ravel()
    assert made.tokens[NAME][1, 2, 0, 0, 2].tolist() == expected.tolist()
    below = np.arange(48).reshape(2, 4, 6)[1, :, 4:6].ravel()
    assert made.statics[NAME][1, 0, 2].tolist() == below.tolist()


def test_is_what_the_network_reads() -> None:
    network = Multiformer(networks.config(networks.spec(statics=True)))
    assert network(inputs())[NAME].shape == (18, 3, 16)


def test_moving_keeps_token_info_in_float32_and_masks_boolean() -> None:
    moved = inputs().to("cpu", torch.bfloat16)
    assert moved.tokens[NAME].dtype == moved.statics[NAME].dtype == torch.bfloat16
    assert moved.info[NAME].dtype == torch.float32
    assert moved.blank[NAME].dtype == torch.bool
    assert inputs().to("meta").info[NAME].is_meta
