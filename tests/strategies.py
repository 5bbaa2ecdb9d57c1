"""Hypothesis strategies for datasets in every convention that users bring.

`canonical_dataset` is small and in canonical form; `present` shows it as another provider would
have stored it; `presentations` draws the ways of storing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from hypothesis import strategies as st

LEVELS = (850.0, 500.0)
FIELD_UNITS = {"temperature": "K", "2m_temperature": "K", "geopotential_at_surface": "m2 s-2"}

_ALIASES = {
    "canonical": {name: name for name in FIELD_UNITS},
    "ecmwf": {"temperature": "t", "2m_temperature": "t2m", "geopotential_at_surface": "z"},
    "cmip6": {
        "temperature": "ta",
        "2m_temperature": "tas",
        "geopotential_at_surface": "geopotential_at_surface",
    },
}
_ATTRS = {
    "time": {"standard_name": "time", "axis": "T"},
    "level": {"standard_name": "air_pressure", "positive": "down", "axis": "Z"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}


@dataclass(frozen=True)
class Presentation:
    """How a provider stores a dataset.

    Attributes
    ----------
    names : str
        Of variables: ``canonical``, ``ecmwf`` or ``cmip6``.
    dims : tuple of str
        Names of time, level, latitude and longitude.
    attributes : bool
        Whether coordinates have CF attributes.
    ascending : bool
        Whether latitude goes from south to north.
    first : int
        Longitude, as an index into the canonical ones, that is stored first.
    lowest : float
        Longitudes are counted in ``[lowest, lowest + 360)``; an ordinary range is kept in order.
    reverse : bool
        Whether longitude is stored from east to west.
    pascal : bool
        Whether levels are in Pa.
    levels_up : bool
        Whether levels are stored in the opposite order, with further ones between.
    celsius : bool
        Whether temperatures are in degC.
    dtype : str
        Of the fields; ``int16`` means packed, with scale and offset as xarray decodes them.
    coordinate_dtype : str
        Of latitude and longitude.
    calendar : str
        Of time; any but the standard one gives cftime dates.
    extra : int
        Size of an ensemble dimension of the field on levels; 0 for none.
    order : tuple of int
        Permutation of the dimensions of each variable.
    chunked : bool
        Whether dask holds the variables.
    """

    names: str = "canonical"
    dims: tuple[str, str, str, str] = ("time", "level", "latitude", "longitude")
    attributes: bool = True
    ascending: bool = False
    first: int = 0
    lowest: float = 0.0
    reverse: bool = False
    pascal: bool = False
    levels_up: bool = False
    celsius: bool = False
    dtype: str = "float32"
    coordinate_dtype: str = "float64"
    calendar: str = "standard"
    extra: int = 0
    order: tuple[int, ...] = (0, 1, 2, 3, 4)
    chunked: bool = False


def canonical_dataset(
    n_times: int = 3,
    latitude: Any = (60.0, 30.0, 0.0, -30.0, -60.0),
    longitude: Any = tuple(45.0 * i for i in range(8)),
) -> xr.Dataset:
    """A small dataset in canonical form: one field on levels, one at the surface, one constant."""
    latitude = np.asarray(latitude, dtype="float64")
    longitude = np.asarray(longitude, dtype="float64")
    sizes = (n_times, len(LEVELS), len(latitude), len(longitude))
    # Multiples of 1/64 around 280: exact in float32, and what int16 packs without loss.
    values = 280.0 + np.random.default_rng(7).integers(-999, 999, sizes) / 64.0
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), values.astype("f4")),
            "2m_temperature": (("time", "latitude", "longitude"), values[:, 0].astype("f4") + 1),
            "geopotential_at_surface": (("latitude", "longitude"), values[0, 1].astype("f4")),
        },
        {
            "time": pd.date_range("2001-02-27", periods=n_times, freq="6h", unit="s"),
            "level": np.array(LEVELS),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


def present(ds: xr.Dataset, how: Presentation) -> xr.Dataset:
    """A dataset of `canonical_dataset` as another provider would have stored it."""
    ds = ds.copy(deep=True)
    for name in ds.data_vars:
        ds[name].attrs["units"] = FIELD_UNITS[str(name)]
    ds = _with_levels(ds, how)
    ds = _with_units(ds, how)
    ds = _with_horizontal(ds, how)
    if how.calendar != "standard":
        dates = xr.date_range(
            "2001-02-27",
            periods=ds.sizes["time"],
            freq="6h",
            calendar=how.calendar,
            use_cftime=True,
        )
        ds = ds.assign_coords(time=dates)
    if how.extra:
        members = xr.Variable("number", np.arange(how.extra), {"standard_name": "realization"})
        ds["temperature"] = (ds["temperature"] + members.astype("f4")).assign_attrs(
            units="degC" if how.celsius else "K"
        )
        ds = ds.assign_coords(number=members)
    for name in ds.data_vars:
        ds[name] = ds[name].transpose(*_permuted(ds[name].dims, how.order))
    if how.attributes:
        for axis, attrs in _ATTRS.items():
            ds[axis].attrs.update(attrs)
    names = dict(zip(("time", "level", "latitude", "longitude"), how.dims, strict=True))
    ds = ds.rename({old: new for old, new in names.items() if old != new})
    ds = ds.rename({o: n for o, n in _ALIASES[how.names].items() if o != n})
    ds = _stored_as(ds, how.dtype)
    return ds.chunk({how.dims[0]: 2, how.dims[3]: 3}) if how.chunked else ds


@st.composite
def presentations(draw: st.DrawFn) -> Presentation:
    """Draw a way of storing a dataset of `canonical_dataset`."""
    attributes = draw(st.booleans())
    return Presentation(
        names=draw(st.sampled_from(sorted(_ALIASES))),
        dims=draw(
            st.sampled_from(
                [
                    ("time", "level", "latitude", "longitude"),
                    ("time", "plev", "lat", "lon"),
                    ("valid_time", "pressure_level", "latitude", "longitude"),
                    ("time", "isobaricInhPa", "lat", "lon"),
                    *([("date", "p", "y", "x")] if attributes else []),
                ]
            )
        ),
        attributes=attributes,
        ascending=draw(st.booleans()),
        first=draw(st.integers(0, 7)),
        lowest=draw(st.sampled_from([0.0, -180.0, -90.0, 90.0, -360.0])),
        reverse=draw(st.booleans()),
        pascal=draw(st.booleans()),
        levels_up=draw(st.booleans()),
        celsius=draw(st.booleans()),
        dtype=draw(st.sampled_from(["float32", "float64", "int16"])),
        coordinate_dtype=draw(st.sampled_from(["float32", "float64", "int32"])),
        calendar=draw(st.sampled_from(["standard", "noleap", "360_day"])),
        extra=draw(st.sampled_from([0, 0, 1, 2])),
        order=tuple(draw(st.permutations(range(5)))),
        chunked=draw(st.booleans()),
    )


def _with_levels(ds: xr.Dataset, how: Presentation) -> xr.Dataset:
    if how.levels_up:
        ds = ds.reindex(level=[500.0, 700.0, 850.0])
    levels = ds["level"].values * (100.0 if how.pascal else 1.0)
    return ds.assign_coords(level=("level", levels, {"units": "Pa" if how.pascal else "hPa"}))


def _with_units(ds: xr.Dataset, how: Presentation) -> xr.Dataset:
    for name in ("temperature", "2m_temperature") if how.celsius else ():
        ds[name] = (ds[name].astype("f8") - 273.15).assign_attrs(units="degC")
    return ds


def _with_horizontal(ds: xr.Dataset, how: Presentation) -> xr.Dataset:
    ds = ds.roll(longitude=-how.first, roll_coords=True)
    if how.reverse:
        ds = ds.isel(longitude=slice(None, None, -1))
    if how.ascending:
        ds = ds.isel(latitude=slice(None, None, -1))
    longitude = (ds["longitude"].values - how.lowest) % 360.0 + how.lowest
    return ds.assign_coords(
        longitude=longitude.astype(how.coordinate_dtype),
        latitude=ds["latitude"].values.astype(how.coordinate_dtype),
    )


def _stored_as(ds: xr.Dataset, dtype: str) -> xr.Dataset:
    if dtype != "int16":
        return ds.map(lambda array: array.astype(dtype), keep_attrs=True)
    packing = {"scale_factor": 1 / 64, "add_offset": 280.0, "_FillValue": np.int16(-32768)}
    for name, array in ds.data_vars.items():
        if array.attrs["units"] != "degC":
            numbers = ((array - 280.0) * 64.0).round().fillna(-32768).astype("int16")
            ds[name] = numbers.assign_attrs(array.attrs | packing)
    return xr.decode_cf(ds)


def _permuted(dims: tuple[Any, ...], order: tuple[int, ...]) -> list[Any]:
    return sorted(dims, key=lambda dim: order[dims.index(dim)])
