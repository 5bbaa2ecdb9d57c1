"""Our network against what the original code computed, layer by layer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.atmorep.cases import NETWORK_CASES, REFERENCE, compare, read
from xatmorep.model.config import ModelConfig
from xatmorep.model.encoder import plain_norm
from xatmorep.model.multiformer import Multiformer
from xatmorep.testing import reference_outputs
from xatmorep.testing.parity import losses as parity_losses
from xatmorep.testing.parity import network as parity_network
from xatmorep.testing.parity.network import GRADIENTS, Network, network_input, read_inputs

# Rounding of float32 in the record itself: up to 9e-6 of values up to 21.
HIDDEN = {"rtol": 1e-5, "atol": 2e-5}
PREDICTED = {"rtol": 5e-6, "atol": 5e-6}
# Why: see test_losses.py.
ORIGINAL_IS_WRONG = ("crps", "stats_area")


def record(folder: Path, file: str) -> dict[str, np.ndarray]:
    return {name: x for name, x in read(folder / file).items() if not name.startswith("in.")}


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_every_layer_and_prediction(case: str) -> None:
    found = reference_outputs(REFERENCE / case)["tensors.safetensors"]
    recorded = record(REFERENCE / case, "tensors.safetensors")
    compare(recorded, found, **HIDDEN)
    predictions = [name for name in recorded if "pred_" in name]
    assert predictions
    compare(*({name: x[name] for name in predictions} for x in (recorded, found)), **PREDICTED)


def test_gradients_of_all_parameters() -> None:
    folder = REFERENCE / "single_field_qk"
    found = reference_outputs(folder)[GRADIENTS]
    compare(record(folder, GRADIENTS), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_losses(case: str) -> None:
    folder = REFERENCE / case
    recorded = json.loads((folder / "index.json").read_text())["loss"]
    network, inputs = Network(folder), read_inputs(folder / "tensors.safetensors")
    with torch.no_grad():
        found = parity_network.losses(network, inputs, parity_network.forward(network, inputs))
    predicted = dict(network.settings.predicted)
    right = [kind for kind in network.settings.losses if kind not in ORIGINAL_IS_WRONG]
    assert right
    for kind in right:
        ours = [found[name][kind].item() for name in predicted]
        assert ours == pytest.approx(recorded["per_loss_per_prediction_field"][kind], rel=1e-6)
    if right == network.settings.losses:
        total = parity_losses.total(found, predicted, network.settings.generation)
        assert total.item() == pytest.approx(recorded["total"], rel=1e-6)


def test_the_record_itself_is_not_read(tmp_path: Path) -> None:
    folder = REFERENCE / "single_field_qk"
    shutil.copytree(folder, tmp_path / "case")
    for file in ("tensors.safetensors", GRADIENTS):
        kept = {
            name: x if name.startswith("in.") else np.zeros_like(x)
            for name, x in read(folder / file).items()
        }
        safetensors.numpy.save_file(kept, tmp_path / "case" / file)
    expected, found = reference_outputs(folder), reference_outputs(tmp_path / "case")
    assert sorted(found) == sorted(expected)
    for file in expected:
        compare(expected[file], found[file])


def test_the_first_differing_tensor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REFERENCE / "single_field_qk"
    original = Network.__init__

    def spoiled(self: Network, folder: Path) -> None:
        original(self, folder)
        with torch.no_grad():
            self.network.decoders["vorticity"][1].attention.out.weight[0, 0] += 1.0

    monkeypatch.setattr(Network, "__init__", spoiled)
    found = reference_outputs(folder)["tensors.safetensors"]
    with pytest.raises(AssertionError, match=r"decoder.vorticity.layer1.after_attention is the fi"):
        compare(record(folder, "tensors.safetensors"), found, **HIDDEN)


@pytest.mark.parametrize(
    ("case", "part", "change"),
    [
        ("two_fields_qk", "encoder", {"qk_norm_cross_query": True}),
        ("gen2023_two_fields", "encoder", {"qk_norm_cross_query": False}),
        ("single_field_qk", "encoder", {"qk_norm": "none"}),
        ("single_field_noqk_forecast", "encoder", {"qk_norm": "plain"}),
        ("single_field_deep_tail", "decoder", {"cross_rate": 1.0}),
        ("single_field_qk", None, {"mlp_output_activation": False}),
        ("single_field_no_layernorm", None, {"layer_norm": True}),
    ],
)
def test_a_single_wrong_switch_shows(
    case: str, part: str | None, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = parity_network.network_config

    def wrong(*arguments: object) -> ModelConfig:
        config = original(*arguments)  # type: ignore[arg-type]
        if part:
            return config.model_copy(update={part: getattr(config, part).model_copy(update=change)})
        return config.model_copy(update=change)

    monkeypatch.setattr(parity_network, "network_config", wrong)
    found = reference_outputs(REFERENCE / case)["tensors.safetensors"]
    recorded = record(REFERENCE / case, "tensors.safetensors")
    worst = max(abs(found[name] - recorded[name]).max() for name in recorded if "pred_ens" in name)
    assert worst > 1e-3


@pytest.mark.parametrize("case", NETWORK_CASES)
def test_output_is_weights_times_values(case: str) -> None:
    folder = REFERENCE / case
    network, recorded = Network(folder), read_inputs(folder / "tensors.safetensors")
    names = [field.name for field in network.settings.fields]
    inputs = network_input(
        network.settings,
        {name: recorded[f"in.source.{name}"] for name in names},
        {name: recorded[f"in.token_info.{name}"] for name in names},
    )
    with torch.no_grad():
        layers = network.network.encode(inputs)
        for own, others, attention in attentions(network.network, layers):
            rows = torch.arange(own.shape[1]).expand(own.shape[:2])
            output, weights = attention.explicit(own, others, rows)
            torch.testing.assert_close(output, attention(own, others), rtol=1e-5, atol=1e-5)
            assert len(weights) == 1 + len(others)
            for part in weights:
                torch.testing.assert_close(part.sum(-1), torch.ones(part.shape[:-1]))


def attentions(network: Multiformer, layers: dict[str, list[torch.Tensor]]):  # type: ignore[no-untyped-def]
    """Inputs and module of each attention, of encoders and of the decoders' first layers."""
    norm = plain_norm if network.config.layer_norm else torch.nn.Identity()
    for number in range(network.config.encoder.layers):
        for name, stack in network.encoders.items():
            others = [norm(layers[c][number]) for c in network.config.networks[name].coupled]
            yield norm(layers[name][number]), others, stack[number].attention
    for name, stack in network.decoders.items():
        own = plain_norm(layers[name][-1])
        yield own, [own], stack[0].attention


