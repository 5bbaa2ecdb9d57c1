"""Losses, learning rates and tiles of a recorded case, from its inputs and configuration alone.

The original's losses read a mean, a spread and an ensemble. Where its formulas are wrong, these
are the right ones, and the results differ from the record:

``crps``
    The original takes sqrt(2 pi) times the distribution function and the density for themselves.
``stats_area``
    The original divides the error by the variance, for sqrt(2) times the standard deviation.
``kernel_crps``
    The same value, but in the original the term of the spread has no gradient.
any loss that reads the spread
    The original's values or gradients are NaN where the spread is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xatmorep.objectives import gaussian, losses
from xatmorep.testing.parity.tiling import global_tiles, latitude_weight_table

__all__ = ["Forecast", "ensemble_loss", "learning_rates", "outputs", "stats_area", "total"]

TENSORS = "tensors.npz"
INPUTS = ("target.", "mean.", "std.", "ens.", "lat_weights.")
POINTWISE = ("pointwise.y", "pointwise.mu", "pointwise.sigma")
DIRECT = "kernel_crps_direct"
TILES = "global_tiling_centres_latN_lonE"
RATES = "learning_rates_per_epoch"


@dataclass(frozen=True)
class Forecast:
    """What is predicted of a field, and what was there.

    Attributes
    ----------
    mean, std : Tensor
        ``(N, P)``; they need not be those of the ensemble.
    ens : Tensor
        ``(N, M, P)`` of N tokens, M members and P points.
    target : Tensor
        ``(N, P)``.
    weight : Tensor or None
        ``(N, P)``, used by ``weighted_mse``.
    """

    mean: Tensor
    std: Tensor
    ens: Tensor
    target: Tensor
    weight: Tensor | None = None

    def of_ensemble(self) -> Forecast:
        """The same with mean and spread of the ensemble."""
        mean, std = gaussian.moments(self.ens)
        return replace(self, mean=mean, std=std)

    def leaves(self, dtype: torch.dtype = torch.float32) -> Forecast:
        """Copies that collect gradients."""
        predicted = {
            name: getattr(self, name).detach().to(dtype).requires_grad_()
            for name in ("mean", "std", "ens")
        }
        return replace(self, target=self.target.to(dtype), **predicted)


def stats_area(target: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    r"""Statistical loss from the Gaussian probability between the mean and the target.

    .. math:: 0.2\, u^2 + \sqrt{s}, \qquad u = \operatorname{erf}\frac{|y - m|}{\sqrt{2} s}

    with u twice that probability.

    Parameters
    ----------
    target, mean, std : Tensor
        Of one shape.

    Returns
    -------
    Tensor
        Of the same shape.

    Examples
    --------
    >>> stats_area(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.ones(2))
    tensor([1.0000, 1.0932])
    """
    error, variance = target - mean, std.square()
    # Beyond 14 standard deviations erf is 1. Leaving it out keeps gradients from 0 * inf.
    far = error.square() >= 200 * variance
    near = torch.erf(error / (math.sqrt(2) * std.masked_fill(far, 1.0)))
    u = near.where(~far, (error != 0).to(near.dtype))
    return 0.2 * u.square() + gaussian.root_spread(variance)


LOSSES: dict[str, Callable[[Forecast], Tensor]] = {
    "mse": lambda f: losses.mse_mean(f.mean[:, None], f.target),
    "mse_ensemble": lambda f: losses.mse_ensemble(f.ens, f.target),
    "weighted_mse": lambda f: losses.mse_ensemble(f.ens, f.target, f.weight),
    "stats": lambda f: gaussian.statistical(f.target, f.mean, f.std.square()).mean(),
    "stats_area": lambda f: stats_area(f.target, f.mean, f.std).mean(),
    "crps": lambda f: gaussian.crps(f.target, f.mean, f.std).mean(),
    "kernel_crps": lambda f: losses.crps(f.ens, f.target, fair=True),
}
"""AtmoRep's losses by its names for them."""


def ensemble_loss(name: str, ens: Tensor, target: Tensor) -> Tensor:
    """One of AtmoRep's losses of an ensemble and its own mean and spread.

    Parameters
    ----------
    name : str
        AtmoRep's name of the loss.
    ens, target : Tensor
        ``(N, M, P)`` and ``(N, P)``.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> ensemble_loss("mse_ensemble", torch.tensor([[[1.0], [3.0]]]), torch.tensor([[2.0]]))
    tensor(1.)
    """
    mean, std = gaussian.moments(ens)
    return LOSSES[name](Forecast(mean, std, ens, target))


