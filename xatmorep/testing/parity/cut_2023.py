"""The neighborhoods of the original code of 2023, cut from files of single months."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xatmorep.data.conventions import canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.testing.parity.neighborhoods import around_2023, published_info
from xatmorep.testing.parity.recorded import Arrays, read_inputs
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
from xatmorep.tokens.tokenize import untokenize

__all__ = ["INPUTS", "arrays"]

INPUTS = ("data.month", "positions_month_hour_colat_lon", "global_coefficients")
"""Recorded inputs, by the beginning of their names."""

# The record doesn't say which field it is, and nothing depends on it.
FIELD = "vorticity"


def arrays(folder: Path, index: Mapping[str, Any]) -> Arrays:
    """Values and infos of the tokens around recorded positions, and months normalized as a whole.

    Parameters
    ----------
    folder : Path
        With ``tensors.npz``, of which the months, the positions and the table of statistics are
        read.
    index : mapping
        ``file_shape`` (.., rows, columns), ``resolution_degrees``, ``num_tokens``, ``token_size``,
        ``years_months``, ``hours_before_month_start_in_data`` and ``level``.
    """
    recorded = read_inputs(folder, *INPUTS)
    spec = _spec(index)
    months = [
        _month(recorded[f"data.month{number}"], spec, index, year, month)
        for number, (year, month) in enumerate(index["years_months"])
    ]
    cuts, infos = [], []
    for number, hour, colatitude, longitude in recorded["positions_month_hour_colat_lon"].tolist():
        frame = int(hour) + index["hours_before_month_start_in_data"]
        places = around_2023(
            tuple(index["file_shape"][1:]),
            spec.neighborhood.shape,
            [(frame, colatitude, longitude)],
        )
        batch = places.cut(spec, {FIELD: months[int(number)]})
        cuts.append(untokenize(batch.tokens[FIELD])[0, 0])
        infos.append(published_info(batch, FIELD)[0, 0])
    found: Arrays = {"cut": np.stack(cuts), "token_info": np.stack(infos)}
    table = recorded["global_coefficients_year_month_mean_divisor"]
    for number, (year, month) in enumerate(index["years_months"]):
        statistics = _statistics(table, spec, year, month)
        normalized = statistics.apply(FIELD, months[number])
        found[f"normalized.month{number}"] = normalized.isel(level=0).values
    return found


def _spec(index: Mapping[str, Any]) -> InputSpec:
    step, token_shape = index["resolution_degrees"], tuple(index["token_size"])
    nt, na, no = (
        count * size for count, size in zip(index["num_tokens"], token_shape, strict=True)
    )
    levels = () if index["level"] == 0 else (index["level"],)
    return InputSpec(
        neighborhood=NeighborhoodSpec(shape=(nt, na, no), time_step=1, grid_step=(step, step)),
        fields=(
            FieldSpec(
                name=FIELD,
                units="1",
                token_shape=token_shape,
                levels=levels,
                level_type="hybrid" if levels else "surface",
            ),
        ),
        token_reference="atmorep-2023",
    )


def _month(
    values: npt.NDArray[np.float32],
    spec: InputSpec,
    index: Mapping[str, Any],
    year: int,
    month: int,
) -> xr.DataArray:
    """Canonical form of one file, with the hours of the month before."""
    first = np.datetime64(f"{year:04d}-{month:02d}", "s")
    hours = np.arange(len(values)) - index["hours_before_month_start_in_data"]
    step, (rows, columns) = index["resolution_degrees"], values.shape[1:]
    level = float(index["level"])
    ds = xr.Dataset(
        {FIELD: (("time", "latitude", "longitude"), values, {"units": "1"})},
        {
            "time": first + hours.astype("timedelta64[h]"),
            "latitude": 90 - step * np.arange(rows),
            "longitude": step * np.arange(columns),
        },
    )
    if level:
        ds = ds.assign_coords(model_level=level)
    return canonical_view(ds, spec.fields).fields[FIELD]


def _statistics(
    table: npt.NDArray[np.float32], spec: InputSpec, year: int, month: int
) -> Normalizer:
    """Statistics of the month of a file, which hold for its hours of the month before, too."""
    row = table[(table[:, 0] == year) & (table[:, 1] == month)][0]
    level = {"level": np.array(spec.fields[0].levels or (0.0,))}
    mean, std = (xr.DataArray(row[[column]], level, ("level",)) for column in (2, 3))
    return Normalizer(mean={FIELD: mean}, std={FIELD: std})
