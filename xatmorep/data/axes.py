"""Where a dataset keeps its axes: attributes first (cf_xarray), then names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xatmorep.data.units import convert_units
from xatmorep.errors import ConventionError

__all__ = [
    "AXES",
    "AxisMatch",
    "bounds_names",
    "find_axes",
    "level_values",
    "locate_axes",
    "pressure_scale",
]

AXES = ("time", "level", "latitude", "longitude")
"""Canonical names of the axes, in canonical order."""

# What cf_xarray neither reads from attributes nor guesses from names.
_NAMES = {
    "level": ("hybrid", "model_level", "modelLevel", "ml", "lev", "level", "plev", "pressure"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}

_KIND_BY_STANDARD_NAME = {
    "air_pressure": "pressure",
    "model_level_number": "hybrid",
    "atmosphere_hybrid_sigma_pressure_coordinate": "hybrid",
    "atmosphere_sigma_coordinate": "sigma",
}
_KIND_BY_NAME = {
    **dict.fromkeys(
        ("plev", "pressure_level", "pressure", "isobaricInhPa", "isobaricInPa"), "pressure"
    ),
    **dict.fromkeys(("hybrid", "model_level", "modelLevel", "ml"), "hybrid"),
    "sigma": "sigma",
}
_BARE_LEVEL_NAMES = ("level", "lev", "levels", "levelist")
_BOUNDS_SUFFIXES = ("_bnds", "_bounds")


@dataclass(frozen=True)
class AxisMatch:
    """A coordinate that was recognized as an axis.

    Attributes
    ----------
    axis : str
        Canonical name: time, level, latitude or longitude.
    coord : str
        Name of the coordinate.
    dim : str or None
        Dimension along which it runs; None if it is a scalar coordinate.
    rule : str
        What it was recognized by: ``explicit``, ``attributes``, ``guess`` or ``name``.
    kind : str
        Of a level: ``pressure``, ``hybrid`` or ``sigma``.
    """

    axis: str
    coord: str
    dim: str | None
    rule: str
    kind: str = ""

    @property
    def name(self) -> str:
        """Name of the dimension, or of the scalar coordinate."""
        return self.dim or self.coord


def find_axes(ds: xr.Dataset, fields: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names of the dimensions or scalar coordinates that hold the axes.

    Axes that the dataset lacks are left out. Where it has vertical axes of several kinds, that of
    pressure stands here before hybrid and sigma; `canonical_view` takes for each field the one
    that the field has.

    Parameters
    ----------
    ds : Dataset
        Any dataset.
    fields : mapping of str to str, optional
        Axis -> coordinate, where the caller knows better; keys that are no axes are ignored.

    Raises
    ------
    ConventionError
        If an axis is ambiguous, or the grid is curvilinear or unstructured.

    Examples
    --------
    >>> ds = xr.Dataset(coords={"lat": [1.0, 0.0], "lon": [0.0, 1.0], "plev": ("plev", [5e4])})
    >>> find_axes(ds)
    {'level': 'plev', 'latitude': 'lat', 'longitude': 'lon'}
    """
    located = locate_axes(ds, fields)
    return {axis: located[axis][0].name for axis in AXES if located[axis]}


def locate_axes(
    ds: xr.Dataset, explicit: Mapping[str, str] | None = None
) -> dict[str, tuple[AxisMatch, ...]]:
    """Every axis with the coordinates that hold it: none or one, of `level` any number.

    Parameters
    ----------
    ds : Dataset
        Any dataset.
    explicit : mapping of str to str, optional
        Coordinates said to be an axis; keys that are no axes are ignored.

    Raises
    ------
    ConventionError
        If an axis is ambiguous, or the grid is curvilinear or unstructured.
    """
    explicit = {axis: name for axis, name in (explicit or {}).items() if axis in AXES}
    for axis, name in explicit.items():
        if name not in ds.coords:
            raise ConventionError(
                f"fields={{{axis!r}: {name!r}}} names no coordinate of the dataset; it has "
                f"{_listed(ds.coords)}"
            )
    skipped = bounds_names(ds)
    datetimes = {str(n) for n, v in ds.coords.variables.items() if _is_datetime(v)} - skipped
    others = {str(n) for n in ds.coords} - skipped - datetimes
    rules = _rules(ds, others)
    located = {
        axis: _locate_horizontal(ds, axis, rules, explicit) for axis in ("latitude", "longitude")
    }
    located["time"] = _locate_time(ds, datetimes, explicit)
    located["level"] = _locate_levels(ds, rules, explicit)
    _refuse_unstructured(located["latitude"], located["longitude"])
    return located


