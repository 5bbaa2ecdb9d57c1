"""Local attention against loops over tokens, and what a network with it does."""

from __future__ import annotations

import pytest
import torch

from tests.model import networks
from xatmorep.model.attention import Attention
from xatmorep.model.locality import local_scores
from xatmorep.model.multiformer import Multiformer
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec

FINE = FieldSpec(
    name="a", units="1", token_shape=(1, 2, 2), levels=(250, 500, 850), level_type="pressure"
)
COARSE = FieldSpec(name="b", units="1", token_shape=(3, 2, 4), levels=(500,), level_type="pressure")
INPUTS = InputSpec(
    neighborhood=NeighborhoodSpec(shape=(3, 4, 8), time_step=6, grid_step=(1, 1)),
    fields=(FINE, COARSE),
)


def test_each_head_looks_at_its_neighbor_where_there_is_one() -> None:
    scores = local_scores(INPUTS, "a", "a", heads=9, strength=3.0).unflatten(1, (3, 3, 2, 4))
    scores = scores.unflatten(-1, (3, 3, 2, 4))
    steps = [
        (0, -1, 0, 0),
        (0, 1, 0, 0),
        (0, 0, -1, 0),
        (0, 0, 1, 0),
        (0, 0, 0, -1),
        (0, 0, 0, 1),
        (-1, 0, 0, 0),
        (1, 0, 0, 0),
    ]
    place = (1, 1, 1, 2)
    for head, step in enumerate(steps):
        own = scores[head][place]
        neighbor = tuple(p + s for p, s in zip(place, step, strict=True))
        if neighbor[2] == 2:  # no token further south: the nearest to it is the own one
            neighbor = place
            assert own[neighbor] == own.max() == -3
            continue
        assert own[neighbor] == own.max() == 0
        for at in torch.cartesian_prod(*map(torch.arange, (3, 3, 2, 4))).tolist():
            away = [p - q for p, q in zip(at, neighbor, strict=True)]
            assert own[tuple(at)] == -3 * sum(d * d for d in away)
    assert (scores[8] == 0).all()


@pytest.mark.parametrize(("name", "other"), [("a", "b"), ("b", "a")])
def test_fields_look_at_their_own_place_in_others_in_units_of_the_larger_token(
    name: str, other: str
) -> None:
    scores = local_scores(INPUTS, name, other, heads=2, strength=2.0)
    centers = {
        "a": [
            (level, t + 0.5, 2 * y + 1, 2 * x + 1)
            for level in (0, 1, 2)
            for t in range(3)
            for y in range(2)
            for x in range(4)
        ],
        "b": [(1, 1.5, 2 * y + 1, 4 * x + 2) for y in range(2) for x in range(2)],
    }
    for i, p in enumerate(centers[name]):
        for j, q in enumerate(centers[other]):
            away = [(a - b) / n for a, b, n in zip(p, q, (1, 3, 2, 4), strict=True)]
            assert scores[0, i, j].item() == pytest.approx(-2 * sum(d * d for d in away))
    assert (scores[1] == 0).all()


def test_axes_with_one_token_have_no_heads() -> None:
    scores = local_scores(INPUTS, "b", "b", heads=5, strength=1.0)
    assert scores.shape == (5, 4, 4)
    # North, south, west and east; the fifth is free.
    order = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    places = [(y, x) for y in range(2) for x in range(2)]
    for head, (dy, dx) in enumerate(order):
        for i, (y, x) in enumerate(places):
            expected = [-((v - y - dy) ** 2) - (u - x - dx) ** 2 for v, u in places]
            assert scores[head, i].tolist() == pytest.approx(expected)
    assert (scores[4] == 0).all()


def test_a_network_begins_with_heads_that_see_their_neighbor() -> None:
    config = networks.config(encoder={"heads": 2, "locality": 8.0})
    network = Multiformer(config, torch.Generator().manual_seed(0)).eval()
    # Tokens of the temperature lie 3 x 1 x 1 x 3; the first two heads look west and east, but
    # time has one token and so has latitude.
    name = networks.TEMPERATURE.name
    weights = network.attention(networks.inputs(config), {name: torch.tensor([4, 4])})
    own = weights[name, name][:, 0]
    assert (own[:, 0, 3] > 0.9).all()
    assert (own[:, 1, 5] > 0.9).all()
    assert not [key for key in network.state_dict() if "scores" in key]


def test_scores_are_added_before_the_softmax() -> None:
    torch.manual_seed(0)
    added = [torch.randn(2, 5, 5), torch.randn(3, 5, 4)]
    attention = Attention(
        8, heads=2, head_width=4, coupled_widths=[6], coupling_heads=3, scores=added
    )
    own, other = torch.randn(2, 5, 8), torch.randn(2, 4, 6)
    heads = []
    for (q, k, v), more in zip(attention.project(own, [other]), added, strict=True):
        heads.append(torch.softmax(q @ k.mT / 2 + more, dim=-1) @ v)
    expected = attention.out(torch.cat(heads, 1).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(own, [other]), expected)
    rows = torch.tensor([[4, 1], [0, 2]])
    output, weights = attention.explicit(own, [other], rows)
    torch.testing.assert_close(output, expected.take_along_dim(rows[..., None], 1))
    assert [tuple(w.shape) for w in weights] == [(2, 2, 2, 5), (2, 3, 2, 4)]
