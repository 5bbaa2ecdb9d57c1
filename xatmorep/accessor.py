"""The accessor ``.atmorep``: arguments in, a task called, nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import xarray as xr

if TYPE_CHECKING:
    from xatmorep.model.checkpoint import Model

__all__ = ["AtmorepAccessor"]

ModelLike: TypeAlias = "str | os.PathLike[str] | Model"
DEFAULT_MODEL = "era5-surface-tiny"


class AtmorepAccessor:
    """Learned representations of a dataset.

    Registered as ``.atmorep`` on Dataset, and on DataArray for models of one field. Each method is
    described at the function of the package that it calls.

    Parameters
    ----------
    data : xarray.Dataset or xarray.DataArray
        Any dataset that cf_xarray understands or whose names are in use for ERA5 or CMIP6.

    Examples
    --------
    >>> import xatmorep
    >>> ds = xatmorep.open_dataset("era5-sample").isel(time=slice(0, 5))
    >>> ds.atmorep.axes
    {'time': 'time', 'latitude': 'latitude', 'longitude': 'longitude'}
    >>> ds.atmorep.embed(fields=["2m_temperature"])["2m_temperature"].dims
    ('time', 'latitude', 'longitude', 'feature')
    """

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        # Nothing but the data: xarray keeps this object for as long as the dataset.
        self._data = data
        self._variables: Mapping[str, str] | None = None

    def __call__(self, *, fields: Mapping[str, str]) -> AtmorepAccessor:
        """The same with canonical names of fields tied to variables by hand.

        Parameters
        ----------
        fields : mapping of str to str
            Canonical name of a field to name of the variable: ``{"temperature": "ta"}``.
        """
        named = AtmorepAccessor(self._data)
        named._variables = dict(fields)
        return named

    @property
    def _ds(self) -> xr.Dataset:
        if isinstance(self._data, xr.DataArray):
            return self._data.to_dataset(name=self._data.name or "field")
        return self._data

    @property
    def fields(self) -> dict[str, str]:
        """Canonical names of the fields that were recognized, to names of their variables."""
        from xatmorep.data.conventions import find_fields

        found = find_fields(self._ds, self._variables)
        return {name: match.variable for name, match in found.items()}

    @property
    def axes(self) -> dict[str, str]:
        """``time``, ``level``, ``latitude``, ``longitude`` to names of dimensions or scalars."""
        from xatmorep.data.conventions import find_axes

        return find_axes(self._ds, self._variables)

    def embed(
        self,
        *,
        model: ModelLike = DEFAULT_MODEL,
        fields: str | Sequence[str] | None = None,
        layer: int = -1,
        pool: str | Sequence[str] | None = None,
        device: str | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
    ) -> xr.Dataset:
        """Embed every token: one vector of features for each, as (..., feature) on token centers.

        `fields` chooses the fields (canonical names), `layer` the layer (0 the embedding network, 1
        to n the encoder, -1 the last), `pool` averages over ``"level"``, ``"horizontal"``,
        ``"time"``. All parameters and the result are described at `xatmorep.embed`.
        """
        from xatmorep.tasks.embed import embed

        return embed(
            self._ds,
            model=model,
            fields=fields,
            layer=layer,
            pool=pool,
            variables=self._variables,
            device=device,
            batch_size=batch_size,
            dtype=dtype,
        )

    def tokens(self, *, model: ModelLike = DEFAULT_MODEL) -> xr.Dataset:
        """Cut into the normalized tokens that a model reads, with the info of each token.

        The result is described at `xatmorep.tokenize`.
        """
        from xatmorep.tasks.tokens import tokenize

        return tokenize(self._ds, model=model, variables=self._variables)

    def predict(
        self,
        *,
        model: ModelLike = DEFAULT_MODEL,
        mask: xr.DataArray | xr.Dataset | str | None = None,
        rate: float | None = None,
        members: bool = True,
        where: Literal["hidden", "all"] = "hidden",
        seed: int = 0,
        overlap: float = 0.0,
        device: str | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
    ) -> xr.Dataset:
        """Hide tokens and predict them from the others, as an ensemble on the grid of the data.

        `mask` says which points are hidden, or `rate` what share of random tokens; `where` gives
        predictions of the hidden tokens only, or everywhere; `overlap` averages those of
        neighborhoods that overlap. All parameters and the result are described at
        `xatmorep.predict`.
        """
        from xatmorep.tasks.predict import predict

        return predict(
            self._ds,
            model=model,
            mask=mask,
            rate=rate,
            members=members,
            where=where,
            seed=seed,
            variables=self._variables,
            overlap=overlap,
            device=device,
            batch_size=batch_size,
            dtype=dtype,
        )

    def forecast(
        self,
        lead_time: Any,
        *,
        init_times: Any = None,
        model: ModelLike = DEFAULT_MODEL,
        members: bool = True,
        overlap: float = 0.0,
        device: str | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
    ) -> xr.Dataset:
        """Predict the frames after a time from those up to it, as an ensemble.

        `lead_time` says how far, with its unit (``"3h"``); `init_times` from where, one time of the
        data or several, the last if not given; `overlap` averages forecasts of neighborhoods that
        overlap. All parameters and the result are described at `xatmorep.forecast`.
        """
        from xatmorep.tasks.forecast import forecast

        return forecast(
            self._ds,
            lead_time,
            init_times=init_times,
            model=model,
            variables=self._variables,
            members=members,
            overlap=overlap,
            device=device,
            batch_size=batch_size,
            dtype=dtype,
        )

    def attention(
        self,
        query: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        model: ModelLike = DEFAULT_MODEL,
        layer: int | None = -1,
        head: int | None = None,
        device: str | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
    ) -> xr.Dataset:
        """Attention weights of the tokens at one place, or several: where the encoder looks.

        A place is a dict of ``time``, ``latitude``, ``longitude`` and perhaps ``level``, as in the
        data. All parameters and the result are described at `xatmorep.attention`.
        """
        from xatmorep.tasks.attention import attention

        return attention(
            self._ds,
            query,
            model=model,
            layer=layer,
            head=head,
            variables=self._variables,
            device=device,
            batch_size=batch_size,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        from xatmorep.summary import as_text, summarize

        return as_text(summarize(self._ds, self._variables))

    def _repr_html_(self) -> str:
        from xatmorep.summary import as_html, summarize

        return as_html(summarize(self._ds, self._variables))


xr.register_dataset_accessor("atmorep")(AtmorepAccessor)
xr.register_dataarray_accessor("atmorep")(AtmorepAccessor)
