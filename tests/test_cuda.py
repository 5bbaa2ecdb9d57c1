"""The same numbers on a GPU; skipped where there is none."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

import xatmorep
from tests.tasks import small
from tests.training.runs import lines
from xatmorep.errors import TrainingInterruptedError
from xatmorep.training.learner import Learner

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


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_pretraining_goes_on(tmp_path, monkeypatch, precision):
    config = {
        "model": small.CONFIG.model_copy(update={"dropout": 0.1}),
        "steps": 4,
        "batch_size": 4,
        "precision": precision,
        "ema": 0.9,
    }
    learn_of = Learner.learn

    def learn(self, batch):
        if self.state.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return learn_of(self, batch)

    arguments = small.dataset(), config, tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", learn)
        with pytest.raises(TrainingInterruptedError):
            xatmorep.pretrain(*arguments, device="cuda", progress=False)
    xatmorep.pretrain(*arguments, device="cuda", progress=False)
    ledger = lines(tmp_path / "run" / "ledger.csv")
    assert [line["step"] for line in ledger] == ["1", "2", "3", "4"]
    # On another device it is finished as well.
    xatmorep.pretrain(*arguments, device="cpu", progress=False)
