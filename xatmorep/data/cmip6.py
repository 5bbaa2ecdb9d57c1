"""CMIP6 on Google Cloud: one dataset out of 400,000 stores, chosen by its facets.

intake-esm searches the table of stores and knows which of them make up a dataset. The stores are
opened and joined here, so that they come with the same file systems and chunks as every other
entry (intake-esm also fails on plain local paths under zarr 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import xarray as xr

from xatmorep.data.readers import StoreReader
from xatmorep.data.stores import filesystem, nearest_first, open_store
from xatmorep.errors import CatalogError, require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cmip6Reader"]


class Cmip6Reader(StoreReader):
    """One CMIP6 dataset; facets are the columns of the table of stores.

    Keywords in the catalog: `url` of the table (CSV, a row for each store, which holds one
    variable of one member), `storage_options`, and `collection`, intake-esm's description of how
    rows make up datasets.
    """

    imports: ClassVar[set[str]] = {"xarray", "zarr", "intake_esm"}

    def _read(
        self, url: Any, options: dict[str, Any], declared: dict[str, Any], given: dict[str, Any]
    ) -> xr.Dataset:
        require("intake_esm", extra="cmip6")
        collection = given.pop("collection")
        facets = {name: _values(value) for name, value in given.items()}
        rows = _one_dataset(_read_table(url, options), collection, facets)
        members = [_open_member(part, options) for _, part in rows.groupby("member_id")]
        return xr.concat(
            members,
            "member_id",
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="exact",
            combine_attrs="drop_conflicts",
        )


def _values(value: Any) -> list[Any]:
    """Values of one facet as the table has them: text, though versions look like numbers."""
    values = value if isinstance(value, (list, tuple, set)) else [value]
    return [str(one) if isinstance(one, int) else one for one in values]


def _read_table(url: str, options: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    fs, path = filesystem(url, options)
    try:
        with fs.open(path, "rb") as file:
            return pd.read_csv(file, dtype=str)
    except FileNotFoundError as error:
        raise CatalogError(f"there is no table of stores at {url!r}") from error


def _one_dataset(
    table: pd.DataFrame, collection: dict[str, Any], facets: dict[str, list[Any]]
) -> pd.DataFrame:
    """Rows of the one dataset that has these facets."""
    import intake_esm

    for name in facets:
        if name not in table:
            known = nearest_first(name, table.columns)
            raise CatalogError(f"there is no facet {name!r}; facets: {known}")
    if not facets:
        raise CatalogError(f"choose a dataset by its facets: {', '.join(table.columns)}")
    store = intake_esm.esm_datastore({"esmcat": collection, "df": table}, progressbar=False)
    found = store.search(**facets)
    rows, keys = found.df, sorted(found.keys()) if len(found.df) else []
    if not keys:
        raise CatalogError(f"no dataset has all these facets{_way_out(store, facets)}")
    if len(keys) > 1:
        listed = nearest_first("", keys)
        raise CatalogError(f"the facets match {len(keys)} datasets; add facets: {listed}")
    _check_complete(rows, keys[0], facets)
    return rows


def _check_complete(rows: pd.DataFrame, key: str, facets: dict[str, list[Any]]) -> None:
    """Refuse anything but one store for each member and variable, and for all that was named."""
    for name, values in facets.items():
        there = sorted(rows[name].dropna().unique())
        for value in values:
            # intake-esm takes text with these signs as a pattern.
            exact = isinstance(value, str) and not set("*?$^") & set(value)
            if exact and value not in there:
                known = nearest_first(value, there)
                raise CatalogError(f"{key} has no {name} {value!r}; it has {known}")
    double = rows[rows.duplicated(["member_id", "variable_id"], keep=False)]
    if len(double):
        raise CatalogError(
            f"several stores of {key} hold the same variable of the same member; choose by "
            f"version or dcpp_init_year: {nearest_first('', sorted(double.zstore))}"
        )
    for member, part in rows.groupby("member_id"):
        lacking = sorted(set(rows.variable_id) - set(part.variable_id))
        if lacking:
            raise CatalogError(
                f"{key}: member {member} has no {', '.join(lacking)}; choose by member_id or "
                "variable_id"
            )


def _way_out(store: Any, facets: dict[str, list[Any]]) -> str:
    """What each facet could be if the other facets stay as they are."""
    words = []
    for name, values in facets.items():
        others = {other: facets[other] for other in facets if other != name}
        rest = store.search(**others).df if others else store.df
        if len(rest):
            fitting = sorted(rest[name].dropna().unique())
            words.append(f"; {name} could be {nearest_first(next(iter(values), ''), fitting)}")
    return "".join(words) or ", nor without any one of them"


def _open_member(rows: pd.DataFrame, options: Mapping[str, Any]) -> xr.Dataset:
    """All variables of one ensemble member."""
    variables = []
    columns = rows[["member_id", "variable_id", "zstore"]]
    for member, variable, store in columns.itertuples(index=False):
        ds = open_store(str(store), options)
        variables.append(ds.assign({variable: ds[variable].expand_dims(member_id=[member])}))
    return xr.merge(variables, compat="override", join="exact", combine_attrs="drop_conflicts")
