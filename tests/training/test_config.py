from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.tasks import small
from xatmorep.errors import ConfigError
from xatmorep.training.config import PretrainConfig, read_config

SLOW = {"epoch_steps": 5, "warmup_epochs": 2, "first": 1e-6, "decay": 1.1, "lowest": 2e-5}
CONTENT = {"model": small.CONFIG.model_dump(mode="json"), "steps": 4, "batch_size": 4}


def test_a_file_a_mapping_and_an_object_are_the_same(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    config = read_config(path)
    assert config == read_config(CONTENT) == read_config(config)
    assert isinstance(config, PretrainConfig)


def test_what_is_written_reads_back(tmp_path):
    changes = {
        "seed": 7,
        "loss": {"crps": 2.0},
        "level_weights": {"temperature": {500: 2.0}},
        "optimizer": {"exponential": SLOW},
        "loggers": ["wandb"],
        "distillation": {"local_masking": {"rate": [0.2, 0.5]}, "masked_weight": 0},
    }
    config = read_config(CONTENT | changes)
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_config(str(path)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3}, "step: unknown key; did you mean 'steps'?"),
        ({"optimizer": {"learning_rat": 1}}, "optimizer.learning_rat: unknown key; did you mean"),
        ({"masking": {"rates": [0, 1]}}, "masking.rates: unknown key; did you mean 'rate'?"),
        ({"loss": {"crsp": 1.0}}, "loss 'crsp' is unknown; did you mean 'crps'?"),
        ({"loss": {"crps": -1.0}}, "weight of loss 'crps' is -1.0: it must be finite"),
        ({"loss": {"crps": 0.0}}, "no loss has a positive weight"),
        ({"field_weights": {"2m_temp": 2.0}}, "which the model doesn't predict"),
        (
            {"field_weights": dict.fromkeys(small.CONFIG.predicted, 0)},
            "all predicted fields weight 0",
        ),
        (
            {"field_weights": {"temperature": -1}},
            "field_weights.temperature: Input should be greater",
        ),
        (
            {"level_weights": {"2m_temp": {500: 2.0}}},
            "level_weights has '2m_temp', which the model",
        ),
        (
            {"level_weights": {"temperature": {300: 2}}},
            "has [300.0]: its levels are [850.0, 500.0]",
        ),
        ({"level_weights": {"2m_temperature": {0: 2}}}, "has [0.0]: its levels are []"),
        (
            {"level_weights": {"temperature": {500: 0, 850: 0}}},
            "all levels of 'temperature' weight 0",
        ),
        ({"level_weights": {"temperature": {500: "inf"}}}, "Input should be a finite number"),
        (
            {"accumulate": 2},
            "accumulate 2 does not divide the 1 slabs of a batch (batch_size 4 / cr",
        ),
        ({"ema": 1.0}, "ema: Input should be less than 1"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        (
            {"loggers": ["tensorbord"]},
            "loggers.0: Input should be 'tensorboard', 'mlflow' or 'wandb'",
        ),
        (
            {"masking": {"strategies": {"forecst": 1}}},
            "'forecst' is unknown; did you mean 'forecast'",
        ),
        (
            {"optimizer": {"exponential": SLOW, "learning_rate": 1e-5}},
            "exponential rises from 1e-06 and falls to 2e-05: learning_rate 1e-05 must not be",
        ),
        ({"optimizer": {"exponential": {"first": 1}}}, "exponential.decay: Field required"),
        (
            {"distillation": {"prototype": 8}},
            "distillation.prototype: unknown key; did you mean 'prototypes'?",
        ),
        (
            {"distillation": {"local_masking": {"rates": [0, 1]}}},
            "distillation.local_masking.rates: unknown key; did you mean 'rate'?",
        ),
        (
            {"distillation": {"global_masking": {"strategies": {"interpolation": 1}}}},
            "distillation.global_masking: masking strategy 'interpolation' needs at least three",
        ),
        ({"crops_per_slab": 3}, "crops_per_slab 3 does not divide batch_size 4"),
        ({"steps": 0}, "steps: Input should be greater than 0 (found 0)"),
        ({"precision": "float8"}, "precision: Input should be 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(change, message):
    with pytest.raises(ConfigError) as error:
        read_config(CONTENT | change)
    assert message in str(error.value)


def test_unknown_keys_deep_inside_are_named():
    content = read_config(CONTENT).model_dump(mode="json")
    content["model"]["inputs"]["fields"][0]["token_shap"] = [1, 1, 1]
    content["model"]["networks"]["temperature"]["widht"] = 8
    with pytest.raises(ConfigError) as error:
        read_config(content)
    assert "fields.0.token_shap: unknown key; did you mean 'token_shape'?" in str(error.value)
    assert "networks.temperature.widht: unknown key; did you mean 'width'?" in str(error.value)


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match=r"batch_size: Field required \(found nothing\)"):
        read_config({key: CONTENT[key] for key in ("model", "steps")})


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "is not valid YAML"), ("just words", "must hold keys and values, not str")],
)
def test_files_that_are_no_configuration_are_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no configuration file at .*absent\.yaml"):
        read_config(tmp_path / "absent.yaml")


def test_yaml_can_not_run_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("steps: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_config(path)


def test_what_can_not_be_hidden_or_scored_is_refused_before_a_run():
    content = read_config(CONTENT).model_dump(mode="json")
    content["model"]["inputs"]["neighborhood"]["shape"] = [2, 6, 12]
    content["masking"]["strategies"] = {"interpolation": 1.0}
    with pytest.raises(ConfigError, match="masking strategy 'interpolation' needs"):
        read_config(content)
    content["masking"]["strategies"] = {"random": 1.0}
    for field in content["model"]["inputs"]["fields"]:
        field["token_shape"] = [1, 1, 1]
    content["loss"] = {"spectral": 1.0}
    with pytest.raises(ConfigError, match="the loss 'spectral' can't be used for tokens of shape"):
        read_config(content)


def test_shipped_recipes_are_valid():
    recipes = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert read_config(recipe).steps
