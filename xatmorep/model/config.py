"""Configuration of the network: data, read strictly, saved beside the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xatmorep.tokens.spec import InputSpec, Shape

__all__ = [
    "DecoderConfig",
    "EmbeddingConfig",
    "EncoderConfig",
    "FieldNetwork",
    "ModelConfig",
    "TailConfig",
]


QKNorm = Literal["none", "plain", "affine"]
"""Layer norm of queries and keys over a head: none, without or with parameters."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldNetwork(_Strict):
    """The transformer of one field: its width and the fields that it attends to.

    Attributes
    ----------
    width : int
        Embedding width, divisible by the number of heads.
    coupled : tuple of str
        Names of the fields and contexts that this one cross-attends to, in order.
    predicted : bool
        Whether the field has a decoder and a tail; a context has none.
    """

    width: int = Field(gt=0)
    coupled: tuple[str, ...] = ()
    predicted: bool = True


class EmbeddingConfig(_Strict):
    """The network that makes features of the values of a token.

    Attributes
    ----------
    kind : {"linear", "transformer"}
        ``"linear"``: a linear map of all values, for tokens of one shape; none of the other options
        has a meaning then. ``"transformer"``: a small transformer over parts of a token, for tokens
        of any shape.
    sub_token : tuple of int, optional
        Grid points of a part in (time, latitude, longitude); they have to divide the tokens of
        each field. A transformer needs it.
    width : int
        Width of the transformer, divisible by `heads`.
    layers : int
        Number of its layers.
    heads : int
        Attention heads in each.
    shared : bool
        Whether all fields share the transformer; the linear map from its features to those of a
        field stays the field's own.
    crops : float
        Probability with which, in training, the features of a token are made from a random box of
        its parts.
    consistency : float
        Weight, in the loss of a training run, of a term that makes the features of a token and of
        a smaller one in its middle agree, see `xatmorep.objectives.consistency`.
    """

    kind: Literal["linear", "transformer"] = "linear"
    sub_token: Shape | None = None
    width: int = Field(default=32, gt=0)
    layers: int = Field(default=2, gt=0)
    heads: int = Field(default=4, gt=0)
    shared: bool = False
    crops: float = Field(default=0.25, ge=0, le=1)
    consistency: float = Field(default=0.1, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> EmbeddingConfig:
        if self.kind == "linear":
            given = sorted(self.model_dump(exclude_defaults=True))
            if given:
                raise ValueError(
                    f"a linear embedding has no {', '.join(given)}: leave it out, or set kind to "
                    "'transformer'"
                )
            return self
        if self.sub_token is None or min(self.sub_token) < 1:
            raise ValueError(
                f"a transformer needs a sub_token of positive sizes, found {self.sub_token}"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self


class EncoderConfig(_Strict):
    """Encoder of each field.

    Attributes
    ----------
    layers : int
        Number of transformer layers.
    heads : int
        Self-attention heads; each has ``width / heads`` entries.
    coupling_heads : int
        Cross-attention heads for each coupled field, on top of `heads`.
    mlp_layers : int
        Linear layers in a feed-forward block (at least 2).
    qk_norm : {"none", "plain", "affine"}
        Layer norm of queries and keys: none, without or with parameters.
    qk_norm_cross_query : bool
        Whether `qk_norm` includes the queries of cross-attention; AtmoRep's 2024 weights were
        trained without.
    locality : float
        If positive, heads begin by looking at one neighbor each, the more strictly the larger it
        is, see `xatmorep.model.locality`. A model then learns in far fewer steps where neighbors
        are to be read. It takes memory for the square of the number of tokens.
    """

    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    coupling_heads: int = Field(default=1, gt=0)
    mlp_layers: int = Field(default=2, ge=2)
    qk_norm: QKNorm = "none"
    qk_norm_cross_query: bool = True
    locality: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class DecoderConfig(_Strict):
    """Decoder of each predicted field, coupled to encoder layers as in a U-Net.

    Attributes
    ----------
    layers : int
        Number of transformer layers.
    heads : int
        Attention heads, shared between self- and cross-attention.
    cross_ratio : float
        Share of the heads that attends to the encoder: ``int(heads * cross_ratio)``.
    cross_rate : float
        Decoder layer ``l`` attends to encoder layer ``n - 1 - int(cross_rate * l)``.
    mlp_layers : int
        Linear layers in a feed-forward block (at least 2).
    qk_norm : {"none", "plain", "affine"}
        Layer norm of queries and keys: none, without or with parameters.
    """

    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    cross_ratio: float = Field(default=0.5, gt=0, lt=1)
    cross_rate: float = Field(default=1.0, ge=0)
    mlp_layers: int = Field(default=2, ge=2)
    qk_norm: QKNorm = "none"


class TailConfig(_Strict):
    """Ensemble tails: independent small networks from a token's features to its grid points.

    Attributes
    ----------
    members : int
        Number of tails, that is of ensemble members.
    hidden_layers : int
        Hidden layers in each tail.
    """

    members: int = Field(gt=0)
    hidden_layers: int = Field(default=0, ge=0)


class ModelConfig(_Strict):
    """A multiformer: what it reads and how it is built.

    Attributes
    ----------
    inputs : InputSpec
        Fields, tokens and neighborhood.
    networks : dict of str to FieldNetwork
        One entry for each field and each context of `inputs`, under the same name.
    embedding, encoder, decoder, tail : EmbeddingConfig, EncoderConfig, DecoderConfig, TailConfig
        The parts, built alike for all fields.
    positional_encoding : {"harmonic", "atmorep"}
        ``"harmonic"``: sines and cosines of the place in the neighborhood, the same for the same
        place in every field. ``"atmorep"``: the formula of the published weights.
    token_info : {"scaled", "raw", "raw-2023"}
        ``"scaled"``: periodic and bounded features. ``"raw"``: the numbers as they are, in the
        order of AtmoRep's weights of 2024. ``"raw-2023"``: those of 2023, which count the hours as
        a fraction of the day, too.
    token_info_width : int
        If positive, the token info is embedded into the last entries of the features, and the
        values into the others (as AtmoRep does); if 0, both are embedded into all entries.
    mask_embedding : bool
        Whether a learned vector marks tokens whose values are withheld.
    layer_norm : bool
        Layer norm before attention and feed-forward blocks of the encoder, and before
        feed-forward blocks of the decoder.
    mlp_output_activation : bool
        GELU after the last linear layer of a feed-forward block, as in AtmoRep.
    dropout : float
        Rate of dropout in training.
    """

    inputs: InputSpec
    networks: dict[str, FieldNetwork]
    embedding: EmbeddingConfig = EmbeddingConfig()
    encoder: EncoderConfig
    decoder: DecoderConfig
    tail: TailConfig
    positional_encoding: Literal["harmonic", "atmorep"] = "harmonic"
    token_info: Literal["scaled", "raw", "raw-2023"] = "scaled"
    token_info_width: int = Field(default=0, ge=0)
    mask_embedding: bool = True
    layer_norm: bool = True
    mlp_output_activation: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        names = [entry.name for entry in self.inputs.entries]
        if sorted(names) != sorted(self.networks):
            also = " and each context" if self.inputs.contexts else ""
            raise ValueError(
                f"networks must have one entry for each field{also}: fields are {sorted(names)}, "
                f"networks are {sorted(self.networks)}"
            )
        for context in self.inputs.contexts:
            if self.networks[context.name].predicted:
                raise ValueError(
                    f"the context {context.name!r} can't be predicted, only {context.field!r} "
                    f"itself: set predicted to false in networks.{context.name}"
                )
        if self.inputs.contexts and self.positional_encoding == "atmorep":
            raise ValueError(
                "positional_encoding 'atmorep' has no places outside of the neighborhood, where "
                "contexts are: take 'harmonic'"
            )
        for name, network in self.networks.items():
            if network.width % self.encoder.heads or network.width % self.decoder.heads:
                raise ValueError(
                    f"width {network.width} of {name!r} is not divisible by the "
                    f"{self.encoder.heads} encoder and {self.decoder.heads} decoder heads"
                )
            unknown = [other for other in network.coupled if other not in names or other == name]
            if unknown or len(set(network.coupled)) != len(network.coupled):
                raise ValueError(
                    f"field {name!r} is coupled to {list(network.coupled)}: it must be other "
                    f"fields of {names}, each once"
                )
            if network.width <= self.token_info_width:
                raise ValueError(
                    f"width {network.width} of {name!r} leaves no room beside "
                    f"token_info_width {self.token_info_width}"
                )
        self._check_sub_tokens()
        if not self.predicted:
            raise ValueError("at least one field must be predicted")
        cross = int(self.decoder.heads * self.decoder.cross_ratio)
        if not 0 < cross < self.decoder.heads:
            raise ValueError(
                f"cross_ratio {self.decoder.cross_ratio} of {self.decoder.heads} decoder heads "
                f"leaves {cross} cross heads: both kinds of heads are needed"
            )
        if int(self.decoder.cross_rate * (self.decoder.layers - 1)) > self.encoder.layers - 1:
            raise ValueError("the decoder reaches below the first encoder layer: lower cross_rate")
        return self

    def _check_sub_tokens(self) -> None:
        part = self.embedding.sub_token
        if part is None:
            return
        for field in self.inputs.entries:
            if any(n % size for n, size in zip(field.token_shape, part, strict=True)):
                raise ValueError(
                    f"sub_token {part} does not divide the tokens of {field.name!r}, "
                    f"{field.token_shape}"
                )

    @property
    def predicted(self) -> tuple[str, ...]:
        """Canonical names of the predicted fields, in the order of `inputs.fields`."""
        return tuple(
            field.name for field in self.inputs.fields if self.networks[field.name].predicted
        )
