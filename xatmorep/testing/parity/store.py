"""A recorded store of 2024 as our Dataset and Normalizer, and the tokens cut from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xatmorep.data.conventions import canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.testing.parity.neighborhoods import Neighborhoods, around_2024
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec, Shape

__all__ = ["RecordedBatch", "RecordedField", "dataset", "normalizer"]

Raw = Mapping[str, npt.NDArray[Any]]

_SPACE = ("latitude", "longitude")


@dataclass(frozen=True)
class RecordedField:
    """One entry of a recorded list of fields.

    Attributes
    ----------
    name : str
        AtmoRep's name of the field.
    levels : tuple of float
        Model levels; empty at the surface.
    tokens, token_shape : tuple of int
        Number of tokens, and grid points of a token, in (time, latitude, longitude).
    rates : tuple of float
        Rates of masking, see `xatmorep.testing.parity.masking.bert`.
    masked : bool
        Whether any of its tokens is ever hidden.
    local : bool
        Whether its statistics differ between grid points.
    """

    name: str
    levels: tuple[float, ...]
    tokens: Shape
    token_shape: Shape
    rates: tuple[float, float, float, float]
    masked: bool
    local: bool

    @classmethod
    def of(cls, entry: Sequence[Any]) -> RecordedField:
        """Read an entry by the meaning of its positions.

        Examples
        --------
        >>> network = [1, 32, [], 0]
        >>> entry = ["total_precip", network, [0], [2, 1, 2], [6, 6, 6], [0, 0.9, 0.2, 0.05]]
        >>> field = RecordedField.of(entry)
        >>> field.levels, field.masked, field.local
        ((), False, False)
        """
        name, network, levels, tokens, token_shape, rates, *scope = entry
        return cls(
            name=name,
            levels=() if tuple(levels) == (0,) else tuple(map(float, levels)),
            tokens=tuple(tokens),
            token_shape=tuple(token_shape),
            rates=tuple(rates),
            masked=bool(network[0]) and rates[0] > 0,
            local=scope[:1] == ["local"],
        )

    @property
    def spec(self) -> FieldSpec:
        """What our functions are told of the field; its units don't matter."""
        return FieldSpec(
            name=self.name,
            units="1",
            token_shape=self.token_shape,
            levels=self.levels,
            level_type="hybrid" if self.levels else "surface",
        )

    @property
    def points(self) -> Shape:
        """Grid points that all tokens cover in (time, latitude, longitude)."""
        t, a, o = (n * k for n, k in zip(self.tokens, self.token_shape, strict=True))
        return t, a, o


@dataclass(frozen=True)
class RecordedBatch:
    """The neighborhoods of a recorded batch, from raw arrays to normalized tokens.

    Attributes
    ----------
    fields : list of RecordedField
        What is read.
    view : dict of str to DataArray
        Fields in canonical form, (time, level, latitude, longitude).
    statistics : Normalizer
        Of each calendar month.
    places : Neighborhoods
        Where the neighborhoods are.
    tokens : TokenBatch
        Normalized tokens and their infos.
    """

    fields: list[RecordedField]
    view: dict[str, xr.DataArray]
    statistics: Normalizer
    places: Neighborhoods
    tokens: TokenBatch

    @classmethod
    def cut(cls, raw: Raw, index: Mapping[str, Any]) -> RecordedBatch:
        """Cut the neighborhoods that an index asks for.

        Parameters
        ----------
        raw : mapping of str to array
            See `dataset` and `normalizer`.
        index : mapping
            Besides what they need: ``fields_config``, ``resolution_degrees``, ``n_size`` and
            ``positions_year_month_day_hour_latN_lonE``.
        """
        fields = [RecordedField.of(entry) for entry in index["fields_config"]]
        step = index["resolution_degrees"]
        spec = InputSpec(
            neighborhood=NeighborhoodSpec(
                shape=fields[0].points, time_step=1, grid_step=(step, step)
            ),
            fields=tuple(field.spec for field in fields),
            token_reference="atmorep-2024",
        )
        view = canonical_view(dataset(raw, index, fields), spec.fields).fields
        statistics = normalizer(raw, index, fields)
        places = around_2024(
            view[fields[0].name],
            index["n_size"],
            index["positions_year_month_day_hour_latN_lonE"],
        )
        normalized = {name: statistics.apply(name, field) for name, field in view.items()}
        return cls(fields, view, statistics, places, places.cut(spec, normalized))


