"""What the configuration file of a published AtmoRep model says, as far as a network needs it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from xatmorep.tokens.spec import Shape

__all__ = ["FieldSettings", "Settings"]

Count = Annotated[int, Field(gt=0)]


class FieldSettings(BaseModel):
    """One entry of the list of fields.

    Attributes
    ----------
    name : str
        AtmoRep's name of the field.
    width : int
        Width of its embedding.
    coupled : tuple of str
        Fields that it attends to, in order.
    levels : tuple of float
        Model levels; ``(0,)`` for a surface field.
    tokens, token_shape : tuple of int
        Number of tokens, and grid points of a token, in (time, latitude, longitude).
    scope : {"global", "local"}
        Kind of its normalization.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    width: Count
    coupled: tuple[str, ...]
    levels: Annotated[tuple[float, ...], Field(min_length=1)]
    tokens: tuple[Count, Count, Count]
    token_shape: tuple[Count, Count, Count]
    scope: Literal["global", "local"] = "global"

    @property
    def points(self) -> Shape:
        """Grid points that all tokens cover, in (time, latitude, longitude)."""
        t, a, o = (n * k for n, k in zip(self.tokens, self.token_shape, strict=True))
        return t, a, o


def _fields(entries: Any) -> Any:
    return [_field(entry) for entry in entries] if isinstance(entries, list) else entries


def _field(entry: Any) -> Any:
    """One field by the meaning of its positions: name, network, levels, tokens, and so on."""
    if isinstance(entry, FieldSettings):
        return entry
    if not isinstance(entry, list) or len(entry) < 5:
        raise ValueError(
            f"a field is a list [name, [dynamic, width, coupled fields, device], levels, tokens, "
            f"token size, masking rates, normalization], not {entry!r}"
        )
    name, network, levels, tokens, token_shape = entry[:5]
    if not isinstance(network, list) or len(network) < 3:
        raise ValueError(f"the network of field {name!r} is [dynamic, width, coupled fields, ...]")
    found = {
        "name": name,
        "width": network[1],
        "coupled": network[2],
        "levels": levels,
        "tokens": tokens,
        "token_shape": token_shape,
    }
    return found | ({"scope": entry[6]} if len(entry) > 6 else {})


class Settings(BaseModel):
    """Configuration of a published model; keys that don't shape the network are left out.

    Attributes are named as the keys of the file, except those that follow.

    Attributes
    ----------
    predicted : tuple of (str, float)
        Fields with decoder and tail, and the weight of each in training.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    fields: Annotated[tuple[FieldSettings, ...], BeforeValidator(_fields), Field(min_length=1)]
    predicted: tuple[tuple[str, float], ...] = Field(alias="fields_prediction", min_length=1)
    size_token_info: Literal[8] = 8
    size_token_info_net: Count = 16
    with_layernorm: bool = True
    with_qk_lnorm: bool
    coupling_num_heads_per_field: int = Field(default=1, ge=0)
    dropout_rate: float = Field(default=0.05, ge=0, lt=1)
    encoder_num_layers: Count
    encoder_num_heads: Count
    encoder_num_mlp_layers: Count
    encoder_att_type: Literal["dense"] = "dense"
    decoder_num_layers: Count
    decoder_num_heads: Count
    decoder_num_mlp_layers: Count
    decoder_self_att: Literal[False] = False
    decoder_cross_att_ratio: float
    decoder_cross_att_rate: float
    decoder_att_type: Literal["dense"] = "dense"
    net_tail_num_nets: Count
    net_tail_num_layers: int = Field(ge=0)
    with_cls: Literal[False] = False
    learnable_mask: Literal[False] = False
    n_size: tuple[float, float, float] = (36.0, 13.5, 27.0)
    file_shape: list[int] | None = None
    years_train: list[int] = []
    losses: list[str] = []

    @model_validator(mode="after")
    def _check(self) -> Settings:
        names = [field.name for field in self.fields]
        for name, _ in self.predicted:
            if name not in names:
                raise ValueError(f"fields_prediction names {name!r}, the fields are {names}")
        for field in self.fields:
            if 0 in field.levels and len(field.levels) > 1:
                raise ValueError(
                    f"field {field.name!r} has the levels {field.levels}: 0 is the surface and "
                    "goes with no other"
                )
        return self

    @property
    def generation(self) -> Literal["2023", "2024"]:
        """Whether the model was trained on single GRIB files (2023) or on one zarr store (2024)."""
        return "2024" if self.file_shape is None else "2023"

    def field(self, name: str) -> FieldSettings:
        """Settings of one field by AtmoRep's name."""
        return {field.name: field for field in self.fields}[name]