def bounds_names(ds: xr.Dataset) -> set[str]:
    """Variables that hold the bounds of coordinates, and so are neither fields nor axes."""
    names = {str(name) for name in ds.variables if str(name).endswith(_BOUNDS_SUFFIXES)}
    for variable in ds.coords.variables.values():
        for key in ("bounds", "climatology"):
            named = variable.attrs.get(key) or variable.encoding.get(key)
            names.update([named] if isinstance(named, str) else [])
    return names


def level_values(ds: xr.Dataset, match: AxisMatch) -> np.ndarray:
    """Levels as float64, of pressure in hPa, in the order of the dataset.

    Pressure without units is in Pa where a level exceeds 2000, else in hPa.
    """
    variable = ds.variables[match.coord]
    values = np.atleast_1d(np.asarray(variable.values, dtype="float64"))
    if match.kind != "pressure":
        return values
    return np.asarray(values * pressure_scale(variable, match.coord))


def pressure_scale(variable: xr.Variable, name: str) -> float:
    """Factor from the units of a pressure coordinate to hPa."""
    if _is_pressure(variable):
        return convert_units(str(variable.attrs["units"]), "hPa", what=repr(name)).scale
    values = np.asarray(variable.values, dtype="float64")
    return 0.01 if values.size and np.nanmax(values) > 2000 else 1.0


