"""The input pipeline and the whole way to the grid against what the original code computed."""

from __future__ import annotations

import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.atmorep.cases import REFERENCE, read
from xatmorep.errors import ConfigError
from xatmorep.testing.parity.pipeline import outputs

FILE = "tensors.npz"
# What is recorded as an input, by parts of names.
INPUTS = {
    "positional_encoding": (".rows", ".columns"),
    "input_pipeline": (".draws.", "tokenize.in"),
    "input_cut_2023": ("data.month", "positions_", "global_coefficients"),
    "end_to_end_grid": ("BERT.source_tokens.", "BERT.masked_idx."),
}
# What a network computes, in float32; everything else is exact.
PREDICTED = ("tail_", ".pred", ".ens")
ROUNDING = {"rtol": 5e-6, "atol": 5e-6}


def index(case: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((REFERENCE / case / "index.json").read_text())
    return content


def is_input(case: str, name: str) -> bool:
    return any(part in name for part in INPUTS[case])


@functools.cache
def found(case: str) -> dict[str, np.ndarray]:
    (file, arrays), *others = outputs(REFERENCE / case, index(case)).items()
    assert (file, others) == (FILE, [])
    return arrays


@functools.cache
def recorded(case: str) -> dict[str, np.ndarray]:
    return read(REFERENCE / case / FILE)


RESULTS = [
    (case, name) for case in INPUTS for name in index(case)["tensors"] if not is_input(case, name)
]


@pytest.mark.parametrize(("case", "name"), RESULTS)
def test_every_tensor(case: str, name: str) -> None:
    ours, theirs = found(case)[name], recorded(case)[name]
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if any(part in name for part in PREDICTED):
        np.testing.assert_allclose(ours, theirs, **ROUNDING)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("case", INPUTS)
def test_all_but_the_draws_is_given(case: str) -> None:
    assert list(found(case)) == [name for name in recorded(case) if ".draws." not in name]


@pytest.mark.parametrize("case", INPUTS)
def test_the_record_itself_is_not_read(case: str, tmp_path: Path) -> None:
    for name in {case, "input_pipeline"}:
        shutil.copytree(REFERENCE / name, tmp_path / name)
    spoiled = {
        name: array if is_input(case, name) else np.zeros_like(array)
        for name, array in recorded(case).items()
    }
    np.savez(tmp_path / case / FILE, **spoiled)
    again = outputs(tmp_path / case, index(case))[FILE]
    assert sorted(again) == sorted(found(case))
    for name, array in found(case).items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_a_case_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="describes no case of the input pipeline"):
        outputs(tmp_path, {"case": "losses", "values": {}})


def test_the_quirks_of_writing_show() -> None:
    """What is as the original writes it differs from what is right, and only there."""
    clean = found("end_to_end_grid")["forecast.pred_grid_clean.temperature"]
    written = found("end_to_end_grid")["forecast.pred_grid_as_written.temperature"]
    np.testing.assert_array_equal(clean[-1], written[-1])
    assert abs(clean[0] - written[0]).max() > 1
    random = found("end_to_end_grid")["BERT.coords.temperature.level0.batch0.lon"]
    assert [0, 348] in random.tolist()


# A further case: other fields, grid, levels, hours and year, and a prediction of two token times.

STEP, ROWS, COLUMNS, HOURS = 15.0, 13, 24, 40
FURTHER = {
    "resolution_degrees": STEP,
    "first_time": "2023-12-30T20",
    "fields_attr": ["divergence", "velocity_u", "velocity_z"],
    "levels_attr": [96, 137, 114],
    "fields_sfc_attr": ["land_sea", "total_precip"],
    "n_size": [12, 60.0, 90.0],
    "fields_config": [
        ["velocity_z", [1, 8, [], 0], [114, 96, 137], [4, 2, 1], [3, 2, 6], [1.0, 0.5, 0.5, 0.5]],
        ["land_sea", [0, 8, [], 0], [0], [2, 4, 6], [6, 1, 1], [0.5, 0.9, 0.2, 0.05], "local"],
        ["velocity_u", [1, 8, [], 0], [96], [3, 1, 2], [4, 4, 3], [0.7, 0.9, 0.2, 1], "local"],
    ],
    "forecast_num_tokens": 2,
    "idx_time_mask": [1, 0],
    "raw": {},
}


