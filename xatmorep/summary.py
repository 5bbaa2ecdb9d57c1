"""What a dataset holds for xatmorep, in words: the repr of the accessor."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr

from xatmorep.data.axes import AXES, AxisMatch, level_values, locate_axes
from xatmorep.data.conventions import canonical_view
from xatmorep.data.matching import level_of, match_fields
from xatmorep.errors import ConventionError
from xatmorep.model.registry import read_config, shipped
from xatmorep.tokens.tiling import tiling_for

__all__ = ["Summary", "as_html", "as_text", "summarize"]


@dataclass(frozen=True)
class Summary:
    """Axes and fields that were recognized, and the shipped models.

    Attributes
    ----------
    axes : dict of str to str
        Axis to name in the dataset.
    fields : list of tuple
        Canonical name, variable, levels, and rule by which it was recognized; or all variables
        that it could be.
    models : list of tuple
        Name of each shipped model, and what keeps it from being used (empty if nothing).
    """

    axes: dict[str, str]
    fields: list[tuple[str, str, str, str]]
    models: list[tuple[str, str]]


def summarize(ds: xr.Dataset, variables: Mapping[str, str] | None = None) -> Summary:
    """Look at a dataset's metadata; reads no values.

    Examples
    --------
    >>> import xatmorep
    >>> summarize(xatmorep.open_dataset("era5-sample")).models[0]
    ('era5-surface-tiny', '')
    """
    models = [(name, _obstacle(ds, name, variables)) for name in shipped()]
    try:
        located = locate_axes(ds, variables)
        found = match_fields(ds, located, variables or {})
    except ConventionError:
        return Summary({}, [], models)
    axes = {axis: located[axis][0].name for axis in AXES if located[axis]}
    fields = []
    for name, matches in found.items():
        candidates = ", ".join(match.variable for match in matches)
        level = level_of(ds, located, matches[0].variable)
        rule = matches[0].rule if len(matches) == 1 else "ambiguous: say which"
        fields.append((name, candidates, _levels(ds, level), rule))
    return Summary(axes, fields, models)


def _levels(ds: xr.Dataset, level: AxisMatch | None) -> str:
    """Levels of a field in words, as its model would call them."""
    if level is None:
        return "surface"
    values = ", ".join(f"{value:g}" for value in level_values(ds, level))
    return f"{values} hPa" if level.kind == "pressure" else f"{level.kind} {values}"


def _obstacle(ds: xr.Dataset, model: str, variables: Mapping[str, str] | None) -> str:
    """Why a shipped model can't be used on a dataset, or nothing."""
    spec = read_config(shipped()[model]).inputs
    try:
        view = canonical_view(ds, spec.fields, spec.statics, fields=variables)
        tiling_for(next(iter(view.fields.values())).coords, spec, axes=view.axes)
    except ConventionError as error:
        return "\n".join(error.problems)
    return ""


def as_text(summary: Summary) -> str:
    """Summary for a terminal."""
    lines = ["<xatmorep>"]
    lines += [f"{axis}: {name}" for axis, name in summary.axes.items()]
    lines.append("fields:" if summary.fields else "fields: none recognized")
    lines += [
        f"    {name} <- {variable} ({levels}; {rule})"
        for name, variable, levels, rule in summary.fields
    ]
    lines.append("models:")
    for name, obstacle in summary.models:
        lines.append(f"    {name}: fits" if not obstacle else f"    {name}: doesn't fit")
        lines += [f"        {line}" for line in obstacle.splitlines()]
    return "\n".join(lines)


def as_html(summary: Summary) -> str:
    """Summary for a notebook."""

    def row(cells: tuple[str, ...], tag: str) -> str:
        style = "text-align:left;white-space:pre-line"
        return "".join(f"<{tag} style='{style}'>{html.escape(cell)}</{tag}>" for cell in cells)

    def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
        lines = [row(head, "th"), *(row(cells, "td") for cells in rows)]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    return (
        "<div><strong>xatmorep</strong>"
        + table(("axis", "name"), list(summary.axes.items()))
        + table(("field", "variable", "levels", "recognized by"), list(summary.fields))
        + table(
            ("model", "fits"),
            [(name, obstacle or "yes") for name, obstacle in summary.models],
        )
        + "</div>"
    )
