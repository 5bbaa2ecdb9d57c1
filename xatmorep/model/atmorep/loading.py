"""The published AtmoRep weights as a model like any other."""

from __future__ import annotations

import os
from collections.abc import Mapping

import xarray as xr

from xatmorep.data.conventions import canonical_view
from xatmorep.data.normalization import Normalizer
from xatmorep.data.published import (
    PublishedField,
    fit_normalization,
    has_normalization,
    read_normalization,
)
from xatmorep.errors import ConfigError
from xatmorep.model.atmorep.config import canonical_names, model_config
from xatmorep.model.atmorep.files import PublishedFolder
from xatmorep.model.atmorep.weights import build, is_per_head
from xatmorep.model.card import DataSource, ModelCard
from xatmorep.model.checkpoint import Model
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer

__all__ = ["load_atmorep", "network_of"]


def load_atmorep(
    folder: str | os.PathLike[str],
    *,
    normalization: str | os.PathLike[str] | xr.Dataset | None = None,
    period: tuple[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Model:
    """Load a published AtmoRep model, of either generation of files.

    ``xatmorep info atmorep`` lists the published models, and says where to fetch them. The result
    is a model like any other: `Model.save` writes it in our format.

    Parameters
    ----------
    folder : str or path
        Folder, as a path or any fsspec URL, with ``model_id<ID>.json`` and
        ``AtmoRep_id<ID>.mod``.
    normalization : str, path or Dataset, optional
        Mean and standard deviation of each month, which the weights were trained with: the
        address of the published coefficients (a folder of binary files, or a zarr store with a
        group ``normalization``), or a dataset to fit them from. If not given they are looked for
        in `folder`; where there are none the model has no normalization, and can be inspected
        and saved but not be applied to data.
    period : tuple of str, optional
        First and last month, such as ``("2021-01", "2021-03")``, of the coefficients to read. All
        if not given; those of each grid point are large.
    variables : mapping of str to str, optional
        Canonical name of a field -> its name in the dataset to fit from, where it isn't recognized.

    Returns
    -------
    Model
        In float32, in evaluation mode and on the CPU.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the configuration names what is not known, or the weights
        don't fit it.
    ConventionError
        If the dataset to fit from lacks what the model reads.

    Notes
    -----
    The original code has quirks that these weights were trained with, and they are kept: token
    infos as raw numbers that state the last hour of a token, a positional encoding that counts
    rows by the number of tokens in latitude, an activation after the last layer of each
    feed-forward block. Configurations of the few weeks of 2024 in which the decoder had norms of
    queries and keys without applying them can't be told from later ones.

    References
    ----------
    Lessig et al. (2023), AtmoRep: a stochastic model of atmosphere dynamics using large scale
    representation learning, arXiv:2308.13280.

    Examples
    --------
    >>> import tempfile
    >>> from xatmorep.testing import write_atmorep
    >>> folder = write_atmorep(tempfile.mkdtemp())  # random weights in the published layout
    >>> model = load_atmorep(folder)
    >>> [field.name for field in model.config.inputs.fields]
    ['vorticity']
    """
    published = PublishedFolder(folder)
    config, network = network_of(published)
    return Model(
        config,
        network,
        _normalizer(published, config, normalization, period, variables),
        _card(published, config),
    )


def network_of(published: PublishedFolder) -> tuple[ModelConfig, Multiformer]:
    """Configuration and network of a published model.

    Raises
    ------
    CheckpointError
        As `load_atmorep`.
    """
    state = published.weights()
    config = model_config(published.settings, is_per_head(state), published.where)
    names = canonical_names(published.settings, published.where)
    return config, build(config, published.settings, names, state, published.address)


def _normalizer(
    published: PublishedFolder,
    config: ModelConfig,
    source: str | os.PathLike[str] | xr.Dataset | None,
    period: tuple[str, str] | None,
    variables: Mapping[str, str] | None,
) -> Normalizer:
    names = canonical_names(published.settings, published.where)
    fields = [
        PublishedField(
            name=names[field.name],
            published_name=field.name,
            levels=config.inputs.field(names[field.name]).levels,
            scope=field.scope,
        )
        for field in published.settings.fields
    ]
    if isinstance(source, xr.Dataset):
        if period is not None:
            raise ConfigError("period selects published coefficients: select the dataset instead")
        view = canonical_view(source, config.inputs.fields, fields=variables)
        return fit_normalization(view.fields, fields)
    if source is not None:
        return read_normalization(os.fspath(source), fields, period=period)
    if has_normalization(published.address):
        return read_normalization(published.address, fields, period=period)
    return Normalizer({}, {})


def _card(published: PublishedFolder, config: ModelConfig) -> ModelCard:
    years = published.settings.years_train
    latitude, longitude = config.inputs.neighborhood.grid_step
    return ModelCard(
        name=f"atmorep-{published.model_id}",
        description=f"AtmoRep's published model {published.model_id}.",
        fields=tuple(field.name for field in config.inputs.fields),
        grid=f"global, {latitude:g} x {longitude:g} degrees",
        period=(f"{min(years)}-01-01", f"{max(years)}-12-31") if years else ("", ""),
        data=DataSource(
            name="ERA5",
            attribution="Contains modified Copernicus Climate Change Service information",
        ),
    )
