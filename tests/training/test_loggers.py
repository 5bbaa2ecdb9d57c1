"""Loggers, with stand-ins for packages that are large and not needed otherwise."""

from __future__ import annotations

import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.training import runs
from xatmorep.errors import MissingExtraError, TrainingError, TrainingInterruptedError
from xatmorep.training.learner import Learner


@pytest.fixture
def tensorboard(monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, log_dir, purge_step):
            calls.append(("open", log_dir, purge_step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def close(self):
            calls.append(("close",))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return calls


@pytest.fixture
def mlflow(monkeypatch):
    there: list[SimpleNamespace] = []

    class MlflowClient:
        def search_runs(self, experiments, text):
            assert experiments == ["0"]
            key, _, value = text.partition(" = ")
            assert key == "tags.xatmorep_run"
            return [run for run in there if f"'{run.tags['xatmorep_run']}'" == value]

        def create_run(self, experiment, tags, run_name):
            info = SimpleNamespace(run_id=f"run-{len(there)}")
            run = SimpleNamespace(info=info, tags=tags, name=run_name, metrics=[], ends=0)
            there.append(run)
            return run

        def _run(self, name):
            return next(run for run in there if run.info.run_id == name)

        def log_dict(self, name, content, file):
            self._run(name).config = content

        def log_batch(self, name, metrics):
            self._run(name).metrics.extend((m.key, m.value, m.step) for m in metrics)

        def set_terminated(self, name):
            self._run(name).ends += 1

    module = ModuleType("mlflow")
    module.MlflowClient = MlflowClient
    module.entities = SimpleNamespace(
        Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step)
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return there


@pytest.fixture
def wandb(monkeypatch):
    there = []

    class Run:
        def __init__(self, options):
            self.options, self.lines, self.ends = options, [], 0

        def log(self, line, step):
            self.lines.append((line, step))

        def finish(self):
            self.ends += 1

    module = ModuleType("wandb")
    module.init = lambda **options: there.append(Run(options)) or there[-1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return there


def train(out, *loggers, **changes):
    return runs.train(out, runs.RUN | {"loggers": loggers} | changes)


def interrupted(out, *loggers):
    """Train to step 4 of 6, and then to the end."""
    original = Learner.learn

    def learn(self, batch):
        if self.state.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "learn", learn)
        with pytest.raises(TrainingInterruptedError):
            train(out, *loggers)
    train(out, *loggers)


def logged(out):
    """Steps and losses that the files of a run have."""
    ledger = [(int(line["step"]), float(line["loss"])) for line in runs.lines(out / "ledger.csv")]
    log = [
        (int(line["step"]), float(line["validation_loss"])) for line in runs.lines(out / "log.csv")
    ]
    return ledger, log


def test_tensorboard(tmp_path, tensorboard):
    out = tmp_path / "run"
    interrupted(out, "tensorboard")
    opened = [call for call in tensorboard if call[0] == "open"]
    assert opened == [("open", out / "tensorboard", 1), ("open", out / "tensorboard", 5)]
    assert tensorboard.count(("close",)) == 2
    ledger, log = logged(out)
    assert [(step, x) for name, x, step in _scalars(tensorboard) if name == "loss"] == ledger
    found = [(step, x) for name, x, step in _scalars(tensorboard) if name == "validation_loss"]
    assert found == log


def _scalars(calls):
    return [call for call in calls if call[0] not in ("open", "close")]


def test_mlflow(tmp_path, mlflow):
    out = tmp_path / "run"
    interrupted(out, "mlflow")
    (run,) = mlflow  # found again when the run goes on
    assert (run.name, run.ends, run.config["steps"]) == ("test-run", 2, 6)
    ledger, log = logged(out)
    assert [(step, x) for name, x, step in run.metrics if name == "loss"] == ledger
    assert [(step, x) for name, x, step in run.metrics if name == "validation_loss"] == log
    train(tmp_path / "other", "mlflow")
    assert len(mlflow) == 2


def test_wandb_stays_on_this_machine_unless_told_otherwise(tmp_path, wandb, monkeypatch):
    out = tmp_path / "run"
    interrupted(out, "wandb")
    first, second = (run.options for run in wandb)
    assert first == second
    assert (first["mode"], first["resume"], first["name"]) == ("offline", "allow", "test-run")
    assert first["dir"] == out
    assert first["config"]["steps"] == 6
    assert [run.ends for run in wandb] == [1, 1]
    lines = [(step, line["loss"]) for run in wandb for line, step in run.lines if "loss" in line]
    assert lines == logged(out)[0]
    monkeypatch.setenv("WANDB_MODE", "online")
    train(tmp_path / "other", "wandb")
    assert wandb[-1].options["mode"] == "online"
    assert wandb[-1].options["id"] != first["id"]


def test_loggers_are_closed_after_an_error(tmp_path, wandb):
    with pytest.raises(TrainingError):
        train(tmp_path / "run", "wandb", steps=40, optimizer={"learning_rate": 1e30})
    assert wandb[0].ends == 1


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_one_that_is_missing_names_its_extra_before_anything_begins(tmp_path, monkeypatch, name):
    for loaded in [key for key in sys.modules if name in key.split(".")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [_Without(name), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=rf"pip install 'xatmorep\[{name}\]'"):
        train(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


class _Without:
    """An importer that hides a package, if it is installed."""

    def __init__(self, module):
        self.module = module

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {self.module!r}", name=self.module)
