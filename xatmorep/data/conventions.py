"""Any dataset into one canonical form, and results back into the form of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import xarray as xr

from xatmorep.data.arrange import arrange
from xatmorep.data.axes import AXES, AxisMatch, find_axes, locate_axes
from xatmorep.data.fitting import Choice, FieldNeed, StaticNeed, choose
from xatmorep.data.grid import Axis, Place, latitude_axis, level_axis, longitude_axis, time_axis
from xatmorep.data.matching import Match, find_fields
from xatmorep.data.restoring import restore
from xatmorep.data.units import Conversion
from xatmorep.errors import ConventionError

__all__ = [
    "CanonicalView",
    "FieldNeed",
    "Match",
    "StaticNeed",
    "canonical_view",
    "find_axes",
    "find_fields",
]

# Attributes that describe a quantity whatever grid it stands on; GRIB keys and ranges do not.
_DESCRIPTIVE = ("standard_name", "long_name", "short_name", "units", "cell_methods", "comment")


@dataclass(frozen=True, repr=False)
class CanonicalView:
    """A dataset in canonical form, with the way back.

    Nothing is read: what is lazy in the dataset is lazy here. Where nothing had to change, arrays
    share memory with the dataset, so they must not be written to.

    Attributes
    ----------
    source : Dataset
        The dataset as given.
    fields : dict of str to DataArray
        Canonical name -> float32 ``(*extra, time, level, latitude, longitude)`` in the units that
        were asked for; latitude from north to south, longitude ascending (from Greenwich if
        global, else from the western edge, and then it may exceed 360), levels as asked for
        (pressure in hPa; 0 at the surface). All fields share the coordinates of time, latitude
        and longitude (degrees, float64) and the extra dimensions.
    statics : dict of str to DataArray
        Canonical name -> float32 ``(latitude, longitude)``; of the first time and member if it is
        repeated along them.
    variables : dict of str to str
        Canonical name -> name of the variable in `source`.
    axes : dict of str to str
        Canonical axis -> name of the dimension or scalar coordinate in `source`.
    extra_dims : tuple of str
        Further dimensions, such as an ensemble's. A dimension of size one that some variables
        have is none: `restore` brings it back.
    is_global : bool
        Whether longitude covers the circle.
    grid : dict of str to Axis
        Time, latitude and longitude.
    levels : dict of str to Axis
        Vertical axis of each field that has one.
    conversions : dict of str to Conversion
        From the units of `source`.
    """

    source: xr.Dataset
    fields: dict[str, xr.DataArray]
    statics: dict[str, xr.DataArray]
    variables: dict[str, str]
    axes: dict[str, str]
    extra_dims: tuple[str, ...]
    is_global: bool
    grid: dict[str, Axis] = field(default_factory=dict)
    levels: dict[str, Axis] = field(default_factory=dict)
    conversions: dict[str, Conversion] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = ", ".join(f"{name} <- {variable}" for name, variable in self.variables.items())
        return f"<CanonicalView: {names}>"

    def restore(self, name: str, array: xr.DataArray) -> xr.DataArray:
        """A result in the names, order and coordinates of the dataset.

        Parameters
        ----------
        name : str
            Canonical name of the field.
        array : DataArray
            Canonical dimensions in canonical order, or some of them, and any others. Coordinates
            are those of the view, a part of them, or another grid such as token centers. Bounds
            may come along: ``latitude_bounds (latitude, bounds)`` and the like.

        Returns
        -------
        DataArray
            The same values, dimensions in the same sequence under the dataset's names, latitude
            and longitude in the dataset's order and range. On the dataset's own grid coordinates
            are exactly the dataset's, and its other coordinates come back too; elsewhere they have
            its dtype (where that can hold them) and attributes. Axes that were scalar are scalar
            again, a surface field loses its level, bounds are named ``<coordinate>_bounds``.
        """
        axes = dict(self.grid)
        if name in self.levels:
            axes["level"] = self.levels[name]
        variable = self.source[self.variables[name]]
        squeezed = [
            str(dim)
            for dim, size in variable.sizes.items()
            if size == 1 and dim not in {*self.extra_dims, *(axis.dim for axis in axes.values())}
        ]
        return restore(array, variable, axes, squeezed)

    def restore_units(self, name: str, array: xr.DataArray) -> xr.DataArray:
        """Values in the units of the dataset's variable, from canonical units."""
        conversion = self.conversions[name]
        if conversion.is_identity:
            return array
        values = conversion.invert(array.astype("float64")).astype(array.dtype)
        return values.assign_attrs(array.attrs)

    def align(self, name: str, mask: xr.DataArray) -> xr.DataArray:
        """An array on the dataset's grid, such as a mask, in the canonical form of a field.

        Parameters
        ----------
        name : str
            Canonical name of the field.
        mask : DataArray
            Dimensions and coordinates of the dataset, or some of them; it holds alike along those
            that it lacks. Levels that the field doesn't need may be left out.

        Returns
        -------
        DataArray
            Of the shape and coordinates of the field, with the values as they are.

        Raises
        ------
        ConventionError
            If it has a dimension that the field lacks, or other coordinates.
        """
        variable = self.source[self.variables[name]]
        level = self.levels.get(name)
        if level is not None and level.dim in mask.indexes and level.dim in variable.indexes:
            # A mask that `predict` gave has these levels only.
            needed = variable.indexes[level.dim][level.order]
            if needed.isin(mask.indexes[level.dim]).all():
                mask, variable = (array.sel({level.dim: needed}) for array in (mask, variable))
                level = replace(level, order=None)
        for dim in mask.dims:
            _check_alike(mask, variable, str(dim))
        extra = {dim: self.source.sizes[dim] for dim in self.extra_dims}
        places = _places(mask.variable, self.grid, level, extra)
        return xr.DataArray(arrange(mask.variable, places), self.fields[name].coords)

    def attrs(self, name: str) -> dict[str, Any]:
        """CF attributes of the dataset's variable that hold on any grid."""
        attrs = self.source.variables[self.variables[name]].attrs
        return {key: attrs[key] for key in _DESCRIPTIVE if key in attrs}


