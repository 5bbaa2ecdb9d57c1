"""Random hidden cells: a lattice over the whole dataset, with cells as large as tokens.

The lattice begins at the first time, the northernmost row and the western edge, as the tiling
does. Neighborhoods that overlap therefore hide the same points, and so do slabs. Draws depend on
seed, field, sample and time alone, not on chunks or on how much is asked for at once.
"""

from __future__ import annotations

import hashlib

import numpy as np
import xarray as xr

from xatmorep.tasks.engine import Application
from xatmorep.tokens.spec import FieldSpec

__all__ = ["random_mask", "random_points"]


def random_points(
    field: FieldSpec,
    times: slice,
    n_rows: int,
    n_columns: int,
    n_samples: int,
    *,
    rate: float,
    seed: int,
) -> np.ndarray:
    """Hide random cells of one field.

    Parameters
    ----------
    field : FieldSpec
        Gives the size of the cells.
    times : slice
        Positions in time, from `start` to before `stop`.
    n_rows, n_columns : int
        Size of the grid.
    n_samples : int
        Number of datasets side by side.
    rate : float
        Share of the cells to hide, in each step of the lattice in time.
    seed : int
        Seed of the draws.

    Returns
    -------
    (sample, level, time, latitude, longitude) bool array
        True where a point is hidden.

    Examples
    --------
    >>> field = FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3))
    >>> points = random_points(field, slice(2, 5), 4, 6, 1, rate=0.5, seed=0)
    >>> points.shape, points.mean(axis=(0, 1, 3, 4))
    ((1, 1, 3, 4, 6), array([0.5, 0.5, 0.5]))
    """
    t, a, o = field.token_shape
    # Cells at the southern and eastern end may stick out of the grid.
    shape = (field.n_levels, -(-n_rows // a), -(-n_columns // o))
    steps = range(times.start // t, (times.stop - 1) // t + 1)
    cells = np.array(
        [
            [_draw(f"{seed} {field.name} {sample} {step}", shape, rate) for step in steps]
            for sample in range(n_samples)
        ]
    ).swapaxes(1, 2)
    points = cells.repeat(t, axis=2).repeat(a, axis=3).repeat(o, axis=4)
    first = times.start - steps[0] * t
    return points[:, :, first : first + times.stop - times.start, :n_rows, :n_columns]


def random_mask(application: Application, *, rate: float, seed: int) -> xr.Dataset:
    """Give the points that `xatmorep.predict` hides at random, in the form of the dataset.

    Parameters
    ----------
    application : Application
        The model on the dataset.
    rate : float
        Share of the cells to hide.
    seed : int
        Seed of the draws.

    Returns
    -------
    xarray.Dataset
        For each field a boolean variable, under the name and on the grid that it has in the
        dataset; at the levels of the model.
    """
    view, masks = application.view, xr.Dataset()
    for field in application.model.config.inputs.fields:
        target = view.fields[field.name]
        sizes = target.sizes
        points = random_points(
            field,
            slice(0, sizes["time"]),
            sizes["latitude"],
            sizes["longitude"],
            application.n_samples,
            rate=rate,
            seed=seed,
        )
        array = xr.DataArray(
            points.reshape(*application.sample_shape, *points.shape[1:]),
            dims=(*view.extra_dims, "level", "time", "latitude", "longitude"),
        )
        array = array.transpose(*target.dims).assign_coords(target.coords)
        masks[view.variables[field.name]] = view.restore(field.name, array)
    return masks


def _draw(key: str, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """Random cells that depend on the key alone."""
    import torch

    from xatmorep.objectives.masking import random_tokens

    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return random_tokens((1, *shape), rate, generator)[0].numpy()
