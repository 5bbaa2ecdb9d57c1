"""Every recipe of the examples: what it says is done, with a small model and small data."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import xatmorep
from tests.data import replicas
from tests.recipes import EXAMPLES, RECIPES, code, reduced, write_stores
from tests.simulated import open_sample
from xatmorep import cli
from xatmorep.errors import ConfigError, ConventionError
from xatmorep.model.atmorep.config import model_config
from xatmorep.model.atmorep.settings import Settings
from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import PretrainConfig, read_config

PAGE = (EXAMPLES.parent / "docs/how-to/pretrain.md").read_text()

# Data of the recipes whose command is a script of their own.
SAMPLES: dict[str, tuple[Callable[[], xr.Dataset], slice]] = {
    "era5_surface_tiny.yaml": (
        lambda: xatmorep.open_dataset("era5-sample"),
        slice("2026-03-30", "2026-03-31"),
    ),
    "simulated_multi_small.yaml": (open_sample, slice("2001-01-17", "2001-01-20")),
}

# The published configurations, as they stand in the files beside the weights of 2023.
PUBLISHED = {
    "file_shape": [-1, 721, 1440],
    "with_qk_lnorm": True,
    "encoder_num_layers": 10,
    "encoder_num_heads": 16,
    "encoder_num_mlp_layers": 2,
    "decoder_num_layers": 10,
    "decoder_num_heads": 16,
    "decoder_num_mlp_layers": 2,
    "decoder_cross_att_ratio": 0.5,
    "decoder_cross_att_rate": 1.0,
    "net_tail_num_nets": 16,
    "net_tail_num_layers": 0,
}
MULTI = {
    "vorticity": (2048, ["divergence", "temperature"], 0.25),
    "velocity_z": (1536, ["vorticity", "divergence"], 0.1),
    "divergence": (2048, ["vorticity", "temperature"], 0.25),
    "specific_humidity": (2048, ["vorticity", "divergence", "velocity_z"], 0.15),
    "temperature": (1024, ["vorticity", "divergence"], 0.15),
    "total_precip": (1536, ["vorticity", "divergence", "specific_humidity"], 0.1),
}


class Trained(NamedTuple):
    """A reduced run of a recipe, and the data that it was given."""

    config: PretrainConfig
    ds: xr.Dataset
    out: Path


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The catalog entries that the recipes name, behind an object-store emulator."""
    from xatmorep.data.gcs import PublicBuckets

    binary = replicas.emulator_binary()
    if binary is None:
        pytest.skip("no object-store emulator for this platform")
    root = tmp_path_factory.mktemp("buckets")
    write_stores(root)
    with replicas.emulator(binary, root) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        yield
    # Instances are reused, and keep the address that they were made with.
    PublicBuckets.clear_instance_cache()


