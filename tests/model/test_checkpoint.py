"""Models saved and loaded: the same model again, or a reason."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.small import small_card, small_config, small_model, small_normalizer
from tests.model.test_folder import reseal
from xatmorep.data.normalization import Normalizer
from xatmorep.errors import CheckpointError, ConfigError
from xatmorep.model.checkpoint import Model, load
from xatmorep.model.config import ModelConfig
from xatmorep.model.folder import FILES, MANIFEST, WEIGHTS
from xatmorep.model.multiformer import Multiformer


@pytest.fixture(scope="module")
def original() -> Model:
    return small_model()


@pytest.fixture
def saved(original: Model, tmp_path: Path) -> Path:
    original.save(tmp_path / "model")
    return tmp_path / "model"


def assert_same(one: Model, other: Model) -> None:
    assert one.config == other.config
    assert one.card == other.card
    weights = other.network.state_dict()
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor.float(), weights[name].float())
    for kind in ("mean", "std"):
        ours, theirs = getattr(one.normalizer, kind), getattr(other.normalizer, kind)
        assert sorted(ours) == sorted(theirs)
        assert all(ours[name].identical(theirs[name]) for name in ours)
    assert one.digest == other.digest


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_round_trip(original: Model, scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}{tmp_path}/model"
    original.save(url)
    found = load(url)
    assert_same(found, original)
    assert not found.network.training
    assert found.name == "small"
    # What only this process can read is no address for others.
    assert (
        found.source == original.source == (None if scheme == "memory://" else f"{tmp_path}/model")
    )


PARTS = {"kind": "transformer", "sub_token": (1, 2, 2), "width": 8, "heads": 2}


@pytest.mark.parametrize("shared", [True, False])
def test_round_trip_with_parts_of_tokens(shared: bool, tmp_path: Path) -> None:
    content = small_config().model_dump() | {"embedding": {**PARTS, "shared": shared}}
    config = ModelConfig.model_validate(content)
    network = Multiformer(config, torch.Generator().manual_seed(0)).eval()
    model = Model(config, network, small_normalizer(), small_card())
    model.save(tmp_path / "model")
    found = load(tmp_path / "model")
    assert_same(found, model)
    assert model.digest != small_model().digest
    values = torch.randn(3, 2, 4, 4)
    for copied in (found, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        for size in (slice(None), slice(1, 3)):
            features = [
                one.network.embeddings["temperature"].embed_values(values[..., size, size])
                for one in (model, copied)
            ]
            assert torch.equal(*features)


def test_layers_for_parts_of_tokens_that_the_weights_can_not_fill_are_refused(
    saved: Path,
) -> None:
    parts = {**PARTS, "sub_token": [1, 2, 2]}
    for more, words in (({"layers": 10**9}, "too few for"), ({"width": 10**6}, "numbers, the")):
        edit(saved / "config.json", lambda c, more=more: c.update(embedding={**parts, **more}))
        reseal(saved)
        with pytest.raises(CheckpointError, match=words):
            load(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_keep_their_dtype_on_disk_and_become_float32(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = small_model(dtype=dtype)
    digest = model.digest
    model.save(tmp_path / "model")
    stored = safetensors.torch.load((tmp_path / "model" / WEIGHTS).read_bytes())
    on_disk = torch.float32 if dtype == torch.float64 else dtype
    assert {tensor.dtype for tensor in stored.values()} == {on_disk}
    found = load(tmp_path / "model")
    assert {tensor.dtype for tensor in found.network.parameters()} == {torch.float32}
    assert found.digest == digest


def test_saving_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again")
    for name in FILES:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_digest_is_of_configuration_weights_and_normalization(original: Model) -> None:
    digests = {original.digest, small_model(1).digest}
    network = original.network
    config = original.config.model_copy(update={"dropout": 0.5})
    digests.add(Model(config, network, original.normalizer, original.card).digest)
    std = {name: 2 * array for name, array in original.normalizer.std.items()}
    other = Normalizer(original.normalizer.mean, std)
    digests.add(Model(original.config, network, other, original.card).digest)
    assert len(digests) == 4
    card = small_card(name="renamed")
    renamed = Model(original.config, network, original.normalizer, card)
    assert renamed.digest == original.digest == small_model(0).digest


def test_source_is_forgotten_when_the_weights_change(saved: Path) -> None:
    model = load(saved)
    assert model.source == str(saved)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    assert model.source is None
    model.save(saved)
    assert model.source == str(saved)
    assert_same(load(saved), model)


def test_pickle_and_copy(original: Model, saved: Path) -> None:
    for model in (original, load(saved)):
        assert_same(pickle.loads(pickle.dumps(model)), model)
        twin = copy.deepcopy(model)
        assert_same(twin, model)
        assert twin.source == model.source
        assert next(twin.network.parameters()) is not next(model.network.parameters())


def test_dask_token(original: Model) -> None:
    token = dask.base.tokenize
    assert token(original) == token(small_model(0)) == token(pickle.loads(pickle.dumps(original)))
    assert token(original) != token(small_model(1))


def test_repr(original: Model) -> None:
    assert repr(original).splitlines() == [
        "<xatmorep.Model 'small' (a demonstration)>",
        "fields, with levels, shape of tokens and width:",
        "    2m_temperature           surface            1 x 2 x 2  8",
        "    temperature              pressure 500, 850  2 x 4 x 4  8, not predicted",
        "    geopotential_at_surface  static",
        "neighborhood: 2 x 4 x 8 (time, latitude, longitude), every 6 h, 1.5 x 1 degrees",
        "members: 3",
        f"parameters: {sum(p.numel() for p in original.network.parameters()):,}",
    ]


def test_parts_must_belong_together(original: Model) -> None:
    with pytest.raises(ConfigError, match="the card names the fields"):
        Model(original.config, original.network, original.normalizer, small_card(fields=("u",)))
    mean = {"2m_temperature": original.normalizer.mean["2m_temperature"]}
    part = Normalizer(mean, {name: original.normalizer.std[name] for name in mean})
    with pytest.raises(ConfigError, match="no statistics of temperature, geopotential_at_surface"):
        Model(original.config, original.network, part, original.card)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        next(model.network.parameters())[0] = torch.nan
    with pytest.raises(CheckpointError, match="the network has weights that are not finite: emb"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(path: Path, change: Callable[[dict], object]) -> None:
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))


# Every one has a manifest that fits: only what the files say gives them away.
HOSTILE_JSON = [
    ("config.json", lambda c: c.update(drop=0.1), "drop: unknown key; did you mean 'dropout'"),
    ("config.json", lambda c: c["encoder"].update(layer=3), "unknown key; did you mean 'layers'"),
    ("config.json", lambda c: c.pop("tail"), "tail: Field required"),
    ("config.json", lambda c: c["encoder"].update(layers=10**9), "too few for .* layers"),
    ("config.json", lambda c: c["encoder"].update(layers=3), "missing: encoders"),
    (
        "config.json",
        lambda c: c["networks"]["temperature"].update(width=10**9),
        "needs more than",
    ),
    ("config.json", lambda c: c["networks"]["temperature"].update(width=1000), "needs more than"),
    ("config.json", lambda c: c["networks"]["temperature"].update(width=10), "another shape"),
    ("config.json", lambda c: c["tail"].update(members=10**9), "holds .* numbers, the config"),
    ("config.json", lambda c: c["tail"].update(members=4), "another shape"),
    (
        "config.json",
        lambda c: c["inputs"]["neighborhood"].update(shape=[10**6, 4 * 10**6, 8 * 10**6]),
        "the configuration has 8000000000000000000 tokens of '2m_temperature'",
    ),
    (
        "config.json",
        lambda c: c["inputs"]["fields"][1].update(levels=[-500, 850]),
        "the network of .* can't be built",
    ),
    ("config.json", lambda c: c["inputs"]["fields"][0].update(name="t2"), "networks must have"),
    ("card.json", lambda c: c.update(fields=["u"]), r"the card names the fields \['u'\]"),
    ("card.json", lambda c: c.update(licens="none"), "licens: unknown key; did you mean 'licence'"),
    ("card.json", lambda c: c.update(name="../x"), "name: String should match pattern"),
]


@pytest.mark.parametrize(("name", "change", "words"), HOSTILE_JSON)
def test_json_that_says_something_wrong_is_refused(
    saved: Path, name: str, change: Callable, words: str
) -> None:
    edit(saved / name, change)
    reseal(saved)
    with pytest.raises(CheckpointError, match=words):
        load(saved)


FIRST = "embeddings.2m_temperature.values.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(FIRST), f"tensors missing: {FIRST}"),
        (lambda t: t.update(extra=torch.ones(1)), "tensors unexpected: extra"),
        (lambda t: t.update({FIRST: t[FIRST].T.contiguous()}), f"of another shape: {FIRST}"),
        (lambda t: t.update({FIRST: t[FIRST] * torch.nan}), f"not finite: {FIRST}"),
        (lambda t: t.update({FIRST: t[FIRST].double()}), f"not weights .{FIRST} F64"),
        (lambda t: t.clear(), "holds 0 tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved: Path, change: Callable, words: str) -> None:
    edit_weights(saved / WEIGHTS, change)
    reseal(saved)
    with pytest.raises(CheckpointError, match=words):
        load(saved)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (WEIGHTS, pickle.dumps({"a": 1}), f"{WEIGHTS} is not a safetensors file"),
        (WEIGHTS, b"\xff" * 8 + b"{}", f"{WEIGHTS} is not a safetensors file: a header of 184467"),
        ("normalization.safetensors", pickle.dumps({"a": 1}), "normalization.safetensors: "),
        ("normalization.safetensors", b"", "normalization.safetensors: "),
        ("config.json", b"[" * 100_000, "not valid JSON"),
        ("card.json", pickle.dumps({"a": 1}), "not valid JSON"),
    ],
)
def test_files_of_another_kind_are_refused(
    saved: Path, name: str, content: bytes, words: str
) -> None:
    (saved / name).write_bytes(content)
    reseal(saved)
    with pytest.raises(CheckpointError, match=words):
        load(saved)


def test_a_pickle_is_never_executed(saved: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (saved / "executed",))

    for name in FILES:
        original = (saved / name).read_bytes()
        (saved / name).write_bytes(pickle.dumps(Bomb()))
        reseal(saved)
        with pytest.raises(CheckpointError):
            load(saved)
        (saved / name).write_bytes(original)
    assert not (saved / "executed").exists()


def test_normalization_of_other_fields_is_refused(saved: Path) -> None:
    normalizer = small_normalizer()
    mean = {"2m_temperature": normalizer.mean["2m_temperature"]}
    std = {"2m_temperature": normalizer.std["2m_temperature"]}
    (saved / "normalization.safetensors").write_bytes(Normalizer(mean, std).to_bytes())
    reseal(saved)
    with pytest.raises(CheckpointError, match="no statistics of temperature"):
        load(saved)


@pytest.fixture(scope="module")
def whole(original: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Folder to be damaged over and over, and its right contents."""
    path = tmp_path_factory.mktemp("damaged") / "model"
    original.save(path)
    return path, {item.name: item.read_bytes() for item in path.iterdir()}


