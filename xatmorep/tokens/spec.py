"""What a model reads: fields, their tokens, and the neighborhood they share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
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
    token_reference: TokenReference = "center"

    @model_validator(mode="after")
    def _check(self) -> InputSpec:
        names = [field.name for field in self.fields] + [static.name for static in self.statics]
        if not self.fields:
            raise ValueError("at least one field is needed")
        if len(set(names)) != len(names):
            raise ValueError(f"field names repeat: {names}")
        for field in self.fields:
            for axis, size, token in zip(
                ("time", "latitude", "longitude"),
                self.neighborhood.shape,
                field.token_shape,
                strict=True,
            ):
                if size % token:
                    raise ValueError(
                        f"the neighborhood has {size} points in {axis}, which tokens of "
                        f"{token} points of {field.name!r} do not divide"
                    )
        return self

    def field(self, name: str) -> FieldSpec:
        """Specification of one field by its canonical name (KeyError if there is none)."""
        return {field.name: field for field in self.fields}[name]

    def token_grid(self, name: str) -> Shape:
        """Number of tokens of a field in the neighborhood, in (time, latitude, longitude)."""
        nt, na, no = self.neighborhood.shape
        t, a, o = self.field(name).token_shape
        return nt // t, na // a, no // o
