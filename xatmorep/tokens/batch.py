"""TokenBatch: neighborhoods cut into tokens, with all their labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xatmorep.errors import ConventionError
from xatmorep.tokens.contexts import Context
from xatmorep.tokens.info import TOKEN_INFO, Times, center, token_info
from xatmorep.tokens.spec import FieldSpec, InputSpec, Shape
from xatmorep.tokens.tokenize import tokenize, untokenize

__all__ = ["TokenBatch"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Neighborhoods of one dataset as tokens: plain arrays beside the labels they need.

    Wrong shapes, dtypes and directions are refused at construction; nothing changes a batch
    afterwards. Most batches are made by `TokenBatch.cut`.

    Attributes
    ----------
    spec : InputSpec
        What the model reads; decides every shape below.
    tokens : dict of str to (batch, level, T, A, O, t, a, o) float32 array
        Values by canonical name of the field, or name of the context; NaN where the data have
        none.
    info : dict of str to (batch, level, T, A, O, 7) float32 array
        `TOKEN_INFO` of each token.
    times : (batch, time) array of datetime64 or cftime
        Times of the frames.
    latitude : (batch, latitude) float64 array
        Rows, degrees north, from north to south.
    longitude : (batch, longitude) float64 array
        Columns, degrees east, ascending: beyond 360 where the neighborhood crosses Greenwich.
    statics : dict of str to (batch, A, O, static, a, o) float32 array
        Constant fields cut with the token footprint of each field and context, 0 (normalized: the
        mean) where they have no value; empty if the spec has none.

    Examples
    --------
    >>> import numpy as np
    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 6), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 3)),),
    ... )
    >>> batch = TokenBatch.cut(
    ...     spec,
    ...     {"2m_temperature": np.ones((1, 1, 2, 4, 6), dtype="float32")},
    ...     times=np.array([["2020-12-31T18", "2021-01-01T00"]], dtype="datetime64[s]"),
    ...     latitude=53.0 - np.arange(4)[None],
    ...     longitude=357.0 + np.arange(6)[None],
    ... )
    >>> batch
    <TokenBatch of 1 neighborhood: 2m_temperature 1x2x2x2 tokens of 1x2x3>
    >>> batch.to_dataset()["2m_temperature"].dims[:4]
    ('neighborhood', 'step', 'row', 'column')
    """

    spec: InputSpec
    tokens: Mapping[str, npt.NDArray[np.float32]]
    info: Mapping[str, npt.NDArray[np.float32]]
    times: npt.NDArray[Any]
    latitude: npt.NDArray[np.float64]
    longitude: npt.NDArray[np.float64]
    statics: Mapping[str, npt.NDArray[np.float32]] = dataclasses.field(default_factory=dict)

    @classmethod
    def cut(
        cls,
        spec: InputSpec,
        arrays: Arrays,
        *,
        times: Times,
        latitude: npt.NDArray[Any],
        longitude: npt.NDArray[Any],
        statics: Arrays | None = None,
        contexts: Mapping[str, Context] | None = None,
    ) -> TokenBatch:
        """Cut neighborhoods, given on the grid, into tokens.

        Parameters
        ----------
        spec : InputSpec
            What the model reads.
        arrays : dict of str to (batch, level, time, latitude, longitude) array
            Values by canonical name of the field; cast to float32.
        times : (batch, time) array of datetime64 or cftime
        latitude : (batch, latitude) array
        longitude : (batch, longitude) array
            Labels of the grid points.
        statics : dict of str to (batch, latitude, longitude) array, optional
            Constant fields by canonical name.
        contexts : dict of str to Context, optional
            By name, as `xatmorep.tokens.contexts.Canvas` cuts them.

        Raises
        ------
        ConventionError
            If a field or context is missing or anything has a shape that the spec doesn't have.
        """
        values = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
        times, latitude, longitude = (
            np.asarray(times),
            np.asarray(latitude, dtype=np.float64),
            np.asarray(longitude, dtype=np.float64),
        )
        _check_axes(spec, times, latitude, longitude)
        _check_names("fields", values, [field.name for field in spec.fields])
        _check_names("static fields", statics or {}, [static.name for static in spec.statics])
        contexts = contexts or {}
        _check_names("contexts", contexts, [context.name for context in spec.contexts])
        batch, grid = len(times), spec.neighborhood.shape
        for field in spec.fields:
            shape = (batch, field.n_levels, *grid)
            _check_array(f"field {field.name!r}", values[field.name], shape)
        for name, array in (statics or {}).items():
            _check_array(f"static field {name!r}", np.asarray(array), (batch, *grid[1:]), None)
        tokens = {f.name: tokenize(values[f.name], f.token_shape) for f in spec.fields}
        info = {f.name: token_info(spec, f.name, times, latitude, longitude) for f in spec.fields}
        cut = {f.name: _cut_statics(spec, statics, f.token_shape) for f in spec.fields if statics}
        for entry in spec.entries[len(spec.fields) :]:
            name, one = entry.name, contexts[entry.name]
            tokens[name] = tokenize(one.values, entry.token_shape)
            info[name] = token_info(spec, name, one.times, one.latitude, one.longitude)
            if statics:
                cut[name] = _cut_statics(spec, one.statics, entry.token_shape)
        return cls(
            spec=spec,
            tokens=tokens,
            info=info,
            times=times,
            latitude=latitude,
            longitude=longitude,
            statics=cut,
        )

    def __post_init__(self) -> None:
        for name in ("tokens", "info", "statics"):  # own dictionaries: the caller may go on
            object.__setattr__(self, name, dict(getattr(self, name)))
        _check_axes(self.spec, self.times, self.latitude, self.longitude)
        names = [field.name for field in self.spec.entries]
        _check_names("tokens", self.tokens, names)
        _check_names("token info", self.info, names)
        _check_names("statics", self.statics, names if self.spec.statics else [])
        for field in self.spec.entries:
            grid = self.spec.token_grid(field.name)
            places = (len(self), field.n_levels, *grid)
            what = f"of {field.name!r}"
            _check_array(f"tokens {what}", self.tokens[field.name], (*places, *field.token_shape))
            _check_array(f"token info {what}", self.info[field.name], (*places, len(TOKEN_INFO)))
            if self.spec.statics:
                shape = (len(self), *grid[1:], len(self.spec.statics), *field.token_shape[1:])
                _check_array(f"statics {what}", self.statics[field.name], shape)

    def __len__(self) -> int:
        """Count the neighborhoods."""
        return len(self.times)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{field.name} {field.n_levels}x{_times(self.spec.token_grid(field.name))} tokens of "
            f"{_times(field.token_shape)}"
            for field in self.spec.entries
        )
        plural = "" if len(self) == 1 else "s"
        return f"<TokenBatch of {len(self)} neighborhood{plural}: {fields}>"

    def to_grid(self, name: str) -> list[xr.DataArray]:
        """One field (no context) back on the grid, with its coordinates: the inverse of `cut`.

        Parameters
        ----------
        name : str
            Canonical name of the field.

        Returns
        -------
        list of (time, level, latitude, longitude) float32 DataArray
            One for each neighborhood; the level of a surface field is 0. Neighborhoods that tile
            a region without overlap are joined by `xarray.combine_by_coords`.

        Examples
        --------
        >>> import numpy as np
        >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
        >>> spec = InputSpec(
        ...     neighborhood=NeighborhoodSpec(shape=(1, 2, 2), time_step=6, grid_step=(1, 1)),
        ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 1, 2)),),
        ... )
        >>> batch = TokenBatch.cut(
        ...     spec,
        ...     {"2m_temperature": np.array([[[[[1, 2], [3, 4]]]]])},
        ...     times=np.array([["2021-01-01"]], dtype="datetime64[s]"),
        ...     latitude=np.array([[53.0, 52.0]]),
        ...     longitude=np.array([[359.0, 360.0]]),
        ... )
        >>> batch.to_grid("2m_temperature")[0].sel(latitude=52, longitude=359).item()
        3.0
        """
        field = self.spec.field(name)
        values = np.swapaxes(untokenize(self.tokens[name]), 1, 2)
        return [
            xr.DataArray(
                values[i],
                dims=("time", "level", "latitude", "longitude"),
                coords={
                    "time": self.times[i],
                    "level": np.array(field.levels or (0.0,)),
                    "latitude": self.latitude[i],
                    "longitude": self.longitude[i],
                },
                name=name,
            )
            for i in range(len(self))
        ]

    def to_dataset(self) -> xr.Dataset:
        """All tokens of fields (not of contexts), their info and their labels as a Dataset.

        Returns
        -------
        Dataset
            For each field, with the dimensions of a token last:

            - ``<field>`` (neighborhood, [level], step, row, column, token_time, token_latitude,
              token_longitude): the values; a surface field has no level;
            - ``<field>_token_info`` (neighborhood, [level], step, row, column, token_info);
            - ``<field>_statics`` (neighborhood, row, column, static, token_latitude,
              token_longitude), where the model reads static fields.

            Tokens are counted by ``step`` (in time), ``row`` (from the north) and ``column``
            (from the west). Coordinates: ``time`` (neighborhood, step), ``latitude`` and
            ``longitude`` of the token's center; ``point_time`` (neighborhood, step, token_time),
            ``point_latitude`` and ``point_longitude`` of each point in it; ``level``. Where a
            field has other levels or token sizes than the first one, its dimensions and
            coordinates carry its name (``step_total_precipitation``). Longitudes go on beyond 360
            where a neighborhood crosses Greenwich.
        """
        pieces = [self._labelled(field) for field in self.spec.fields]
        return xr.merge(pieces, compat="identical", join="exact").assign_attrs(
            description="neighborhoods of space-time tokens"
        )

    def _labelled(self, field: FieldSpec) -> xr.Dataset:
        """Variables and coordinates of one field."""
        name = field.name
        first = self.spec.fields[0].token_shape
        tag_t, tag_a, tag_o = (
            "" if size == other else f"_{name}"
            for size, other in zip(field.token_shape, first, strict=True)
        )
        step, row, column = f"step{tag_t}", f"row{tag_a}", f"column{tag_o}"
        inside = (f"token_time{tag_t}", f"token_latitude{tag_a}", f"token_longitude{tag_o}")
        tokens, info = self.tokens[name], self.info[name]
        coords: dict[str, Any] = {"token_info": ("token_info", np.array(TOKEN_INFO, dtype=object))}
        if field.levels:
            level = f"level{self._level_tag(field)}"
            levels: tuple[str, ...] = (level,)
            coords[level] = (level, np.array(field.levels), _LEVEL_ATTRS[field.level_type])
        else:
            levels, tokens, info = (), tokens[:, 0], info[:, 0]
        for (label, tag), outer, inner, points, attrs in zip(
            (("time", tag_t), ("latitude", tag_a), ("longitude", tag_o)),
            (step, row, column),
            inside,
            (self.times, self.latitude, self.longitude),
            _POINT_ATTRS,
            strict=True,
        ):
            size = tokens.shape[tokens.ndim - 3 + inside.index(inner)]
            blocks = points.reshape(len(self), -1, size)
            middle = center(blocks[..., 0], blocks[..., -1])
            coords[f"{label}{tag}"] = (("neighborhood", outer), middle, attrs)
            coords[f"point_{label}{tag}"] = (("neighborhood", outer, inner), blocks, attrs)
        places = ("neighborhood", *levels, step, row, column)
        variables: dict[str, Any] = {
            name: ((*places, *inside), tokens),
            f"{name}_token_info": ((*places, "token_info"), info),
        }
        if self.spec.statics:
            dims = ("neighborhood", row, column, "static", *inside[1:])
            variables[f"{name}_statics"] = (dims, self.statics[name])
            # Objects rather than fixed-length strings: zarr 3 has no final form for the latter.
            names = np.array([static.name for static in self.spec.statics], dtype=object)
            coords["static"] = ("static", names)
        return xr.Dataset(variables, coords=coords)

    def _level_tag(self, field: FieldSpec) -> str:
        first = next(other for other in self.spec.fields if other.levels)
        same = (field.levels, field.level_type) == (first.levels, first.level_type)
        return "" if same else f"_{field.name}"