def write_further(folder: Path, positions: list[tuple[Any, ...]], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def statistics(*shape: int) -> np.ndarray:
        pair = np.stack([normal(13, *shape), 1 + abs(normal(13, *shape))], axis=1)
        # Only the last two months are needed.
        pair[:-2] = 0
        return pair

    first = np.datetime64(FURTHER["first_time"], "s").astype(np.int64)
    np.savez(
        folder / "raw.npz",
        data=normal(HOURS, 3, 3, ROWS, COLUMNS),
        data_sfc=normal(HOURS, 2, ROWS, COLUMNS),
        lats=(STEP * np.arange(ROWS)).astype(np.float32),
        lons=(STEP * np.arange(COLUMNS)).astype(np.float32),
        time_seconds=first + 3600 * np.arange(HOURS),
        norm=statistics(3, 3, ROWS, COLUMNS),
        global_norm=statistics(3, 3),
        norm_sfc=statistics(2, ROWS, COLUMNS),
        global_norm_sfc=statistics(2),
    )
    draws: dict[str, np.ndarray] = {}
    for name, _, levels, tokens, size, rates, *_ in FURTHER["fields_config"]:
        n = math.prod(tokens)
        for level in range(len(levels)) if name != "land_sea" else ():
            prefix = f"BERT.draws.{name}.level{level}."
            uniform = draws[prefix + "masking_ratio_uniform"] = rng.random(len(positions))
            for b in range(len(positions)):
                draws[f"{prefix}permutation.batch{b}"] = rng.permutation(n)
            hidden = sum(math.ceil(n * (rates[0] * u)) for u in uniform)
            for kind in ("mask", "noise", "multires"):
                draws[f"{prefix}uniform_{kind}"] = rng.random(hidden)
            k = int((draws[prefix + "uniform_noise"] < rates[2]).sum())
            draws[prefix + "noise_mix_weight"] = rng.random(k).astype(np.float32)
            draws[prefix + "noise_normal"] = normal(k, math.prod(size))
            draws[prefix + "multires_uniform"] = np.asarray(rng.random())
    np.savez(folder / FILE, **draws)
    return {
        **FURTHER,
        "year_base": 2023,
        "positions_year_month_day_hour_latN_lonE": [list(position) for position in positions],
    }


@pytest.fixture(params=[(345.0, 75.0), (0.0, 180.0), (45.0, 330.0)], ids=str)
def further(request: pytest.FixtureRequest, tmp_path: Path):
    """Two neighborhoods whose last frame is an hour after the turn of the year."""
    positions = [
        (2024, 1, 1, 1, north, east)
        for north, east in zip((30.0, -45.0), request.param, strict=True)
    ]
    content = write_further(tmp_path, positions, seed=int(request.param[0]))
    return positions, read(tmp_path / "raw.npz"), outputs(tmp_path, content)[FILE]


def point(
    raw: dict[str, np.ndarray], entry: list[Any], level: float, hour: int, row: int, col: int
):
    """One normalized number by the definition, in single precision, with its labels."""
    name, scope = entry[0], entry[6:]
    if level:
        field, number = FURTHER["fields_attr"].index(name), FURTHER["levels_attr"].index(level)
        table, place, value = "", (field, number), raw["data"][hour, field, number, row, col]
    else:
        field = FURTHER["fields_sfc_attr"].index(name)
        table, place, value = "_sfc", (field,), raw["data_sfc"][hour, field, row, col]
    date = np.datetime64(int(raw["time_seconds"][hour]), "s").item()
    month = 12 * (date.year - 2023) + date.month - 1
    if scope == ["local"]:
        mean, std = raw[f"norm{table}"][(month, slice(None), *place, row, col)]
    else:
        mean, std = raw[f"global_norm{table}"][(month, slice(None), *place)]
    day = (date - date.replace(month=1, day=1, hour=0)).days
    label = [date.year, day, date.hour, level, STEP * row, STEP * col, level, STEP]
    return (value - mean) / std, label


def test_a_further_case_equals_loops(further) -> None:
    """Tokens and infos of two neighborhoods, at Greenwich and elsewhere, one point at a time."""
    positions, raw, arrays = further
    hour = np.datetime64("2024-01-01T01", "s").astype(np.int64)
    last = int(np.flatnonzero(raw["time_seconds"] == hour)[0])
    for entry in FURTHER["fields_config"]:
        name, _, levels, (nt, na, no), (t, a, o), *_ = entry
        tokens, info = arrays[f"normalized_tokens.{name}"], arrays[f"token_info_per_level.{name}"]
        assert tokens.shape == (len(levels), 2, nt, na, no, t, a, o)
        assert info.shape == (len(levels), 2, 1, nt * na * no, 8)
        for b, (*_, north, east) in enumerate(positions):
            top, left = (90 - north) - 30, east - 45
            for place in np.ndindex(tokens.shape[0], *tokens.shape[2:]):
                level, i, j, k, p, q, r = place
                row = round((top + STEP * (j * a + q)) / STEP)
                column = round((left + STEP * (k * o + r)) / STEP) % COLUMNS
                value, label = point(raw, entry, levels[level], last - 11 + i * t + p, row, column)
                assert tokens[level, b, i, j, k, p, q, r] == value
                if (p, q, r) == (t - 1, a // 2, o // 2):
                    assert info[level, b, 0, (i * na + j) * no + k].tolist() == label


def test_masks_of_a_further_case(further) -> None:
    _, _, arrays = further
    for entry in FURTHER["fields_config"]:
        name, _, levels, (nt, na, no), *_ = entry
        tokens = arrays[f"normalized_tokens.{name}"].swapaxes(0, 1)
        n, space = nt * na * no, na * no
        if name == "land_sea":
            for mode in ("BERT", "forecast", "temporal_interpolation"):
                np.testing.assert_array_equal(arrays[f"{mode}.source.{name}"], tokens)
            continue
        expected = {
            "forecast": list(range((nt - 2) * space, n)),
            "temporal_interpolation": [*range(space, 2 * space), *range(space)],
        }
        flat = tokens.reshape(2, len(levels), n, -1)
        for mode, hidden in expected.items():
            source = arrays[f"{mode}.source.{name}"].reshape(flat.shape)
            assert (source[:, :, hidden] == 0).all()
            others = [token for token in range(n) if token not in hidden]
            np.testing.assert_array_equal(source[:, :, others], flat[:, :, others])
        for mode in (*expected, "BERT"):
            rows = []
            for level in range(len(levels)):
                for b in range(2):
                    indices = arrays[f"{mode}.masked_idx.{name}.level{level}.batch{b}"]
                    if mode != "BERT":
                        assert indices.tolist() == [b * n + token for token in expected[mode]]
                    rows += [flat[b, level, token - b * n] for token in indices]
            np.testing.assert_array_equal(arrays[f"{mode}.target.{name}"], np.stack(rows))
    assert not any(".target.land_sea" in name or "idx.land_sea" in name for name in arrays)
    # All tokens may be chosen of the first field, and of the last all chosen ones are refined.
    assert len(arrays["BERT.target.velocity_z"]) > len(arrays["BERT.target.velocity_u"])
    u = arrays["BERT.source.velocity_u"], arrays["normalized_tokens.velocity_u"].swapaxes(0, 1)
    changed = (u[0] != u[1]).any((-3, -2, -1)).sum()
    assert changed == len(arrays["BERT.target.velocity_u"])
