"""The consistency of embeddings: against loops, in its limits, and what it brings about."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.simulated import open_sample, small_model
from xatmorep.model.config import ModelConfig
from xatmorep.model.embedding import Embedding
from xatmorep.model.inputs import NetworkInput
from xatmorep.model.multiformer import Multiformer
from xatmorep.objectives.consistency import consistency, consistency_loss

EXAMPLE = Path(__file__).parents[2] / "examples/embedding_consistency.py"


def features(seed: int, n: int = 6, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


def test_equals_loops() -> None:
    x, y = features(0), features(1)
    cosine = [[float(a @ b / a.norm() / b.norm()) for b in y] for a in x]
    total = 0.0
    for i in range(len(x)):
        rows = sum(math.exp(cosine[i][j] / 0.2) for j in range(len(x)))
        columns = sum(math.exp(cosine[j][i] / 0.2) for j in range(len(x)))
        total -= 2 * cosine[i][i] / 0.2 - math.log(rows) - math.log(columns)
    assert consistency_loss(x, y, 0.2).item() == pytest.approx(total / 2 / len(x))
    pairs = {"u": (x, y), "v": (y, y)}
    mean = (consistency_loss(x, y) + consistency_loss(y, y)) / 2
    torch.testing.assert_close(consistency(pairs), mean)


def test_limits() -> None:
    axes = torch.eye(8)
    assert 0 <= consistency_loss(axes, axes) < 1e-3
    torch.testing.assert_close(
        consistency_loss(torch.ones(8, 3), torch.ones(8, 3)), torch.tensor(math.log(8))
    )
    wrong = consistency_loss(axes, axes.roll(1, 0))
    torch.testing.assert_close(wrong, torch.tensor(10.0), rtol=1e-3, atol=0)
    for n in (0, 1):
        x = torch.randn(n, 3, requires_grad=True)
        loss = consistency_loss(x, 2 * x)
        loss.backward()
        assert loss == 0
        assert x.grad is not None
        assert (x.grad.abs() < 1e-6).all()


def test_sizes_and_common_order_do_not_count() -> None:
    x, y, order = features(0), features(1), torch.tensor([3, 1, 0, 5, 4, 2])
    loss = consistency_loss(x, y)
    torch.testing.assert_close(consistency_loss(3 * x, y * torch.rand(6, 1)), loss)
    torch.testing.assert_close(consistency_loss(x[order], y[order]), loss)
    torch.testing.assert_close(consistency_loss(y, x), loss)
    assert consistency_loss(x, y[order]) != loss


def test_gradients_and_precision() -> None:
    x, y = features(0).requires_grad_(), features(1).requires_grad_()
    assert torch.autograd.gradcheck(consistency_loss, (x, y))
    with torch.autocast("cpu", torch.bfloat16):
        low = consistency_loss(x.bfloat16(), y.bfloat16())
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(consistency_loss(x, y).item(), rel=0.05)
    zeros = torch.zeros(4, 3, requires_grad=True)
    consistency_loss(zeros, zeros).backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def compare(embedding: Embedding, values: Tensor) -> tuple[float, float]:
    """How far the similarity of the same place at two sizes is above that of different places.

    The difference of the means, and the share of different places that are less similar than the
    same one.
    """
    with torch.no_grad():
        large, small = (
            torch.nn.functional.normalize(embedding.embed_values(x), dim=1)
            for x in (values, values[..., 2:6, 2:6])
        )
    similarity = large @ small.T
    others = ~torch.eye(len(values), dtype=torch.bool)
    difference = similarity.diagonal().mean() - similarity[others].mean()
    less = similarity < similarity.diagonal()[:, None]
    return difference.item(), less[others].float().mean().item()


def test_embeddings_of_a_place_at_two_sizes_come_together() -> None:
    name = "temperature"
    content = small_model((name,))
    content["inputs"]["fields"][0]["token_shape"] = (4, 8, 8)
    content["embedding"] = {"kind": "transformer", "sub_token": (4, 2, 2), "width": 16, "heads": 2}
    config = ModelConfig.model_validate(content)
    field = open_sample()[name].load().transpose("level", "time", "latitude", "longitude")
    field = (field - field.mean("time")) / field.std("time")
    values = torch.from_numpy(field.values.astype("float32"))
    # Slabs of eight frames, levels, and tokens of 4 x 8 x 8 points; the last slabs are held out.
    slabs = values.reshape(3, 10, 2, 4, 4, 8, 8, 8).permute(1, 0, 2, 4, 6, 3, 5, 7)
    unseen = slabs[8:].flatten(0, 4)

    network = Multiformer(config, torch.Generator().manual_seed(0))
    before = compare(network.eval().embeddings[name], unseen)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(40):
        row, column = 2 * (step % 2), 4 * (step // 2 % 2)
        tokens = slabs[[step % 8, (step + 3) % 8], :, :, row : row + 2, column : column + 4]
        tokens = tokens.flatten(-3)
        blank = torch.rand(tokens.shape[:-1]) < 0.5
        inputs = NetworkInput({name: tokens}, {name: torch.ones(*blank.shape, 7)}, {name: blank})
        prediction = network.train()(inputs, {name: blank})[name]
        masked = (prediction - tokens[blank][:, None]).square().mean()
        loss = masked + 0.5 * consistency(network.at_two_sizes(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = compare(network.eval().embeddings[name], unseen)
    assert after[0] > before[0] + 0.2
    assert after[1] > before[1] + 0.1


def test_the_example_draws_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLE))
    example["CONFIG"].update(steps=2, validate_every=2, validation_batches=1)
    threads = torch.get_num_threads()
    example["main"]()
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[0].startswith("temperature, before training: same place 0.")
    assert (tmp_path / "runs/embedding-consistency.png").stat().st_size > 20_000