def total(
    values: Mapping[str, Mapping[str, Tensor]],
    weights: Mapping[str, float],
    generation: Literal["2023", "2024"] = "2024",
) -> Tensor:
    """Total loss over fields and losses.

    The sum of all losses times the weights of their fields, divided in 2024 by the sum of the
    weights over fields and losses, in 2023 by the number of fields and losses.

    Parameters
    ----------
    values : mapping of str to mapping of str to Tensor
        Losses by field and name.
    weights : mapping of str to float
        Weight of each field.
    generation : {"2023", "2024"}
        Of the original's code.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> values = {"u": {"mse": torch.tensor(1.0)}, "t": {"mse": torch.tensor(5.0)}}
    >>> total(values, {"u": 0.3, "t": 0.1}), total(values, {"u": 0.3, "t": 0.1}, "2023")
    (tensor(2.), tensor(0.4000))
    """
    terms = [(weights[field], loss) for field in values for loss in values[field].values()]
    divisor = sum(weight for weight, _ in terms) if generation == "2024" else len(terms)
    return torch.stack([weight * loss for weight, loss in terms]).sum() / divisor


def learning_rates(config: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Learning rate of each epoch, and of five more.

    They rise linearly from ``lr_start`` to ``lr_max`` over ``lr_start_epochs`` values, and are
    then divided by ``lr_decay_rate`` each epoch, down to ``lr_min``.

    Parameters
    ----------
    config : mapping
        With the keys named, and ``num_epochs``.

    Returns
    -------
    (num_epochs + 5,) float64 array

    Examples
    --------
    >>> decay = {"lr_min": 0.2, "lr_decay_rate": 2.0, "num_epochs": 1}
    >>> learning_rates({"lr_start": 0.0, "lr_max": 1.0, "lr_start_epochs": 3} | decay)
    array([0.  , 0.5 , 1.  , 0.5 , 0.25, 0.2 ])
    """
    rates = np.linspace(config["lr_start"], config["lr_max"], config["lr_start_epochs"]).tolist()
    while len(rates) < config["num_epochs"] + 5:
        rates.append(max(rates[-1] / config["lr_decay_rate"], config["lr_min"]))
    return np.array(rates)


def outputs(folder: Path, index: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """All values and gradients of a case of losses.

    Parameters
    ----------
    folder : Path
        With ``tensors.npz``; of this only the predictions, targets and weights are read.
    index : mapping
        Content of ``index.json``: fields and their weights, which losses and tiles are wanted,
        and the settings of tiles and learning rates.

    Returns
    -------
    dict of str to dict of str to array
        Arrays by file and name: of ``tensors.npz`` and, under their place in it with dots
        between the keys, the numbers of ``index.json``.
    """
    inputs = _read(folder / TENSORS)
    forecasts = {name: _forecast(inputs, name, _sizes(index)[name]) for name in _weights(index)}
    tensors, numbers = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for combination in _combinations(index):
        tensors |= _gradients(combination, forecasts, _weights(index))
        numbers |= _values(combination, forecasts, _weights(index))
    numbers |= _direct(next(iter(forecasts.values())))
    for name, tiling in index.get(TILES, {}).items():
        tiles = _tiles(tiling)
        tensors[f"tiles.{name}"] = tiles
        numbers[f"{TILES}.{name}.tiles"] = np.asarray(len(tiles))
    if RATES in index:
        numbers[f"{RATES}.values"] = learning_rates(index[RATES]["config"])
    tensors |= _pointwise(*(inputs[name] for name in POINTWISE))
    tensors["lat_weights_721"] = latitude_weight_table()
    return {TENSORS: tensors, "index.json": numbers}


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors that are inputs, and no others."""
    with np.load(path) as content:
        names = [name for name in content if name.startswith(INPUTS) or name in POINTWISE]
        return {name: torch.from_numpy(content[name]) for name in names}


def _combinations(index: Mapping[str, Any]) -> list[str]:
    """Names of losses, joined by a plus sign where several are summed."""
    gradients = [name.split(".")[1] for name in index["tensors"] if name.startswith("grad.")]
    wanted = dict.fromkeys([*index.get("values", ()), *gradients])
    return [name for name in wanted if name != DIRECT]


def _weights(index: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the predicted fields, in the order of the predictions."""
    return {name: weight for name, weight, *_ in index["prediction_weights"]}


def _sizes(index: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Token size (time, latitude, longitude) of each field."""
    return {name: tuple(size) for name, _, _, _, size, *_ in index["fields"]}


def _forecast(inputs: Mapping[str, Tensor], name: str, size: tuple[int, int, int]) -> Forecast:
    rows = inputs[f"lat_weights.{name}"][:, None, :, None]
    return Forecast(
        mean=inputs[f"mean.{name}"],
        std=inputs[f"std.{name}"],
        ens=inputs[f"ens.{name}"],
        target=inputs[f"target.{name}"],
        weight=rows.expand(-1, *size).flatten(1),
    )


def _losses(combination: str, forecasts: Mapping[str, Forecast]) -> dict[str, dict[str, Tensor]]:
    """Losses whose names are joined by a plus sign, by field and name."""
    return {
        field: {loss: LOSSES[loss](forecast) for loss in combination.split("+")}
        for field, forecast in forecasts.items()
    }


def _gradients(
    combination: str, forecasts: Mapping[str, Forecast], weights: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Of the total, with mean, spread and ensemble on their own, and then with the ensemble's."""
    leaves = {name: forecast.leaves() for name, forecast in forecasts.items()}
    total(_losses(combination, leaves), weights).backward()
    found = {
        f"grad.{combination}.independent.{part}.{field}": getattr(leaf, part).grad
        for field, leaf in leaves.items()
        for part in ("mean", "std", "ens")
    }
    leaves = {name: forecast.leaves() for name, forecast in forecasts.items()}
    joined = {name: leaf.of_ensemble() for name, leaf in leaves.items()}
    total(_losses(combination, joined), weights).backward()
    found |= {f"grad.{combination}.from_ens.{name}": leaf.ens.grad for name, leaf in leaves.items()}
    return {name: gradient.numpy() for name, gradient in found.items() if gradient is not None}


def _values(
    combination: str, forecasts: Mapping[str, Forecast], weights: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Totals, and losses of each field, by their place in the index."""
    place = f"values.{combination}"
    independent = f"{place}.independent_mean_std_ens"
    joined = {name: forecast.of_ensemble() for name, forecast in forecasts.items()}
    double = {name: forecast.leaves(torch.float64) for name, forecast in forecasts.items()}
    return {
        f"{independent}.total_float64": _array(total(_losses(combination, double), weights)),
        **dict(_numbers(independent, combination, forecasts, weights)),
        **dict(_numbers(f"{place}.mean_std_from_ens", combination, joined, weights)),
    }


def _numbers(
    place: str,
    combination: str,
    forecasts: Mapping[str, Forecast],
    weights: Mapping[str, float],
) -> Iterator[tuple[str, np.ndarray]]:
    values = _losses(combination, forecasts)
    yield f"{place}.total", _array(total(values, weights))
    errors = torch.stack([LOSSES["mse"](forecast) for forecast in forecasts.values()])
    yield f"{place}.mse_of_mean_averaged_over_fields", _array(errors.mean())
    for loss in combination.split("+"):
        fields = torch.stack([values[name][loss] for name in forecasts])
        yield f"{place}.per_field.{loss}", _array(fields)


def _direct(forecast: Forecast) -> dict[str, np.ndarray]:
    """Ensemble CRPS in its two forms, and of the first member alone."""
    one = forecast.ens[:, :1]
    values = {
        "fair": losses.crps(forecast.ens, forecast.target, fair=True),
        "unfair": losses.crps(forecast.ens, forecast.target),
        "one_member": losses.crps(one, forecast.target, fair=True),
    }
    return {f"values.{DIRECT}.{name}": _array(value) for name, value in values.items()}


def _tiles(tiling: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    tokens, size = tiling["num_tokens"][1:], tiling["token_size"][1:]
    return global_tiles(tiling["resolution"], tokens, size, tiling["token_overlap"])


def _pointwise(y: Tensor, mu: Tensor, sigma: Tensor) -> dict[str, np.ndarray]:
    """Parts of the losses; the helper is sqrt(2 pi) times the normal distribution function."""
    helper = math.sqrt(math.pi / 2) * (1 + torch.erf(y / math.sqrt(2)))
    return {
        "pointwise.gaussian_unnormalised": _array(gaussian.likely(y, mu, sigma.square())),
        "pointwise.crps_as_computed": _array(gaussian.crps(y, mu, sigma)),
        "pointwise.erf_helper_of_y": _array(helper),
    }


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().numpy())
