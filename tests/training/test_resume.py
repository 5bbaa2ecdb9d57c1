"""A run that was stopped, killed or damaged goes on as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import xatmorep
from tests.tasks import small
from tests.training import runs
from xatmorep.errors import CheckpointError, ConfigError, TrainingError, TrainingInterruptedError
from xatmorep.training import loop
from xatmorep.training.learner import Learner
from xatmorep.training.run import RunFolder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _handlers():
    """Those of a process in the foreground, wherever the tests run."""
    pairs = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in pairs.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.train(out, runs.LONG)
    return out


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """One with self-distillation."""
    out = tmp_path_factory.mktemp("taught") / "run"
    runs.train(out, runs.TAUGHT)
    return out


@pytest.fixture(scope="module")
def _stopped(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(TrainingInterruptedError):
        _stop_after(7, out)
    return out


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_go_on_too(tmp_path, precision):
    config = runs.LONG | {"precision": precision, "batch_size": 8, "accumulate": 2}
    runs.train(tmp_path / "whole", config)
    with pytest.raises(TrainingInterruptedError):
        _stop_after(7, tmp_path / "run", config=config)
    runs.train(tmp_path / "run", config)
    assert runs.record(tmp_path / "run") == runs.record(tmp_path / "whole")


@pytest.fixture
def stopped(_stopped, tmp_path):
    """A run that was stopped after 7 of 12 steps, to do with it what one likes."""
    return Path(shutil.copytree(_stopped, tmp_path / "run"))


def _stop_after(step, out, number=signal.SIGTERM, config=runs.LONG):
    """Train, and send a signal in the middle of a step."""
    learn_of = Learner.learn

    def learn(self, batch):
        if self.state.step + 1 == step:
            os.kill(os.getpid(), number)
        return learn_of(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "learn", learn)
        runs.train(out, config)


def _dying(original, call):
    """A function that dies when it is called for so many times."""
    calls = []

    def die(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise SystemError("killed")
        return original(*arguments, **options)

    return die


def _checkpoints(out):
    return sorted((out / "checkpoints").glob("*.ckpt"))


def _ends_like(whole, out):
    assert runs.record(out) == runs.record(whole)
    slabs = [
        number
        for line in runs.lines(out / "ledger.csv")
        for number in range(int(line["first_slab"]), int(line["last_slab"]) + 1)
    ]
    assert slabs == list(range(12 * 2))  # each sample once, and none left out


# ---- stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_when_the_step_is_done(tmp_path, whole, number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(TrainingInterruptedError) as error:
        _stop_after(7, tmp_path / "run", number)
    assert str(error.value) == (
        f"stopped by {number.name} after step 7 of 12: the same command goes on from there"
    )
    assert isinstance(error.value, KeyboardInterrupt)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert _checkpoints(tmp_path / "run")[-1].name.startswith("000000007-")
    assert len(runs.lines(tmp_path / "run" / "ledger.csv")) == 7
    runs.train(tmp_path / "run", runs.LONG)
    _ends_like(whole, tmp_path / "run")


def test_a_signal_in_the_last_step_changes_nothing(tmp_path, whole):
    _stop_after(12, tmp_path / "run")
    _ends_like(whole, tmp_path / "run")
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == [
        signal.SIG_DFL,
        signal.default_int_handler,
    ]


def test_in_another_thread_signals_are_left_alone(tmp_path, whole):
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=runs.train, args=(tmp_path / "run", runs.LONG))
    thread.start()
    while thread.is_alive():
        assert signal.getsignal(signal.SIGTERM) == before
        thread.join(0.05)
    _ends_like(whole, tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"validate_every": 4, "checkpoint_every": 7},  # what the guard has seen is kept, too
        {"distillation": runs.DISTILLATION | {"masked_weight": 0.0}, "ema": None},
        {"precision": "float16", "accumulate": 2},
    ],
    ids=str,
)
def test_self_distillation_goes_on_too(tmp_path, changes):
    config = runs.TAUGHT | changes
    runs.train(tmp_path / "whole", config)
    with pytest.raises(TrainingInterruptedError):
        _stop_after(7, tmp_path / "run", config=config)
    runs.train(tmp_path / "run", config)
    assert runs.record(tmp_path / "run") == runs.record(tmp_path / "whole")


@pytest.mark.parametrize("call", [1, 2])
def test_a_crash_after_the_guard_has_reported(tmp_path, taught, monkeypatch, call):
    """Before the checkpoint that would have said so."""
    with monkeypatch.context() as patch:
        patch.setattr(xatmorep.Model, "save", _dying(xatmorep.Model.save, call))
        with pytest.raises(SystemError):
            runs.train(tmp_path / "run", runs.TAUGHT)
    runs.train(tmp_path / "run", runs.TAUGHT)
    _ends_like(taught, tmp_path / "run")


def test_a_run_with_a_teacher_is_another_one(stopped):
    with pytest.raises(ConfigError, match=r"distillation.* is .*, there "):
        runs.train(stopped, runs.TAUGHT)


def test_it_says_that_it_goes_on_and_that_it_is_finished(stopped, whole, capsys):
    runs.train(stopped, runs.LONG, progress=True)
    assert "xatmorep: going on after step 7 of 12" in capsys.readouterr().err
    _ends_like(whole, stopped)
    times = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    model = runs.train(stopped, runs.LONG, progress=True)
    assert model.digest == xatmorep.load(stopped / "best").digest
    assert "is finished: here is its best model" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == times


def test_a_finished_run_needs_no_checkpoints_any_more(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert runs.train(tmp_path / "run", runs.LONG).digest == xatmorep.load(whole / "best").digest


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Learner, "validate", 1),
        (xatmorep.Model, "save", 1),  # `last`, after the line of the log
        (xatmorep.Model, "save", 2),  # `best`
        (loop, "save_checkpoint", 2),
        (RunFolder, "finish", 1),
    ],
)
def test_a_crash_while_something_is_written_down(stopped, whole, monkeypatch, owner, name, call):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, _dying(getattr(owner, name), call))
        with pytest.raises(SystemError):
            runs.train(stopped, runs.LONG)
    runs.train(stopped, runs.LONG)
    _ends_like(whole, stopped)


# ---- killed


def _start(out, run, *words):
    command = [sys.executable, "-m", "tests.training.runs", str(out), run, *words]
    return subprocess.Popen(command, cwd=ROOT)


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9 on this system")
@pytest.mark.parametrize(("name", "fixture"), [("LONG", "whole"), ("TAUGHT", "taught")])
def test_kill_9_and_the_same_command_again(tmp_path, request, name, fixture):
    """Once in the middle of a step, once in the middle of a checkpoint, then to the end."""
    out, whole = tmp_path / "run", request.getfixturevalue(fixture)
    process = _start(out, name)
    deadline = time.monotonic() + 120
    while not (out / "ledger.csv").exists() or len(runs.lines(out / "ledger.csv")) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    writes = 40  # of about 100 in a checkpoint
    assert _start(out, name, str(writes)).wait(120) == -signal.SIGKILL
    (half,) = (out / "checkpoints").glob(".*.tmp")
    assert half.stat().st_size
    with pytest.warns(UserWarning, match="is a checkpoint that was not completed: skipped"):
        runs.train(out, getattr(runs, name))
    _ends_like(whole, out)
    assert not half.exists()


# ---- damaged


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(stopped, whole):
    newest = _checkpoints(stopped)[-1]
    _flip(newest)
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged and skipped"):
        runs.train(stopped, runs.LONG)
    _ends_like(whole, stopped)


def test_without_a_complete_checkpoint_a_run_begins_anew(stopped, whole, capsys):
    for path in _checkpoints(stopped):
        os.truncate(path, 100)
    with pytest.warns(UserWarning, match="damaged and skipped") as caught:
        runs.train(stopped, runs.LONG, progress=True)
    assert len(caught) == 2
    assert "no complete checkpoint" in capsys.readouterr().err
    _ends_like(whole, stopped)


def test_lines_that_were_lost_are_missed(stopped):
    os.truncate(stopped / "ledger.csv", 100)
    with pytest.warns(UserWarning, match=r"ledger.csv has 100 bytes, .*: lines are missing"):
        runs.train(stopped, runs.LONG)


@pytest.mark.parametrize("damage", [Path.unlink, _flip])
def test_statistics_that_are_not_those_of_the_run_are_refused(stopped, damage):
    damage(stopped / "normalization.safetensors")
    with pytest.raises(CheckpointError, match=r"normalization.safetensors .*; begin a new run"):
        runs.train(stopped, runs.LONG)


def test_a_checkpoint_of_another_network_is_refused(stopped, tmp_path):
    """The folder was put together from two."""
    other = small.CONFIG.model_copy(
        update={"tail": small.CONFIG.tail.model_copy(update={"members": 5})}
    )
    with pytest.raises(TrainingInterruptedError):
        _stop_after(8, tmp_path / "other", config=runs.LONG | {"model": other})
    shutil.rmtree(stopped / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", stopped / "checkpoints")
    with pytest.raises(CheckpointError, match="the checkpoint doesn't fit this run"):
        runs.train(stopped, runs.LONG)


# ---- another run


def test_another_configuration_is_refused(stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    config = runs.LONG | {"steps": 20, "optimizer": {"learning_rate": 0.1}}
    with pytest.raises(ConfigError) as error:
        runs.train(stopped, config)
    assert str(error.value) == (
        f"{stopped} holds a run with other configuration: optimizer.learning_rate is 0.1, there "
        "0.001; optimizer.warmup_steps is 100, there 1; steps is 20, there 12; name a new folder, "
        "or go on as it began"
    )
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before


def test_a_changed_file_of_the_configuration_is_another_configuration(stopped):
    path = stopped / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(ConfigError, match="seed is 1, there 0"):
        runs.train(stopped, path)


def test_many_differences_are_not_all_listed(stopped):
    config = runs.LONG | {"name": "b", "seed": 1, "steps": 7, "batch_size": 8, "ema": None}
    with pytest.raises(ConfigError, match=r"; [a-z_]+ is .* and 1 more; name a new folder"):
        runs.train(stopped, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.isel(time=slice(0, 7)), "2m_temperature is '7 time x 1 level x 19 latitude"),
        (
            lambda ds: ds.assign_coords(time=ds["time"] - np.timedelta64(1, "h")),
            "times is '2020-12",
        ),
        (lambda ds: ds.isel(longitude=slice(0, 23)), "23 longitude"),
        (lambda ds: ds.assign_coords(latitude=ds["latitude"] - 0.001), "places is"),
        (lambda ds: ds * np.float32(1.0001), "values is"),
    ],
)
def test_other_data_are_refused(stopped, change, message):
    with xr.set_options(keep_attrs=True):
        ds = change(runs.smooth())
    for name in ds.coords:
        ds[name].attrs = runs.smooth()[name].attrs
    with pytest.raises(ConfigError) as error:
        xatmorep.pretrain(ds, runs.LONG, stopped, validation=runs.VALIDATION, progress=False)
    assert "holds a run with other data: " in str(error.value)
    assert message in str(error.value)


def test_other_held_out_times_are_refused(stopped):
    with pytest.raises(ConfigError, match="validation is 'none', there '2021-01-01T12:00 to 2021"):
        runs.train(stopped, runs.LONG, validation=None)


def test_the_same_data_in_other_chunks_are_the_same(stopped, whole):
    xatmorep.pretrain(
        runs.smooth().chunk(time=2, latitude=5),
        runs.LONG,
        stopped,
        validation=runs.VALIDATION,
        progress=False,
    )
    _ends_like(whole, stopped)


def test_two_processes_don_t_train_in_the_same_folder(stopped):
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(stopped, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is training in"):
            runs.train(stopped, runs.LONG)
    finally:
        os.close(descriptor)
    runs.train(stopped, runs.LONG)


def test_after_a_loss_that_is_no_number_the_last_checkpoint_is_still_there(tmp_path):
    config = runs.RUN | {
        "steps": 40,
        "checkpoint_every": 1,
        "optimizer": {"learning_rate": 1e30, "warmup_steps": 0},
    }
    with pytest.raises(TrainingError):
        runs.train(tmp_path / "run", config)
    (*_, newest) = _checkpoints(tmp_path / "run")
    content = torch.load(newest, weights_only=True)
    assert all(bool(tensor.isfinite().all()) for tensor in content["network"].values())
    with warnings.catch_warnings(action="error"), pytest.raises(TrainingError):
        runs.train(tmp_path / "run", config)  # it goes on, into the same trouble
