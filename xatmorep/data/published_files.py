"""Normalization coefficients as AtmoRep published them in 2023: a folder of binary files."""

from __future__ import annotations

import re
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from xatmorep.data.months import month_number
from xatmorep.data.published_source import Source, Span, wanted_months
from xatmorep.errors import CheckpointError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

    from xatmorep.data.published import PublishedField

__all__ = ["FileLayout"]

# Size and step of the grid of the files, which they don't state.
_GRID = (721, 1440)
_STEP = 0.25
_PAIR = np.dtype("<f4").itemsize * 2
_ROW = np.dtype("<f4").itemsize * 4
# A row for each month of all years of four digits.
_MOST_ROWS = 12 * 10_000
_NAME = re.compile("[a-z][a-z0-9_]*")


class FileLayout:
    """One binary file for each field, level and, at grid points, month.

    Parameters
    ----------
    system : fsspec file system
        Where the files are.
    root : str
        Path of the folder that holds one for each field.
    """

    def __init__(self, system: AbstractFileSystem, root: str) -> None:
        self.system = system
        self.root = root

    def any(self) -> bool:
        """Whether there are coefficients of any field."""
        folders = [name for name in self._names("") if _NAME.fullmatch(name)]
        return any(
            f"normalization_mean_var_{folder}_" in name
            for folder in folders
            for name in self._names(folder)
        )

    def source(self, field: PublishedField, span: Span | None) -> Source:
        """What there is of a field, as `xatmorep.data.published_source.Layout` says."""
        levels = [_whole(level) for level in field.levels or (0.0,)]
        find = self._tables if field.scope == "global" else self._grids
        return find(field.published_name, levels, span)

    def _tables(self, name: str, levels: list[int], span: Span | None) -> Source:
        tables = [
            self._table(f"{name}/global_normalization_mean_var_{name}_ml{level}.bin")
            for level in levels
        ]
        months = wanted_months(name, reduce(np.intersect1d, [table for table, _ in tables]), span)
        rows = [values[np.isin(table, months)].T for table, values in tables]
        return Source(months, {}, len(levels), np.stack(rows, axis=-1).reshape)

    def _table(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Months (ascending) and (month, 2) coefficients of one file."""
        found = self._size(path)
        if found % _ROW or found > _ROW * _MOST_ROWS:
            raise CheckpointError(
                f"{self.root}/{path} has {found} bytes: a table has rows of {_ROW} bytes (year, "
                f"month, mean, divisor), at most {_MOST_ROWS}"
            )
        rows = np.frombuffer(self._bytes(path), "<f4").reshape(-1, 4)
        year, month = rows[:, 0].astype(np.float64), rows[:, 1].astype(np.float64)
        dated = (year == np.rint(year)) & (year >= 0) & np.isin(month, np.arange(1, 13))
        if not (dated & (year <= 9999)).all():
            raise CheckpointError(f"{self.root}/{path} has rows that start with no year and month")
        numbers = 12 * year.astype(np.int64) + month.astype(np.int64) - 1
        months, first = np.unique(numbers, return_index=True)
        if months.size < numbers.size:
            raise CheckpointError(f"{self.root}/{path} has several rows of the same month")
        return months, rows[first, 2:].astype(np.float32)

    def _grids(self, name: str, levels: list[int], span: Span | None) -> Source:
        if span is None:
            listed = [self._listed(name, level) for level in levels]
            months = wanted_months(name, reduce(np.intersect1d, listed), None)
        else:
            months = np.arange(span[0], span[1] + 1)
        size = _PAIR * _GRID[0] * _GRID[1]
        paths = [[_grid_path(name, month, level) for level in levels] for month in months]
        for path in (path for row in paths for path in row):
            if (found := self._size(path)) != size:
                raise CheckpointError(
                    f"{self.root}/{path} has {found} bytes, not the {size} of a grid of "
                    f"{_GRID[0]} x {_GRID[1]} points: only the published grid of {_STEP} degrees "
                    "can be read"
                )

        def read(shape: tuple[int, ...]) -> np.ndarray:
            result = np.empty(shape, np.float32)
            for m, row in enumerate(paths):
                for level, path in enumerate(row):
                    pairs = np.frombuffer(self._bytes(path), "<f4").reshape(*_GRID, 2)
                    result[:, m, level] = np.moveaxis(pairs, -1, 0)
            return result

        coords = {
            "latitude": 90.0 - _STEP * np.arange(_GRID[0]),
            "longitude": _STEP * np.arange(_GRID[1]),
        }
        return Source(months, coords, len(levels), read)

    def _listed(self, name: str, level: int) -> np.ndarray:
        """Months of which there is a file."""
        pattern = re.compile(
            f"normalization_mean_var_{name}_y([0-9]{{4}})_m(0[1-9]|1[0-2])_ml{level}\\.bin"
        )
        found = [match for file in self._names(name) if (match := pattern.fullmatch(file))]
        return np.array(sorted(month_number(f"{match[1]}-{match[2]}") for match in found), np.int64)

    def _names(self, folder: str) -> list[str]:
        path = f"{self.root}/{folder}"
        if not self.system.isdir(path):
            return []
        return [name.rstrip("/").rpartition("/")[2] for name in self.system.ls(path, detail=False)]

    def _size(self, path: str) -> int:
        try:
            return int(self.system.size(f"{self.root}/{path}"))
        except FileNotFoundError as error:
            raise CheckpointError(f"there is no file {path} in {self.root}") from error

    def _bytes(self, path: str) -> bytes:
        try:
            data: bytes = self.system.cat_file(f"{self.root}/{path}")
        except OSError as error:
            raise CheckpointError(f"{self.root}/{path} can't be read: {error}") from error
        return data


def _grid_path(name: str, month: int, level: int) -> str:
    year, number = divmod(month, 12)
    file = f"normalization_mean_var_{name}_y{year:04d}_m{number + 1:02d}_ml{level}.bin"
    return f"{name}/{file}"


def _whole(level: float) -> int:
    if not float(level).is_integer():
        raise CheckpointError(f"published coefficients are of whole model levels, not of {level}")
    return int(level)
