"""Weights in safetensors: exact round trips, and a reason for each refusal."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from xatmorep.errors import CheckpointError
from xatmorep.model.tensors import count, pack, read_shapes, unpack

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3) / 7, "a.bias": torch.tensor([1.5, -2.0])}
SHAPES = {"a.weight": (2, 3), "a.bias": (2,)}


def crafted(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """File with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + body


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_round_trip(dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    data = pack(state)
    found = unpack(data, SHAPES, "file")
    assert {name: t.dtype for name, t in found.items()} == dict.fromkeys(SHAPES, torch.float32)
    assert all(torch.equal(found[name], state[name].float()) for name in SHAPES)
    stored = safetensors.torch.load(data)["a.bias"].dtype
    assert stored == (torch.float32 if dtype == torch.float64 else dtype)


def test_same_weights_same_bytes() -> None:
    assert len({pack(STATE) for _ in range(10)}) == 1


def test_tied_and_strided_tensors_can_be_packed() -> None:
    weight = torch.randn(3, 4)
    found = unpack(pack({"a": weight, "b": weight.T}), {"a": (3, 4), "b": (4, 3)}, "file")
    assert torch.equal(found["a"], weight)
    assert torch.equal(found["b"], weight.T)


def test_shapes_come_from_the_header_alone() -> None:
    data = pack(STATE)
    start = data[: 8 + int.from_bytes(data[:8], "little")]
    assert read_shapes(start, "file") == SHAPES
    assert count(SHAPES) == 8


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(value: float) -> None:
    broken = STATE | {"a.bias": torch.tensor([1.0, value])}
    with pytest.raises(CheckpointError, match=r"weights that are not finite: a\.bias"):
        pack(broken)
    with pytest.raises(CheckpointError, match=r"weights that are not finite: a\.bias"):
        unpack(safetensors.torch.save(broken), SHAPES, "file")


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (SHAPES | {"c": (1,)}, r"tensors missing: c$"),
        ({"a.weight": (2, 3)}, r"tensors unexpected: a\.bias$"),
        (SHAPES | {"a.weight": (3, 2)}, r"another shape: a\.weight \(2, 3\) instead of \(3, 2\)$"),
        ({f"x{i}": (1,) for i in range(9)}, r"missing: x0, x1, x2, x3 and 5 more; unexpected: a"),
    ],
)
def test_tensors_must_be_those_expected(expected: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        unpack(pack(STATE), expected, "file")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short: it has 0 bytes"),
        (b"\x10\0\0", "cut short: it has 3 bytes"),
        (crafted({}, length=2**63), "a header of 9223372036854775808 bytes"),
        (crafted({}, length=1000), "its header should have 1000 bytes, 2 are there"),
        (b"\x80\x02cnumpy.core\nscalar\nq\x00.", "not a safetensors file"),
        (b"PK\x03\x04" + b"\0" * 60, "not a safetensors file"),
        (crafted(b"["), "damaged safetensors header"),
        (crafted([1]), "damaged safetensors header"),
        (crafted(b"[" * 200_000), "damaged safetensors header"),
        (crafted(b"\xff\xfe"), "damaged safetensors header"),
        (crafted({"a": 1}), "damaged safetensors header"),
        (crafted({"a": {"dtype": "F32"}}), "damaged safetensors header"),
        (crafted({"a": entry("F64", [1], 0, 8)}, b"\0" * 8), r"not weights \(a F64\)"),
        (crafted({"a": entry("I64", [1], 0, 8)}, b"\0" * 8), r"not weights \(a I64\)"),
        (crafted({"a": entry("F32", [2], 0, 8)}, b"\0" * 4), "not a valid safetensors file"),
        (crafted({"a": entry("F32", [2], 0, 8)}, b"\0" * 12), "not a valid safetensors file"),
        (crafted({"a": entry("F32", [2], 4, 12)}, b"\0" * 12), "not a valid safetensors file"),
        (crafted({"a": entry("F32", [2], 0, 2**62)}, b"\0" * 8), "not a valid safetensors file"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_files_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        unpack(data, {"a": (2,)}, "file")


def test_overlapping_tensors_are_refused() -> None:
    overlap = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        unpack(crafted(overlap, b"\0" * 8), {"a": (2,), "b": (2,)}, "file")


def test_sizes_that_overflow_are_refused() -> None:
    huge = {"a": entry("F32", [2**62, 2**62], 0, 8)}
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        unpack(crafted(huge, b"\0" * 8), {"a": (2**62, 2**62)}, "file")


@given(data=st.data())
def test_any_damage_is_either_refused_or_harmless(data: st.DataObject) -> None:
    """One byte changed anywhere: a reason, or other finite numbers of the right shape."""
    content = bytearray(pack(STATE))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(bytes(content), SHAPES, "file")
    except CheckpointError:
        return
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == SHAPES
    assert all(tensor.isfinite().all() for tensor in found.values())