def test_fields_and_predictions_in_another_order(tmp_path: Path) -> None:
    """The prediction list may have another order than the fields, and leave some out."""
    folder = tmp_path / "case"
    shutil.copytree(REFERENCE / "legacy_shared_token_info", folder)
    expected = reference_outputs(folder)["tensors.safetensors"]
    (config,) = folder.glob("model_id*.json")
    content = json.loads(config.read_text())
    content["fields_prediction"].reverse()
    config.write_text(json.dumps(content))
    (weights,) = folder.glob("*.mod")
    state = torch.load(weights, weights_only=True)
    swap = {"0": "1", "1": "0"}
    swapped = {}
    for name, tensor in state.items():
        kind, number, *rest = name.split(".")
        if kind in ("decoders", "tails"):
            name = ".".join((kind, swap[number], *rest))
        swapped[name] = tensor
    torch.save(swapped, weights)
    compare(expected, reference_outputs(folder)["tensors.safetensors"])


def test_a_field_that_is_not_masked(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(REFERENCE / "legacy_shared_token_info", folder)
    tensors = read(folder / "tensors.safetensors")
    dropped = [name for name in tensors if name.startswith("in.masked_idx.velocity_u")]
    assert dropped
    kept = {name: x for name, x in tensors.items() if name not in dropped}
    safetensors.numpy.save_file(kept, folder / "tensors.safetensors")
    found = reference_outputs(folder)["tensors.safetensors"]
    assert found["pred_ens.velocity_u"].shape == (0, *tensors["pred_ens.velocity_u"].shape[1:])
    compare(
        {name: x for name, x in tensors.items() if "velocity_v" in name and name[:3] != "in."},
        {name: x for name, x in found.items() if "velocity_v" in name},
        **HIDDEN,
    )
