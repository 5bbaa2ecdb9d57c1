"""Losses of the recorded case, and why some of them differ from the original's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoringrules
import torch
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import norm

from tests.atmorep.cases import NETWORK_CASES, REFERENCE, read
from xatmorep.testing.parity import losses as parity_losses
from xatmorep.testing.parity.losses import Forecast, ensemble_loss, learning_rates, total

FOLDER = REFERENCE / "losses"
INDEX = json.loads((FOLDER / "index.json").read_text())
INPUTS = ("target.", "mean.", "std.", "ens.", "lat_weights.")
POINTWISE = ("pointwise.y", "pointwise.mu", "pointwise.sigma")
OUTPUTS = [n for n in INDEX["tensors"] if not (n.startswith(INPUTS) or n in POINTWISE)]
# Here the original's gradients, and mostly its values, are wrong.
WRONG_LOSSES = ("crps", "stats_area")
WRONG_GRADIENTS = (*WRONG_LOSSES, "kernel_crps", "mse+mse_ensemble+stats+kernel_crps")
WRONG_TENSORS = ("pointwise.crps_", *(f"grad.{loss}." for loss in WRONG_GRADIENTS))
WRONG_NUMBERS = tuple(f"values.{loss}." for loss in WRONG_LOSSES)

FIELDS = [name for name, _ in INDEX["prediction_weights"]]
WEIGHTS = dict(INDEX["prediction_weights"])
MODES = {"independent": "independent_mean_std_ens", "from_ens": "mean_std_from_ens"}

Array = np.ndarray
Parts = dict[str, Array]  # target, mean, std, ens


def flat(content: Any, *place: str) -> dict[str, Any]:
    """Leaves of nested dictionaries by their path, with dots between the keys."""
    if not isinstance(content, dict):
        return {".".join(place): content}
    leaves = [flat(part, *place, key) for key, part in content.items()]
    return {name: leaf for part in leaves for name, leaf in part.items()}


NUMBERS = {
    name: number
    for name, number in flat(INDEX).items()
    if name.startswith("values.") or name.endswith((".values", ".tiles"))
}


@pytest.fixture(scope="module")
def tensors() -> Mapping[str, Array]:
    return parity_losses.outputs(FOLDER, INDEX)["tensors.npz"]


@pytest.fixture(scope="module")
def numbers() -> Mapping[str, Array]:
    return parity_losses.outputs(FOLDER, INDEX)["index.json"]


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, Array]:
    return read(FOLDER / "tensors.npz")


def parts(recorded: Mapping[str, Array], field: str, mode: str) -> Parts:
    """What a loss may read, in float64."""
    names = ("target", "mean", "std", "ens")
    found = {name: recorded[f"{name}.{field}"].astype("f8") for name in names}
    return joined(found) if mode == "from_ens" else found


def joined(found: Parts) -> Parts:
    ens = found["ens"]
    return found | {"mean": ens.mean(1), "std": ens.std(1, ddof=1)}


def test_all_tensors_and_numbers_are_there(tensors: Mapping, numbers: Mapping) -> None:
    assert set(tensors) == set(OUTPUTS)
    assert set(numbers) == set(NUMBERS)
    for name, array in tensors.items():
        described = INDEX["tensors"][name]
        assert (list(array.shape), str(array.dtype)) == (described["shape"], described["dtype"])


@pytest.mark.parametrize("name", [n for n in OUTPUTS if not n.startswith(WRONG_TENSORS)])
def test_tensor_equals_the_record(name: str, tensors: Mapping, recorded: Mapping) -> None:
    exact = name.startswith(("tiles.", "lat_weights_721"))
    np.testing.assert_allclose(tensors[name], recorded[name], rtol=0, atol=0 if exact else 1e-7)


@pytest.mark.parametrize("name", [n for n in NUMBERS if not n.startswith(WRONG_NUMBERS)])
def test_number_equals_the_record(name: str, numbers: Mapping) -> None:
    exact = not name.startswith("values.")
    tolerance = 0 if exact else 1e-12 if name.endswith("float64") else 1e-6
    np.testing.assert_allclose(numbers[name], NUMBERS[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("loss", WRONG_LOSSES)
@pytest.mark.parametrize("mode", MODES.values())
def test_error_of_the_mean_beside_wrong_losses(loss: str, mode: str, numbers: Mapping) -> None:
    name = f"values.{loss}.{mode}.mse_of_mean_averaged_over_fields"
    assert numbers[name] == pytest.approx(NUMBERS[name], abs=1e-6)


def test_nothing_is_computed_from_the_record(
    tensors: Mapping, numbers: Mapping, recorded: Mapping, tmp_path: Path
) -> None:
    inputs = {name: array for name, array in recorded.items() if name not in OUTPUTS}
    np.savez(tmp_path / "tensors.npz", **inputs)
    index = json.loads(json.dumps(INDEX))
    del index["values"], index["zero_spread_behaviour"], index["learning_rates_per_epoch"]["values"]
    again = parity_losses.outputs(tmp_path, index)
    np.testing.assert_equal(again, {"tensors.npz": tensors, "index.json": numbers})


# Totals and learning rates.


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_losses_of_network_cases(case: str) -> None:
    """From the recorded predictions; the total also from the recorded losses, right or wrong."""
    index = json.loads((REFERENCE / case / "index.json").read_text())
    config = json.loads(next((REFERENCE / case).glob("model_id*.json")).read_text())
    file = next(name for name in index["files"] if name.startswith("tensors."))
    content = read(REFERENCE / case / file)
    weights = {name: weight for name, weight, *_ in config["fields_prediction"]}
    record = index["loss"]["per_loss_per_prediction_field"]
    values = {
        field: {name: torch.tensor(record[name][number]) for name in record}
        for number, field in enumerate(weights)
    }
    generation = "2023" if case.startswith("gen2023") else "2024"
    wanted = pytest.approx(index["loss"]["total"], rel=1e-6)
    assert total(values, weights, generation).item() == wanted
    for field, losses in values.items():
        ens, target = (content[f"{part}.{field}"] for part in ("pred_ens", "in.target"))
        for name in set(losses) - set(WRONG_LOSSES):
            found = ensemble_loss(name, torch.tensor(ens), torch.tensor(target)).item()
            assert found == pytest.approx(losses[name].item(), rel=1e-6), (field, name)


def test_generations_share_out_weights_differently() -> None:
    values = {"u": {"mse": torch.tensor(1.0), "stats": torch.tensor(2.0)}}
    assert total(values, {"u": 0.3}).item() == pytest.approx(1.5)
    assert total(values, {"u": 0.3}, "2023").item() == pytest.approx(0.3 * 1.5)


def test_learning_rates_end_at_the_lowest() -> None:
    config = INDEX["learning_rates_per_epoch"]["config"] | {"num_epochs": 100}
    rates = learning_rates(config)
    assert len(rates) == 105
    assert rates[2] == config["lr_max"]
    assert rates[-1] == config["lr_min"] < rates[40]


# Why: wrong values.


def integrated_crps(target: float, mean: float, std: float) -> float:
    """Definition of the score: squared difference of distribution functions, integrated."""
    below = quad(lambda x: norm.cdf(x, mean, std) ** 2, -np.inf, target)[0]
    above = quad(lambda x: norm.sf(x, mean, std) ** 2, target, np.inf)[0]
    return below + above


def original_crps(target: Array, mean: Array, std: Array) -> Array:
    """With sqrt(2 pi) times distribution function and density in place of themselves."""
    z, factor = (target - mean) / std, math.sqrt(2 * math.pi)
    inner = z * (2 * factor * norm.cdf(z) - 1) + 2 * factor * norm.pdf(z)
    return std * (inner - 1 / math.sqrt(math.pi))


def test_recorded_crps_is_not_the_integral_that_defines_it(
    tensors: Mapping, recorded: Mapping
) -> None:
    points = [recorded[name].astype("f8") for name in POINTWISE]
    wanted = np.array([integrated_crps(*point) for point in zip(*points, strict=True)])
    record = recorded["pointwise.crps_as_computed"]
    np.testing.assert_allclose(tensors["pointwise.crps_as_computed"], wanted, rtol=1e-5)
    above = points[0] > points[1]  # far below the mean, the distribution function is 0 anyway
    assert (record[above] > wanted[above] + 0.5).all()
    np.testing.assert_allclose(record, original_crps(*points), rtol=1e-5)


def test_recorded_crps_prefers_wrong_forecasts() -> None:
    """With targets from N(0, 1) a mean of 1 beats one of 0, and the narrowest spread is best."""
    target = norm.ppf((np.arange(2000) + 0.5) / 2000)

    def ours(target: Array, mean: float, std: float) -> Array:
        moments = (torch.full((1, len(target)), value).double() for value in (mean, std))
        ens, there = torch.zeros(1, 1, len(target)), torch.from_numpy(target)[None]
        return parity_losses.LOSSES["crps"](Forecast(*moments, ens, there)).numpy()

    forecasts = [(0.0, 1.0), (1.0, 1.0), (0.0, 0.3)]
    for score, best in ((ours, 0), (original_crps, 1)):
        scores = [score(target, mean, std).mean() for mean, std in forecasts]
        assert int(np.argmin(scores)) == best
    assert original_crps(target, 0.0, 0.3).mean() < original_crps(target, 0.0, 1.0).mean()


def probability_between(target: float, mean: float, std: float) -> float:
    return abs(quad(lambda x: norm.pdf(x, mean, std), mean, target)[0])


def area(forecast: Parts, u: Array) -> float:
    return float(0.2 * np.mean(u**2) + np.mean(np.sqrt(forecast["std"])))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("field", FIELDS)
def test_recorded_area_is_not_the_probability_between_mean_and_target(
    field: str, mode: str, numbers: Mapping, recorded: Mapping
) -> None:
    forecast = parts(recorded, field, mode)
    target, mean, std = (forecast[name] for name in ("target", "mean", "std"))
    points = zip(target.flat, mean.flat, std.flat, strict=True)
    u = 2 * np.array([probability_between(*point) for point in points])
    name, number = f"values.stats_area.{MODES[mode]}.per_field.stats_area", FIELDS.index(field)
    assert numbers[name][number] == pytest.approx(area(forecast, u), abs=1e-6)
    assert abs(NUMBERS[name][number] - area(forecast, u)) > 0.03
    # Divided by the variance, an error in kelvin and one in millikelvin are judged differently.
    original = area(forecast, erf((target - mean) / std**2))
    assert NUMBERS[name][number] == pytest.approx(original, abs=1e-6)


# Why: wrong gradients, here against finite differences of the right values in float64.


def kernel_crps(forecast: Parts) -> float:
    """Fair form, every pair of members on its own."""
    target, ens = forecast["target"], forecast["ens"]
    members = ens.shape[1]
    pairs = abs(ens[:, :, None] - ens[:, None]).sum((1, 2)) / (2 * members * (members - 1))
    return float(np.mean(abs(ens - target[:, None]).mean(1) - pairs))


def stats(forecast: Parts) -> float:
    target, mean, std = (forecast[name] for name in ("target", "mean", "std"))
    likely = np.exp(-((target - mean) ** 2) / (2 * std**2))
    return float(np.mean((likely - 1) ** 2) + np.mean(np.sqrt(std)))


RIGHT: dict[str, Callable[[Parts], float]] = {
    "mse": lambda f: float(np.mean((f["mean"] - f["target"]) ** 2)),
    "mse_ensemble": lambda f: float(np.mean((f["ens"] - f["target"][:, None]) ** 2)),
    "stats": stats,
    "stats_area": lambda f: area(f, erf((f["target"] - f["mean"]) / (math.sqrt(2) * f["std"]))),
    "crps": lambda f: scoringrules.crps_normal(f["target"], f["mean"], f["std"]).mean(),
    "kernel_crps": kernel_crps,
}


def differences(value: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    slopes = np.empty(at.shape)
    for place in np.ndindex(at.shape):
        move = np.zeros(at.shape)
        move[place] = step
        slopes[place] = (value(at + move) - value(at - move)) / (2 * step)
    return slopes


GRADIENTS = [n for n in OUTPUTS if n.startswith("grad.") and n.split(".")[1] in WRONG_GRADIENTS]


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_that_of_the_right_loss(name: str, tensors: Mapping, recorded: Mapping) -> None:
    _, combination, mode, *part, field = name.split(".")
    leaf = part[0] if part else "ens"
    forecast = parts(recorded, field, "independent")
    losses = combination.split("+")
    share = WEIGHTS[field] / (sum(WEIGHTS.values()) * len(losses))

    def value(at: Array) -> float:
        moved = forecast | {leaf: at}
        moved = joined(moved) if mode == "from_ens" else moved
        return share * sum(RIGHT[loss](moved) for loss in losses)

    wanted = differences(value, forecast[leaf])
    np.testing.assert_allclose(tensors[name], wanted, rtol=0, atol=1e-7)
    wrong = mode == "from_ens" or leaf == "ens" or combination in WRONG_LOSSES
    assert (abs(recorded[name] - wanted).max() > 5e-4) == wrong


@pytest.mark.parametrize("field", FIELDS)
def test_recorded_kernel_crps_has_the_gradient_of_the_error_only(
    field: str, recorded: Mapping
) -> None:
    forecast = parts(recorded, field, "independent")
    sign = np.sign(forecast["ens"] - forecast["target"][:, None])
    wanted = WEIGHTS[field] / sum(WEIGHTS.values()) * sign / sign.size
    np.testing.assert_allclose(recorded[f"grad.kernel_crps.independent.ens.{field}"], wanted, 1e-5)


# Why: no spread.


@pytest.mark.parametrize("name", INDEX["zero_spread_behaviour"])
def test_without_spread(name: str) -> None:
    """Finite everywhere; the recorded value wherever that is finite."""
    record, (loss, _, case) = INDEX["zero_spread_behaviour"][name], name.partition(".")
    target = torch.full((2, 3), float(case == "zero_spread_target_differs"))
    given = Forecast(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4, 3), target)
    for joins in (False, True):
        leaves = given.leaves()
        value = parity_losses.LOSSES[loss](leaves.of_ensemble() if joins else leaves)
        value.backward()
        recorded = float(record["loss"])
        wanted = target[0, 0].item() if math.isnan(recorded) else recorded
        assert value.item() == pytest.approx(wanted)
        for part in ("mean", "std", "ens"):
            gradient = getattr(leaves, part).grad
            if not joins:
                assert (gradient is None) == (record[f"grad_{part}"] == "none")
            assert gradient is None or gradient.isfinite().all()


def test_statistical_loss_of_the_record_has_no_gradient_without_spread() -> None:
    """The published formula is NaN, ours the limit of a spread that vanishes."""
    record = INDEX["zero_spread_behaviour"]["stats.zero_spread_target_differs"]
    assert (record["grad_mean"], record["grad_std"]) == ("nan", "nan")
    mean, std = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    published = (torch.exp(-((1 - mean) ** 2) / (2 * std**2)) - 1) ** 2 + std.abs().sqrt()
    published.sum().backward()
    assert mean.grad.isnan().all()
    assert std.grad.isnan().all()
    for spread, atol in ((1e-4, 0.011), (1e-8, 1.1e-4), (1e-12, 1.1e-6)):
        forecast = Forecast(
            torch.zeros(1, 1), torch.full((1, 1), spread), torch.zeros(1, 1, 1), torch.ones(1, 1)
        ).leaves(torch.float64)
        value = parity_losses.LOSSES["stats"](forecast)
        value.backward()
        assert value.item() == pytest.approx(1, abs=atol)
        assert forecast.mean.grad.item() == 0


# Other cases of the same layout.


def test_fewer_fields_in_another_order_and_one_member(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = {"u": (2, 3, 2), "v": (1, 2, 4), "t": (3, 1, 2)}
    arrays = {name: abs(generator.standard_normal(9, "f4")) for name in POINTWISE}
    squares, errors = {}, {}
    for name, size in sizes.items():
        target, mean = generator.standard_normal((2, 4, math.prod(size)), "f4")
        rows = generator.random((4, size[1]), "f4")
        arrays |= {f"target.{name}": target, f"lat_weights.{name}": rows}
        arrays |= {f"mean.{name}": mean, f"std.{name}": 0 * mean, f"ens.{name}": mean[:, None]}
        error = (mean - target).reshape(4, *size)
        weights = np.broadcast_to(rows[:, None, :, None], error.shape)
        squares[name], errors[name] = np.average(error**2, weights=weights), abs(error).mean()
    np.savez(tmp_path / "tensors.npz", **arrays)
    index = {
        "fields": [[name, [1, 8, [], 0], [137], [1, 1, 1], size] for name, size in sizes.items()],
        "prediction_weights": [["t", 0.1], ["u", 0.7]],
        "values": dict.fromkeys(("weighted_mse", "stats+kernel_crps", "crps", "stats_area")),
        "tensors": {},
    }
    found = parity_losses.outputs(tmp_path, index)
    assert all(np.isfinite(array).all() for file in found.values() for array in file.values())
    assert not any(name.endswith(".v") for name in found["tensors.npz"])

    def value(losses: str, name: str) -> Array:
        return found["index.json"][f"values.{losses}.independent_mean_std_ens.{name}"]

    wanted = [squares["t"], squares["u"]]
    assert value("weighted_mse", "per_field.weighted_mse") == pytest.approx(wanted)
    total = (0.1 * squares["t"] + 0.7 * squares["u"]) / 0.8
    assert value("weighted_mse", "total") == pytest.approx(total)
    assert value("stats+kernel_crps", "per_field.stats") == pytest.approx([1, 1])
    wanted = [errors["t"], errors["u"]]
    assert value("stats+kernel_crps", "per_field.kernel_crps") == pytest.approx(wanted)
    assert value("crps", "per_field.crps") == pytest.approx(wanted)
