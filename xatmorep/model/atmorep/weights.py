"""Weights of the published AtmoRep models under our names, and back.

Rows of our matrices have AtmoRep's order, so that most weights only change their names. Until
spring 2024 AtmoRep had one matrix for each head and each of query, key and value; ours are those
one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xatmorep.errors import CheckpointError
from xatmorep.model.atmorep.settings import FieldSettings, Settings
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer

__all__ = [
    "Piece",
    "build",
    "is_per_head",
    "is_shared_info",
    "our_weights",
    "pieces",
    "their_weights",
]


@dataclass(frozen=True)
class Piece:
    """One of our weights and what it is made of.

    Attributes
    ----------
    ours : str
        Name in the state dict of `Multiformer`.
    theirs : tuple of str
        Names in AtmoRep's state dict.
    stacked : bool
        Whether theirs are stacked along a new first axis (members), instead of joined along
        the first one (heads).
    """

    ours: str
    theirs: tuple[str, ...]
    stacked: bool = False

    def join(self, state: Mapping[str, Tensor]) -> Tensor:
        """Make our weight of theirs."""
        parts = [state[name] for name in self.theirs]
        return torch.stack(parts) if self.stacked else torch.cat(parts)

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Take our weight, or its gradient, apart into theirs."""
        parts = tensor.unbind() if self.stacked else tensor.chunk(len(self.theirs))
        return dict(zip(self.theirs, parts, strict=True))

    def shape_of_each(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of each of theirs, if ours has `shape`."""
        return shape[1:] if self.stacked else (shape[0] // len(self.theirs), *shape[1:])


def is_per_head(state: Mapping[str, Tensor]) -> bool:
    """Whether attention has one matrix for each head, as until spring 2024."""
    return any(".heads_self." in name for name in state)


def is_shared_info(state: Mapping[str, Tensor]) -> bool:
    """Whether all fields share one layer for token infos: if the first has none of its own.

    The original code looks at the first field only, and takes zeros (its initial weights) for
    none.
    """
    own = state.get("embeds_token_info.0.weight")
    return own is None or not bool(own.any())


def build(
    config: ModelConfig,
    settings: Settings,
    names: Mapping[str, str],
    state: Mapping[str, Tensor],
    where: str,
) -> Multiformer:
    """Network of a configuration with AtmoRep's weights, in evaluation mode.

    Parameters
    ----------
    config : ModelConfig
        What `settings` make of it.
    settings : Settings
        The model.
    names : mapping of str to str
        Our name of each field by AtmoRep's name.
    state : mapping of str to Tensor
        AtmoRep's state dict.
    where : str
        Name of the file, for messages.

    Raises
    ------
    CheckpointError
        As `our_weights`.
    """
    with torch.device("meta"):  # no initial weights, which would be thrown away
        network = Multiformer(config)
    table = pieces(settings, names, per_head=is_per_head(state), shared_info=is_shared_info(state))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(our_weights(state, table, shapes, where), assign=True)
    return network.eval()


def pieces(
    settings: Settings, names: Mapping[str, str], *, per_head: bool, shared_info: bool
) -> list[Piece]:
    """All our weights, by what they are made of.

    Parameters
    ----------
    settings : Settings
        The model.
    names : mapping of str to str
        Our name of each field by AtmoRep's name.
    per_head, shared_info : bool
        Form of the file, see `is_per_head` and `is_shared_info`.
    """
    found: list[Piece] = []
    for number, field in enumerate(settings.fields):
        info = "embed_token_info" if shared_info else f"embeds_token_info.{number}"
        ours, theirs = f"embeddings.{names[field.name]}", f"encoders.{number}"
        found += _linear(f"{ours}.values", f"{theirs}.embed")
        found += _linear(f"{ours}.info", info)
        for layer in range(settings.encoder_num_layers):
            ours = f"encoders.{names[field.name]}.{layer}"
            encoder = _per_head_encoder if per_head else _fused_encoder
            found += encoder(settings, field, f"{ours}.attention", f"{theirs}.heads.{layer}")
            found += _mlp(
                settings.encoder_num_mlp_layers, f"{ours}.feed_forward", f"{theirs}.mlps.{layer}"
            )
    for number, (name, _) in enumerate(settings.predicted):
        for layer in range(settings.decoder_num_layers):
            ours = f"decoders.{names[name]}.{layer}"
            theirs = f"decoders.{number}.blocks"
            decoder = _per_head_decoder if per_head else _fused_decoder
            found += decoder(settings, f"{ours}.attention", f"{theirs}.{2 * layer}")
            found += _mlp(
                settings.decoder_num_mlp_layers,
                f"{ours}.feed_forward",
                f"{theirs}.{2 * layer + 1}",
            )
        found += _tail(settings, f"tails.{names[name]}", f"tails.{number}.tail_nets")
    return found


def our_weights(
    state: Mapping[str, Tensor],
    table: list[Piece],
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
) -> dict[str, Tensor]:
    """Our state dict from AtmoRep's, in float32.

    Parameters
    ----------
    state : mapping of str to Tensor
        AtmoRep's state dict.
    table : list of Piece
        From `pieces`.
    shapes : mapping of str to tuple of int
        Shape of each of our weights.
    where : str
        Name of the file, for messages.

    Raises
    ------
    CheckpointError
        If a weight is missing, has another shape, isn't finite, or is not understood.
    """
    needed = {name for piece in table for name in piece.theirs}
    missing = sorted(needed.difference(state))
    if missing:
        raise CheckpointError(
            f"{where} lacks {_few(missing)}: its configuration is of another model"
        )
    unknown = sorted(name for name in state if name not in needed and not _is_dead(name, state))
    if unknown:
        raise CheckpointError(
            f"{where} has {_few(unknown)}, which is not understood: with its configuration the "
            "model would not use it"
        )
    for piece in table:
        expected = piece.shape_of_each(shapes[piece.ours])
        for name in piece.theirs:
            if tuple(state[name].shape) != expected:
                raise CheckpointError(
                    f"{where}: {name} has shape {tuple(state[name].shape)}, its configuration "
                    f"makes it {expected}"
                )
    # A copy of each: what is mapped from a file must not change with it.
    ours = {piece.ours: piece.join(state).to(torch.float32) for piece in table}
    for piece in table:
        if not bool(ours[piece.ours].isfinite().all()):
            raise CheckpointError(f"{where}: {_few(list(piece.theirs))} is not finite")
    return ours


def their_weights(weights: Mapping[str, Tensor], table: list[Piece]) -> dict[str, Tensor]:
    """AtmoRep's state dict from ours; what is shared is summed, as gradients are.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Our weights, or their gradients.
    table : list of Piece
        From `pieces`.
    """
    theirs: dict[str, Tensor] = {}
    for piece in table:
        for name, part in piece.split(weights[piece.ours]).items():
            theirs[name] = theirs[name] + part if name in theirs else part
    return theirs


def _linear(ours: str, theirs: str) -> list[Piece]:
    return [Piece(f"{ours}.{part}", (f"{theirs}.{part}",)) for part in ("weight", "bias")]


def _mlp(layers: int, ours: str, theirs: str) -> list[Piece]:
    """Linear layers at every third place; one layer is two in the original, too."""
    places = [3 * i for i in range(max(layers, 2))]
    return [piece for i in places for piece in _linear(f"{ours}.{i}", f"{theirs}.blocks.{i}")]


def _fused_encoder(
    settings: Settings, field: FieldSettings, ours: str, theirs: str
) -> Iterator[Piece]:
    yield Piece(f"{ours}.out.weight", (f"{theirs}.proj_out.weight",))
    yield Piece(f"{ours}.qkv.weight", (f"{theirs}.proj_heads.weight",))
    if field.coupled:
        yield Piece(f"{ours}.query.weight", (f"{theirs}.proj_heads_other.0.weight",))
    for c in range(len(field.coupled)):
        name = f"{theirs}.proj_heads_other.{c + 1}.weight"
        yield Piece(f"{ours}.key_value.{c}.weight", (name,))


def _per_head_encoder(
    settings: Settings, field: FieldSettings, ours: str, theirs: str
) -> Iterator[Piece]:
    heads, per_field = range(settings.encoder_num_heads), settings.coupling_num_heads_per_field
    yield Piece(f"{ours}.out.weight", (f"{theirs}.proj_out.weight",))
    yield Piece(f"{ours}.qkv.weight", _matrices(f"{theirs}.heads_self", heads, "qkv"))
    coupling = f"{theirs}.heads_coupling"
    if field.coupled:
        every = range(per_field * len(field.coupled))
        yield Piece(f"{ours}.query.weight", _matrices(coupling, every, "q"))
    for c in range(len(field.coupled)):
        heads = range(c * per_field, (c + 1) * per_field)
        yield Piece(f"{ours}.key_value.{c}.weight", _matrices(coupling, heads, "kv"))


def _fused_decoder(settings: Settings, ours: str, theirs: str) -> Iterator[Piece]:
    yield Piece(f"{ours}.out.weight", (f"{theirs}.proj_out.weight",))
    yield Piece(f"{ours}.qkv.weight", (f"{theirs}.proj_heads.weight",))
    yield Piece(f"{ours}.query.weight", (f"{theirs}.proj_heads_o_q.weight",))
    yield Piece(f"{ours}.key_value.0.weight", (f"{theirs}.proj_heads_o_kv.weight",))
    yield from _linear(f"{ours}.query_norm", f"{theirs}.ln_q")
    yield from _linear(f"{ours}.key_norm", f"{theirs}.ln_k")


def _per_head_decoder(settings: Settings, ours: str, theirs: str) -> Iterator[Piece]:
    cross = int(settings.decoder_num_heads * settings.decoder_cross_att_ratio)
    own, other = range(settings.decoder_num_heads - cross), range(cross)
    yield Piece(f"{ours}.out.weight", (f"{theirs}.proj_out.weight",))
    yield Piece(f"{ours}.qkv.weight", _matrices(f"{theirs}.heads", own, "qkv"))
    yield Piece(f"{ours}.query.weight", _matrices(f"{theirs}.heads_other", other, "q"))
    yield Piece(f"{ours}.key_value.0.weight", _matrices(f"{theirs}.heads_other", other, "kv"))


def _matrices(prefix: str, heads: range, kinds: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{head}.proj_{kind}s.weight" for head in heads for kind in kinds)


def _tail(settings: Settings, ours: str, theirs: str) -> Iterator[Piece]:
    def members(place: str) -> tuple[str, ...]:
        return tuple(f"{theirs}.{m}.{place}" for m in range(settings.net_tail_num_nets))

    yield Piece(f"{ours}.norm_weight", members("0.weight"), stacked=True)
    yield Piece(f"{ours}.norm_bias", members("0.bias"), stacked=True)
    for layer in range(settings.net_tail_num_layers + 1):
        yield Piece(f"{ours}.weights.{layer}", members(f"{1 + 2 * layer}.weight"), stacked=True)
        yield Piece(f"{ours}.biases.{layer}", members(f"{1 + 2 * layer}.bias"), stacked=True)


def _is_dead(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a weight has no effect: stored twice, not used, or without entries."""
    return (
        name.startswith(("embeds.", "embed_token_info.", "embeds_token_info."))
        or not state[name].numel()
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
