"""Datasets by name: the shipped Intake catalogs.

The catalogs are YAML files of Intake's second format, one for each provider. They lie in the
folder ``catalogs`` at the top of a source checkout, and inside the package when it is installed
from a wheel.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xatmorep.errors import CatalogError

if TYPE_CHECKING:
    import intake
    import xarray as xr

__all__ = ["open_catalog", "open_dataset"]

PACKAGE = Path(__file__).parents[1]


def open_catalog() -> intake.Catalog:
    """Open all shipped catalogs as one Intake catalog.

    Returns
    -------
    intake.Catalog
        ``list(catalog)`` gives the names, ``catalog[name].read()`` a dask-backed Dataset.

    Examples
    --------
    >>> catalog = open_catalog()
    >>> sorted(catalog)
    ['cmip6', 'era5-arco', 'era5-arco-model-levels', 'era5-eda-sample', 'era5-sample',
    'weatherbench2-climatology', 'weatherbench2-era5']
    >>> dict(catalog["era5-sample"].read().sizes)
    {'time': 24, 'latitude': 181, 'longitude': 360}
    """
    import intake

    merged = intake.Catalog()
    for file in sorted(catalog_folder(PACKAGE).glob("*.yaml")):
        merged += intake.from_yaml_file(str(file))
    return merged


def open_dataset(
    name: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> xr.Dataset:
    """Open a dataset of the catalog, or any zarr store or netCDF file.

    Parameters
    ----------
    name : str or path
        Name of a catalog entry (`open_catalog` lists them), or a path or fsspec URL. An entry
        comes first where a path has the same name.
    storage_options : mapping, optional
        Settings of the fsspec file system, added to those of the entry. The cloud entries are
        read anonymously; ``{"token": None}`` uses the credentials of the machine instead. Local
        paths have no use for them.
    **parameters
        What the entry lets one choose: ``resolution`` of WeatherBench 2, ``time`` and
        ``variables`` of ARCO-ERA5 (say them: the store is huge), the facets of CMIP6.
        ``open_catalog().entries[name].user_parameters`` describes them.

    Returns
    -------
    xr.Dataset
        Dask-backed, one task for each stored chunk. Nothing but coordinates has been read.

    Raises
    ------
    CatalogError
        If there is no such entry, parameter, option or file; it lists what there is.
    MissingExtraError
        If the entry needs an optional package that isn't installed.

    Examples
    --------
    >>> ds = open_dataset("era5-sample")
    >>> ds["2m_temperature"].data.chunksize
    (6, 181, 360)
    >>> open_dataset("era5-smaple")
    Traceback (most recent call last):
    ...
    xatmorep.errors.CatalogError: there is no catalog entry or file 'era5-smaple'; entries: ...
    """
    catalog = open_catalog()
    text = os.fspath(name)
    if text in list(catalog):
        try:
            return catalog[text].read(storage_options=storage_options, **parameters)
        except CatalogError as error:
            raise CatalogError(f"{text}: {error}") from error
    from xatmorep.data.stores import nearest_first, open_store

    if not _is_place(text):
        known = nearest_first(text, catalog)
        raise CatalogError(f"there is no catalog entry or file {text!r}; entries: {known}")
    if parameters:
        raise CatalogError(
            f"{text!r} is no catalog entry and takes no parameters; found {', '.join(parameters)}"
        )
    return open_store(text, storage_options)


def catalog_folder(package: Path) -> Path:
    """Folder of the catalogs that belong to a package folder.

    Parameters
    ----------
    package : Path
        Folder that holds ``xatmorep/__init__.py``.

    Raises
    ------
    CatalogError
        If there is none: the installation is incomplete.
    """
    # The second is found in a source checkout only.
    for folder in (package / "catalogs", package.parent / "catalogs"):
        if any(folder.glob("*.yaml")):
            return folder
    raise CatalogError(f"no catalogs beside or in {package}; reinstall xatmorep")


def _is_place(text: str) -> bool:
    """Whether a name can only be meant as a path or URL."""
    return "://" in text or "/" in text or os.sep in text or Path(text).exists()