def restore(whole: tuple[Path, dict]) -> Path:
    path, contents = whole
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path


@given(data=st.data())
def test_any_damage_is_refused(data: st.DataObject, whole: tuple[Path, dict]) -> None:
    path = restore(whole)
    name = data.draw(st.sampled_from(sorted(whole[1])))
    content = bytearray(whole[1][name])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (path / name).write_bytes(content)
    try:
        load(path)
    except CheckpointError:
        return
    # White space of the manifest is the one thing that has no digest.
    assert name == MANIFEST
    assert json.loads(content) == json.loads(whole[1][name])


@given(data=st.data())
def test_damage_with_a_manifest_that_fits_is_refused_or_harmless(
    data: st.DataObject, whole: tuple[Path, dict]
) -> None:
    path = restore(whole)
    name = data.draw(st.sampled_from(FILES))
    content = bytearray(whole[1][name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 2000) - 1))
        content[place] = data.draw(st.integers(0, 255))
    (path / name).write_bytes(content)
    reseal(path)
    try:
        model = load(path)
    except CheckpointError:
        return
    assert all(tensor.isfinite().all() for tensor in model.network.parameters())


def test_the_loaded_network_computes_the_same(original: Model, saved: Path) -> None:
    from xatmorep.model.inputs import NetworkInput

    config = small_config()
    generator = torch.Generator().manual_seed(0)
    tokens, info, blank, statics = {}, {}, {}, {}
    for field in config.inputs.fields:
        grid = (2, field.n_levels, *config.inputs.token_grid(field.name))
        _, a, o = field.token_shape
        tokens[field.name] = torch.randn(*grid, field.points_per_token, generator=generator)
        place = torch.tensor([2020.0, 1.0, 6.0, max(field.levels, default=0), 45.0, 10.0, 1.0])
        info[field.name] = place.expand(*grid, 7)
        blank[field.name] = torch.rand(grid, generator=generator) < 0.5
        statics[field.name] = torch.randn(2, grid[3], grid[4], a * o, generator=generator)
    inputs = NetworkInput(tokens, info, blank, statics)
    with torch.no_grad():
        one, two = original.network.eval()(inputs), load(saved).network(inputs)
    assert list(one) == ["2m_temperature"]
    np.testing.assert_array_equal(one["2m_temperature"].numpy(), two["2m_temperature"].numpy())
    assert isinstance(original.network, Multiformer)