def canonical_view(
    ds: xr.Dataset,
    needs: Sequence[FieldNeed],
    statics: Sequence[StaticNeed] = (),
    *,
    fields: Mapping[str, str] | None = None,
    deferred: bool = False,
) -> CanonicalView:
    """The fields that a model needs, in canonical form, whatever the dataset calls them.

    Axes are recognized by what the caller says, by attributes and by names (see `find_axes`);
    fields by what the caller says, by canonical name, by ECMWF or CMIP6 name and by CF standard
    name. Units are converted; a variable that states none is taken to be in canonical units if it
    was recognized by its name.

    Parameters
    ----------
    ds : Dataset
        Left as it is.
    needs : sequence of FieldNeed
        Fields, with units and levels.
    statics : sequence of StaticNeed, optional
        Constant fields.
    fields : mapping of str to str, optional
        Canonical name of a field or axis -> name in `ds`, where the caller knows better.
    deferred : bool
        Whether arrays in memory are to be converted only where they are indexed, as those in
        files always are; for who takes one part after the other.

    Raises
    ------
    ConventionError
        If an axis or field is missing, ambiguous, in units of another kind or on other levels (one
        error for all fields), or if the grid can't be used: curvilinear, irregular in longitude,
        with a meridian twice, or with times that do not increase.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> need = SimpleNamespace(name="2m_temperature", units="K", levels=(), level_type="surface")
    >>> ds = xr.Dataset(
    ...     {"t2m": (("time", "lat", "lon"), np.zeros((1, 2, 4)), {"units": "degC"})},
    ...     {"time": np.array(["2020-01-01"], "M8[s]"), "lat": [-45, 45],
    ...      "lon": [-180, -90, 0, 90]},
    ... )
    >>> view = canonical_view(ds, [need])
    >>> view.fields["2m_temperature"].dims, view.fields["2m_temperature"].longitude.values.tolist()
    (('time', 'level', 'latitude', 'longitude'), [0.0, 90.0, 180.0, 270.0])
    >>> view.restore("2m_temperature", view.fields["2m_temperature"]).lon.values.tolist()
    [-180, -90, 0, 90]
    """
    explicit = dict(fields or {})
    located = locate_axes(ds, explicit)
    _refuse_missing_axes(ds, located)
    _refuse_start_times(ds, located["time"][0])
    chosen = choose(ds, located, needs, statics, explicit)
    grid = {
        "time": time_axis(ds, located["time"][0]),
        "latitude": latitude_axis(ds, located["latitude"][0]),
        "longitude": longitude_axis(ds, located["longitude"][0]),
    }
    by_name = {need.name: need for need in needs}
    levels = {
        name: level_axis(ds, choice.level, by_name[name].levels)
        for name, choice in chosen.items()
        if choice.level is not None
    }
    extra = _extra_dims(ds, [chosen[name] for name in by_name], grid)
    named = {axis.match.axis: axis.match.name for axis in (*levels.values(), *grid.values())}
    return CanonicalView(
        source=ds,
        fields={n: _field(ds, chosen[n], grid, levels.get(n), extra, deferred) for n in by_name},
        statics={need.name: _static(ds, chosen[need.name], grid, deferred) for need in statics},
        variables={name: choice.match.variable for name, choice in chosen.items()},
        axes={axis: named[axis] for axis in AXES if axis in named},
        extra_dims=extra,
        is_global=grid["longitude"].is_global,
        grid=grid,
        levels=levels,
        conversions={name: choice.conversion for name, choice in chosen.items()},
    )


