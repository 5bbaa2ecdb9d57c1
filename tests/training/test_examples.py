from __future__ import annotations

import torch
import xarray as xr

from tests.tasks import small
from tests.training.runs import DISTILLATION, RUN
from xatmorep.tokens.batch import TokenBatch
from xatmorep.training.config import PretrainConfig, read_config
from xatmorep.training.data import open_data
from xatmorep.training.examples import Example, example, join

CONFIG = read_config(RUN | {"masking": {"rate": (0.5, 0.5)}})


def crops(k: int = 0, ds: xr.Dataset | None = None) -> TokenBatch:
    data = open_data(small.dataset() if ds is None else ds, CONFIG, None)
    source = data.neighborhoods(slice(0, 5), small.model().normalizer, CONFIG, seed=0)
    return source.slab(0, k)


def made(seed: int = 0, ds: xr.Dataset | None = None, config: PretrainConfig = CONFIG) -> Example:
    return example(crops(ds=ds), config, seed)


def test_examples_hold_what_is_hidden_and_its_target():
    made_of = crops()
    one = example(made_of, CONFIG, seed=0)
    hidden = one.hidden["2m_temperature"]
    assert hidden.shape == (2, 1, 2, 3, 4)
    assert int(hidden.sum()) == 2 * 12
    values = torch.from_numpy(made_of.tokens["2m_temperature"])[hidden].flatten(1)
    assert torch.equal(one.target["2m_temperature"], values)
    # What is blank for the network is zero there, and only hidden tokens are blank.
    blank = one.inputs.blank["2m_temperature"]
    assert bool((hidden | ~blank).all())
    assert float(one.inputs.tokens["2m_temperature"][blank].abs().max()) == 0


def test_weights_are_the_cosine_of_latitude():
    """Taken from token info, another way than that of the code."""
    one = made()
    latitude = one.inputs.info["2m_temperature"][..., 4][one.hidden["2m_temperature"]]
    rows = latitude[:, None] + torch.tensor([5.0, -5.0]).repeat_interleave(3)
    expected = torch.deg2rad(rows).cos().clamp(min=0)
    torch.testing.assert_close(one.weight["2m_temperature"], expected, atol=1e-6, rtol=0)


def test_weights_of_levels():
    plain = CONFIG.model_copy(update={"latitude_weighted": False})
    weighted = plain.model_copy(update={"level_weights": {"temperature": {500.0: 3.0}}})
    one, same = made(config=weighted), made(config=plain)
    level = one.inputs.info["temperature"][..., 3][one.hidden["temperature"]]
    assert set(level.tolist()) == {500.0, 850.0}
    expected = torch.where(level == 500, 3.0, 1.0)[:, None].expand(-1, 24)
    assert torch.equal(one.weight["temperature"], expected)
    assert torch.equal(one.weight["2m_temperature"], same.weight["2m_temperature"])
    assert torch.equal(one.target["temperature"], same.target["temperature"])


def test_seeds_repeat_and_differ():
    first, again, other = (made(seed).hidden["temperature"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_missing_values_have_no_weight():
    ds = small.dataset()
    ds["2m_temperature"] = ds["2m_temperature"].where(ds["longitude"] < 180)
    one = made(ds=ds)
    weight, target = one.weight["2m_temperature"], one.target["2m_temperature"]
    assert bool(target.isfinite().all())
    assert bool(one.inputs.tokens["2m_temperature"].isfinite().all())
    assert bool((target[weight > 0] != 0).all())


def taught(**changes) -> PretrainConfig:
    return read_config(RUN | {"distillation": DISTILLATION | changes})


def test_views_show_the_neighborhoods_as_they_are_where_nothing_is_withheld():
    made_of = crops()
    one = example(made_of, taught(displaced=False), seed=0, view_seed=1)
    plain = example(made_of, CONFIG, seed=0)
    assert len(one.views) == 3
    shares = []
    for view in one.views:
        blank = torch.cat([x.flatten(1) for x in view.blank.values()], dim=1)
        shares.append(float(blank.double().mean()))
        for name, tokens in view.tokens.items():
            values = torch.from_numpy(made_of.tokens[name]).flatten(-3)
            assert tokens.shape == plain.inputs.tokens[name].shape
            assert torch.equal(tokens, values * ~view.blank[name][..., None])
            assert torch.equal(view.info[name], plain.inputs.info[name])
            assert torch.equal(view.statics[name], plain.inputs.statics[name])
    assert max(shares[:2]) < 0.4 < 0.6 < shares[2]  # two global views and a local one


def test_displaced_views_are_each_at_another_time_and_place():
    made_of = crops()
    one = example(made_of, taught(), seed=0, view_seed=1)
    there = torch.from_numpy(made_of.info["temperature"])
    places = [view.info["temperature"][:, 0, 0, 0, 0, [1, 4, 5]] for view in one.views]
    places.append(there[:, 0, 0, 0, 0, [1, 4, 5]])
    assert len(torch.cat(places).unique(dim=0)) == 4 * 2
    for view in one.views:
        assert torch.equal(view.info["temperature"][..., 3], there[..., 3])
        for sample in view.statics["temperature"]:
            own = torch.from_numpy(made_of.statics["temperature"]).flatten(-3)
            assert any(torch.equal(sample, other) for other in own)


def test_views_leave_no_trace_in_the_rest_of_an_example():
    plain, one = made(), made(config=taught().model_copy(update={"masking": CONFIG.masking}))
    assert plain.views == ()
    for name in CONFIG.model.predicted:
        assert torch.equal(one.hidden[name], plain.hidden[name])
        assert torch.equal(one.target[name], plain.target[name])
        assert torch.equal(one.inputs.tokens[name], plain.inputs.tokens[name])


def test_views_move_and_join_with_the_rest():
    config = taught()
    parts = [example(crops(k), config, seed=k, view_seed=k) for k in range(3)]
    whole = join(parts)
    assert whole.n_samples == 6
    for number, view in enumerate(whole.views):
        for name in config.model.predicted:
            for group in ("tokens", "info", "blank", "statics"):
                wanted = torch.cat([getattr(part.views[number], group)[name] for part in parts])
                assert torch.equal(getattr(view, group)[name], wanted)
    moved = whole.to("meta")
    assert len(moved.views) == 3
    assert {x.device.type for view in moved.views for x in view.tokens.values()} == {"meta"}


def test_joined_examples_are_as_if_they_had_been_one():
    """Rows stay in the order of boolean indexing."""
    parts = [example(crops(k), CONFIG, seed=k) for k in range(3)]
    whole = join(parts)
    for name in CONFIG.model.predicted:
        assert whole.hidden[name].shape[0] == 6
        values = torch.cat([torch.from_numpy(crops(k).tokens[name]) for k in range(3)])
        rows = values[whole.hidden[name]].flatten(1)
        assert torch.equal(whole.target[name], rows)
        assert whole.weight[name].shape == rows.shape
        tokens = torch.cat([part.inputs.tokens[name] for part in parts])
        assert torch.equal(whole.inputs.tokens[name], tokens)
        assert whole.inputs.statics[name].shape[0] == 6
    assert join(parts[:1]) is parts[0]
