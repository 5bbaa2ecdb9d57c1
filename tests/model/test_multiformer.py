"""The network as a whole: what influences what, exactly and in every precision."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.model import networks
from xatmorep.errors import ConfigError
from xatmorep.model.config import FieldNetwork, ModelConfig
from xatmorep.model.inputs import NetworkInput
from xatmorep.model.multiformer import Multiformer
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec

WIND, TEMPERATURE, VORTICITY = (
    field.name for field in (networks.WIND, networks.TEMPERATURE, networks.VORTICITY)
)
CONFIGS = [
    networks.config(encoder={"qk_norm": "affine"}, decoder={"qk_norm": "plain"}),
    networks.config(networks.spec(statics=True), token_info_width=3, layer_norm=False),
    networks.atmorep(),
    networks.config(embedding=networks.PARTS),
    networks.config(networks.spec(statics=True), embedding={**networks.PARTS, "shared": True}),
    networks.config(encoder={"coupling_heads": 2, "qk_norm": "affine", "locality": 3.0}),
]


SMALLER = [(t, a, o) for t in (1, 2) for a in (2, 4) for o in (1, 2) if (t, a, o) != (2, 4, 2)]
"""Sizes of tokens of the temperature that are smaller and that `networks.PARTS` divide."""


def make(config: ModelConfig, seed: int = 0) -> tuple[Multiformer, NetworkInput]:
    network = Multiformer(config, torch.Generator().manual_seed(seed)).eval()
    return network, networks.inputs(config, seed=seed)


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol)


@pytest.mark.parametrize("config", CONFIGS)
def test_shapes(config: ModelConfig) -> None:
    network, inputs = make(config)
    layers = network.encode(inputs)
    assert {name: [tuple(x.shape) for x in xs] for name, xs in layers.items()} == {
        WIND: [(2, 8, 8)] * 3,
        TEMPERATURE: [(2, 9, 12)] * 3,
        VORTICITY: [(2, 4, 8)] * 3,
    }
    decoded = {name: tuple(x.shape) for name, x in network.decode(layers).items()}
    assert decoded == {WIND: (2, 8, 8), TEMPERATURE: (2, 9, 12)}
    predicted = {name: tuple(x.shape) for name, x in network(inputs).items()}
    assert predicted == {WIND: (16, 3, 6), TEMPERATURE: (18, 3, 16)}
    assert list(predicted) == list(config.predicted)


def test_select_picks_rows_in_order() -> None:
    network, inputs = make(CONFIGS[0])
    everything = network(inputs)
    selected = network(inputs, inputs.blank)
    for name, rows in selected.items():
        torch.testing.assert_close(rows, everything[name][inputs.blank[name].flatten()])
    nothing = network(inputs, {TEMPERATURE: torch.zeros_like(inputs.blank[TEMPERATURE])})
    assert {name: tuple(x.shape) for name, x in nothing.items()} == {TEMPERATURE: (0, 3, 16)}


@pytest.mark.parametrize("config", CONFIGS)
def test_order_of_fields_does_not_matter(config: ModelConfig) -> None:
    network, inputs = make(config)
    fields = config.inputs.fields
    turned = config.model_copy(
        update={
            "inputs": config.inputs.model_copy(update={"fields": (fields[2], *fields[:2])}),
            "networks": dict(reversed(config.networks.items())),
        }
    )
    other = Multiformer(turned).eval()
    other.load_state_dict(network.state_dict())
    swapped = NetworkInput(
        tokens=dict(reversed(inputs.tokens.items())),
        info=dict(reversed(inputs.info.items())),
        blank=dict(reversed(inputs.blank.items())),
        statics=dict(reversed(inputs.statics.items())),
    )
    assert_close(other(swapped), network(inputs), atol=0)


def test_all_fields_read_the_others_as_they_were_before_the_layer() -> None:
    network, inputs = make(networks.config(encoder={"layers": 1}, decoder={"layers": 1}))
    layers = network.encode(inputs)
    start = {
        name: torch.nn.functional.layer_norm(x[0], x[0].shape[-1:]) for name, x in layers.items()
    }
    for name, coupling in networks.COUPLED.items():
        others = [start[other] for other in coupling.coupled]
        expected = network.encoders[name][0](layers[name][0], start[name], others)
        assert torch.equal(layers[name][1], expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_withheld_values_have_no_influence_on_anything(config: ModelConfig) -> None:
    network, inputs = make(config)
    before, features = network(inputs), network.encode(inputs)
    for name, tokens in inputs.tokens.items():
        tokens[inputs.blank[name]] = math.nan
    assert_close(network(inputs), before, atol=0)
    for name, xs in network.encode(inputs).items():
        assert all(torch.equal(a, b) for a, b in zip(xs, features[name], strict=True))


@given(seed=st.integers(0, 1000))
def test_influence_follows_the_couplings(seed: int) -> None:
    # wind reads temperature and vorticity, temperature reads wind, vorticity reads temperature
    network, inputs = make(networks.config(encoder={"layers": 1}, decoder={"layers": 1}), seed)
    inputs.blank[VORTICITY][:] = False
    before = network.encode(inputs)
    inputs.tokens[VORTICITY][:] += 1
    after = network.encode(inputs)
    changed = {name for name in before if not torch.equal(before[name][1], after[name][1])}
    assert changed == {WIND, VORTICITY}


def test_every_token_sees_every_token_of_its_field() -> None:
    network, inputs = make(networks.config(encoder={"layers": 1}, decoder={"layers": 1}))
    tokens = inputs.tokens[TEMPERATURE].requires_grad_()
    inputs.blank[TEMPERATURE][:] = False
    network.encode(inputs)[TEMPERATURE][1][:, 0].square().sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.abs().sum(-1) > 0).all()


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network, inputs = make(CONFIGS[0])
    both = network(inputs)
    second = NetworkInput(
        tokens={name: x[1:] for name, x in inputs.tokens.items()},
        info={name: x[1:] for name, x in inputs.info.items()},
        blank={name: x[1:] for name, x in inputs.blank.items()},
    )
    assert_close(network(second), {name: x[len(x) // 2 :] for name, x in both.items()})


@pytest.mark.parametrize("config", CONFIGS)
def test_attention_rows_sum_to_one_and_rebuild_the_features(config: ModelConfig) -> None:
    network, inputs = make(config)
    query = {WIND: torch.tensor([3, 0]), TEMPERATURE: torch.tensor([8, 2])}
    weights = network.attention(inputs, query)
    heads = config.encoder.coupling_heads
    assert {pair: tuple(w.shape) for pair, w in weights.items()} == {
        (WIND, WIND): (2, 2, 2, 8),
        (WIND, TEMPERATURE): (2, 2, heads, 9),
        (WIND, VORTICITY): (2, 2, heads, 4),
        (TEMPERATURE, TEMPERATURE): (2, 2, 2, 9),
        (TEMPERATURE, WIND): (2, 2, heads, 8),
    }
    for w in weights.values():
        torch.testing.assert_close(w.sum(-1), torch.ones(w.shape[:-1]), rtol=0, atol=1e-6)
    layers = network.encode(inputs)
    norm = (
        (lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]))
        if config.layer_norm
        else (lambda x: x)
    )
    for name, rows in query.items():
        for number, layer in enumerate(network.encoders[name]):
            seen = {other: norm(x[number]) for other, x in layers.items()}
            others = config.networks[name].coupled
            parts = layer.attention.project(seen[name], [seen[other] for other in others])
            concatenated = torch.cat(
                [
                    (weights[name, other][:, number][:, :, None] @ value)[:, :, 0].flatten(1)
                    for other, (_, _, value) in zip((name, *others), parts, strict=True)
                ],
                dim=1,
            )
            x = layers[name][number][torch.arange(2), rows] + layer.attention.out(concatenated)
            x = x + layer.feed_forward(norm(x))
            expected = layers[name][number + 1][torch.arange(2), rows]
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)


def test_state_dict_round_trip_and_draws_by_generator() -> None:
    network, inputs = make(CONFIGS[2])
    same, _ = make(CONFIGS[2])
    assert_close(same(inputs), network(inputs), atol=0)
    other, _ = make(CONFIGS[2], seed=1)
    assert (other(inputs)[WIND] - network(inputs)[WIND]).abs().max() > 1e-3
    other.load_state_dict(network.state_dict())
    assert_close(other(inputs), network(inputs), atol=0)
    assert not [key for key in network.state_dict() if "positions" in key]


def test_built_without_memory_and_filled_by_assignment() -> None:
    network, inputs = make(CONFIGS[0])
    with torch.device("meta"):
        empty = Multiformer(CONFIGS[0]).eval()
    empty.load_state_dict(network.state_dict(), assign=True)
    assert_close(empty(inputs), network(inputs), atol=0)


@pytest.mark.parametrize("embedding", [{}, networks.PARTS])
def test_checkpointing_gives_equal_gradients_with_dropout(embedding: dict[str, Any]) -> None:
    network, inputs = make(networks.config(dropout=0.3, embedding=embedding))
    network.train()
    gradients = []
    for checkpointing in (False, True):
        network.activation_checkpointing = checkpointing
        network.zero_grad()
        torch.manual_seed(0)
        sum(x.square().sum() for x in network(inputs).values()).backward()  # type: ignore[union-attr]
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_only_the_last_layer_of_an_unpredicted_field_gets_no_gradient() -> None:
    network, inputs = make(CONFIGS[1])
    sum(x.square().sum() for x in network(inputs).values()).backward()  # type: ignore[union-attr]
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == {
        name for name, _ in network.named_parameters() if name.startswith(f"encoders.{VORTICITY}.1")
    }


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients(config: ModelConfig) -> None:
    network, inputs = make(config)
    network, inputs = network.double(), inputs.to(dtype=torch.float64)
    tokens = [x.requires_grad_() for x in inputs.tokens.values()]
    weights = [
        network.embeddings[WIND].values.weight,
        network.encoders[WIND][0].attention.query.weight,
        network.decoders[WIND][1].attention.key_value[0].weight,
        network.tails[WIND].norm_weight,
    ]

    def predict(*_: Tensor) -> Tensor:
        return network(inputs, {WIND: inputs.blank[WIND]})[WIND].sum((0, 1))

    assert torch.autograd.gradcheck(predict, (*tokens, *weights), fast_mode=True)


@pytest.mark.parametrize("config", CONFIGS)
def test_precisions_agree(config: ModelConfig) -> None:
    network, inputs = make(config)
    single = network(inputs)
    double = network.double()(inputs.to(dtype=torch.float64))
    assert_close({name: x.float() for name, x in double.items()}, single)
    network.float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(inputs)
    assert_close(mixed, single, atol=0.05)
    low = network.bfloat16()(inputs.to(dtype=torch.bfloat16))
    assert {x.dtype for x in low.values()} == {torch.float32}
    assert_close(low, single, atol=0.05)


def test_dropout_acts_in_training_only() -> None:
    network, inputs = make(networks.config(dropout=0.5))
    assert_close(network(inputs), network(inputs), atol=0)
    network.train()
    assert not torch.equal(network(inputs)[WIND], network(inputs)[WIND])


def test_fields_share_the_network_for_parts_of_tokens_or_have_their_own() -> None:
    own, shared = Multiformer(CONFIGS[3]), Multiformer(CONFIGS[4])
    assert own.sub_tokens is None
    assert len({embedding.sub_tokens for embedding in own.embeddings.values()}) == 3
    assert {embedding.sub_tokens for embedding in shared.embeddings.values()} == {shared.sub_tokens}
    assert not [key for key in shared.state_dict() if key.startswith("embeddings") and "sub" in key]
    twice = copy.deepcopy(shared)
    assert twice.embeddings[WIND].sub_tokens is twice.sub_tokens is not shared.sub_tokens
    twice.double()
    assert twice.embeddings[WIND].embed_values(torch.ones(1, 1, 2, 3).double()).shape == (1, 8)


def test_tokens_at_two_sizes() -> None:
    network, inputs = make(networks.config(embedding={**networks.PARTS, "crops": 1.0}))
    inputs.blank[WIND][:] = True
    network.train()
    torch.manual_seed(0)
    pairs = network.at_two_sizes(inputs, most=7)
    torch.manual_seed(0)
    again = network.at_two_sizes(inputs, most=7)
    n = int((~inputs.blank[VORTICITY]).sum())
    rows = {name: (tuple(a.shape), tuple(b.shape)) for name, (a, b) in pairs.items()}
    assert rows == {
        WIND: ((0, 8), (0, 8)),
        TEMPERATURE: ((7, 12), (7, 12)),
        VORTICITY: ((n, 8), (n, 8)),
    }
    assert all(
        torch.equal(x, y) for name in pairs for x, y in zip(pairs[name], again[name], strict=True)
    )
    # Tokens are those of the input that aren't blank, each at most once.
    values = inputs.tokens[TEMPERATURE][~inputs.blank[TEMPERATURE]].reshape(-1, 2, 4, 2)
    embed = network.eval().embeddings[TEMPERATURE].embed_values
    large, small = pairs[TEMPERATURE]
    distance = torch.cdist(large, embed(values))
    assert (distance.min(1).values < 1e-5).all()
    found = distance.argmin(1)
    assert len(found.unique()) == 7
    # The others are the middle of the same ones, of one size that the sub-tokens (1, 2, 1) divide.
    starts = {(t, a, o): ((2 - t) // 2, (4 - a) // 2, (2 - o) // 2) for t, a, o in SMALLER}
    middles = [
        values[found, i : i + t, j : j + a, k : k + o] for (t, a, o), (i, j, k) in starts.items()
    ]
    fits = [torch.allclose(embed(middle), small, atol=1e-5) for middle in middles]
    assert sum(fits) == 1
    with pytest.raises(ConfigError, match="a linear embedding takes tokens of one size"):
        make(CONFIGS[0])[0].at_two_sizes(inputs)


def test_one_token() -> None:
    inputs_spec = InputSpec(
        neighborhood=NeighborhoodSpec(shape=(1, 2, 2), time_step=6, grid_step=(1, 1)),
        fields=(FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 2)),),
    )
    config = networks.config(inputs_spec, {"2m_temperature": FieldNetwork(width=8)})
    network, inputs = make(config)
    assert network(inputs)["2m_temperature"].shape == (2, 3, 4)
    weights = network.attention(inputs, {"2m_temperature": torch.zeros(2, dtype=torch.int64)})
    assert (weights["2m_temperature", "2m_temperature"] == 1).all()


def test_start_is_near_the_mean_and_features_keep_their_size() -> None:
    network, inputs = make(networks.config(encoder={"layers": 8}, decoder={"layers": 4}))
    for name, x in network(inputs).items():
        assert 0 < x.std() < 0.3, name
    for xs in network.encode(inputs).values():
        assert xs[0].std() < xs[-1].std() < 3 * xs[0].std()


@pytest.mark.parametrize("config", CONFIGS)
def test_counts(config: ModelConfig) -> None:
    network, _ = make(config)
    inputs = networks.inputs(config, batch=1)
    assert network.n_parameters == sum(x.numel() for x in network.state_dict().values())
    # The counter knows no fused kernel of the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(inputs)
    assert network.flops() == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_learns_from_the_first_steps() -> None:
    network, inputs = make(CONFIGS[0])
    network.train()
    target = {
        name: x.flatten(0, 4)[inputs.blank[name].flatten()] for name, x in inputs.tokens.items()
    }
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        predictions = network(inputs, inputs.blank)
        loss = torch.stack(
            [(x - target[name][:, None]).square().mean() for name, x in predictions.items()]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[5] < 0.95 * losses[0]
    assert losses[-1] < 0.3 * losses[0]
