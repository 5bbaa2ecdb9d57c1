"""A run whose fields enter twice: nothing leaks, it goes on after an interruption, it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import xatmorep
from tests import contexts
from tests.tasks import small
from tests.training import runs
from xatmorep.errors import ConfigError, TrainingInterruptedError
from xatmorep.model.inputs import NetworkInput
from xatmorep.tokens.batch import TokenBatch
from xatmorep.tokens.tokenize import untokenize
from xatmorep.training.config import PretrainConfig, read_config
from xatmorep.training.data import open_data
from xatmorep.training.examples import Example, example
from xatmorep.training.learner import Learner

RUN: dict[str, Any] = runs.RUN | {"model": contexts.CONFIG}


def crop(ds: xr.Dataset, config: PretrainConfig, k: int) -> TokenBatch:
    data = open_data(ds, config, None)
    normalizer = contexts.model().normalizer
    return data.neighborhoods(slice(0, 10), normalizer, config, seed=0).slab(0, k)


def without(ds: xr.Dataset, batch: TokenBatch, hidden: dict[str, torch.Tensor]) -> xr.Dataset:
    """The dataset with other values at the hidden points of a batch of one neighborhood."""
    ds = ds.copy(deep=True)
    for name, tokens in hidden.items():
        field = batch.spec.field(name)
        points = untokenize(
            np.broadcast_to(
                tokens.numpy()[..., None, None, None], (*tokens.shape, *field.token_shape)
            )
        )[0]
        for number, level in enumerate(field.levels or (None,)):
            mask = xr.DataArray(
                points[number],
                {
                    "time": batch.times[0],
                    "latitude": batch.latitude[0],
                    "longitude": batch.longitude[0] % 360,
                },
            ).reindex_like(ds[name].isel(level=0) if level else ds[name], fill_value=False)
            place = {} if level is None else {"level": level}
            ds[name].loc[place] = ds[name].loc[place].where(~mask, 1e4)
    return ds


def same(one: NetworkInput, other: NetworkInput) -> bool:
    return all(
        torch.equal(getattr(one, group)[name], getattr(other, group)[name])
        for group in ("tokens", "blank")
        for name in one.tokens
    )


@pytest.mark.parametrize("strategy", ["random", "space", "fields", "levels", "large"])
@pytest.mark.parametrize("k", range(4))
def test_nothing_of_what_is_hidden_is_seen(strategy: str, k: int) -> None:
    masking = {"strategies": {strategy: 1}, "rate": (0.1, 0.6)}
    masking |= {"replaced": 1, "noised": 0, "coarsened": 0, "left": 0}
    config = read_config(RUN | {"masking": masking, "crops_per_slab": 1, "batch_size": 1})
    ds = small.dataset(10)
    batch = crop(ds, config, k)
    one = example(batch, config, seed=k)
    changed = crop(without(ds, batch, one.hidden), config, k)
    again = example(changed, config, seed=k)
    assert same(one.inputs, again.inputs)
    assert any((one.target[name] != again.target[name]).any() for name in one.target)
    # The values themselves have changed, in the contexts too.
    if any(one.inputs.blank[name].any() for name in ("around", "before")):
        assert (changed.tokens["around"] != batch.tokens["around"]).any() or (
            changed.tokens["before"] != batch.tokens["before"]
        ).any()


def test_views_of_self_distillation_hide_the_same_in_contexts() -> None:
    config = read_config(RUN | {"distillation": runs.DISTILLATION, "crops_per_slab": 2})
    one: Example = example(crop(small.dataset(10), config, 0), config, seed=0)
    assert len(one.views) == 3
    for view in one.views:
        assert set(view.tokens) == set(view.blank) == set(contexts.CONFIG.networks)
        assert view.blank["around"].any()
        assert not view.tokens["around"][view.blank["around"]].any()


def test_a_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch) -> None:
    config = RUN | {"steps": 8, "checkpoint_every": 2, "validate_every": 4}
    model = runs.train(tmp_path / "whole", config)
    learn_of = Learner.learn

    def learn(self, batch):
        if self.state.step == 5:
            raise TrainingInterruptedError("enough")
        return learn_of(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", learn)
        with pytest.raises(TrainingInterruptedError):
            runs.train(tmp_path / "run", config)
    runs.train(tmp_path / "run", config)
    assert runs.record(tmp_path / "run") == runs.record(tmp_path / "whole")
    ds = runs.smooth()
    result = ds.atmorep.predict(model=model, rate=0.3)
    assert bool(result["temperature"].notnull().any())
    again = xatmorep.load(tmp_path / "whole" / "best")
    assert again.config.inputs.contexts == contexts.CONFIG.inputs.contexts


def test_transformers_embed_contexts_too(tmp_path) -> None:
    """Tokens of a context are tokens of another size for the embedding that all fields share."""
    inputs = contexts.content()
    embedding = {"kind": "transformer", "sub_token": (1, 1, 1), "width": 8, "shared": True}
    config = RUN | {"model": inputs | {"embedding": embedding}, "steps": 2, "validate_every": 2}
    model = runs.train(tmp_path / "run", config | {"distillation": runs.DISTILLATION})
    assert "around" in model.network.embeddings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": {"around": {"width": 8}}}, "'around' can't be predicted, only '2m_temp"),
        ({"positional_encoding": "atmorep"}, "no places outside of the neighborhood"),
        ({"networks": {}}, "one entry for each field and each context"),
    ],
)
def test_networks_of_contexts(change: dict[str, Any], message: str) -> None:
    content = contexts.content()
    networks = content["networks"] | change.pop(
        "networks", {"around": content["networks"]["around"]}
    )
    if message.startswith("one entry"):
        del networks["around"]
    with pytest.raises(ConfigError, match=message):
        read_config(RUN | {"model": content | {"networks": networks} | change})
