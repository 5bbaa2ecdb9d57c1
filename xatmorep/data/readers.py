"""The Intake readers that the shipped catalogs name.

Intake's own readers can't do what these do: choose between stores by a checked parameter, cut in
time before chunking, and take a parameter at every place where Intake lets one be given. For the
entry ``weatherbench2-era5`` these are the same:

- ``cat(resolution="64x32")["weatherbench2-era5"].read()``
- ``cat["weatherbench2-era5"].read(resolution="64x32")``
- ``xatmorep.open_dataset("weatherbench2-era5", resolution="64x32")``

An entry lists its parameters twice: under ``user_parameters`` with type, default, options and
description, where Intake looks for them, and under ``kwargs: parameters``, which hands the values
to the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import xarray as xr
from intake.readers.readers import BaseReader

from xatmorep.data.stores import nearest_first, open_store
from xatmorep.errors import CatalogError

__all__ = ["ArcoReader", "StoreReader"]


class StoreReader(BaseReader):
    """One zarr store, or one of several that parameters choose between.

    Keywords in the catalog: `url` (a URL or, where there are parameters, URLs in nested mappings
    from each parameter's options, in the parameters' order), `storage_options`, `parameters`.
    """

    imports: ClassVar[set[str]] = {"xarray", "zarr"}
    output_instance = "xarray:Dataset"

    def read(
        self, *, storage_options: Mapping[str, Any] | None = None, **parameters: Any
    ) -> xr.Dataset:
        """Open the dataset; storage options are added to those of the catalog."""
        settings = dict(self.kwargs)
        url = settings.pop("url")
        options = {**settings.pop("storage_options", {}), **(storage_options or {})}
        declared = settings.pop("parameters", {})
        # Whatever else Intake put among the keywords came from `cat(...)` or a call.
        return self._read(url, options, declared, {**settings, **parameters})

    def _read(
        self, url: Any, options: dict[str, Any], declared: dict[str, Any], given: dict[str, Any]
    ) -> xr.Dataset:
        for name, value in _known(declared, given).items():
            url = _choice(name, value, url)
        return open_store(url, options)


class ArcoReader(StoreReader):
    """A store of ARCO-ERA5, cut to the days that it says are valid.

    With ``preliminary=True`` the last months, which may still change (ERA5T), are kept.
    ``time`` (a label, or the first and the last) and ``variables`` say what to open. Opening
    less is worth it: of all hours, each variable takes a tenth of a second to open, and a second
    (model levels: ten) whenever something is computed from it.
    """

    def _read(
        self, url: Any, options: dict[str, Any], declared: dict[str, Any], given: dict[str, Any]
    ) -> xr.Dataset:
        known = _known(declared, given)
        ends = {False: "valid_time_stop", True: "valid_time_stop_era5t"}
        names = known["variables"]
        return open_store(
            url,
            options,
            variables=[names] if isinstance(names, str) else names,
            time=_first_and_last(known["time"]),
            limits=("valid_time_start", _choice("preliminary", known["preliminary"], ends)),
        )


def _first_and_last(time: Any) -> tuple[Any, Any]:
    """Two labels out of one, two, a slice, or nothing."""
    if isinstance(time, slice):
        time = (time.start, time.stop)
    if isinstance(time, str):
        time = (time, time)
    if not isinstance(time, (list, tuple)) or len(time) not in (0, 2):
        raise CatalogError(f"time={time!r} is neither a label nor the first and the last one")
    return (time[0], time[1]) if time else (None, None)


def _known(declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all declared parameters; any other name is refused."""
    for name in given:
        if name not in declared:
            raise CatalogError(
                f"there is no parameter {name!r}; parameters: {nearest_first(name, declared)}"
            )
    return {**declared, **given}


def _choice(name: str, value: Any, options: Mapping[Any, Any]) -> Any:
    """What one option of a parameter stands for."""
    # Without the type, 1 would pass as True.
    if (type(value), value) not in [(type(option), option) for option in options]:
        raise CatalogError(
            f"{name}={value!r} is no option; options: {nearest_first(value, options)}"
        )
    return options[value]
