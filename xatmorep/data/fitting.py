"""What a model needs against what a dataset has, and one error that says all that differs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from xatmorep.data.axes import AXES, AxisMatch, level_values
from xatmorep.data.matching import Match, level_of, match_fields, only_match
from xatmorep.data.names import FIELDS
from xatmorep.data.units import Conversion, convert_units
from xatmorep.errors import ConventionError

__all__ = ["Choice", "FieldNeed", "StaticNeed", "choose", "level_text"]

# Names of variables that an error lists before it says "and 250 more".
_LISTED = 12
# Relative difference within which two levels are the same: float32 levels, Pa as 84999.99.
_SAME_LEVEL = 1e-4


class StaticNeed(Protocol):
    """What is asked of a constant field; `xatmorep.tokens.spec.StaticSpec` is one."""

    @property
    def name(self) -> str:
        """Canonical name."""

    @property
    def units(self) -> str:
        """Units in which the model wants it."""


class FieldNeed(StaticNeed, Protocol):
    """What is asked of a field; `xatmorep.tokens.spec.FieldSpec` is one."""

    @property
    def levels(self) -> tuple[float, ...]:
        """Vertical levels (pressure in hPa); empty at the surface."""

    @property
    def level_type(self) -> str:
        """Kind of level: surface, pressure, hybrid or sigma."""


@dataclass(frozen=True)
class Choice:
    """The variable that serves as a field, with its vertical axis and change of units."""

    name: str
    match: Match
    level: AxisMatch | None
    conversion: Conversion


Axes = Mapping[str, tuple[AxisMatch, ...]]


def choose(
    ds: xr.Dataset,
    axes: Axes,
    needs: Sequence[FieldNeed],
    statics: Sequence[StaticNeed],
    explicit: Mapping[str, str],
) -> dict[str, Choice]:
    """A variable for every field and static field, by canonical name.

    Raises
    ------
    ConventionError
        One error for everything that is missing, ambiguous or in the wrong units or levels.
    """
    wanted = {need.name: need for need in (*needs, *statics)}
    fields = {need.name: need for need in needs}
    _refuse_unknown_keys(explicit, wanted)
    found = match_fields(ds, axes, explicit, wanted)
    chosen: dict[str, Choice] = {}
    problems: list[str] = []
    for name, need in wanted.items():
        try:
            if name not in found:
                raise ConventionError(f"no variable is recognized as {name!r}")
            match = only_match(name, found[name])
            level = None
            if name in fields:
                _check_dims(ds, axes, match, ("time", "latitude", "longitude"))
                level = _level_for(ds, axes, fields[name], match)
            else:
                _check_dims(ds, axes, match, ("latitude", "longitude"))
                _refuse_other_dims(ds, axes, match, chosen.values())
            chosen[name] = Choice(name, match, level, _conversion(ds, need, match))
        except ConventionError as error:
            problems.append(str(error))
    if problems:
        raise ConventionError(_message(ds, axes, needs, statics, found, problems), problems)
    return chosen


def level_text(levels: Iterable[float], kind: str) -> str:
    """Levels as a reader writes them, for example ``500, 850 hPa``."""
    text = ", ".join(f"{level:g}" for level in levels)
    return f"{text} hPa" if kind == "pressure" else f"{kind} {text}"


def _level_for(ds: xr.Dataset, axes: Axes, need: FieldNeed, match: Match) -> AxisMatch | None:
    """The vertical axis that holds the levels needed; None at the surface."""
    level = level_of(ds, axes, match.variable)
    found = f"{need.name!r}, found as {match.variable!r},"
    if not need.levels:
        if level is not None and level.dim is not None:
            raise ConventionError(
                f"{found} has the vertical dimension {level.dim!r}, but is needed at the surface: "
                f"select one level with ds.isel({level.dim}=..., drop=True)"
            )
        return None
    text = level_text(need.levels, need.level_type)
    if level is None:
        raise ConventionError(f"{found} has no vertical coordinate, but is needed at {text}")
    available = level_values(ds, level)
    if level.kind != need.level_type:
        raise ConventionError(
            f"{found} is on {level.kind} levels {level.coord!r} "
            f"({level_text(available, level.kind)}), but is needed at {text}; if the dataset means "
            f"others, set ds[{level.coord!r}].attrs['standard_name'] ('air_pressure', "
            f"'model_level_number' or 'atmosphere_sigma_coordinate')"
        )
    missing = [
        value
        for value in need.levels
        if not np.isclose(available, value, rtol=_SAME_LEVEL, atol=0.0).any()
    ]
    if missing:
        raise ConventionError(
            f"{found} lacks levels {level_text(missing, level.kind)}: {level.coord!r} has "
            f"{level_text(available, level.kind)}"
        )
    return level


def _check_dims(ds: xr.Dataset, axes: Axes, match: Match, names: Sequence[str]) -> None:
    """Refuse a variable without an axis that it needs, or without numbers."""
    variable = ds.variables[match.variable]
    needed = [axis for name in names for axis in axes[name] if axis.dim is not None]
    for axis in needed:
        if axis.dim not in variable.dims:
            raise ConventionError(
                f"{match.variable!r} has dimensions {variable.dims}, without {axis.axis} "
                f"{axis.dim!r}"
            )
    if variable.dtype.kind not in "fiub":
        raise ConventionError(f"{match.variable!r} holds {variable.dtype}, not numbers")


def _refuse_other_dims(ds: xr.Dataset, axes: Axes, match: Match, fields: Iterable[Choice]) -> None:
    """A constant field may be repeated along times and members, but not vary with anything."""
    repeated = {str(dim) for field in fields for dim in ds.variables[field.match.variable].dims}
    repeated -= {str(level.dim) for level in axes["level"]}
    repeated |= {str(axes[name][0].dim) for name in ("time", "latitude", "longitude")}
    for dim in ds.variables[match.variable].dims:
        if dim not in repeated and ds.sizes[dim] > 1:
            raise ConventionError(
                f"{match.variable!r} has the dimension {dim!r}, but is needed as a constant field "
                f"of latitude and longitude: select one with ds.isel"
            )


def _conversion(ds: xr.Dataset, need: StaticNeed, match: Match) -> Conversion:
    """Change of units; a variable that was recognized by its name may leave its units out."""
    known = FIELDS.get(need.name)
    units = str(ds.variables[match.variable].attrs.get("units", "")).strip()
    what = f"{need.name!r}, found as {match.variable!r},"
    if not units:
        if match.rule == "standard_name":
            raise ConventionError(
                f"{what} states no units (needed: {need.units!r}): set "
                f"ds[{match.variable!r}].attrs['units']"
            )
        units = known.units if known else need.units
    return convert_units(units, need.units, what=what, water=bool(known and known.water))


def _refuse_unknown_keys(explicit: Mapping[str, str], wanted: Iterable[str]) -> None:
    known = [*AXES, *FIELDS, *wanted]
    for name in explicit:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConventionError(
                f"fields={{{name!r}: ...}} is no canonical name of a field or axis"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )


def _message(
    ds: xr.Dataset,
    axes: Axes,
    needs: Sequence[FieldNeed],
    statics: Sequence[StaticNeed],
    found: Mapping[str, tuple[Match, ...]],
    problems: Sequence[str],
) -> str:
    needed = [
        f"{need.name} [{need.units}]"
        + (f" at {level_text(need.levels, need.level_type)}" if need.levels else "")
        for need in needs
    ]
    needed += [f"{need.name} [{need.units}]" for need in statics]
    recognized = [
        f"{name} as {match.variable!r}" for name, matches in found.items() for match in matches
    ]
    known = {match.variable for matches in found.values() for match in matches}
    others = [repr(str(name)) for name in ds.data_vars if name not in known]
    levels = [
        f"{level.coord!r} ({level_text(level_values(ds, level), level.kind)})"
        for level in axes["level"]
    ]
    return (
        f"the dataset lacks what the model needs: {'; '.join(problems)}. "
        f"The model needs {'; '.join(needed)}. "
        f"The dataset has {_listed(recognized)}; levels {_listed(levels)}; "
        f"not recognized: {_listed(others)}. "
        f"Say which variable is which with ds.atmorep(fields={{'<canonical name>': '<variable>'}})"
        f", or choose a model that fits from xatmorep.models()"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else "none"
