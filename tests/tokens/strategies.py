"""Small input specifications and grids that fit them, for the tests of this room."""

from __future__ import annotations

import cftime
import numpy as np
import xarray as xr
from hypothesis import strategies as st

from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec, StaticSpec

__all__ = ["dataset", "make_spec", "specs", "times"]

Field = tuple[tuple[int, int, int], tuple[float, ...]]


def make_spec(
    box: tuple[int, int, int] = (2, 4, 6),
    fields: dict[str, Field] | None = None,
    *,
    statics: tuple[str, ...] = (),
    time_step: float = 6,
    time_tolerance: float = 0,
    grid_step: tuple[float, float] = (1, 1),
) -> InputSpec:
    """Specification with fields given as ``{name: (token shape, levels)}``."""
    fields = {"2m_temperature": ((1, 2, 3), ())} if fields is None else fields
    return InputSpec(
        neighborhood=NeighborhoodSpec(
            shape=box, time_step=time_step, time_tolerance=time_tolerance, grid_step=grid_step
        ),
        fields=tuple(
            FieldSpec(
                name=name,
                units="1",
                token_shape=token,
                levels=levels,
                level_type="pressure" if levels else "surface",
            )
            for name, (token, levels) in fields.items()
        ),
        statics=tuple(StaticSpec(name=name, units="1") for name in statics),
    )


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    """Two or three fields of different token shapes and levels in a small box."""
    fields: dict[str, Field] = {}
    counts = [draw(st.sampled_from([1, 2, 4, 6])) for _ in range(3)]
    for name in ["a", "b", "c"][: draw(st.integers(1, 3))]:
        token = tuple(draw(st.sampled_from([k for k in (1, 2, 3) if n % k == 0])) for n in counts)
        levels = draw(st.sampled_from([(), (850.0,), (500.0, 850.0)]))
        fields[name] = (token, levels)  # type: ignore[assignment]
    return make_spec(
        (counts[0], counts[1], counts[2]),
        fields,
        statics=draw(st.sampled_from([(), ("orography",), ("orography", "land_sea_mask")])),
    )


def times(n: int, step: float = 6, *, calendar: str | None = None, unit: str = "s") -> np.ndarray:
    """Frames `step` hours apart that cross the end of a leap year."""
    offsets = np.arange(n) * np.timedelta64(round(step * 3600), "s")
    if calendar is None:
        return np.datetime64("2020-12-31T06", unit) + offsets.astype(f"timedelta64[{unit}]")
    start = cftime.datetime(2020, 12, 30, 6, calendar=calendar)
    return np.array([start + offset.item() for offset in offsets])


def dataset(
    spec: InputSpec,
    sizes: tuple[int, int, int],
    *,
    seed: int = 0,
    north: float = 60.0,
    west: float = 0.0,
    calendar: str | None = None,
) -> tuple[dict[str, xr.DataArray], dict[str, xr.DataArray]]:
    """Canonical fields and statics of random numbers, some of them NaN."""
    rng = np.random.default_rng(seed)
    step = spec.neighborhood.grid_step
    coords = {
        "time": times(sizes[0], spec.neighborhood.time_step, calendar=calendar),
        "latitude": north - step[0] * np.arange(sizes[1]),
        "longitude": west + step[1] * np.arange(sizes[2]),
    }
    fields = {}
    for field in spec.fields:
        values = rng.normal(size=(sizes[0], field.n_levels, *sizes[1:])).astype(np.float32)
        values[rng.random(values.shape) < 0.1] = np.nan
        fields[field.name] = xr.DataArray(
            values,
            dims=("time", "level", "latitude", "longitude"),
            coords={**coords, "level": np.array(field.levels or (0.0,))},
            name=field.name,
        )
    statics = {
        static.name: xr.DataArray(
            rng.normal(size=sizes[1:]).astype(np.float32),
            dims=("latitude", "longitude"),
            coords={axis: coords[axis] for axis in ("latitude", "longitude")},
        )
        for static in spec.statics
    }
    return fields, statics
