"""Places of tokens and their encodings, against loops and by their properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.model import networks
from xatmorep.model.positions import (
    atmorep_positions,
    harmonic_positions,
    token_places,
    vertical_place,
)
from xatmorep.tokens.spec import FieldSpec, InputSpec, NeighborhoodSpec

NAME = networks.TEMPERATURE.name


def test_places_are_centers_in_the_order_of_tokens() -> None:
    inputs = InputSpec(
        neighborhood=NeighborhoodSpec(shape=(4, 2, 6), time_step=6, grid_step=(1, 1)),
        fields=(
            FieldSpec(
                name="a",
                units="1",
                token_shape=(2, 2, 3),
                levels=(850, 250),
                level_type="pressure",
            ),
            FieldSpec(
                name="b", units="1", token_shape=(4, 1, 6), levels=(500,), level_type="pressure"
            ),
        ),
    )
    assert token_places(inputs, "a").tolist() == [
        [level, time, 1.0, longitude]
        for level in (2.0, 0.0)
        for time in (1.0, 3.0)
        for longitude in (1.5, 4.5)
    ]
    assert token_places(inputs, "b").tolist() == [[1.0, 2.0, 0.5, 3.0], [1.0, 2.0, 1.5, 3.0]]


def test_levels_rise_from_the_top_to_the_surface() -> None:
    pressure = [vertical_place(p, "pressure") for p in (1.0, 50.0, 500.0, 850.0, 1000.0)]
    assert pressure == sorted(pressure)
    assert pressure[0] > 0
    assert pressure[-1] == 1 == vertical_place(0.0, "surface") == vertical_place(1.0, "sigma")
    assert vertical_place(96.0, "hybrid") < vertical_place(137.0, "hybrid") == 1


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 30, 64])
def test_harmonic_positions_fill_any_width(width: int) -> None:
    encoding = harmonic_positions(networks.spec(), NAME, width)
    assert encoding.shape == (3 * 3, width)
    assert encoding.dtype == torch.float32
    pairs = encoding[:, : width // 2 * 2].unflatten(1, (-1, 2))
    torch.testing.assert_close(pairs.square().sum(-1), torch.ones(9, width // 2))


def test_narrower_fields_have_the_first_entries_of_wider_ones() -> None:
    wide = harmonic_positions(networks.spec(), NAME, 64)
    assert torch.equal(harmonic_positions(networks.spec(), NAME, 30), wide[:, :30])


def test_nearer_places_are_more_alike() -> None:
    inputs = InputSpec(
        neighborhood=NeighborhoodSpec(shape=(4, 6, 12), time_step=6, grid_step=(1, 1)),
        fields=(FieldSpec(name="a", units="1", token_shape=(1, 1, 1)),),
    )
    encoding = harmonic_positions(inputs, "a", 96).unflatten(0, (4, 6, 12))
    center = encoding[2, 3, 6]
    for along in (encoding[2, 3, 6:], encoding[2, 3:, 6], encoding[2:, 3, 6]):
        likeness = along @ center
        assert likeness[0] == likeness.max()
        assert likeness[0] > likeness[1] + 1
        assert (likeness[2:] < likeness[1]).all()


def test_axes_without_extent_take_no_room() -> None:
    inputs = InputSpec(
        neighborhood=NeighborhoodSpec(shape=(1, 1, 12), time_step=6, grid_step=(1, 1)),
        fields=(FieldSpec(name="a", units="1", token_shape=(1, 1, 1)),),
    )
    assert (harmonic_positions(inputs, "a", 64).std(0) > 0).all()


def test_every_place_differs_from_every_other() -> None:
    for field in networks.spec().fields:
        encoding = harmonic_positions(networks.spec(), field.name, 64)
        distance = torch.cdist(encoding, encoding) + 9 * torch.eye(len(encoding))
        assert distance.min() > 0.5


def test_same_place_is_encoded_alike_in_fields_of_other_token_shapes() -> None:
    inputs = InputSpec(
        neighborhood=NeighborhoodSpec(shape=(3, 9, 9), time_step=6, grid_step=(1, 1)),
        fields=(
            FieldSpec(name="a", units="1", token_shape=(1, 3, 3)),
            FieldSpec(name="b", units="1", token_shape=(3, 9, 9)),
            FieldSpec(
                name="c", units="1", token_shape=(1, 9, 1), levels=(1000,), level_type="pressure"
            ),
        ),
    )
    center = {"a": 1 * 9 + 1 * 3 + 1, "b": 0, "c": 1 * 9 + 4}
    encoded = [harmonic_positions(inputs, name, 24)[n] for name, n in center.items()]
    torch.testing.assert_close(encoded[0], encoded[1])
    torch.testing.assert_close(encoded[0], encoded[2])


def test_atmorep_positions_equal_loops() -> None:
    grid, n_levels, width = (2, 3, 2), 2, 10
    encoding = atmorep_positions(n_levels, grid, width)
    t, a, o = grid
    for n in range(n_levels * t * a * o):
        v, tau, s = n // (t * a * o), n % (t * a * o) // (a * o), n % (a * o)
        y, x = s // a, s % o
        for k in range(width // 2):
            w = 2 * math.pi * 2 * k / width
            expected = (
                0.5 * math.sin(8 * y * w) + math.sin(tau * w),
                0.5 * math.cos(8 * x * w) + math.cos(v * w),
            )
            assert encoding[n, 2 * k : 2 * k + 2].tolist() == pytest.approx(expected, abs=2e-6)


def around(**context: Any) -> InputSpec:
    return InputSpec.model_validate(
        {
            "neighborhood": {"shape": (4, 8, 12), "time_step": 6, "grid_step": (1, 1)},
            "fields": [{"name": "u", "units": "m s-1", "token_shape": (1, 4, 4)}],
            "contexts": [{"name": "c", "field": "u"} | context],
        }
    )


def test_a_context_goes_on_beyond_the_neighborhood_in_the_same_encoding() -> None:
    """Tokens of the context have the size of those of the field here, and lie on them."""
    inputs = around(coarsen=(1, 2, 2), shape=(9, 8, 10), token_shape=(1, 2, 2))
    fine, coarse = (harmonic_positions(inputs, name, 24) for name in ("u", "c"))
    coarse = coarse.unflatten(0, (9, 4, 5))
    inside = coarse[5:, 1:3, 1:4].flatten(0, 2)
    torch.testing.assert_close(inside, fine, atol=1e-6, rtol=0)
    places = token_places(inputs, "c").unflatten(0, (9, 4, 5))
    torch.testing.assert_close(places[5:, 1:3, 1:4].flatten(0, 2), token_places(inputs, "u"))
    assert places[0, 0, 0].tolist() == [0, -4.5, -2, -2]
    assert places[-1, -1, -1].tolist() == [0, 3.5, 10, 14]


def test_every_place_of_a_long_context_differs_from_every_other() -> None:
    """The past is 16 times as long as the neighborhood, far beyond a wave of the shortest."""
    inputs = around(coarsen=(1, 1, 1), shape=(64, 8, 12), token_shape=(1, 4, 4))
    x = harmonic_positions(inputs, "c", 64)
    distance = torch.cdist(x, x) + torch.eye(len(x)) * 10
    assert distance.min() > 0.1