def _field(
    ds: xr.Dataset,
    choice: Choice,
    grid: Mapping[str, Axis],
    level: Axis | None,
    extra: Sequence[str],
    deferred: bool,
) -> xr.DataArray:
    variable = ds.variables[choice.match.variable]
    places = _places(variable, grid, level, {dim: ds.sizes[dim] for dim in extra})
    coords: dict[str, Any] = {dim: ds.variables[dim] for dim in extra if dim in ds.indexes}
    coords |= {axis: found.index for axis, found in grid.items()}
    coords["level"] = pd.Index([0.0]) if level is None else level.index
    arranged = arrange(variable, places, choice.conversion, deferred=deferred)
    return xr.DataArray(arranged, coords, name=choice.name)


def _places(
    variable: xr.Variable, grid: Mapping[str, Axis], level: Axis | None, extra: Mapping[str, int]
) -> dict[str, Place]:
    """Where the canonical dimensions of a field are in a variable; None where it lacks them."""
    axes = {name: axis.place for name, axis in grid.items()}
    axes["level"] = Place(None, 1) if level is None else level.place
    places = {dim: Place(dim, size) for dim, size in extra.items()}
    places |= {name: axes[name] for name in AXES}
    return {
        name: place if place.dim in variable.dims else replace(place, dim=None)
        for name, place in places.items()
    }


def _static(
    ds: xr.Dataset, choice: Choice, grid: Mapping[str, Axis], deferred: bool
) -> xr.DataArray:
    horizontal = {axis: grid[axis] for axis in ("latitude", "longitude")}
    places = {axis: found.place for axis, found in horizontal.items()}
    coords = {axis: found.index for axis, found in horizontal.items()}
    variable = ds.variables[choice.match.variable]
    arranged = arrange(variable, places, choice.conversion, deferred=deferred)
    return xr.DataArray(arranged, coords, name=choice.name)


