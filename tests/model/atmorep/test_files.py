"""Files of a published model: found wherever they may lie, never trusted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch

from tests.atmorep.cases import REFERENCE
from xatmorep.errors import CheckpointError
from xatmorep.model.atmorep.files import PublishedFolder

ID = "sf01qkon"
WHOLE = f"AtmoRep_id{ID}.mod"
CONFIG = f"model_id{ID}.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(REFERENCE / "single_field_qk", tmp_path / "model")
    return tmp_path / "model"


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    """Copies: what is mapped from a file must not outlive it."""
    return {name: x.clone() for name, x in PublishedFolder(folder).weights().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_id_settings_and_weights(folder: Path) -> None:
    found = PublishedFolder(folder)
    assert found.model_id == ID
    assert found.settings.fields[0].name == "vorticity"
    assert same(found.weights(), torch.load(folder / WHOLE, weights_only=True))


def test_the_same_from_a_url(folder: Path) -> None:
    system = fsspec.filesystem("memory")
    system.put(f"{folder}/", "/published/", recursive=True)
    found = PublishedFolder("memory://published")
    assert same(found.weights(), weights(folder))


def test_the_original_reads_the_first_line_only(folder: Path) -> None:
    expected = PublishedFolder(folder).settings
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(f"{text.rstrip()}\nnot json\n")
    assert PublishedFolder(folder).settings == expected
    (folder / CONFIG).write_text(json.dumps(json.loads(text), indent=1))
    assert PublishedFolder(folder).settings == expected


def test_parts_make_the_whole(folder: Path) -> None:
    whole = weights(folder)
    (folder / WHOLE).unlink()
    parts = weights(folder)
    assert {name for name in whole if name not in parts} == {
        "embed_token_info.weight",
        "embed_token_info.bias",
        "embeds.0.weight",
        "embeds.0.bias",
    }
    assert same(parts, {name: whole[name] for name in parts})


def test_older_parts_share_one_layer_for_token_infos(folder: Path) -> None:
    (folder / WHOLE).unlink()
    (own,) = folder.glob("AtmoRep_embeds_token_info_*")
    layer = torch.load(own, weights_only=True)
    own.unlink()
    torch.save(
        {name.removeprefix("0."): x for name, x in layer.items()},
        folder / f"AtmoRep_embed_token_info_id{ID}.mod",
    )
    found = weights(folder)
    assert torch.equal(found["embed_token_info.weight"], layer["0.weight"])


def test_the_only_epoch_stands_for_the_latest(folder: Path) -> None:
    whole = weights(folder)
    (folder / WHOLE).rename(folder / f"AtmoRep_id{ID}_epoch7.mod")
    assert same(weights(folder), whole)
    shutil.copy(folder / f"AtmoRep_id{ID}_epoch7.mod", folder / f"AtmoRep_id{ID}_epoch12.mod")
    with pytest.raises(CheckpointError, match=r"several epochs, .*_epoch12.mod, .*_epoch7.mod"):
        weights(folder)


def test_an_older_form_of_torch_files(folder: Path) -> None:
    whole = weights(folder)
    torch.save(whole, folder / WHOLE, _use_new_zipfile_serialization=False)
    assert same(weights(folder), whole)


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch hacked",)


def test_nothing_is_executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for protocol in (True, False):
        torch.save(
            {"x": Hostile()},
            folder / WHOLE,
            _use_new_zipfile_serialization=protocol,
        )
        with pytest.raises(CheckpointError, match=r"more than tensors.*was not loaded"):
            weights(folder)
    (folder / WHOLE).write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(CheckpointError, match=r"was not loaded|damaged"):
        weights(folder)
    assert not (folder / "hacked").exists()


@pytest.mark.parametrize("size", [0, 10, 1000, 100_000, -1])
def test_a_truncated_file(folder: Path, size: int) -> None:
    data = (folder / WHOLE).read_bytes()
    (folder / WHOLE).write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=rf"{WHOLE} (is damaged|holds more).*"):
        weights(folder)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere"):
        PublishedFolder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a file: name the folder"):
        PublishedFolder(folder / WHOLE)
    with pytest.raises(CheckpointError, match="can't be opened"):
        PublishedFolder("nothing://x")
    (tmp_path / "models" / f"id{ID}").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=rf"no model_id<ID>.json.*name the .*/id{ID}"):
        PublishedFolder(tmp_path / "models")
    torch.save([1], folder / WHOLE)
    with pytest.raises(CheckpointError, match="is no state dict"):
        weights(folder)
    (folder / WHOLE).unlink()
    next(folder.glob("AtmoRep_tail_*")).unlink()
    with pytest.raises(CheckpointError, match=r"neither .* nor all its parts: AtmoRep_tail_vort"):
        weights(folder)
    for path in folder.glob("*.mod"):
        path.unlink()
    with pytest.raises(CheckpointError, match=f"has no {WHOLE}"):
        weights(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match=f"{CONFIG} is not valid JSON"):
        PublishedFolder(folder)
    (folder / CONFIG).write_text('{"fields": []}')
    with pytest.raises(CheckpointError, match="fields_prediction: Field required"):
        PublishedFolder(folder)
    (folder / "model_idother123.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"holds the models other123, {ID}: give each"):
        PublishedFolder(folder)