_POINT_ATTRS: tuple[dict[str, str], ...] = (
    {"standard_name": "time"},
    {"standard_name": "latitude", "units": "degrees_north"},
    {"standard_name": "longitude", "units": "degrees_east"},
)
_LEVEL_ATTRS: dict[str, dict[str, str]] = {
    "pressure": {"standard_name": "air_pressure", "units": "hPa", "positive": "down"},
    "hybrid": {"long_name": "hybrid model level", "units": "1", "positive": "down"},
    "sigma": {"standard_name": "atmosphere_sigma_coordinate", "units": "1", "positive": "down"},
}


def _cut_statics(spec: InputSpec, statics: Arrays, token_shape: Shape) -> npt.NDArray[np.float32]:
    """Stack the static fields and cut them with the footprint of a field's tokens."""
    stacked = np.stack(
        [np.asarray(statics[static.name], dtype=np.float32) for static in spec.statics], axis=1
    )
    # Nothing hides a token of a static field: a missing value becomes the mean.
    stacked = np.where(np.isfinite(stacked), stacked, np.float32(0))
    tokens = tokenize(stacked[:, :, None], (1, *token_shape[1:]))
    return np.moveaxis(tokens[:, :, 0, :, :, 0], 1, 3)


def _check_names(what: str, found: Mapping[str, Any], needed: list[str]) -> None:
    if sorted(found) != sorted(needed):
        raise ConventionError(
            f"{what}: the model reads {sorted(needed)}, a batch was given {sorted(found)}"
        )


