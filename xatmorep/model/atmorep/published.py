"""The AtmoRep models that were published: which there are, and where to fetch them."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["LANDING_PAGE", "MODELS", "PublishedModel", "how_to_fetch"]

LANDING_PAGE = "https://datapub.fz-juelich.de/atmorep/trained-models.html"


class PublishedModel(NamedTuple):
    """One published model, as the project's README and scripts name it.

    Attributes
    ----------
    model_id : str
        Eight letters and digits.
    year : {"2023", "2024"}
        Generation of the files.
    fields : tuple of str
        AtmoRep's names of the fields.
    note : str
        What is particular.
    """

    model_id: str
    year: Literal["2023", "2024"]
    fields: tuple[str, ...]
    note: str = ""

    @property
    def archive(self) -> str:
        """Name of the archive on the landing page."""
        return f"model_id{self.model_id}.tar.gz"


_WINDS = ("velocity_u", "velocity_v", "specific_humidity", "velocity_z", "temperature")
_SEE = "fields: see its configuration"
_VORTICITY = ("vorticity", "velocity_z", "divergence", "specific_humidity", "temperature")

MODELS = (
    PublishedModel("j8dwr5qj", "2024", ("velocity_u",)),
    PublishedModel("0tlnm5up", "2024", ("velocity_v",)),
    PublishedModel("v63l01zu", "2024", ("specific_humidity",)),
    PublishedModel("9l1errbo", "2024", ("velocity_z",)),
    PublishedModel("7ojls62c", "2024", ("temperature",)),
    PublishedModel("4nvwbetz", "2023", ("vorticity",)),
    PublishedModel("oxpycr7w", "2023", ("divergence",)),
    PublishedModel("1565pb1f", "2023", ("specific_humidity",)),
    PublishedModel("3kdutwqb", "2023", ("total_precip",)),
    PublishedModel("dys79lgw", "2023", ("velocity_u",)),
    PublishedModel("22j6gysw", "2023", ("velocity_v",)),
    PublishedModel("15oisw8d", "2023", ("velocity_z",)),
    PublishedModel("3qou60es", "2023", ("temperature",)),
    PublishedModel("2147fkco", "2023", ("temperature",)),
    PublishedModel("1jh2qvrx", "2023", (*_WINDS, "total_precip"), "velocity set"),
    PublishedModel("wqqy94oa", "2023", (*_VORTICITY, "total_precip"), "vorticity set"),
    PublishedModel("3cizyl1q", "2023", ("velocity_u", "velocity_v", "temperature")),
    PublishedModel("1v4qk0qx", "2023", (), f"for 3 h forecasts; {_SEE}"),
    PublishedModel("1m79039j", "2023", (), f"for 6 h forecasts; {_SEE}"),
)
"""All of them, the newer generation first."""


def how_to_fetch() -> str:
    """Words and a table that tell what to fetch and where to put it; nothing is downloaded.

    Examples
    --------
    >>> print(how_to_fetch().splitlines()[0])
    Models published by the AtmoRep project (https://arxiv.org/abs/2308.13280):
    """
    rows = [("id", "files of", "archive", "fields")]
    rows += [
        (
            model.model_id,
            model.year,
            model.archive,
            "; ".join(filter(None, (", ".join(model.fields), model.note))),
        )
        for model in MODELS
    ]
    sizes = [max(len(row[i]) for row in rows) for i in range(3)]
    table = [
        "  ".join([*(cell.ljust(n) for cell, n in zip(row, sizes, strict=False)), row[3]])
        for row in rows
    ]
    return "\n".join(
        [
            "Models published by the AtmoRep project (https://arxiv.org/abs/2308.13280):",
            "",
            *table,
            "",
            f"1. Fetch an archive from {LANDING_PAGE}",
            "2. Unpack it: tar -xzf model_id<ID>.tar.gz",
            "   It makes a folder id<ID> with AtmoRep_id<ID>.mod and model_id<ID>.json.",
            "3. Put the published normalization into id<ID>/normalization, or have it fitted",
            "   from your own data.",
            '4. In Python: model = xatmorep.load_atmorep("id<ID>"), or with fitted normalization',
            '   xatmorep.load_atmorep("id<ID>", normalization=ds)',
            "",
            "The project states no licence of the weights; its code is under the MIT licence.",
        ]
    )
