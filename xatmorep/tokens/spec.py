"""What a model reads: fields, their tokens, and the neighborhood they share."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xatmorep.strict import closest

__all__ = [
    "ContextSpec",
    "FieldSpec",
    "InputSpec",
    "LevelType",
    "NeighborhoodSpec",
    "Shape",
    "StaticSpec",
    "TokenReference",
]

Shape = tuple[int, int, int]
"""A size in (time, latitude, longitude)."""

LevelType = Literal["surface", "pressure", "hybrid", "sigma"]
"""Kind of vertical coordinate; pressure levels are always counted in hPa."""

AXES = ("time", "latitude", "longitude")

TokenReference = Literal["center", "atmorep-2024", "atmorep-2023"]
"""Which time and place of a token its info states, see `InputSpec`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSpec(_Strict):
    """One physical field: its levels and the shape of its tokens.

    Attributes
    ----------
    name : str
        Canonical (ARCO-ERA5) name, for example ``"2m_temperature"``.
    units : str
        Units in which the model wants the field, for example ``"K"``.
    token_shape : tuple of int
        Grid points of a token in (time, latitude, longitude).
    levels : tuple of float
        Vertical levels; empty for a field at the surface.
    level_type : {"surface", "pressure", "hybrid", "sigma"}
        Vertical coordinate in which `levels` are given (pressure in hPa).

    Examples
    --------
    >>> field = FieldSpec(
    ...     name="temperature", units="K", token_shape=(1, 6, 6), levels=(500, 850),
    ...     level_type="pressure",
    ... )
    >>> field.n_levels, field.points_per_token
    (2, 36)
    """

    name: str
    units: str
    token_shape: Shape
    levels: tuple[float, ...] = ()
    level_type: LevelType = "surface"

    @property
    def n_levels(self) -> int:
        """Number of levels; a surface field counts as one."""
        return max(1, len(self.levels))

    @property
    def points_per_token(self) -> int:
        """Grid points in one token."""
        t, a, o = self.token_shape
        return t * a * o

    @model_validator(mode="after")
    def _check(self) -> FieldSpec:
        if min(self.token_shape) < 1:
            raise ValueError(f"token_shape of {self.name!r} must be positive: {self.token_shape}")
        if bool(self.levels) == (self.level_type == "surface"):
            raise ValueError(
                f"field {self.name!r} has levels {self.levels} and level_type "
                f"{self.level_type!r}: a surface field has no levels, any other needs them"
            )
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels of {self.name!r} repeat: {self.levels}")
        return self


class StaticSpec(_Strict):
    """A field that does not change in time, such as orography; given to the model as context.

    Examples
    --------
    >>> StaticSpec(name="geopotential_at_surface", units="m2 s-2").name
    'geopotential_at_surface'
    """

    name: str
    units: str


class ContextSpec(_Strict):
    """A field once more, coarsely, over a larger box around the neighborhood or a longer past.

    The box has the neighborhood in its middle in space, and ends with it in time. Its points are
    means of the source over blocks of grid points, weighted by area. Points that the data don't
    have, beyond the poles, the edge of a region, before the first time, or missing, don't count;
    longitudes of a globe go around. For the network it is one more field, which is never
    predicted. A token of it is blank if nothing of it is there, or if it could tell what is
    hidden in the source.

    Attributes
    ----------
    name : str
        Name of its network in ``ModelConfig.networks``.
    field : str
        Canonical name of the source; units and kind of levels are those of the source.
    coarsen : tuple of int
        Grid points of a block in (time, latitude, longitude).
    shape : tuple of int
        Blocks in the box.
    token_shape : tuple of int
        Blocks in a token.
    levels : tuple of float
        Some of the levels of the source; all of them if empty.

    Examples
    --------
    >>> context = ContextSpec(
    ...     name="temperature_around", field="temperature", coarsen=(1, 2, 2), shape=(12, 16, 32),
    ...     token_shape=(4, 4, 4),
    ... )
    >>> context.extent
    (12, 32, 64)
    """

    name: str
    field: str
    coarsen: Shape
    shape: Shape
    token_shape: Shape
    levels: tuple[float, ...] = ()

    @property
    def extent(self) -> Shape:
        """Grid points of the data in the box."""
        return _product(self.shape, self.coarsen)

    @model_validator(mode="after")
    def _check(self) -> ContextSpec:
        if min(*self.coarsen, *self.shape, *self.token_shape) < 1:
            raise ValueError(
                f"coarsen {self.coarsen}, shape {self.shape} and token_shape {self.token_shape} of "
                f"{self.name!r} must be positive"
            )
        for axis, size, token in zip(AXES, self.shape, self.token_shape, strict=True):
            if size % token:
                raise ValueError(
                    f"the context {self.name!r} has {size} points in {axis}, which tokens of "
                    f"{token} points do not divide"
                )
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels of {self.name!r} repeat: {self.levels}")
        return self


