"""Weights under our names and back."""

from __future__ import annotations

import pytest
import torch

from tests.atmorep.cases import NETWORK_CASES, REFERENCE
from xatmorep.errors import CheckpointError
from xatmorep.model.atmorep.files import PublishedFolder
from xatmorep.model.atmorep.weights import (
    Piece,
    is_per_head,
    is_shared_info,
    our_weights,
    pieces,
    their_weights,
)
from xatmorep.testing.parity.network import Network

State = dict[str, torch.Tensor]


def loaded(case: str) -> tuple[State, list[Piece], dict[str, tuple[int, ...]]]:
    """State dict of a case, the table of its weights, and the shapes of ours."""
    folder = PublishedFolder(REFERENCE / case)
    state = folder.weights()
    names = {field.name: field.name for field in folder.settings.fields}
    table = pieces(
        folder.settings, names, per_head=is_per_head(state), shared_info=is_shared_info(state)
    )
    network = Network(REFERENCE / case).network
    return state, table, {name: tuple(x.shape) for name, x in network.state_dict().items()}


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_every_weight_is_used_and_comes_back(case: str) -> None:
    state, table, shapes = loaded(case)
    ours = our_weights(state, table, shapes, case)
    assert {name: tuple(x.shape) for name, x in ours.items()} == shapes
    shared = {piece.theirs[0] for piece in table if "info" in piece.ours}
    theirs = their_weights(ours, [piece for piece in table if piece.theirs[0] not in shared])
    for name, tensor in theirs.items():
        assert torch.equal(tensor, state[name]), name
    dead = {name for name in state if name not in theirs and name not in shared}
    assert all(name.startswith("embed") or not state[name].numel() for name in dead)


def test_what_two_fields_share_gets_the_sum_of_their_gradients() -> None:
    table = [Piece("a", ("same",)), Piece("b", ("same",))]
    found = their_weights({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, table)
    assert found["same"].tolist() == [3.0]


def test_heads_are_joined_and_members_stacked() -> None:
    state = {"h0": torch.tensor([[1.0]]), "h1": torch.tensor([[2.0]])}
    assert Piece("x", ("h0", "h1")).join(state).tolist() == [[1.0], [2.0]]
    assert Piece("x", ("h0", "h1"), stacked=True).join(state).shape == (2, 1, 1)


def test_info_is_shared_if_that_of_the_first_field_is_zero() -> None:
    zero, one = torch.zeros(2, 2), torch.ones(2, 2)
    assert is_shared_info({"embed_token_info.weight": one})
    assert is_shared_info({"embeds_token_info.0.weight": zero, "embeds_token_info.1.weight": one})
    assert not is_shared_info({"embeds_token_info.0.weight": one})


def test_what_was_mapped_from_a_file_is_copied() -> None:
    state, table, shapes = loaded("single_field_qk")
    ours = our_weights(state, table, shapes, "x")
    before = {name: tensor.clone() for name, tensor in ours.items()}
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(ours[name], before[name]) for name in ours)


HEADS = "encoders.0.heads.0.proj_heads.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(HEADS), f"lacks {HEADS}: its configuration is of another"),
        (lambda state: state.update({HEADS: torch.zeros(96, 31)}), r"shape \(96, 31\).*\(96, 32\)"),
        (lambda state: state.update({"masks.0": torch.zeros(18)}), "masks.0, which is not underst"),
        (lambda state: state[HEADS].fill_(torch.nan), f"{HEADS} is not finite"),
    ],
)
def test_refusals(change: object, message: str) -> None:
    state, table, shapes = loaded("single_field_qk")
    change(state)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        our_weights(state, table, shapes, "file")