@pytest.fixture(scope="module", params=RECIPES)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trained]:
    """Do what a recipe says: make its data, and run its command."""
    recipe, folder = request.param, tmp_path_factory.mktemp("recipe")
    config = reduced(read_config(EXAMPLES / recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if recipe in SAMPLES:
            opened, validation = SAMPLES[recipe]
            xatmorep.pretrain(opened(), config, "run", validation=validation, progress=False)
            yield Trained(config, opened(), folder / "run")
            return
        request.getfixturevalue("cloud")
        exec(compile(code(recipe), recipe, "exec"), {})
        path = folder / "examples" / recipe
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        words = shlex.split(config.command)
        assert cli.main([*words[1:], "--device", "cpu"]) == 0
        options = cli._parser().parse_args(words[1:])
        yield Trained(config, xatmorep.open_dataset(options.data), folder / options.out)


def test_it_trains_as_its_comments_say(trained: Trained) -> None:
    with (trained.out / "ledger.csv").open() as file:
        losses = [float(line["loss"]) for line in csv.DictReader(file)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    model = xatmorep.load(trained.out / "last")
    assert model.parameters < 100_000
    begun = Multiformer(trained.config.model, torch.Generator().manual_seed(trained.config.seed))
    before, after = begun.state_dict(), model.network.state_dict()
    changed = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    for name, _ in begun.named_parameters():
        assert name in changed or "bias" in name, name


def test_its_model_embeds_its_data(trained: Trained) -> None:
    model = xatmorep.load(trained.out / "best")
    axes, shape = trained.ds.atmorep.axes, trained.config.model.inputs.neighborhood.shape
    box = dict(zip(("time", "latitude", "longitude"), shape, strict=True))
    few = trained.ds.isel({axes[axis]: slice(n) for axis, n in box.items()})
    embedding = few.atmorep.embed(model=model)
    for name in trained.config.model.networks:
        variable = few.atmorep.fields[name]
        assert embedding[variable].sizes["feature"] == 16
        assert np.isfinite(embedding[variable]).all(), name


def test_the_folder_of_another_recipe_is_refused_and_left_alone(trained: Trained) -> None:
    files = {path: path.stat().st_mtime_ns for path in trained.out.rglob("*")}
    other = trained.config.model_copy(update={"seed": 7})
    with pytest.raises(ConfigError, match=r"holds a run with other configuration: seed is 7"):
        xatmorep.pretrain(trained.ds, other, trained.out, progress=False)
    assert {path: path.stat().st_mtime_ns for path in trained.out.rglob("*")} == files


# ---- what the files say


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_makes_it_small_leaves_the_task_as_it_is(recipe: str) -> None:
    full = read_config(EXAMPLES / recipe)
    small = reduced(full)
    for one, other in zip(full.model.inputs.fields, small.model.inputs.fields, strict=True):
        assert one.model_copy(update={"token_shape": other.token_shape}) == other
    assert small.model.inputs.statics == full.model.inputs.statics
    for part in ("normalization", "masking", "loss", "field_weights", "precision", "ema"):
        assert getattr(small, part) == getattr(full, part), part
    assert (small.optimizer.exponential is None) == (full.optimizer.exponential is None)


@cache
def parameters(recipe: str) -> int:
    """Number of parameters, without memory for any."""
    config = read_config(EXAMPLES / recipe)
    with torch.device("meta"):
        network = Multiformer(config.model)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_has_it_with_its_size(recipe: str) -> None:
    rows = re.findall(rf"^\| `examples/{re.escape(recipe)}` \|(.*)\|$", PAGE, re.MULTILINE)
    assert len(rows) == 1, f"a row for examples/{recipe} in docs/how-to/pretrain.md"
    number = parameters(recipe)
    words = f"{number / 1e9:.3g} billion" if number > 1e9 else f"{number / 1e6:.3g} million"
    assert rows[0].endswith(f"| {words} "), words


def test_the_page_has_no_others() -> None:
    found = re.findall(r"^\| `examples/(\S+\.yaml)` \|", PAGE, re.MULTILINE)
    assert sorted(found) == RECIPES


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - set(SAMPLES)))
def test_what_its_comments_count_is_right(recipe: str) -> None:
    config = read_config(EXAMPLES / recipe)
    number, text = parameters(recipe), (EXAMPLES / recipe).read_text()
    words = f"{number:,}" if number > 1e8 else f"{number / 1e6:.0f} million"
    assert f"Needs: {words} parameters" in text
    gigabytes = number * (20 if config.ema else 16) / 1e9
    assert f" {gigabytes:.{1 if gigabytes < 20 else 0}f} GB" in text.replace("\n#", "")
    assert f"--config examples/{recipe} " in config.command


@pytest.mark.parametrize(
    ("recipe", "fields", "coupling_heads"),
    [
        ("atmorep_vorticity.yaml", {"vorticity": (2048, [], 1.0)}, 1),
        ("atmorep_multi.yaml", MULTI, 2),
    ],
)
def test_networks_are_those_of_the_published_weights(
    recipe: str, fields: dict[str, tuple[int, list[str], float]], coupling_heads: int
) -> None:
    content = PUBLISHED | {
        "coupling_num_heads_per_field": coupling_heads,
        "fields": [
            [
                name,
                [1, width, coupled, 0],
                [0] if name == "total_precip" else [96, 105, 114, 123, 137],
                [12, 6, 12],
                [3, 9, 9],
                [0.25, 0.9, 0.1, 0.05],
            ]
            for name, (width, coupled, _) in fields.items()
        ],
        "fields_prediction": [[name, weight] for name, (*_, weight) in fields.items()],
    }
    config = read_config(EXAMPLES / recipe)
    expected = model_config(Settings.model_validate(content), True, recipe)
    assert config.model == expected
    if config.field_weights:
        assert list(config.field_weights.values()) == [weight for *_, weight in fields.values()]


# ---- what is refused before anything is begun


SIMULATED = reduced(read_config(EXAMPLES / "simulated_multi_small.yaml"))
HELD_OUT = slice("2001-01-17", "2001-01-20")


def changed(*keys: str | int, value: Any) -> dict[str, Any]:
    """The recipe of the simulated set with another value in one place."""
    run = SIMULATED.model_dump(mode="json")
    inner: Any = run
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return run


TOKENS = ("model", "inputs", "fields", 2, "token_shape")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (changed("stepz", value=2), "stepz: unknown key; did you mean 'steps'?"),
        (
            changed("model", "encoder", "layerz", value=2),
            "model.encoder.layerz: unknown key; did you mean 'layers'?",
        ),
        (
            changed(*TOKENS, value=[2, 3, 2]),
            "has 4 points in latitude, which tokens of 3 points of 'temperature' do not divide",
        ),
        (changed(*TOKENS, value=[0, 2, 2]), "token_shape of 'temperature' must be positive"),
        (changed(*TOKENS, value=[2, 2]), "fields.2.token_shape.2: Field required"),
        (changed(*TOKENS, value=[6, 4, 4]), "masking strategy 'forecast' needs at least two token"),
    ],
)
def test_mistakes_in_a_recipe_are_refused_before_it_begins(
    run: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        xatmorep.pretrain(open_sample(), run, tmp_path / "run", validation=HELD_OUT)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "validation", "error", "message"),
    [
        ({"time": slice(5)}, None, ConventionError, "'time' has 5 points, fewer than the 6 of one"),
        ({"latitude": slice(3)}, HELD_OUT, ConventionError, "'latitude' has 3 points, fewer than"),
        ({}, slice("2001-01-02", "2001-01-19"), ConfigError, "leaves no run of 6 times"),
        ({}, slice("2001-01-20", "2001-01-20"), ConfigError, "holds 4 times, a neighborhood has 6"),
    ],
)
def test_data_that_are_too_short_are_refused_before_it_begins(
    part: dict[str, slice],
    validation: slice | None,
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    ds = open_sample().isel(part)
    with pytest.raises(error, match=re.escape(message)):
        xatmorep.pretrain(ds, SIMULATED, tmp_path / "run", validation=validation)
    assert not list(tmp_path.iterdir())
