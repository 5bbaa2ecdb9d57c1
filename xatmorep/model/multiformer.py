"""The network: one transformer for each field, all of them coupled.

`Multiformer.forward`, `encode` and `decode` show the whole way from tokens to ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xatmorep.errors import ConfigError
from xatmorep.model.config import ModelConfig
from xatmorep.model.decoder import decoder_layer, encoder_source
from xatmorep.model.embedding import Embedding
from xatmorep.model.encoder import TransformerLayer, encoder_layer, plain_norm
from xatmorep.model.inputs import NetworkInput
from xatmorep.model.subtokens import SubTokenLayer, SubTokenTransformer, random_middle
from xatmorep.model.tail import EnsembleTail

__all__ = ["Multiformer"]


class Multiformer(nn.Module):
    """Coupled transformers over the tokens of several fields (AtmoRep, arXiv 2308.13280).

    Parameters
    ----------
    config : ModelConfig
        What is read and how it is built.
    generator : torch.Generator, optional
        Draws the initial weights; torch's global one if not given.

    Attributes
    ----------
    activation_checkpointing : bool
        Recompute the activations of embeddings and of each layer in the backward pass instead of
        keeping them: less memory, same gradients. Off; set it at any time.

    Examples
    --------
    Two fields that read each other, of 3 x 2 x 4 tokens; the first sample's tokens are all hidden.

    >>> from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec
    >>> names = ("u", "v")
    >>> box = NeighborhoodSpec(shape=(3, 12, 24), time_step=6, grid_step=(1, 1))
    >>> fields = [FieldSpec(name=name, units="m s-1", token_shape=(1, 6, 6)) for name in names]
    >>> config = ModelConfig(
    ...     inputs=InputSpec(neighborhood=box, fields=fields),
    ...     networks={"u": {"width": 16, "coupled": ["v"]}, "v": {"width": 16, "coupled": ["u"]}},
    ...     encoder={"layers": 2, "heads": 4},
    ...     decoder={"layers": 1, "heads": 4},
    ...     tail={"members": 8},
    ... )
    >>> network = Multiformer(config)
    >>> blank = torch.zeros(2, 1, 3, 2, 4, dtype=torch.bool)
    >>> blank[0] = True
    >>> inputs = NetworkInput(
    ...     tokens={name: torch.randn(2, 1, 3, 2, 4, 36) for name in names},
    ...     info={name: torch.ones(2, 1, 3, 2, 4, 7) for name in names},
    ...     blank={name: blank for name in names},
    ... )
    >>> network(inputs)["u"].shape  # all tokens, members, grid points
    torch.Size([48, 8, 36])
    >>> network(inputs, select=inputs.blank)["u"].shape
    torch.Size([24, 8, 36])
    >>> [tuple(x.shape) for x in network.encode(inputs)["v"]]
    [(2, 24, 16), (2, 24, 16), (2, 24, 16)]
    >>> weights = network.attention(inputs, {"u": torch.tensor([0, 5])})
    >>> weights["u", "v"].shape  # one token of each sample: layers, heads, tokens of v
    torch.Size([2, 2, 1, 24])
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        # The casts say what the containers hold, which torch's types leave open.
        names = [entry.name for entry in config.inputs.entries]
        self.sub_tokens = SubTokenTransformer(config) if config.embedding.shared else None
        self.embeddings = cast(
            "Mapping[str, Embedding]",
            nn.ModuleDict({name: Embedding(config, name, self.sub_tokens) for name in names}),
        )
        self.encoders = _stacks(encoder_layer, config, names, config.encoder.layers)
        self.decoders = _stacks(decoder_layer, config, config.predicted, config.decoder.layers)
        self.tails = cast(
            "Mapping[str, EnsembleTail]",
            nn.ModuleDict({name: EnsembleTail.of(config, name) for name in config.predicted}),
        )
        self.reset_parameters(generator)

    def forward(
        self, inputs: NetworkInput, select: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predict the values of tokens.

        Parameters
        ----------
        inputs : NetworkInput
        select : mapping of str to Tensor, optional
            bool, (B, L, T, A, O): the tokens of each field to predict, in the order of boolean
            indexing. Fields that it lacks are not predicted. All tokens of all predicted fields if
            not given.

        Returns
        -------
        dict of str to Tensor
            (R, M, P) for each predicted field: R tokens, M members, P grid points.
        """
        decoded = self.decode(self.encode(inputs))
        predictions = {}
        for name, x in decoded.items():
            if select is None:
                predictions[name] = self.tails[name](x.flatten(0, 1))
            elif name in select:
                predictions[name] = self.tails[name](x[select[name].flatten(1)])
        return predictions

    def encode(self, inputs: NetworkInput) -> dict[str, list[Tensor]]:
        """Features of all tokens after the embedding (0) and each encoder layer (1 to n).

        Returns
        -------
        dict of str to list of Tensor
            (B, N, D) each; N = L * T * A * O tokens in (level, time, latitude, longitude) order.
        """
        layers = {
            name: [
                self._run(
                    embedding,
                    inputs.tokens[name],
                    inputs.info[name],
                    inputs.blank[name],
                    inputs.statics.get(name),
                )
            ]
            for name, embedding in self.embeddings.items()
        }
        for number in range(self.config.encoder.layers):
            # All fields read the others as they were before this layer, whatever their order.
            seen = self._seen(layers, number)
            for name, encoder in self.encoders.items():
                others = [seen[other] for other in self.config.networks[name].coupled]
                x = self._run(encoder[number], layers[name][number], seen[name], others)
                layers[name].append(x)
        return layers

    def decode(self, layers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
        """Features (B, N, D) of the predicted fields' tokens, from what `encode` returns."""
        decoded = {}
        for name, decoder in self.decoders.items():
            x = layers[name][-1]
            for number, layer in enumerate(decoder):
                source = layers[name][encoder_source(self.config, number)]
                x = self._run(layer, x, plain_norm(x), [plain_norm(source)])
            decoded[name] = x
        return decoded

    def attention(
        self, inputs: NetworkInput, query: Mapping[str, Tensor]
    ) -> dict[tuple[str, str], Tensor]:
        """Where a token looks: attention weights of the encoder.

        Parameters
        ----------
        inputs : NetworkInput
        query : mapping of str to Tensor
            int64, (B,): for each field asked about, one token of each batch entry by its flat
            index in (level, time, latitude, longitude) order.

        Returns
        -------
        dict of (str, str) to Tensor
            (B, layer, head, N) for each pair (field, field that it attends to), itself first;
            weights of one query, layer and head sum to one.
        """
        layers = self.encode(inputs)
        weights: dict[tuple[str, str], list[Tensor]] = {}
        for number in range(self.config.encoder.layers):
            seen = self._seen(layers, number)
            for name, rows in query.items():
                coupled = self.config.networks[name].coupled
                attention = self.encoders[name][number].attention
                _, parts = attention.explicit(
                    seen[name], [seen[other] for other in coupled], rows[:, None]
                )
                for other, part in zip((name, *coupled), parts, strict=True):
                    weights.setdefault((name, other), []).append(part[:, :, 0])
        return {pair: torch.stack(parts, dim=1) for pair, parts in weights.items()}

    def at_two_sizes(
        self, inputs: NetworkInput, most: int = 256
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Features of the values of tokens, and of smaller tokens in the middle of each.

        What `xatmorep.objectives.consistency` compares; see `Embedding.embed_values`. Tokens and
        one smaller size for all of them are drawn from torch's global generators, as dropout is.

        Parameters
        ----------
        inputs : NetworkInput
        most : int
            Largest number of tokens of a field that are taken, of those that aren't blank.

        Returns
        -------
        dict of str to (Tensor, Tensor)
            (R, D) both, for each field.

        Raises
        ------
        ConfigError
            If the embedding is linear: it takes tokens of one size only.
        """
        pairs = {}
        for name, embedding in self.embeddings.items():
            if embedding.sub_tokens is None:
                raise ConfigError("a linear embedding takes tokens of one size only")
            values = inputs.tokens[name][~inputs.blank[name]].unflatten(-1, embedding.token_shape)
            values = values[torch.randperm(len(values), device=values.device)[:most]]
            smaller = random_middle(values, embedding.sub_tokens.sub_token)
            large, small = (embedding.embed_values(x, crops=0.0) for x in (values, smaller))
            pairs[name] = large, small
        return pairs

    def _seen(self, layers: Mapping[str, list[Tensor]], number: int) -> dict[str, Tensor]:
        """What attention of encoder layer `number` (from 0) reads of each field."""
        norm = plain_norm if self.config.layer_norm else nn.Identity()
        return {name: norm(x[number]) for name, x in layers.items()}

    def _run(self, part: nn.Module, *arguments: Tensor | list[Tensor] | None) -> Tensor:
        """Apply an embedding or a layer."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            y: Tensor = checkpoint(part, *arguments, use_reentrant=False)
            return y
        return part(*arguments)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw initial weights, such that training learns from the first step.

        Values, token info, static fields and the vector for blank tokens are embedded with about
        the size of the positional encoding, all of order one. (Raw token info starts with weight
        zero: a year would drown everything else.) In a transformer layer all weights keep the
        variance of their input, except the last of each residual branch, which are smaller by
        the root of the number of branches, so that depth does not matter. Keys start equal to
        queries, see `Attention.tie_keys`, unless heads are local anyway. Tails start with small,
        differing predictions around zero, the mean of normalized data.
        """

        def normal(weight: Tensor) -> None:
            weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)

        for module in self.modules():
            if isinstance(module, nn.Linear):
                normal(module.weight)
                if module.bias is not None:
                    module.bias.zero_()
        stacks: list[Sequence[TransformerLayer | SubTokenLayer]] = [
            *(part.layers for part in self.modules() if isinstance(part, SubTokenTransformer)),
            *self.encoders.values(),
            *self.decoders.values(),
        ]
        for stack in stacks:
            for layer in stack:
                if not layer.attention.is_local:
                    layer.attention.tie_keys()
                for branch in (layer.attention.out, layer.feed_forward.last):
                    branch.weight.mul_((2 * len(stack)) ** -0.5)
        for embedding in self.embeddings.values():
            if embedding.raw:
                embedding.info.weight.zero_()
            if embedding.blank is not None:
                embedding.blank.normal_(generator=generator)
        for tail in self.tails.values():
            for weight in tail.weights:
                normal(weight)
            tail.weights[-1].mul_(0.1)

    @property
    def n_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops(self) -> int:
        """Floating point operations of one neighborhood's forward pass, all tokens predicted.

        Matrix products only, two operations for each multiply-add. A training step takes about
        three times as many, four with `activation_checkpointing`.
        """
        n = {name: len(embedding.positions) for name, embedding in self.embeddings.items()}
        total = 0
        for name, embedding in self.embeddings.items():
            coupled = [n[other] for other in self.config.networks[name].coupled]
            total += embedding.flops()
            total += sum(layer.flops(n[name], coupled) for layer in self.encoders[name])
            if name in self.decoders:
                total += sum(layer.flops(n[name], [n[name]]) for layer in self.decoders[name])
                total += self.tails[name].flops(n[name])
        return total


def _stacks(
    make: Callable[[ModelConfig, str], TransformerLayer],
    config: ModelConfig,
    names: Iterable[str],
    n_layers: int,
) -> Mapping[str, Sequence[TransformerLayer]]:
    stacks = {name: nn.ModuleList(make(config, name) for _ in range(n_layers)) for name in names}
    return cast("Mapping[str, Sequence[TransformerLayer]]", nn.ModuleDict(stacks))
