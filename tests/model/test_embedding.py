"""Embedding against explicit loops, and what is withheld."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.model import networks
from xatmorep.errors import ConfigError
from xatmorep.model.config import FieldNetwork, ModelConfig
from xatmorep.model.embedding import (
    Embedding,
    raw_info,
    scaled_info,
)
from xatmorep.model.inputs import NetworkInput

NAME = networks.TEMPERATURE.name

CONFIGS = [
    networks.config(networks.spec(statics=True)),
    networks.config(token_info_width=3, positional_encoding="atmorep"),
    networks.config(token_info="raw", token_info_width=6, mask_embedding=False),
    networks.config(token_info="raw"),
    networks.config(token_info="raw-2023", token_info_width=6),
]
PARTS = [
    networks.config(networks.spec(statics=True), embedding=networks.PARTS),
    networks.config(embedding=networks.PARTS, token_info_width=3),
    networks.config(embedding=networks.PARTS, mask_embedding=False),
]


def make(config: ModelConfig) -> tuple[Embedding, NetworkInput]:
    torch.manual_seed(0)
    embedding = Embedding(config, NAME).double()
    for parameter in embedding.parameters():
        torch.nn.init.normal_(parameter)
    return embedding, networks.inputs(config).to(dtype=torch.float64)


def embed(embedding: Embedding, inputs: NetworkInput) -> Tensor:
    return embedding(
        inputs.tokens[NAME], inputs.info[NAME], inputs.blank[NAME], inputs.statics.get(NAME)
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_loops(config: ModelConfig) -> None:
    embedding, inputs = make(config)
    with torch.no_grad():
        x = embed(embedding, inputs)
    tokens, blank = inputs.tokens[NAME], inputs.blank[NAME]
    width, w = config.networks[NAME].width, config.token_info_width
    index = np.array(list(np.ndindex(*blank.shape[1:])))
    assert x.shape == (2, len(index), width)
    with torch.no_grad():
        for b in range(2):
            for n, place in enumerate(index):
                at = (b, *map(int, place))
                if not blank[at]:
                    values = embedding.values.weight @ tokens[at] + embedding.values.bias
                elif embedding.blank is not None:
                    values = embedding.values.bias + embedding.blank
                else:
                    values = embedding.values.bias
                row = inputs.info[NAME][at].double()
                if config.token_info == "scaled":
                    features = scaled_info(row, "pressure")
                else:
                    features = raw_info(row, day_fraction=config.token_info == "raw-2023")
                info = embedding.info.weight @ features + embedding.info.bias
                expected = torch.cat([values, info]) if w else values + info
                if embedding.statics is not None:
                    below = inputs.statics[NAME][b, at[3], at[4]]
                    expected = expected + embedding.statics.weight @ below
                expected = expected + embedding.positions[n]
                torch.testing.assert_close(x[b, n], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", PARTS)
def test_parts_take_the_place_of_the_linear_map(config: ModelConfig) -> None:
    embedding, inputs = make(config)
    embedding.eval()
    tokens, blank = inputs.tokens[NAME], inputs.blank[NAME].clone()
    with torch.no_grad():
        x = embed(embedding, inputs)
        inputs.blank[NAME][:] = True
        rest = embed(embedding, inputs) - x
    assert embedding.sub_tokens is not None
    with torch.no_grad():
        inside = embedding.sub_tokens(tokens.unflatten(-1, (2, 4, 2)), (6.0, 1.0, 1.0))
        values = embedding.values(inside)
    marker = 0 if embedding.blank is None else embedding.blank
    expected = torch.where(blank[..., None], 0.0, marker - values).flatten(1, 4)
    width = values.shape[-1]
    torch.testing.assert_close(rest[..., :width], expected, rtol=1e-10, atol=1e-10)
    assert (rest[..., width:] == 0).all()


def test_tokens_of_other_sizes() -> None:
    embedding, inputs = make(PARTS[0])
    embedding.eval()
    large = inputs.tokens[NAME].unflatten(-1, (2, 4, 2))
    for values in (large, large[..., 1:3, :], large[..., :1, :2, :1], large[0, 0, 0, 0, 0]):
        assert embedding.embed_values(values).shape == (*values.shape[:-3], 12)
    with pytest.raises(ConfigError, match=r"tokens of \(2, 3, 2\) points can't be cut"):
        embedding.embed_values(large[..., 1:, :])
    linear, _ = make(CONFIGS[0])
    features = linear.values(inputs.tokens[NAME])
    assert torch.equal(linear.embed_values(large), features)
    with pytest.raises(ConfigError, match=r"'temperature' takes tokens of \(2, 4, 2\) points only"):
        linear.embed_values(large[..., 1:3, :])


def test_random_parts_leave_withheld_tokens_alone() -> None:
    embedding, inputs = make(networks.config(embedding={**networks.PARTS, "crops": 1.0}))
    embedding.train()
    changed = (embed(embedding, inputs) != embed(embedding, inputs)).any(-1)
    blank = inputs.blank[NAME].flatten(1)
    assert not changed[blank].any()
    assert changed[~blank].any()


@pytest.mark.parametrize("config", [*CONFIGS, *PARTS])
def test_withheld_values_have_no_influence(config: ModelConfig) -> None:
    embedding, inputs = make(config)
    embedding.eval()
    before = embed(embedding, inputs)
    inputs.tokens[NAME][inputs.blank[NAME]] = math.nan
    tokens = inputs.tokens[NAME].requires_grad_()
    after = embed(embedding, inputs)
    assert torch.equal(before, after)
    after.square().sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad[inputs.blank[NAME]] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in embedding.parameters())


def test_blank_differs_from_a_token_of_zeros() -> None:
    embedding, inputs = make(CONFIGS[0])
    inputs.tokens[NAME].zero_()
    inputs.blank[NAME][:] = True
    blank = embed(embedding, inputs)
    inputs.blank[NAME][:] = False
    assert (blank - embed(embedding, inputs)).abs().max() > 0.1


def test_wrong_inputs_are_refused() -> None:
    embedding, inputs = make(CONFIGS[0])
    with pytest.raises(ConfigError, match=r"'temperature' have shape \(2, 3, 1, 1, 3, 15\).*16"):
        embedding(
            inputs.tokens[NAME][..., 1:],
            inputs.info[NAME],
            inputs.blank[NAME],
            inputs.statics[NAME],
        )
    with pytest.raises(ConfigError, match="static fields of 'temperature' are missing"):
        embedding(inputs.tokens[NAME], inputs.info[NAME], inputs.blank[NAME], None)
    without, inputs = make(CONFIGS[1])
    with pytest.raises(ConfigError, match="has no static fields"):
        without(inputs.tokens[NAME], inputs.info[NAME], inputs.blank[NAME], torch.zeros(2, 1, 3, 8))


@given(
    year=st.integers(1850, 2100),
    day=st.integers(1, 366),
    hour=st.floats(0, 24),
    latitude=st.floats(-90, 90),
    longitude=st.floats(0, 360),
    resolution=st.floats(0.1, 6),
)
def test_scaled_info_is_bounded_and_periodic(
    year: int, day: int, hour: float, latitude: float, longitude: float, resolution: float
) -> None:
    info = torch.tensor([year, day, hour, 850.0, latitude, longitude, resolution])
    features = scaled_info(info, "pressure")
    assert features.abs().max() <= 3
    turned = info + torch.tensor([0, 0, 24, 0, 0, 360, 0])
    torch.testing.assert_close(scaled_info(turned, "pressure"), features, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_bfloat16_network_tells_years_apart(config: ModelConfig) -> None:
    embedding, inputs = make(config)
    inputs.info[NAME][..., 0] = 2021
    before = embed(embedding, inputs)
    inputs.info[NAME][..., 0] = 2022
    expected = embed(embedding, inputs) - before
    low, inputs = embedding.bfloat16(), inputs.to(dtype=torch.bfloat16)
    later = low._describe(inputs.info[NAME])
    inputs.info[NAME][..., 0] = 2021
    step = (later - low._describe(inputs.info[NAME])).flatten(1, 4)
    torch.testing.assert_close(
        step, expected[..., -step.shape[-1] :].float(), rtol=0.02, atol=0.001
    )


def test_raw_info_counts_days_from_zero_and_latitude_from_the_pole() -> None:
    info = torch.tensor([2021.0, 366.0, 23.0, 96.0, -90.0, 359.75, 0.25], dtype=torch.float64)
    assert raw_info(info).tolist() == [2021, 365, 23, 96, 180, 359.75, 96, 0.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_days_of_2023_are_rounded_once(dtype: torch.dtype) -> None:
    hours = [[day, hour] for day in (1, 2, 59, 60, 365, 366) for hour in range(24)]
    info = torch.zeros(len(hours), 7, dtype=dtype)
    info[:, 1:3] = torch.tensor(hours)
    found = raw_info(info, day_fraction=True)
    assert found.dtype == dtype
    for row, (day, hour) in zip(found.tolist(), hours, strict=True):
        assert row[1] == float(np.float32(day - 1 + hour / 24))
        assert row[2] == hour
    # Only the day differs from the numbers of 2024.
    others = [0, 2, 3, 4, 5, 6, 7]
    assert torch.equal(found[:, others], raw_info(info)[:, others])


def test_widths_may_differ_between_fields() -> None:
    config = networks.config(
        networks.spec((networks.WIND, networks.TEMPERATURE)),
        {
            networks.WIND.name: FieldNetwork(width=4),
            NAME: FieldNetwork(width=20),
        },
    )
    assert Embedding(config, NAME).positions.shape == (9, 20)
    assert Embedding(config, networks.WIND.name).positions.shape == (8, 4)