def dataset(raw: Raw, index: Mapping[str, Any], fields: Sequence[RecordedField]) -> xr.Dataset:
    """The store as any user might have it.

    Parameters
    ----------
    raw : mapping of str to array
        ``data`` (time, field, level, latitude, longitude), ``data_sfc`` (time, field, latitude,
        longitude), ``time_seconds`` since 1970, ``lats`` (degrees from the north pole), ``lons``.
    index : mapping
        ``fields_attr``, ``levels_attr`` and ``fields_sfc_attr``: what the arrays hold, in order.
    fields : sequence of RecordedField
        Which fields to take.

    Returns
    -------
    xarray.Dataset
        One variable for each field, under AtmoRep's name.
    """
    return xr.Dataset(
        {
            field.name: (
                ("time", "model_level", *_SPACE) if field.levels else ("time", *_SPACE),
                raw["data" if field.levels else "data_sfc"][:, _place(field, index)],
                {"units": "1"},
            )
            for field in fields
        },
        {
            "time": raw["time_seconds"].astype("datetime64[s]"),
            "model_level": (
                "model_level",
                np.asarray(index["levels_attr"], dtype=np.float64),
                {"standard_name": "model_level_number"},
            ),
            "latitude": 90 - raw["lats"].astype(np.float64),
            "longitude": raw["lons"].astype(np.float64),
        },
    )


def normalizer(raw: Raw, index: Mapping[str, Any], fields: Sequence[RecordedField]) -> Normalizer:
    """Statistics of the store, of each calendar month.

    Parameters
    ----------
    raw : mapping of str to array
        Besides those of `dataset`: ``norm`` (month, 2, field, level, latitude, longitude) and
        ``norm_sfc`` without level of fields with local statistics, ``global_norm`` (month, 2,
        field, level) and ``global_norm_sfc`` of the others; mean and standard deviation.
    index : mapping
        ``fields_attr``, ``levels_attr``, ``fields_sfc_attr``; ``year_base``: year in whose January
        the months begin (by default that of the first time).
    fields : sequence of RecordedField
        Which fields to take.
    """
    pairs = {field.name: _statistics(raw, index, field) for field in fields}
    return Normalizer(
        mean={name: pair.isel(kind=0, drop=True) for name, pair in pairs.items()},
        std={name: pair.isel(kind=1, drop=True) for name, pair in pairs.items()},
    )


def _statistics(raw: Raw, index: Mapping[str, Any], field: RecordedField) -> xr.DataArray:
    """Both kinds of one field, (year_month, kind, level[, latitude, longitude])."""
    table = ("norm" if field.local else "global_norm") + ("" if field.levels else "_sfc")
    values = raw[table][:, :, _place(field, index)]
    if not field.levels:
        values = np.expand_dims(values, 2)
    first = raw["time_seconds"][0].astype("datetime64[s]").astype("datetime64[Y]").astype(int)
    first_month = 12 * int(index.get("year_base", 1970 + first))
    coords: dict[str, Any] = {
        "year_month": first_month + np.arange(len(values)),
        "level": np.asarray(index["levels_attr"] if field.levels else [0], dtype=np.float64),
    }
    if field.local:
        coords["latitude"] = 90 - raw["lats"].astype(np.float64)
        coords["longitude"] = raw["lons"].astype(np.float64)
    dims = ("year_month", "kind", "level", *(_SPACE if field.local else ()))
    return xr.DataArray(values, coords, dims)


def _place(field: RecordedField, index: Mapping[str, Any]) -> int:
    """Position of a field along its dimension of the raw arrays."""
    names: list[str] = index["fields_attr" if field.levels else "fields_sfc_attr"]
    return names.index(field.name)
