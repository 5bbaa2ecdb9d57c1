from __future__ import annotations

import json
import os
import re

import pytest

from tests.tasks import small
from tests.training.runs import RUN
from xatmorep.errors import ConfigError
from xatmorep.training.config import read_config
from xatmorep.training.run import RunFolder

CONFIG = read_config(RUN)
DATA = {"times": "some", "values": "123"}


def begun(path) -> RunFolder:
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    folder.begin(CONFIG, DATA, small.model().normalizer)
    return folder


@pytest.mark.parametrize("made", [False, True])
def test_a_new_folder_becomes_that_of_a_run(tmp_path, made):
    path = tmp_path / "run"
    if made:
        path.mkdir()
    assert not RunFolder(path).exists
    one = begun(path)
    again = RunFolder(path)
    assert again.exists
    assert not again.finished
    assert again.id == one.id
    again.check_config(CONFIG)
    again.check_data(DATA)
    assert again.normalizer().to_bytes() == small.model().normalizer.to_bytes()
    assert read_config(path / "config.yaml") == CONFIG
    again.finish()
    assert RunFolder(path).finished


def test_begin_that_was_interrupted_can_be_repeated(tmp_path, monkeypatch):
    replace = os.replace

    def fail(source, target):
        if str(target).endswith("run.json"):
            raise KeyboardInterrupt
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".run.json.tmp", "normalization.safetensors"]
    assert not RunFolder(tmp_path).exists
    assert begun(tmp_path).exists


def test_other_things_are_refused_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.yaml").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(ConfigError, match=f"{name} exists: name a new folder for the run"):
            RunFolder(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record | {"version": 2}, "exists: name a new folder"),
        (lambda record: record | {"extra": 2}, "extra: unknown key"),
        (lambda record: {"format": "xatmorep-run"}, r"config: Field required"),
        (lambda record: [], "must hold a JSON object"),
    ],
)
def test_a_record_that_can_not_be_read_is_refused(tmp_path, change, message):
    begun(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ConfigError, match=message):
        RunFolder(tmp_path)


def test_keys_that_are_newer_than_the_run_have_their_defaults(tmp_path):
    """A run of an earlier version of xatmorep goes on, unless it is to do something new."""
    begun(tmp_path)
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    del record["config"]["ema"]
    path.write_text(json.dumps(record))
    RunFolder(tmp_path).check_config(CONFIG)
    with pytest.raises(ConfigError, match=r"ema is 0.9, there None"):
        RunFolder(tmp_path).check_config(CONFIG.model_copy(update={"ema": 0.9}))


def test_differences_of_the_data_are_named(tmp_path):
    begun(tmp_path)
    text = "with other data: times is 'others', there 'some'; name a new folder, or go on as it"
    with pytest.raises(ConfigError, match=re.escape(text)):
        RunFolder(tmp_path).check_data(DATA | {"times": "others"})


def test_nothing_is_left_of_a_folder_in_which_nothing_was_begun(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "run").locked():
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()
    with RunFolder(tmp_path / "run").locked():
        begun(tmp_path / "run")
    assert RunFolder(tmp_path / "run").exists


def test_what_a_killed_process_left_of_models_is_put_in_order(tmp_path):
    begun(tmp_path)
    for name in ("best", ".best.01234567.tmp.old", ".last.01234567.tmp.old", ".last.89abcdef.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    with RunFolder(tmp_path).locked():
        pass
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert (tmp_path / "best" / "from").read_text() == "best"
    assert (tmp_path / "last" / "from").read_text() == ".last.01234567.tmp.old"


def test_a_lock_is_for_one_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with RunFolder(tmp_path).locked():
        begun(tmp_path)
        with (
            pytest.raises(ConfigError, match="another process is training in"),
            RunFolder(tmp_path).locked(),
        ):
            pass
    with RunFolder(tmp_path).locked():
        pass
