"""Which variable of a dataset is which field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import xarray as xr

from xatmorep.data.axes import AXES, AxisMatch, bounds_names, locate_axes
from xatmorep.data.names import FIELDS, Field, fields_by_alias, fields_by_standard_name
from xatmorep.errors import ConventionError

__all__ = ["Match", "find_fields", "level_of", "match_fields", "only_match"]

_HEIGHT_NAMES = ("height", "heightAboveGround")


@dataclass(frozen=True)
class Match:
    """A variable that was recognized as a field.

    Attributes
    ----------
    variable : str
        Name of the variable in the dataset.
    rule : str
        ``explicit`` (said so by the caller), ``name`` (the canonical name), ``alias`` (a name of
        ECMWF or CMIP6) or ``standard_name`` (the CF attribute).
    """

    variable: str
    rule: str


def find_fields(ds: xr.Dataset, fields: Mapping[str, str] | None = None) -> dict[str, Match]:
    """Every field that is recognized in a dataset, by canonical name.

    The first rule that finds a variable decides: explicit, canonical name, ECMWF or CMIP6 name,
    CF standard name (with the level axis or the scalar height that tell temperature from 2 m
    temperature).

    Parameters
    ----------
    ds : Dataset
        Any dataset.
    fields : mapping of str to str, optional
        Canonical name -> variable, where the caller knows better.

    Raises
    ------
    ConventionError
        If a field could be any of several variables, or `fields` names none.

    Examples
    --------
    >>> grid = {"lat": [1.0, 0.0], "lon": [0.0, 1.0]}
    >>> ds = xr.Dataset({"tas": (("lat", "lon"), [[280.0, 281.0], [282.0, 283.0]])}, grid)
    >>> find_fields(ds)
    {'2m_temperature': Match(variable='tas', rule='alias')}
    """
    found = match_fields(ds, locate_axes(ds, fields), fields or {})
    return {name: only_match(name, matches) for name, matches in found.items()}


def only_match(name: str, matches: tuple[Match, ...]) -> Match:
    """The one match of a field, or an error that lists the candidates."""
    if len(matches) > 1:
        names = ", ".join(f"{match.variable!r} ({match.rule})" for match in matches)
        raise ConventionError(
            f"{name!r} could be any of {names}: say which, for example "
            f"ds.atmorep(fields={{{name!r}: {matches[0].variable!r}}})"
        )
    return matches[0]


def match_fields(
    ds: xr.Dataset,
    axes: Mapping[str, tuple[AxisMatch, ...]],
    explicit: Mapping[str, str],
    names: Iterable[str] = (),
) -> dict[str, tuple[Match, ...]]:
    """Candidates for every field, by the first rule that finds any.

    Parameters
    ----------
    ds : Dataset
        Any dataset.
    axes : mapping
        From `locate_axes`.
    explicit : mapping of str to str
        Canonical name -> variable; keys that are axes are ignored.
    names : iterable of str, optional
        Canonical names to look for besides those of the table.

    Raises
    ------
    ConventionError
        If `explicit` names a variable that the dataset lacks.
    """
    by_rule: dict[str, dict[str, list[str]]] = {"name": {}, "alias": {}, "standard_name": {}}
    for variable in _on_the_grid(ds, axes):
        if variable in FIELDS or variable in names:
            by_rule["name"].setdefault(variable, []).append(variable)
        has_levels = level_of(ds, axes, variable) is not None
        for field in _by_alias(variable, has_levels):
            by_rule["alias"].setdefault(field.name, []).append(variable)
        for field in _by_standard_name(ds, variable, has_levels):
            by_rule["standard_name"].setdefault(field.name, []).append(variable)
    found = _explicit_matches(ds, explicit)
    for name in [*FIELDS, *names]:
        for rule, variables in by_rule.items():
            if name in variables and name not in found:
                found[name] = tuple(Match(variable, rule) for variable in variables[name])
    return found


def level_of(
    ds: xr.Dataset, axes: Mapping[str, tuple[AxisMatch, ...]], variable: str
) -> AxisMatch | None:
    """The vertical axis of a variable: one of its dimensions, else a scalar coordinate."""
    dims = ds.variables[variable].dims
    along = [match for match in axes["level"] if match.dim in dims]
    scalars = [match for match in axes["level"] if match.dim is None]
    return next(iter([*along, *scalars]), None)


def _explicit_matches(ds: xr.Dataset, explicit: Mapping[str, str]) -> dict[str, tuple[Match, ...]]:
    found: dict[str, tuple[Match, ...]] = {}
    for name, variable in explicit.items():
        if name in AXES:
            continue
        if variable not in ds.data_vars:
            raise ConventionError(
                f"fields={{{name!r}: {variable!r}}} names no variable of the dataset; it has "
                f"{', '.join(sorted(map(str, ds.data_vars))) or 'none'}"
            )
        found[name] = (Match(variable, "explicit"),)
    return found


def _on_the_grid(ds: xr.Dataset, axes: Mapping[str, tuple[AxisMatch, ...]]) -> list[str]:
    """Variables that have latitude and longitude."""
    if not (axes["latitude"] and axes["longitude"]):
        return []
    dims = {axes[axis][0].dim for axis in ("latitude", "longitude")} - {None}
    skipped = bounds_names(ds)
    return [
        name
        for name, variable in ds.variables.items()
        if isinstance(name, str)
        and name not in ds.coords
        and name not in skipped
        and dims <= set(variable.dims)
    ]


def _by_alias(variable: str, has_levels: bool) -> list[Field]:
    """Fields of that name; where there are several, those on levels or those at the surface."""
    fields = fields_by_alias(variable)
    return [field for field in fields if len(fields) == 1 or field.levels == has_levels]


def _by_standard_name(ds: xr.Dataset, variable: str, has_levels: bool) -> list[Field]:
    fields = fields_by_standard_name(str(ds.variables[variable].attrs.get("standard_name")))
    return [
        field
        for field in fields
        if field.levels == has_levels and (field.height is None or field.height in _heights(ds))
    ]


def _heights(ds: xr.Dataset) -> list[float]:
    """Scalar heights in m, which CMIP6 and GRIB put beside variables near the surface."""
    return [
        float(variable.values)
        for name, variable in ds.coords.variables.items()
        if not variable.dims
        and variable.dtype.kind in "iuf"
        and (name in _HEIGHT_NAMES or variable.attrs.get("standard_name") == "height")
    ]
