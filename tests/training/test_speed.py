from __future__ import annotations

import re

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.tasks import small
from tests.training.runs import RUN
from tests.training.test_learner import batch
from xatmorep.model.multiformer import Multiformer
from xatmorep.training.config import read_config
from xatmorep.training.speed import Speedometer
from xatmorep.training.state import Tally

NETWORK = Multiformer(small.CONFIG)


def tally() -> Tally:
    """Ten steps, of which each took half a second."""
    one = Tally()
    for _ in range(10):
        one.add({"loss": 1.0}, seconds=0.5, waited=0.1)
    return one


def test_speed_is_what_was_done_in_the_time():
    line = Speedometer(NETWORK, read_config(RUN))(tally())
    assert line == {
        "samples_per_second": pytest.approx(8.0),
        "data_wait_share": pytest.approx(0.2),
        "flops_per_second": pytest.approx(3 * NETWORK.flops() * 8.0),
    }


def test_utilization_is_the_share_of_the_peak():
    speed = Speedometer(NETWORK, read_config(RUN | {"peak_flops": 1e9}))
    line = speed(tally())
    share = line["flops_per_second"] / 1e9
    assert line["model_flops_utilization"] == pytest.approx(share)
    words = speed.words(tally())
    assert "3 x " in words
    assert f"{share:.1%} of 1e+09/s (model FLOPs utilization)" in words


def test_views_count_as_passes_of_the_encoder():
    """Those of the encoder as torch counts them."""
    (part,) = batch(read_config(RUN)).parts
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        NETWORK.encode(part.inputs)
    encoder = counter.get_total_flops() / part.n_samples
    views = {"n_global": 2, "n_local": 3}
    for weight, masked in ((0.5, 3 * NETWORK.flops()), (0.0, 0)):
        config = read_config(RUN | {"distillation": views | {"masked_weight": weight}})
        speed = Speedometer(NETWORK, config)
        expected = masked + (3 * 5 + 2) * encoder
        assert speed(tally())["flops_per_second"] == pytest.approx(8 * expected, rel=0.02)
        assert re.search(r"17 x \S+ of the encoder", speed.words(tally()))
        assert ("of a forward pass" in speed.words(tally())) == bool(weight)


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA A100-SXM4-40GB", "float32", 19.5e12),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("A card of tomorrow", "float32", None),
    ],
)
def test_the_peak_of_some_devices_is_known(monkeypatch, name, precision, peak):
    class Far:
        """A network that says that it is on a GPU."""

        def flops(self):
            return 1

        def parameters(self):
            return iter([type("P", (), {"device": torch.device("cuda")})()])

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert Speedometer(Far(), read_config(RUN | {"precision": precision})).peak == peak