def _rules(ds: xr.Dataset, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """For each rule, in order: axis -> coordinates that it recognizes."""
    import cf_xarray  # noqa: F401  (half a second: only when a dataset is looked at)

    # Only attributes and names matter, so the coordinates stand in without their values.
    bare = xr.Dataset(
        coords={name: ((), 0, _text_attrs(ds.variables[name].attrs)) for name in sorted(names)}
    )
    attributes = _cf_names(bare)
    known = {name for found in attributes.values() for name in found}
    guesses = _cf_names(bare.drop_vars(known).cf.guess_coord_axis())
    table = {axis: [n for n in known_names if n in bare] for axis, known_names in _NAMES.items()}
    return {"attributes": attributes, "guess": guesses, "name": table}


def _cf_names(bare: xr.Dataset) -> dict[str, list[str]]:
    coordinates, axes = bare.cf.coordinates, bare.cf.axes
    vertical = dict.fromkeys([*coordinates.get("vertical", ()), *axes.get("Z", ())])
    return {
        "latitude": [str(name) for name in coordinates.get("latitude", ())],
        "longitude": [str(name) for name in coordinates.get("longitude", ())],
        "level": [str(name) for name in vertical],
    }


def _text_attrs(attrs: Mapping[str, object]) -> dict[str, str]:
    return {key: value for key, value in attrs.items() if isinstance(value, str)}


def _locate_horizontal(
    ds: xr.Dataset,
    axis: str,
    rules: Mapping[str, Mapping[str, list[str]]],
    explicit: Mapping[str, str],
) -> tuple[AxisMatch, ...]:
    if axis in explicit:
        return (_match(ds, axis, explicit[axis], "explicit"),)
    for rule, names in rules.items():
        flat = [name for name in names[axis] if ds.variables[name].ndim < 2]
        matches = [_match(ds, axis, name, rule) for name in flat or names[axis]]
        if matches:
            return (_only(_preferred(ds, matches)),)
    return ()


def _locate_time(
    ds: xr.Dataset, names: set[str], explicit: Mapping[str, str]
) -> tuple[AxisMatch, ...]:
    """The time axis: of all coordinates of dates, one with an index before any other."""
    if "time" in explicit:
        if explicit["time"] not in names:
            raise ConventionError(
                f"coordinate {explicit['time']!r} holds no dates: decode it with xarray.decode_cf"
            )
        return (_match(ds, "time", explicit["time"], "explicit"),)
    named = {
        name
        for name in names
        if ds.variables[name].attrs.get("standard_name") == "time"
        or ds.variables[name].attrs.get("axis") == "T"
    }
    matches = [
        _match(ds, "time", name, "attributes" if name in named else "guess")
        for name in sorted(names)
        if ds.variables[name].ndim < 2
    ]
    matches = _preferred(ds, matches)
    attributed = [match for match in matches if match.rule == "attributes"]
    scalars = [match for match in matches if match.dim is None and match.coord == "valid_time"]
    return (_only(scalars or attributed or matches),) if matches else ()


def _locate_levels(
    ds: xr.Dataset,
    rules: Mapping[str, Mapping[str, list[str]]],
    explicit: Mapping[str, str],
) -> tuple[AxisMatch, ...]:
    if "level" in explicit:
        match = _match(ds, "level", explicit["level"], "explicit")
        if not match.kind:
            raise ConventionError(
                f"coordinate {match.coord!r} is no pressure, hybrid or sigma level: set its "
                f".attrs['standard_name'] to 'air_pressure', 'model_level_number' or "
                f"'atmosphere_sigma_coordinate'"
            )
        return (match,)
    found: dict[str, AxisMatch] = {}
    for rule, names in rules.items():
        for name in names["level"]:
            if name not in found and ds.variables[name].ndim < 2:
                found[name] = _match(ds, "level", name, rule)
    # Heights, depths and the like are vertical, but no levels that a model can ask for.
    matches = [match for match in found.values() if match.kind]
    order = ("pressure", "hybrid", "sigma")
    return tuple(sorted(matches, key=lambda m: (m.dim is None, order.index(m.kind))))


def _match(ds: xr.Dataset, axis: str, name: str, rule: str) -> AxisMatch:
    variable = ds.variables[name]
    if variable.ndim > 1:
        raise ConventionError(
            f"the grid is curvilinear: {axis} {name!r} has dimensions {variable.dims}; regrid the "
            f"dataset to one-dimensional latitude and longitude"
        )
    dim = str(variable.dims[0]) if variable.dims else None
    kind = _level_kind(name, variable) if axis == "level" else ""
    return AxisMatch(axis, name, dim, rule, kind)


def _preferred(ds: xr.Dataset, matches: list[AxisMatch]) -> list[AxisMatch]:
    """Those with an index if there are any, else those with a dimension, else all."""
    indexed = [match for match in matches if match.coord in ds.indexes]
    return indexed or [match for match in matches if match.dim] or matches


def _only(matches: list[AxisMatch]) -> AxisMatch:
    if len(matches) > 1:
        axis, first = matches[0].axis, matches[0].coord
        names = ", ".join(f"{match.coord!r} ({match.rule})" for match in matches)
        raise ConventionError(
            f"{axis} could be any of {names}: say which, for example "
            f"ds.atmorep(fields={{{axis!r}: {first!r}}})"
        )
    return matches[0]


def _refuse_unstructured(latitude: tuple[AxisMatch, ...], longitude: tuple[AxisMatch, ...]) -> None:
    if latitude and longitude and latitude[0].dim and latitude[0].dim == longitude[0].dim:
        raise ConventionError(
            f"the grid is unstructured: latitude {latitude[0].coord!r} and longitude "
            f"{longitude[0].coord!r} share the dimension {latitude[0].dim!r}; regrid the dataset "
            f"to one-dimensional latitude and longitude"
        )


def _level_kind(name: str, variable: xr.Variable) -> str:
    """Pressure, hybrid or sigma; empty if it is something else, such as a height."""
    standard_name = variable.attrs.get("standard_name")
    if standard_name in _KIND_BY_STANDARD_NAME:
        return _KIND_BY_STANDARD_NAME[standard_name]
    if _is_pressure(variable):
        return "pressure"
    if name in _KIND_BY_NAME:
        return _KIND_BY_NAME[name]
    if name in _BARE_LEVEL_NAMES and not standard_name and variable.dtype.kind in "iuf":
        return _kind_by_values(np.atleast_1d(np.asarray(variable.values, dtype="float64")))
    return ""


def _kind_by_values(values: np.ndarray) -> str:
    """Kind of a coordinate that is just called level: 1, 2, 3 ... count model levels."""
    if values.size > 2 and bool(np.all(np.abs(np.diff(values)) == 1)):
        return "hybrid"
    return "sigma" if values.size and values.min() < 1 and values.max() <= 1 else "pressure"


def _is_pressure(variable: xr.Variable) -> bool:
    units = variable.attrs.get("units")
    if not isinstance(units, str):
        return False
    try:
        convert_units(units, "hPa", what="level")
    except ConventionError:
        return False
    return True


def _is_datetime(variable: xr.Variable) -> bool:
    if variable.dtype.kind == "M":
        return True
    if variable.dtype != object or not variable.size or variable.chunks is not None:
        return False
    first = variable[(0,) * variable.ndim].values.item()
    return type(first).__module__.partition(".")[0] == "cftime"


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