class NeighborhoodSpec(_Strict):
    """The space-time box that a model sees at once, and the grid it was trained on.

    Attributes
    ----------
    shape : tuple of int
        Grid points of the box in (time, latitude, longitude).
    time_step : float
        Hours between two frames.
    time_tolerance : float
        Relative deviation of a time step that is accepted.
    grid_step : tuple of float
        Degrees between two grid points in (latitude, longitude).

    Examples
    --------
    >>> NeighborhoodSpec(shape=(3, 36, 72), time_step=6, grid_step=(1, 1)).shape
    (3, 36, 72)
    """

    shape: Shape
    time_step: float = Field(gt=0)
    time_tolerance: float = Field(default=0.0, ge=0, lt=1)
    grid_step: tuple[float, float]

    @model_validator(mode="after")
    def _check(self) -> NeighborhoodSpec:
        if min(self.shape) < 1 or min(self.grid_step) <= 0:
            raise ValueError(f"shape {self.shape} and grid_step {self.grid_step} must be positive")
        return self


class InputSpec(_Strict):
    """Everything that decides how a dataset is cut into tokens.

    Attributes
    ----------
    neighborhood : NeighborhoodSpec
        The box, the same for all fields.
    fields : tuple of FieldSpec
        The fields, with token shapes that divide the box.
    statics : tuple of StaticSpec
        Constant fields, cut with the token footprint of each field.
    contexts : tuple of ContextSpec
        Fields that enter once more, coarsely over a larger box.
    token_reference : {"center", "atmorep-2024", "atmorep-2023"}
        Which time and place of a token of t x a x o points its info states. ``"center"``: the
        middle between the first and the last frame, row and column. ``"atmorep-2024"``, as
        AtmoRep's weights of 2024 were trained: the last frame, row number a // 2 from the north
        and column number o // 2 from the west. ``"atmorep-2023"``: the same, but days in the
        year before that of the neighborhood's last frame are counted backwards from its end as if
        that year had 365 days.

    Examples
    --------
    >>> spec = InputSpec(
    ...     neighborhood=NeighborhoodSpec(shape=(3, 36, 72), time_step=6, grid_step=(1, 1)),
    ...     fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 6, 6)),),
    ... )
    >>> spec.token_grid("2m_temperature")
    (3, 6, 12)
    """

    neighborhood: NeighborhoodSpec
    fields: tuple[FieldSpec, ...]
    statics: tuple[StaticSpec, ...] = ()
    contexts: tuple[ContextSpec, ...] = ()
    token_reference: TokenReference = "center"

    @model_validator(mode="after")
    def _check(self) -> InputSpec:
        names = [field.name for field in self.fields] + [static.name for static in self.statics]
        names += [context.name for context in self.contexts]
        if not self.fields:
            raise ValueError("at least one field is needed")
        if len(set(names)) != len(names):
            raise ValueError(f"field names repeat: {names}")
        for field in self.fields:
            for axis, size, token in zip(
                AXES, self.neighborhood.shape, field.token_shape, strict=True
            ):
                if size % token:
                    raise ValueError(
                        f"the neighborhood has {size} points in {axis}, which tokens of "
                        f"{token} points of {field.name!r} do not divide"
                    )
        for context in self.contexts:
            self._check_context(context)
        return self

    def _check_context(self, context: ContextSpec) -> None:
        sources = {field.name: field for field in self.fields}
        if context.field not in sources:
            raise ValueError(
                f"the context {context.name!r} is one of {context.field!r}, which is no field"
                f"{closest(context.field, sources)}"
            )
        known = sources[context.field].levels
        if unknown := [level for level in context.levels if level not in known]:
            raise ValueError(
                f"the context {context.name!r} has levels {unknown}: those of {context.field!r} "
                f"are {list(known)}"
            )
        for axis, extent, size in zip(AXES, context.extent, self.neighborhood.shape, strict=True):
            found = f"the context {context.name!r} reaches over {extent} grid points in {axis}"
            if extent < size:
                raise ValueError(
                    f"{found}, the neighborhood over {size}: a context holds all of it, so its "
                    f"shape times coarsen must be at least {size}"
                )
            if axis != "time" and (extent - size) % 2:
                raise ValueError(
                    f"{found}, the neighborhood over {size}: the neighborhood can't lie in its "
                    "middle, for that their difference must be even"
                )
        degrees = context.extent[2] * self.neighborhood.grid_step[1]
        if degrees > 360 * (1 + 1e-6):
            raise ValueError(
                f"the context {context.name!r} reaches over {degrees:g} degrees of longitude, more "
                "than the whole circle"
            )

    @property
    def entries(self) -> tuple[FieldSpec, ...]:
        """What the network reads: the fields, and each context as a field of its own name."""
        sources = {field.name: field for field in self.fields}
        contexts = (
            sources[context.field].model_copy(
                update={
                    "name": context.name,
                    "token_shape": context.token_shape,
                    "levels": context.levels or sources[context.field].levels,
                }
            )
            for context in self.contexts
        )
        return (*self.fields, *contexts)

    def field(self, name: str) -> FieldSpec:
        """Specification of one entry by its name (KeyError if there is none)."""
        return {field.name: field for field in self.entries}[name]

    def contexts_of(self, name: str) -> tuple[ContextSpec, ...]:
        """Contexts of one field by its canonical name."""
        return tuple(context for context in self.contexts if context.field == name)

    def past(self, name: str) -> int:
        """Frames before the neighborhood that contexts of a field read."""
        frames = [context.extent[0] for context in self.contexts_of(name)]
        return max(frames, default=self.neighborhood.shape[0]) - self.neighborhood.shape[0]

    def coarsening(self, name: str) -> Shape:
        """Grid points of the data, in each direction, that a point of an entry stands for."""
        context = self._context(name)
        return (1, 1, 1) if context is None else context.coarsen

    def token_grid(self, name: str) -> Shape:
        """Number of tokens of an entry in its box, in (time, latitude, longitude)."""
        context = self._context(name)
        nt, na, no = self.neighborhood.shape if context is None else context.shape
        t, a, o = self.field(name).token_shape
        return nt // t, na // a, no // o

    def token_extent(self, name: str) -> Shape:
        """Grid points of the data that a token of an entry covers."""
        return _product(self.field(name).token_shape, self.coarsening(name))

    def first_point(self, name: str) -> Shape:
        """Where the box of an entry begins, in grid points from where the neighborhood does.

        Examples
        --------
        >>> spec = InputSpec(
        ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 8), time_step=6, grid_step=(1, 1)),
        ...     fields=[FieldSpec(name="u", units="m s-1", token_shape=(1, 2, 2))],
        ...     contexts=[{"name": "u_around", "field": "u", "coarsen": (1, 2, 2),
        ...                "shape": (6, 4, 8), "token_shape": (2, 2, 2)}],
        ... )
        >>> spec.first_point("u"), spec.first_point("u_around")
        ((0, 0, 0), (-4, -2, -4))
        """
        context = self._context(name)
        if context is None:
            return 0, 0, 0
        t, a, o = (
            size - extent
            for size, extent in zip(self.neighborhood.shape, context.extent, strict=True)
        )
        return t, a // 2, o // 2

    def token_centers(self, name: str) -> tuple[list[float], list[float], list[float]]:
        """Places of the tokens of an entry along each axis: 0 to 1 in the neighborhood.

        Those of a context go beyond it.

        Examples
        --------
        >>> spec = InputSpec(
        ...     neighborhood=NeighborhoodSpec(shape=(2, 4, 8), time_step=6, grid_step=(1, 1)),
        ...     fields=[FieldSpec(name="u", units="m s-1", token_shape=(1, 2, 2))],
        ...     contexts=[{"name": "u_around", "field": "u", "coarsen": (1, 2, 2),
        ...                "shape": (6, 4, 8), "token_shape": (2, 2, 2)}],
        ... )
        >>> spec.token_centers("u")
        ([0.25, 0.75], [0.25, 0.75], [0.125, 0.375, 0.625, 0.875])
        >>> spec.token_centers("u_around")[1:]
        ([0.0, 1.0], [-0.25, 0.25, 0.75, 1.25])
        """
        time, latitude, longitude = (
            [(i + 0.5 + first / size) / (n / size) for i in range(count)]
            for n, first, size, count in zip(
                self.neighborhood.shape,
                self.first_point(name),
                self.token_extent(name),
                self.token_grid(name),
                strict=True,
            )
        )
        return time, latitude, longitude

    def _context(self, name: str) -> ContextSpec | None:
        """The context of a name; None if it is that of a field (KeyError if of nothing)."""
        if name in {field.name for field in self.fields}:
            return None
        return {context.name: context for context in self.contexts}[name]


def _product(one: Shape, other: Shape) -> Shape:
    return cast("Shape", tuple(n * k for n, k in zip(one, other, strict=True)))
