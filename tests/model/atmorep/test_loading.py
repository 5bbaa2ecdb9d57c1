"""Published weights as models like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import xatmorep
from tests.atmorep.cases import NETWORK_CASES, REFERENCE, read
from xatmorep.data.published import PublishedField
from xatmorep.errors import CheckpointError, ConfigError, ConventionError
from xatmorep.model.atmorep.loading import load_atmorep
from xatmorep.model.inputs import NetworkInput
from xatmorep.testing import write_atmorep

# Its fields cover boxes of different size, which no dataset can be cut into.
DIFFERENT_BOXES = "two_fields_qk"
CASES = [case for case in NETWORK_CASES if case != DIFFERENT_BOXES]
CANONICAL = {
    "vorticity": "vorticity",
    "divergence": "divergence",
    "temperature": "temperature",
    "velocity_u": "u_component_of_wind",
    "velocity_v": "v_component_of_wind",
    "velocity_z": "vertical_velocity",
    "specific_humidity": "specific_humidity",
    "total_precip": "total_precipitation",
}
# The small model on a coarse grid: 6 hours, 4 x 6 points of 30 degrees.
COARSE: dict[str, Any] = {
    "fields": [
        ["vorticity", [1, 32, [], 0], [123, 137], [3, 2, 3], [2, 2, 2], [0.5, 0.9, 0.2, 0.05]]
    ],
    "n_size": [6, 120.0, 180.0],
}


def recorded_input(case: str) -> tuple[NetworkInput, dict[str, str]]:
    """Inputs of a case under canonical names, as a dataset would give them."""
    tensors = read(REFERENCE / case / "tensors.safetensors")
    tokens, info, blank = {}, {}, {}
    names = {name.split(".")[2] for name in tensors if name.startswith("in.source.")}
    for name in names:
        values = torch.from_numpy(tensors[f"in.source.{name}"])
        grid = values.shape[:5]
        raw = torch.from_numpy(tensors[f"in.token_info.{name}"])
        raw = raw.reshape(len(raw), -1, *grid[2:], 8).expand(*grid, 8)
        year, day, hour, level, colatitude, longitude, _, step = raw.unbind(-1)
        if case.startswith("gen2023"):
            day = day - hour / 24  # the model adds them
        key = CANONICAL[name]
        tokens[key] = values.flatten(-3)
        info[key] = torch.stack(
            [year, day + 1, hour, level, 90 - colatitude, longitude, step], dim=-1
        )
        blank[key] = torch.zeros(grid, dtype=torch.bool)
    return NetworkInput(tokens, info, blank), {CANONICAL[name]: name for name in names}


@pytest.mark.parametrize("case", CASES)
def test_a_model_like_any_other(case: str, tmp_path: Path) -> None:
    model = load_atmorep(REFERENCE / case)
    inputs, names = recorded_input(case)
    recorded = read(REFERENCE / case / "tensors.safetensors")
    with torch.no_grad():
        layers = model.network.encode(inputs)
        decoded = model.network.decode(layers)
    for canonical, name in names.items():
        last = recorded[f"encoder.{name}.layer{len(layers[canonical]) - 2}.out"]
        found = layers[canonical][-1].reshape(last.shape)
        np.testing.assert_allclose(found, last, rtol=1e-5, atol=2e-5)
        last = recorded[f"decoder.{name}.layer{model.config.decoder.layers - 1}.out"]
        found = decoded[canonical].reshape(last.shape)
        np.testing.assert_allclose(found, last, rtol=1e-5, atol=2e-5)
    assert not model.network.training
    model.save(tmp_path / "model")
    again = xatmorep.load(tmp_path / "model")
    assert again.digest == model.digest
    assert again.config == model.config
    assert again.card == model.card
    with torch.no_grad():
        for name, expected in model.network(inputs).items():
            assert torch.equal(again.network(inputs)[name], expected)


def test_what_the_model_reads() -> None:
    model = load_atmorep(REFERENCE / "gen2024_early_zero_rows")
    spec = model.config.inputs
    (field,) = spec.fields
    assert (field.name, field.units, field.level_type) == ("temperature", "K", "hybrid")
    assert field.levels == (105, 137)
    assert spec.token_reference == "atmorep-2024"
    assert model.config.token_info == "raw"
    assert model.name == "atmorep-g24ez008"
    assert model.card.period == ("2021-01-01", "2021-12-31")


def test_files_of_2023_state_times_in_their_own_way() -> None:
    model = load_atmorep(REFERENCE / "gen2023_two_fields")
    assert model.config.inputs.token_reference == "atmorep-2023"
    assert model.config.token_info == "raw-2023"
    assert model.config.encoder.coupling_heads == 2


def test_the_published_box_of_a_quarter_degree(tmp_path: Path) -> None:
    box = load_atmorep(write_atmorep(tmp_path)).config.inputs.neighborhood
    assert (box.shape, box.time_step, box.grid_step) == ((36, 54, 108), 1.0, (0.25, 0.25))


def test_a_surface_field(tmp_path: Path) -> None:
    fields = [["total_precip", [1, 32, [], 0], [0], [12, 6, 12], [3, 9, 9], [0.5]]]
    predicted = [["total_precip", 1.0]]
    folder = write_atmorep(tmp_path, {"fields": fields, "fields_prediction": predicted})
    (field,) = load_atmorep(folder).config.inputs.fields
    assert (field.name, field.levels, field.level_type) == ("total_precipitation", (), "surface")


@pytest.mark.parametrize("per_head", [False, True])
def test_random_weights_in_both_layouts(per_head: bool, tmp_path: Path) -> None:
    one = load_atmorep(write_atmorep(tmp_path / "one", COARSE, per_head=per_head))
    other = load_atmorep(write_atmorep(tmp_path / "other", COARSE, per_head=per_head, seed=1))
    assert one.parameters == other.parameters
    assert one.digest != other.digest
    assert load_atmorep(tmp_path / "one").digest == one.digest


def coarse_dataset(hours: int = 12) -> xr.Dataset:
    generator = np.random.default_rng(0)
    time = np.datetime64("2021-01-31T18", "h") + np.arange(hours)
    values = generator.standard_normal((hours, 2, 6, 12)).astype("float32") * 1e-5
    return xr.Dataset(
        {"vo": (("time", "hybrid", "latitude", "longitude"), values, {"units": "s-1"})},
        {
            "time": time.astype("datetime64[s]"),
            "hybrid": [123.0, 137.0],
            "latitude": 75.0 - 30.0 * np.arange(6),
            "longitude": 30.0 * np.arange(12),
        },
    )


def test_without_normalization_it_is_refused_on_data(tmp_path: Path) -> None:
    model = load_atmorep(write_atmorep(tmp_path, COARSE))
    assert "normalization: none yet" in repr(model)
    with pytest.raises(ConventionError, match=r"has no normalization.*load_atmorep\(.*normaliz"):
        coarse_dataset().atmorep.embed(model=model)


def test_normalization_fitted_from_a_dataset(tmp_path: Path) -> None:
    ds = coarse_dataset()
    folder = write_atmorep(tmp_path, COARSE)
    model = load_atmorep(folder, normalization=ds)
    months = [12 * 2021, 12 * 2021 + 1]
    assert model.normalizer.mean["vorticity"].year_month.values.tolist() == months
    january = ds.vo.isel(time=slice(0, 6), hybrid=0)
    assert model.normalizer.mean["vorticity"].values[0, 0] == pytest.approx(january.mean().item())
    assert model.normalizer.std["vorticity"].values[0, 0] == pytest.approx(january.std().item())
    result = ds.atmorep.embed(model=model)
    assert np.isfinite(result["vo"]).all()
    named = load_atmorep(
        folder, normalization=ds.rename(vo="mine"), variables={"vorticity": "mine"}
    )
    assert named.digest == model.digest


def published_coefficients(folder: Path) -> dict[int, np.ndarray]:
    """Files of monthly coefficients of two levels, as of 2023."""
    rows = {}
    for level in (123, 137):
        rows[level] = np.array([[2021, 1, 1e-6, 2e-5], [2021, 2, 2e-6, level * 1e-7]], "<f4")
        path = folder / "vorticity" / f"global_normalization_mean_var_vorticity_ml{level}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows[level].tobytes())
    return rows


def test_published_normalization(tmp_path: Path) -> None:
    folder = write_atmorep(tmp_path / "model", COARSE)
    rows = published_coefficients(tmp_path / "normalization")
    model = load_atmorep(folder, normalization=tmp_path / "normalization")
    std = model.normalizer.std["vorticity"]
    assert std.sel(year_month=12 * 2021 + 1, level=137).item() == rows[137][1, 3]
    month = load_atmorep(
        folder, normalization=tmp_path / "normalization", period=("2021-02", "2021-02")
    )
    assert month.normalizer.mean["vorticity"].year_month.values.tolist() == [12 * 2021 + 1]
    with pytest.raises(ConventionError, match="2021-01"):
        coarse_dataset().atmorep.embed(model=month)


def test_normalization_beside_the_weights_is_found(tmp_path: Path) -> None:
    folder = write_atmorep(tmp_path, COARSE)
    published_coefficients(folder / "normalization")
    model = load_atmorep(folder)
    assert np.isfinite(coarse_dataset().atmorep.embed(model=model)["vo"]).all()


def changed(folder: Path, **changes: Any) -> Path:
    (config,) = folder.glob("model_id*.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return folder


FIELD = ["vorticity", [1, 32, [], 0], [123, 137], [3, 2, 3], [2, 2, 2], [0.5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": [["vortcity", *FIELD[1:]]], "fields_prediction": [["vortcity", 1.0]]},
         "has the field 'vortcity', which is not known; did you mean 'vorticity'"),
        ({"fields": [["vorticity", FIELD[1], [0], *FIELD[3:]]]},
         r"field 'vorticity' at the surface \(level 0\), which is not known"),
        ({"fields": [["vorticity", [1, 32, ["w"], 0], *FIELD[2:]]]},
         r"field 'vorticity' is coupled to \['w'\]"),
        ({"encoder_num_heads": 5}, "width 32 .* is not divisible by the 5 encoder"),
        ({"decoder_num_layers": 4}, "decoder reaches below the first encoder layer"),
        ({"decoder_cross_att_ratio": 0.1}, "leaves 0 cross heads"),
        ({"encoder_num_layers": 3}, r"lacks encoders.0.heads.2.*and \d+ more"),
        ({"net_tail_num_nets": 2}, "tails.0.tail_nets.2.0.bias, .* not understood"),
        ({"encoder_att_type": "axial"}, "encoder_att_type: .*'dense' .*'axial'"),
    ],
)  # fmt: skip
def test_refusals(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = changed(write_atmorep(tmp_path, COARSE), **changes)
    with pytest.raises(CheckpointError, match=message):
        load_atmorep(folder)


def test_refusals_of_arguments(tmp_path: Path) -> None:
    folder = write_atmorep(tmp_path, COARSE)
    with pytest.raises(ConfigError, match="period selects published coefficients"):
        load_atmorep(folder, normalization=coarse_dataset(), period=("2021-01", "2021-01"))
    with pytest.raises(CheckpointError, match="no published coefficients"):
        load_atmorep(folder, normalization=tmp_path)
    with pytest.raises(CheckpointError, match=r"cover \(6, 6, 9\) points .* \(6, 6, 8\)"):
        load_atmorep(REFERENCE / DIFFERENT_BOXES)
    with pytest.raises(ConventionError, match="vorticity"):
        load_atmorep(folder, normalization=coarse_dataset().rename(vo="mine"))


def test_shapes_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = write_atmorep(tmp_path / "one", COARSE)
    other = write_atmorep(
        tmp_path / "other",
        COARSE | {"fields": [["vorticity", [1, 64, [], 0], *FIELD[2:]]]},
    )
    shutil.copy(other / "AtmoRep_idrandom00.mod", folder)
    with pytest.raises(CheckpointError, match=r"has shape \(48, 8\), its configuration makes it"):
        load_atmorep(folder)


def test_field_names_of_files_are_not_paths() -> None:
    with pytest.raises(ConfigError, match="is no name of a field"):
        PublishedField("vorticity", "../vorticity", (137.0,), "global")
