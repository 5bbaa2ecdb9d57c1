from __future__ import annotations

import os
import re
import warnings

import pytest
import torch

from xatmorep.errors import CheckpointError
from xatmorep.training import checkpoints
from xatmorep.training.checkpoints import newest_checkpoint, save_checkpoint

CONTENT = {
    "network": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
    "best": float("inf"),
    "random": torch.get_rng_state(),
    "logs": {"log.csv": 123},
    "average": None,
}


def save(folder, *steps, keep=2):
    return [save_checkpoint(folder, step, CONTENT | {"at": step}, keep=keep) for step in steps]


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path / "c", 4)
    found = newest_checkpoint(tmp_path / "c")
    assert found["step"] == 4
    assert torch.equal(found["network"]["weight"], CONTENT["network"]["weight"])
    assert torch.equal(found["random"], CONTENT["random"])
    plain = {"optimizer", "best", "logs", "average"}
    assert {key: found[key] for key in plain} == {key: CONTENT[key] for key in plain}


def test_a_folder_without_any_has_none(tmp_path):
    assert newest_checkpoint(tmp_path / "absent") is None
    (tmp_path / "notes.txt").write_text("mine")
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_are_kept(tmp_path, keep):
    paths = save(tmp_path, 2, 10, 100, 1000, keep=keep)
    assert sorted(tmp_path.iterdir()) == sorted(paths[-keep:])
    assert newest_checkpoint(tmp_path)["step"] == 1000


def _truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def _empty(path):
    os.truncate(path, 0)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _swap(path):
    """The content of another one."""
    (other,) = (p for p in path.parent.glob("*.ckpt") if p != path)
    path.write_bytes(other.read_bytes())


def _remove_and_leave_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [_truncate, _empty, _flip, _swap, _remove_and_leave_a_folder]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_skipped_and_named(tmp_path, damage):
    _, path = save(tmp_path, 5, 6)
    damage(path)
    with pytest.warns(UserWarning, match=f"{path.name} is damaged and skipped") as caught:
        found = newest_checkpoint(tmp_path)
    assert len(caught) == 1
    assert found["at"] == found["step"] == 5


def test_a_missing_one_is_not_missed(tmp_path):
    _, path = save(tmp_path, 5, 6)
    path.unlink()
    with warnings.catch_warnings(action="error"):
        assert newest_checkpoint(tmp_path)["step"] == 5


def test_if_all_are_damaged_there_is_none(tmp_path):
    for path in save(tmp_path, 5, 6):
        _flip(path)
    with pytest.warns(UserWarning, match="damaged") as caught:
        assert newest_checkpoint(tmp_path) is None
    assert len(caught) == 2


def test_a_write_that_was_cut_off_is_named_and_cleared_away(tmp_path):
    (path,) = save(tmp_path, 5)
    half = tmp_path / ".000000006-0123abcd.tmp"
    half.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=re.escape(f"{half} is a checkpoint that was not compl")):
        assert newest_checkpoint(tmp_path)["step"] == 5
    save(tmp_path, 6)
    assert not half.exists()


def test_damaged_ones_don_t_take_the_place_of_good_ones(tmp_path):
    """The run goes on from 5, and its next checkpoint is older than the damaged one."""
    old, damaged = save(tmp_path, 5, 9)
    _flip(damaged)
    (fresh,) = save(tmp_path, 7)
    assert sorted(tmp_path.iterdir()) == [old, fresh]


class FullDisk:
    """Takes some bytes, and then no more."""

    def __init__(self, file):
        self.file, self.room = file, 1000

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)


def _no_space(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_those_from_before(tmp_path, monkeypatch, place):
    save(tmp_path, 1, 2)
    before = sorted(tmp_path.iterdir())
    if place == "write":
        hashing = checkpoints._Hashing
        monkeypatch.setattr(checkpoints, "_Hashing", lambda file: hashing(FullDisk(file)))
    else:
        monkeypatch.setattr(os, place, _no_space)
    with pytest.raises(CheckpointError, match=r"can be written to .*: .* No space left on device"):
        save(tmp_path, 3)
    assert sorted(tmp_path.iterdir()) == before


def test_all_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a))
        )
    save(tmp_path, 1)
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_one_of_a_later_version_is_not_taken_for_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format version 2; this xatmorep reads version 1"):
        newest_checkpoint(tmp_path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    save_checkpoint(tmp_path, 1, {"network": Evil()}, keep=1)
    with pytest.warns(UserWarning, match="damaged and skipped: it can't be read"):
        assert newest_checkpoint(tmp_path) is None
    assert not (tmp_path / "evil").exists()
