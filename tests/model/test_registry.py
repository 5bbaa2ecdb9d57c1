"""Shipped models: a table, names, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.small import small_model
from xatmorep.errors import CheckpointError
from xatmorep.model import registry
from xatmorep.model.checkpoint import load


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with two models and things that are none."""
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    small_model(0).save(tmp_path / "small-one")
    small_model(1).save(tmp_path / "small-two")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "README.md").touch()
    return tmp_path


def test_table(shipped: Path) -> None:
    table = registry.models()
    assert list(table.name) == ["small-one", "small-two"]
    row = table.iloc[0]
    assert row.fields == ("2m_temperature", "temperature")
    assert row.grid_step == (1.5, 1.0)
    assert row.neighborhood == (2, 4, 8)
    assert row.parameters == small_model().parameters
    assert row.demonstration
    assert row.description == "Only for tests."
    assert table.demonstration.dtype == bool
    assert table.parameters.dtype == int


def test_table_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "absent")
    assert registry.models().empty
    assert "parameters" in registry.models()


def test_models_load_by_name(shipped: Path) -> None:
    model = load("small-two")
    assert model.digest == small_model(1).digest
    assert model.source == str(shipped / "small-two")
    assert registry.read_config(shipped / "small-two") == model.config
    assert registry.read_card(shipped / "small-two") == model.card


def test_a_shipped_model_goes_before_a_folder(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    small_model(2).save("small-one")
    assert load("small-one").digest == small_model(0).digest
    assert load("./small-one").digest == small_model(2).digest


def test_unknown_names(shipped: Path) -> None:
    with pytest.raises(
        CheckpointError, match="no model and no folder 'smal-one'; did you mean 'sm"
    ):
        load("smal-one")
    with pytest.raises(CheckpointError, match="'zzz'; known are small-one, small-two"):
        load("zzz")
    with pytest.raises(CheckpointError, match="is a file; a model is a folder"):
        load(shipped / "README.md")


def test_neither_table_nor_card_needs_torch() -> None:
    code = (
        "import sys, xatmorep.model.card, xatmorep.model.registry as r; r.models(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
