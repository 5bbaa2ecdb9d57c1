from __future__ import annotations

import csv
import json

import pytest

from xatmorep.training.logs import RunLog


class Recorder:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.lines, self.closed = [], False

    def log(self, step, line):
        self.lines.append((step, dict(line)))

    def close(self):
        self.closed = True


def written(folder):
    def read(name):
        with (folder / name).open(newline="") as file:
            return list(csv.DictReader(file))

    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return read("ledger.csv"), read("log.csv"), lines


def test_numbers_are_written_with_all_digits(tmp_path):
    log, value = RunLog(tmp_path, {}), 1 / 3
    log.step(1, {"epoch": 0}, {"loss": value})
    log.validation(1, {"training_loss": value, "rmse": 2e-17})
    ledger, table, lines = written(tmp_path)  # at once, while the run goes on
    assert ledger == [{"step": "1", "epoch": "0", "loss": repr(value)}]
    assert table == [{"step": "1", "training_loss": repr(value), "rmse": "2e-17"}]
    assert lines == [{"step": 1, "training_loss": value, "rmse": 2e-17}]
    log.close()


def test_lines_after_a_checkpoint_are_cut_off(tmp_path):
    log = RunLog(tmp_path, {})
    log.step(1, {}, {"loss": 1.0})
    log.validation(1, {"rmse": 1.0})
    log.step(2, {}, {"loss": 2.0})
    sizes = log.sync()
    log.step(3, {}, {"loss": 3.0})
    log.validation(3, {"rmse": 3.0})
    log.close()
    with (tmp_path / "ledger.csv").open("a") as file:
        file.write("4,4.")  # killed in the middle of a line
    log = RunLog(tmp_path, sizes)
    log.step(3, {}, {"loss": 30.0})
    log.validation(3, {"rmse": 30.0})
    log.close()
    ledger, table, lines = written(tmp_path)
    assert [line["loss"] for line in ledger] == ["1.0", "2.0", "30.0"]
    assert [line["rmse"] for line in table] == ["1.0", "30.0"]
    assert [line["rmse"] for line in lines] == [1.0, 30.0]


def test_a_run_that_begins_anew_has_new_files(tmp_path):
    for loss in (1.0, 2.0):
        log = RunLog(tmp_path, {})
        log.step(1, {}, {"loss": loss})
        log.validation(1, {"rmse": loss})
        log.close()
    ledger, table, lines = written(tmp_path)
    assert ledger == [{"step": "1", "loss": "2.0"}]
    assert len(table) == len(lines) == 1


def test_files_that_are_too_short_are_noticed(tmp_path):
    log = RunLog(tmp_path, {})
    log.step(1, {}, {"loss": 1.0})
    sizes = log.sync()
    log.close()
    (tmp_path / "ledger.csv").unlink()
    with pytest.warns(UserWarning, match=r"ledger.csv has 0 bytes, the checkpoint says \d+: lines"):
        log = RunLog(tmp_path, sizes)
    log.step(2, {}, {"loss": 2.0})
    log.close()
    assert written(tmp_path)[0] == [{"step": "2", "loss": "2.0"}]


def test_everything_goes_to_loggers_too(tmp_path):
    recorder = Recorder()
    log = RunLog(tmp_path, {}, [recorder])
    log.step(1, {"epoch": 0}, {"loss": 1.0})
    log.validation(1, {"rmse": 2.0})
    log.close()
    assert recorder.lines == [(1, {"loss": 1.0}), (1, {"rmse": 2.0})]
    assert recorder.closed