def _check_alike(mask: xr.DataArray, variable: xr.DataArray, dim: str) -> None:
    if dim not in variable.dims:
        raise ConventionError(
            f"the mask has dimension {dim!r}, which {variable.name!r} lacks: it has {variable.dims}"
        )
    alike = mask.sizes[dim] == variable.sizes[dim]
    if alike and dim in mask.indexes and dim in variable.indexes:
        alike = mask.indexes[dim].equals(variable.indexes[dim])
    if not alike:
        raise ConventionError(
            f"the mask differs from {variable.name!r} along {dim!r}: it must have the same "
            f"coordinate, for example from mask.reindex_like(ds[{variable.name!r}], "
            f"fill_value=False)"
        )


def _refuse_missing_axes(ds: xr.Dataset, located: Mapping[str, tuple[AxisMatch, ...]]) -> None:
    missing = [axis for axis in ("time", "latitude", "longitude") if not located[axis]]
    if not missing:
        return
    hint = ""
    if "time" in missing and "time" in ds.variables:
        hint = "; 'time' holds no dates: decode it with xarray.decode_cf(ds)"
    raise ConventionError(
        f"the dataset has no {', '.join(missing)} that can be recognized: its coordinates are "
        f"{', '.join(map(repr, map(str, ds.coords))) or 'none'} and its dimensions "
        f"{', '.join(map(repr, map(str, ds.sizes))) or 'none'}; say which is which, for example "
        f"ds.atmorep(fields={{{missing[0]!r}: '<coordinate>'}}), or add it with "
        f"ds.assign_coords{hint}"
    )


def _refuse_start_times(ds: xr.Dataset, time: AxisMatch) -> None:
    """GRIB's `time` is the start of a forecast, which is not when its fields are valid."""
    if time.coord == "valid_time" or "valid_time" not in ds.coords:
        return
    for name, coordinate in ds.coords.variables.items():
        if not coordinate.dims and _is_lead_time(coordinate) and coordinate.values != 0:
            raise ConventionError(
                f"{time.coord!r} is the start of a forecast and {name!r} its lead time "
                f"{coordinate.values}: use the valid time instead, for example with "
                f"ds.swap_dims({{{time.name!r}: 'valid_time'}})"
            )


def _extra_dims(
    ds: xr.Dataset, choices: Sequence[Choice], grid: Mapping[str, Axis]
) -> tuple[str, ...]:
    """Dimensions of the fields that are no axes, in order of appearance."""
    extra: dict[str, None] = {}
    for choice in choices:
        known = {axis.match.dim for axis in grid.values()}
        known.add(choice.level.dim if choice.level else None)
        dims = ds.variables[choice.match.variable].dims
        extra.update({str(d): None for d in dims if d not in known and ds.sizes[d] > 1})
    for dim in extra:
        _check_extra_dim(ds, dim, grid["time"].match)
    return tuple(extra)


def _check_extra_dim(ds: xr.Dataset, dim: str, time: AxisMatch) -> None:
    if isinstance(ds.indexes.get(dim), pd.MultiIndex):
        raise ConventionError(f"dimension {dim!r} is a stack of several: use ds.unstack({dim!r})")
    if dim in AXES:
        raise ConventionError(
            f"dimension {dim!r} is not recognized as an axis, but is named like one: give it a "
            f"coordinate with a CF standard_name, or another name with ds.rename"
        )
    coordinate = ds.variables.get(dim)
    if coordinate is not None and (
        coordinate.dtype.kind == "m" or coordinate.attrs.get("standard_name") == "forecast_period"
    ):
        raise ConventionError(
            f"dimension {dim!r} counts lead times from {time.coord!r}, so {time.coord!r} is not "
            f"when the fields are valid: select one start, or stack both and use the valid time"
        )


def _is_lead_time(coordinate: xr.Variable) -> bool:
    return (
        coordinate.dtype.kind == "m" or coordinate.attrs.get("standard_name") == "forecast_period"
    )
