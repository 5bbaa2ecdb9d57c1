"""The same numbers on a GPU; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xatmorep
from tests.tasks import small

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine"
)


def test_embed_predict_and_attend_as_on_the_cpu():
    ds, model = small.dataset(), small.model()
    place = {"time": "2020-12-31T12", "latitude": 42, "longitude": 50, "level": 500}
    for ask in (
        lambda **options: ds.atmorep.embed(model=model, **options),
        lambda **options: ds.atmorep.predict(model=model, rate=0.4, **options),
        lambda **options: ds.atmorep.attention(place, model=model, **options),
    ):
        cpu, cuda = ask(device="cpu"), ask(device="cuda")
        for name, expected in cpu.items():
            scale = float(abs(expected.astype(float)).max())
            np.testing.assert_allclose(
                cuda[name].astype(float), expected.astype(float), atol=1e-5 * scale
            )


def test_pretraining_runs_in_bfloat16(tmp_path):
    config = {
        "model": small.CONFIG,
        "steps": 2,
        "batch_size": 4,
        "validate_every": 1,
        "precision": "bfloat16",
    }
    model = xatmorep.pretrain(
        small.dataset(), config, tmp_path / "run", device="cuda", progress=False
    )
    assert model.card.training.device == torch.cuda.get_device_name()
