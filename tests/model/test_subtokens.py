"""The embedding of parts of a token: against loops, for any size, and from random parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.model import networks
from tests.tasks import small
from xatmorep.errors import ConfigError
from xatmorep.model import subtokens
from xatmorep.model.checkpoint import Model
from xatmorep.model.config import ModelConfig
from xatmorep.model.multiformer import Multiformer
from xatmorep.model.subtokens import SubTokenTransformer, cut, places, random_crops, random_middle
from xatmorep.testing import assert_labelled_equal

STEPS = (6.0, 1.0, 2.0)
SUB = (1, 2, 1)


def make(*, dropout: float = 0.0, crops: float = 0.5) -> SubTokenTransformer:
    embedding = {"kind": "transformer", "sub_token": SUB, "width": 8, "heads": 2, "crops": crops}
    torch.manual_seed(0)
    network = SubTokenTransformer(networks.config(embedding=embedding, dropout=dropout))
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return network.double()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def twin(network: SubTokenTransformer, token: Tensor, seen: np.ndarray) -> Tensor:
    """Features of one token (t, a, o), of which sub-tokens are seen (T, A, O), in plain loops."""
    grid = seen.shape
    visible = [place for place in np.ndindex(*grid) if seen[place]]
    xs = []
    for place in visible:
        corner = [i * size for i, size in zip(place, SUB, strict=True)]
        block = token[tuple(slice(c, c + size) for c, size in zip(corner, SUB, strict=True))]
        waves = []
        for axis in range(3):
            center = corner[axis] + (SUB[axis] - 1) / 2
            offset = (center - (token.shape[axis] - 1) / 2) * STEPS[axis]
            shortest, longest = network.waves[axis]
            lengths = [shortest * (longest / shortest) ** (k / 3) for k in range(4)]
            waves += [math.sin(2 * math.pi * offset / length) for length in lengths]
            waves += [math.cos(2 * math.pi * offset / length) for length in lengths]
        wave = torch.tensor(waves, dtype=torch.float64)
        mapped = network.values.weight @ block.reshape(-1) + network.values.bias
        xs.append(mapped * (network.factor.weight @ wave) + network.summand.weight @ wave)
    for layer in network.layers:
        normed = [norm(x) for x in xs]
        query, key, value = (
            [layer.attention.qkv.weight.reshape(2, 3, 4, 8)[:, k] @ x for x in normed]
            for k in range(3)
        )
        after = []
        for n, x in enumerate(xs):
            heads = []
            for h in range(2):
                scores = torch.stack([query[n][h] @ k[h] / 2 for k in key])
                heads.append(sum(w * v[h] for w, v in zip(scores.softmax(0), value, strict=True)))
            x = x + layer.attention.out.weight @ torch.cat(heads)
            first, last = layer.feed_forward[0], layer.feed_forward[3]
            hidden = nn.functional.gelu(first.weight @ norm(x) + first.bias)
            after.append(x + last.weight @ hidden + last.bias)
        xs = after
    return norm(torch.stack(xs).mean(0))


def norm(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()


@pytest.mark.parametrize("shape", [(1, 2, 1), (2, 4, 3), (3, 2, 4)])
def test_equals_loops_for_tokens_of_any_shape(shape: tuple[int, int, int]) -> None:
    network, values = make().eval(), tokens(3, *shape)
    with torch.no_grad():
        found = network(values, STEPS)
        expected = [twin(network, token, np.ones(network.grid(shape), bool)) for token in values]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_equals_loops_over_the_parts_that_are_seen() -> None:
    network, values, grid = make(crops=0.8).train(), tokens(12, 2, 4, 3), (2, 2, 3)
    torch.manual_seed(3)
    seen = random_crops(12, grid, 0.8)
    torch.manual_seed(3)
    with torch.no_grad():
        found = network(values, STEPS)
        pairs = zip(values, seen.reshape(12, *grid).numpy(), strict=True)
        expected = [twin(network, token, part) for token, part in pairs]
    assert len(seen.sum(1).unique()) > 2
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_a_part_around_the_center_is_seen_as_a_token_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, values = make(), tokens(4, 3, 8, 3)
    part = torch.zeros(3, 4, 3, dtype=torch.bool)
    part[1, 1:3, 1] = True
    monkeypatch.setattr(
        subtokens, "random_crops", lambda *_, **__: part.reshape(1, -1).expand(4, -1)
    )
    torch.testing.assert_close(
        network(values, STEPS, crops=1.0), network(values[:, 1:2, 2:6, 1:2], STEPS, crops=0.0)
    )


def test_what_is_outside_of_the_part_has_no_influence() -> None:
    network, values = make(crops=1.0), tokens(20, 2, 4, 3).requires_grad_()
    torch.manual_seed(0)
    seen = random_crops(20, (2, 2, 3), 1.0)
    torch.manual_seed(0)
    network(values, STEPS).square().sum().backward()
    assert values.grad is not None
    touched = (cut(values.grad, SUB) != 0).any(-1)
    assert torch.equal(touched, seen)


def test_each_token_by_itself_and_in_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    network, values = make().eval(), tokens(2, 3, 2, 2, 3)
    together = network(values, STEPS)
    assert together.shape == (2, 3, 8)
    torch.testing.assert_close(network(values[1, 2], STEPS), together[1, 2])
    assert network(values[:, :0], STEPS).shape == (2, 0, 8)
    monkeypatch.setattr(subtokens, "MOST_SEQUENCES", 4)
    torch.testing.assert_close(network(values, STEPS), together)


def test_distance_counts_not_the_number_of_points() -> None:
    network, values = make().eval(), tokens(1, 2, 2, 3)
    near, far = network(values, STEPS), network(values, (6.0, 1.0, 3.0))
    assert (near - far).abs().max() > 0.01


@pytest.mark.parametrize("shape", [(2, 3, 3), (0, 2, 3)])
def test_tokens_that_can_not_be_cut_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"can't be cut into sub-tokens of \(1, 2, 1\)"):
        make()(tokens(1, *shape), STEPS)


@pytest.mark.parametrize("crops", [0.0, 1.0])
def test_gradients(crops: float) -> None:
    network, values = make(crops=crops).train(), tokens(4, 2, 2, 2).requires_grad_()

    def features(*_: Tensor) -> Tensor:
        torch.manual_seed(0)
        return network(values, STEPS)

    inputs = (values, *network.parameters())
    assert torch.autograd.gradcheck(features, inputs, fast_mode=True)


def test_parts_and_dropout_are_for_training_only_and_repeat_with_the_seed() -> None:
    for network in (make(crops=0.5), make(crops=0.0, dropout=0.5)):
        values = tokens(8, 2, 4, 3)
        network.eval()
        still = network(values, STEPS)
        assert torch.equal(network(values, STEPS), still)
        network.train()
        torch.manual_seed(5)
        first, second = network(values, STEPS), network(values, STEPS)
        assert not torch.equal(first, second)
        torch.manual_seed(5)
        assert torch.equal(network(values, STEPS), first)
    assert torch.equal(
        make(crops=0.5).train()(values, STEPS, crops=0.0), make().eval()(values, STEPS)
    )


@pytest.mark.parametrize("sub_token", [(1, 1, 1), (2, 1, 3), (2, 4, 6)])
def test_cutting_equals_loops(sub_token: tuple[int, int, int]) -> None:
    values = tokens(2, 3, 2, 4, 6)
    found = cut(values, sub_token).reshape(2, 3, -1, math.prod(sub_token))
    t, a, o = sub_token
    corners = [(i, j, k) for i in range(0, 2, t) for j in range(0, 4, a) for k in range(0, 6, o)]
    assert found.shape[2] == len(corners)
    for n, (i, j, k) in enumerate(corners):
        block = values[..., i : i + t, j : j + a, k : k + o]
        assert torch.equal(found[:, :, n], block.flatten(2))


def test_places_of_a_part_are_those_of_the_token_around_it() -> None:
    sizes, waves = (6.0, 2.0, 3.0), [(24.0, 96.0), (8.0, 64.0), (12.0, 90.0)]
    large = places((3, 4, 6), sizes, waves, torch.float64).reshape(3, 4, 6, -1)
    small = places((1, 2, 4), sizes, waves, torch.float64).reshape(1, 2, 4, -1)
    torch.testing.assert_close(large[1:2, 1:3, 1:5], small)
    distance = torch.cdist(large.flatten(0, 2), large.flatten(0, 2)) + 9 * torch.eye(72)
    assert distance.min() > 0.3


@given(
    grid=st.tuples(*[st.integers(1, 5)] * 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**30),
)
def test_crops_are_boxes(grid: tuple[int, int, int], share: float, seed: int) -> None:
    crops = random_crops(20, grid, share, generator=torch.Generator().manual_seed(seed))
    again = random_crops(20, grid, share, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(crops, again)
    for crop in crops.reshape(20, *grid):
        inside = crop.nonzero()
        assert len(inside) > 0
        low, high = inside.min(0).values, inside.max(0).values
        assert len(inside) == math.prod((high - low + 1).tolist())


def test_lengths_and_places_of_crops_are_uniform() -> None:
    n = 40_000
    crops = random_crops(n, (1, 1, 4), 1.0, generator=torch.Generator().manual_seed(0))
    lengths = crops.sum(1).bincount(minlength=5) / n
    torch.testing.assert_close(lengths[1:], torch.full((4,), 0.25), rtol=0, atol=0.01)
    starts = crops[crops.sum(1) == 2].int().argmax(1).bincount() / (crops.sum(1) == 2).sum()
    torch.testing.assert_close(starts, torch.full((3,), 1 / 3), rtol=0, atol=0.02)
    some = random_crops(n, (1, 1, 4), 0.4, generator=torch.Generator().manual_seed(0))
    assert some.all(1).float().mean() == pytest.approx(0.6 + 0.4 / 4, abs=0.01)
    assert random_crops(5, (1, 2, 3), 0.0).all()


def test_the_middle_of_tokens_in_all_smaller_sizes() -> None:
    values = torch.arange(3 * 8 * 8).reshape(3, 8, 8).expand(2, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    found = [random_middle(values, (1, 4, 2), generator=generator) for _ in range(300)]
    sizes = [tuple(x.shape[1:]) for x in found]
    expected = {(t, a, o) for t in (1, 2, 3) for a in (4, 8) for o in (2, 4, 6, 8)} - {(3, 8, 8)}
    assert set(sizes) == expected
    assert max(map(sizes.count, expected)) < 4 * min(map(sizes.count, expected))
    for x, (t, a, o) in zip(found, sizes, strict=True):
        i, j, k = (3 - t) // 2, (8 - a) // 2, (8 - o) // 2
        assert torch.equal(x, values[:, i : i + t, j : j + a, k : k + o])
    assert torch.equal(random_middle(values, (3, 8, 8)), values)
    torch.manual_seed(4)
    first = random_middle(values, (1, 4, 2))
    torch.manual_seed(4)
    assert torch.equal(random_middle(values, (1, 4, 2)), first)


def test_embedding_and_attention_of_a_dataset() -> None:
    whole = small.model()
    parts = {"kind": "transformer", "sub_token": (1, 1, 1), "width": 8, "heads": 2, "shared": True}
    config = ModelConfig.model_validate(whole.config.model_dump() | {"embedding": parts})
    network = Multiformer(config, torch.Generator().manual_seed(0)).eval()
    model = Model(config, network, whole.normalizer, whole.card)
    ds = small.dataset()
    for layer in (0, -1):
        embedding = ds.atmorep.embed(model=model, layer=layer)
        lazy = ds.chunk(time=1).atmorep.embed(model=model, layer=layer)
        assert_labelled_equal(lazy, embedding, atol=1e-5)
        assert all(np.isfinite(embedding[name]).all() for name in config.predicted)
    place = {"time": "2020-12-31T12", "latitude": 42, "longitude": 50, "level": 500}
    own = ds.atmorep.attention(place, model=model)["temperature_to_temperature"]
    over = [dim for dim in own.dims if str(dim).startswith(("time", "lev", "lat", "lon"))]
    np.testing.assert_allclose(own.sum(over), 1, atol=1e-5)