def _check_array(
    what: str,
    array: npt.NDArray[Any],
    shape: tuple[int, ...],
    dtype: type | None = np.float32,
) -> None:
    if array.shape != shape or (dtype is not None and array.dtype != dtype):
        kind = "" if dtype is None else f"{np.dtype(dtype)} "
        raise ConventionError(
            f"{what} must be {kind}of shape {shape}, found {array.dtype} of shape {array.shape}"
        )


def _check_axes(
    spec: InputSpec,
    times: npt.NDArray[Any],
    latitude: npt.NDArray[np.float64],
    longitude: npt.NDArray[np.float64],
) -> None:
    """Labels of the grid points: shapes, dtypes and directions."""
    batch = times.shape[0] if times.ndim else 0
    if not batch:
        raise ConventionError(f"times must be (batch, time), found shape {times.shape}")
    nt, na, no = spec.neighborhood.shape
    _check_array("times", times, (batch, nt), None)
    _check_array("latitude", latitude, (batch, na), np.float64)
    _check_array("longitude", longitude, (batch, no), np.float64)
    if times.dtype.kind != "M" and not hasattr(times.flat[0], "calendar"):
        raise ConventionError(f"times must be datetime64 or cftime, found {times.dtype}")
    if not (times[:, 1:] > times[:, :-1]).all():
        raise ConventionError("times of a neighborhood must increase from frame to frame")
    if not (np.diff(latitude) < 0).all() or np.abs(latitude).max() > 90:
        raise ConventionError(
            "latitude of a neighborhood must run from north to south, within 90 and -90 degrees"
        )
    if not (np.diff(longitude) > 0).all() or np.ptp(longitude, axis=1).max() >= 360:
        raise ConventionError(
            "longitude of a neighborhood must increase (go on beyond 360 where it crosses "
            "Greenwich) and go around the circle at most once"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
