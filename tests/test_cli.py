"""The command line: results that equal those from Python, and one line for every mistake."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

import xatmorep
from tests.tasks import small
from xatmorep.cli import main
from xatmorep.model.checkpoint import Model
from xatmorep.testing import assert_labelled_equal

ROOT = Path(xatmorep.__file__).parents[1]


def dataset() -> xr.Dataset:
    """The small dataset, with times as xarray reads them from files."""
    ds = small.dataset()
    return ds.assign_coords(time=ds["time"].astype("M8[ns]"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The small dataset in several forms, and the small model."""
    folder = tmp_path_factory.mktemp("cli")
    ds, model = dataset(), small.model()
    ds.chunk(time=2).to_zarr(folder / "data.zarr", consolidated=True)
    ds.to_netcdf(folder / "data.nc")
    small.renamed(small.rolled(ds)).to_zarr(folder / "other form.zarr", consolidated=True)
    Model(model.config, model.network, model.normalizer, model.card).save(folder / "model")
    model = small.forecaster()
    Model(model.config, model.network, model.normalizer, model.card).save(folder / "forecaster")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; gives its standard output, or its line of error."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, status: int = 0) -> str:
        words = [word.replace("@", f"{folder}/") for word in shlex.split(command)]
        assert main(words) == status
        out, err = capsys.readouterr()
        if status == 0:
            return out
        assert out == ""
        assert err.startswith("xatmorep: ")
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1
        return err.removeprefix("xatmorep: ").strip()

    return run


def opened(path: str) -> xr.Dataset:
    return (xr.open_zarr(path) if path.endswith(".zarr") else xr.open_dataset(path)).load()


def same(written: str, expected: xr.Dataset) -> None:
    """A written result is the one from Python; netCDF has no bool among its attributes."""
    found = opened(written)
    assert_labelled_equal(found.drop_attrs(), expected.drop_attrs(), atol=1e-4)
    assert found.attrs["model_digest"] == expected.attrs["model_digest"]


# ---- results


@pytest.mark.parametrize("data", ["data.zarr", "data.nc", "file://@data.zarr"])
@pytest.mark.parametrize("out", ["e.zarr", "e.nc"])
def test_embed(run, data, out):
    data = data if "@" in data else f"@{data}"
    assert run(f"embed {data} --model @model --out {out}") == f"{out}\n"
    same(out, dataset().atmorep.embed(model=small.model()))
    assert os.listdir() == [out]


def test_embed_with_its_options(run):
    words = "--fields temperature --layer 1 --pool level time --out e.nc"
    run(f"embed @data.zarr --model @model {words}")
    expected = dataset().atmorep.embed(
        model=small.model(), fields=["temperature"], layer=1, pool=["level", "time"]
    )
    same("e.nc", expected)


def test_data_in_another_form(run):
    run("embed '@other form.zarr' --model @model --batch-size 3 --out e.zarr")
    same("e.zarr", small.renamed(small.rolled(dataset())).atmorep.embed(model=small.model()))


def test_predict(run):
    run("predict @data.zarr --model @model --rate 0.3 --seed 7 --out p.zarr")
    same("p.zarr", dataset().atmorep.predict(model=small.model(), rate=0.3, seed=7))
    run("predict @data.nc --model @model --where all --mean --out p.nc")
    expected = dataset().atmorep.predict(model=small.model(), rate=0.5, where="all", members=False)
    same("p.nc", expected)


def test_forecast(run):
    run("forecast @data.zarr --model @forecaster --lead-time 12h --out f.zarr")
    expected = dataset().atmorep.forecast("12h", model=small.forecaster())
    same("f.zarr", expected)
    run("forecast @data.nc --model @forecaster --lead-time PT12H --out f.nc")
    same("f.nc", expected)


def test_overlap_of_neighborhoods(run, folder):
    small.wide().save("wide")
    run("predict @data.zarr --model wide --overlap 0.5 --out p.zarr")
    expected = dataset().atmorep.predict(model=small.wide(), rate=0.5, overlap=0.5)
    same("p.zarr", expected)
    run("forecast @data.zarr --model wide --lead-time 12h --overlap 0.5 --out f.zarr")
    same("f.zarr", dataset().atmorep.forecast("12h", model=small.wide(), overlap=0.5))
    words = "--baselines persistence --overlap 0.5 --write-card"
    run(f"evaluate @data.zarr --model wide {words} --out s.zarr")
    scores = opened("s.zarr")
    twin = xatmorep.evaluate(small.wide(), dataset(), baselines=["persistence"], overlap=0.5)
    np.testing.assert_allclose(scores["score"], twin["score"], rtol=1e-4)
    assert scores.attrs["overlap"] == 0.5
    assert all("--overlap 0.5" in score.command for score in xatmorep.load("wide").card.scores)


def test_forecast_with_its_options(run):
    times = ["2020-12-31T18", "2021-01-01"]
    words = f"--lead-time 18h --init-time {' '.join(times)} --mean --batch-size 3"
    run(f"forecast @data.zarr --model @forecaster {words} --region=90,0,-90,359 --out f.zarr")
    expected = dataset().atmorep.forecast(
        "18h", init_times=times, model=small.forecaster(), members=False
    )
    same("f.zarr", expected)
    run(
        "forecast @data.zarr --model @forecaster --time 2020/2021-01-01T00 "
        "--lead-time 12h --out cut.nc"
    )
    cut = dataset().isel(time=slice(4))
    same("cut.nc", cut.atmorep.forecast("12h", model=small.forecaster()))


def test_attention(run):
    place = {"time": "2021-01-01", "latitude": -18.0, "longitude": 200.0, "level": 500.0}
    words = "--at-time 2021-01-01 --latitude -18 --longitude 200 --level 500"
    run(f"attention @data.zarr --model @model {words} --out a.zarr")
    same("a.zarr", dataset().atmorep.attention(place, model=small.model()))


def test_progress_is_shown_on_a_terminal_but_is_no_result(run, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    words = ["embed", f"{folder}/data.zarr", "--model", f"{folder}/model", "--out", "e.zarr"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == "e.zarr\n"
    assert "100% Completed" in err


def test_pretrain(run, tmp_path):
    config = {
        "name": "tiny",
        "model": small.CONFIG.model_dump(mode="json"),
        "steps": 2,
        "batch_size": 2,
        "crops_per_slab": 2,
        "validation_batches": 1,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    words = "--validation 2021-01-01/2021-01-02 --device cpu --out run"
    text = run(f"pretrain @data.zarr --config run.yaml {words}")
    assert "<xatmorep.Model 'tiny'>" in text
    assert {"best", "last", "checkpoints", "config.yaml", "log.csv"} <= set(os.listdir("run"))
    assert xatmorep.load("run/best").card.training.validation[0] == "2021-01-01T00:00"
    # The model that a command has made is one that a command can use.
    run("embed @data.zarr --model run/best --fields 2m_temperature --out e.zarr")
    # The same command once more finds the run finished; another one is refused.
    assert run(f"pretrain @data.zarr --config run.yaml {words}") == text
    error = run("pretrain @data.zarr --config run.yaml --out run", 1)
    assert "run holds a run with other data: training is" in error
    os.mkdir("mine")
    Path("mine/notes.txt").write_text("keep")
    error = run("pretrain @data.zarr --config run.yaml --out mine", 1)
    assert "mine exists: name a new folder" in error


def test_an_interrupted_pretraining_says_how_to_go_on(run, folder, monkeypatch, capsys):
    from xatmorep.training.learner import Learner

    learn_of = Learner.learn

    def learn(self, batch):
        if self.state.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return learn_of(self, batch)

    content = {
        "model": small.CONFIG.model_dump(mode="json"),
        "steps": 4,
        "batch_size": 2,
        "crops_per_slab": 2,
    }
    Path("run.yaml").write_text(yaml.safe_dump(content))
    command = "--config run.yaml --device cpu --out run"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", learn)
        assert main(["pretrain", f"{folder}/data.zarr", *command.split()]) == 1
    message = "stopped by SIGTERM after step 3 of 4: the same command goes on from there"
    assert capsys.readouterr().err.splitlines()[-1] == f"xatmorep: {message}"
    assert "<xatmorep.Model 'model'>" in run(f"pretrain @data.zarr {command}")


def test_evaluate(run, folder):
    shutil.copytree(folder / "model", "model")
    words = "--time 2020-12-31/2021-01-01T00 --climatology 2020-12-31/2020-12-31 --seed 3"
    table = run(f"evaluate @data.zarr --model model {words} --out s.zarr --write-card")
    scores = opened("s.zarr")["score"]
    assert {"model", "climatology", "interpolation", "kriging"} <= set(scores["forecaster"].values)
    for word in ("2m_temperature [K]", "temperature at 850 [K]", "climatology", "spread/skill"):
        assert word in table
    card = xatmorep.load("model").card
    found = {(s.field, s.level, s.baseline): s.value for s in card.scores if s.metric == "rmse"}
    rmse = scores.sel(forecaster="model", metric="rmse", field="2m_temperature")
    assert found["2m_temperature", None, None] == pytest.approx(float(rmse[0]), rel=1e-3)
    # The card names a command that gives the same scores again.
    assert run(card.scores[0].command.removeprefix("xatmorep ")) == table
    assert xatmorep.load("model").digest == small.model().digest


def test_evaluate_forecasts(run, folder):
    shutil.copytree(folder / "forecaster", "model")
    ds = small.dataset(9)
    ds.to_netcdf("long.nc")
    words = (
        "--task forecast --lead-time 6h --init-step 12h --block 6h --climatology-data @data.nc "
        "--baselines climatology persistence --plot p.png"
    )
    text = run(f"evaluate long.nc --model model {words} --write-card --out s.nc")
    assert "temperature at 850 after 6h [K]" in text
    scores = opened("s.nc")
    assert scores["forecaster"].values.tolist() == ["model", "climatology", "persistence"]
    twin = xatmorep.evaluate(
        small.forecaster(),
        ds,
        task="forecast",
        lead_time="6h",
        init_step="12h",
        block="6h",
        climatology=dataset(),
        baselines=["climatology", "persistence"],
    )
    xr.testing.assert_allclose(scores, twin)
    pictures = ["p.png", "p_ranks.png", "p_spectrum.png"]
    assert text.splitlines()[-3:] == pictures
    for picture in pictures:
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    card = xatmorep.load("model").card
    assert {score.lead_time for score in card.scores} == {"6h"}
    assert text.startswith(run(card.scores[0].command.removeprefix("xatmorep ")).rstrip())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task forecast", 'the task "forecast" needs lead_time'),
        ("--lead-time 6h", 'lead_time is for forecasts: say task="forecast"'),
        ("--baselines krigin", "baseline 'krigin' is unknown; did you mean 'kriging'?"),
        ("--climatology-data nowhere", "nowhere"),
        ("--plot p.pdf", "p.pdf must end with .png"),
        ("--plot none/p.png", "none doesn't exist: make it first"),
    ],
)
def test_mistakes_in_an_evaluation(run, words, message):
    assert message in run(f"evaluate @data.zarr --model @model {words}", 1)
    assert os.listdir() == []


def test_demo(run, monkeypatch):
    """What it makes is tested beside it; here only that the command leads there."""
    monkeypatch.setattr("xatmorep.demo.demo", lambda out: f"made in {out}")
    assert run("demo --out there") == "made in there\n"


def test_info(run):
    text = run("info @model")
    assert text.startswith("<xatmorep.Model 'small'>")
    assert f"digest: {small.model().digest}" in text
    assert json.loads(text[text.index("{") :])["fields"] == ["2m_temperature", "temperature"]


def test_models(run):
    lines = run("models").splitlines()
    assert lines[0].split()[:2] == ["name", "grid_step"]
    assert any("era5-surface-tiny" in line for line in lines[1:])


def test_catalog(run):
    lines = run("catalog").splitlines()
    assert [line.split(":")[0] for line in lines] == sorted(xatmorep.open_catalog())
    assert all(len(line.split(": ", 1)[1]) > 20 for line in lines)


def test_show_versions(run, monkeypatch):
    monkeypatch.setattr("xatmorep.cli.PACKAGES", ("torch", "no-such-package"))
    python, ours, torch, missing = run("show-versions").splitlines()
    assert python.startswith("python: 3.")
    assert ours == f"xatmorep: {xatmorep.__version__}"
    assert torch.startswith("torch: 2.")
    assert missing == "no-such-package: not installed"


def test_a_process_of_its_own(tmp_path):
    def python(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "xatmorep", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, text=True, capture_output=True
        )

    done = python("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{xatmorep.__version__}\n", "")
    done = python("embed", "era5-smaple", "--out", "e.zarr")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("xatmorep: there is no catalog entry or file 'era5-smaple'; ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# ---- what is selected


def test_time(run):
    run("embed @data.zarr --model @model --time 2020-12-31T12/2021-01-01T00 --out e.zarr")
    ds = dataset().sel(time=slice("2020-12-31T12", "2021-01-01T00"))
    assert ds.sizes["time"] == 3
    same("e.zarr", ds.atmorep.embed(model=small.model()))


@pytest.mark.parametrize(
    ("region", "columns"),
    [
        ("30,90,-30,-105", [*range(90, 256, 15)]),  # across the dateline
        ("30,-90,-30,75", [*range(0, 76, 15), *range(270, 360, 15)]),  # across Greenwich
        ("30,-180,-30,180", [*range(0, 360, 15)]),
        ("30,0,-30,360", [*range(0, 360, 15)]),
        ("30.00001,0.00001,-30.00001,164.99999", [*range(0, 166, 15)]),
    ],
)
def test_region(run, region, columns):
    run(f"embed @data.zarr --model @model --region={region} --out e.zarr")
    ds = dataset().sel(latitude=slice(30, -30), longitude=columns)
    same("e.zarr", ds.atmorep.embed(model=small.model()))
    run(f"embed '@other form.zarr' --model @model --region={region} --out o.zarr")
    found = small.as_input(opened("o.zarr"), ds)
    name = "2m_temperature"
    expected = ds.atmorep.embed(model=small.model())[name]
    at = {"longitude": expected["longitude"] % 360, "latitude": expected["latitude"]}
    np.testing.assert_allclose(found[name].sel(at), expected, atol=1e-4)


def test_coordinates_that_are_no_index(run):
    """As GRIB readers give them: the dimension has another name than its coordinate."""
    ds = dataset().rename_dims(time="step", latitude="y", longitude="x")
    for axis in ("time", "latitude", "longitude"):
        ds = ds.drop_indexes(axis)
    ds.to_netcdf("grib.nc")
    words = "--time 2020-12-31/2020-12-31 --region=60,0,-60,360"
    run(f"embed grib.nc --model @model {words} --out e.nc")
    expected = dataset().isel(time=slice(0, 3), latitude=slice(3, 16))
    result = expected.atmorep.embed(model=small.model())
    np.testing.assert_allclose(opened("e.nc")["temperature"], result["temperature"], atol=1e-4)


def test_time_reaches_entries_that_cut_before_they_chunk(run, folder, tmp_path, monkeypatch):
    """ARCO-ERA5, whose 1.3 million hours make more chunks than dask can list."""
    limits = {"valid_time_start": "2020-12-31", "valid_time_stop": "2021-01-01"}
    ds = dataset().assign_attrs(limits)
    ds.to_zarr(tmp_path / "catalogs" / "arco.zarr", consolidated=True)
    catalog = yaml.safe_load((ROOT / "catalogs" / "arco-era5.yaml").read_text())
    for entry in catalog["entries"].values():
        entry["kwargs"] |= {"url": "{CATALOG_DIR}/arco.zarr", "storage_options": {}}
    (tmp_path / "catalogs" / "arco.yaml").write_text(yaml.safe_dump(catalog))
    monkeypatch.setattr("xatmorep.data.catalog.PACKAGE", tmp_path)
    asked = []

    def open_store(*arguments, **options):
        asked.append(options["time"])
        return xatmorep.data.stores.open_store(*arguments, **options)

    monkeypatch.setattr("xatmorep.data.readers.open_store", open_store)
    words = "--time 2020-12-31T12/2021-01-01 --fields temperature"
    run(f"embed era5-arco --model @model {words} --out e.zarr")
    assert asked == [("2020-12-31T12", "2021-01-01")]
    expected = ds.isel(time=slice(1, 5)).atmorep.embed(model=small.model(), fields=["temperature"])
    same("e.zarr", expected)
    error = run("embed era5-arco --model @model --time 1999/2000 --out n.zarr", 1)
    assert error.startswith("era5-arco: ")
    assert "has no time within ('1999', '2000'); it has 2020-12-31" in error
    # An entry without that parameter isn't given it, nor is any without --time.
    run("embed era5-arco --model @model --out all.zarr")
    assert asked[-1] == (None, None)


# ---- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--time 2020", "'2020' is no span of time: write it as 2026-03-25/2026-03-29"),
        ("--time 2020-12-31/", "is no span of time"),
        ("--time yesterday/2021", "time yesterday/2021 can't be selected: "),
        ("--time 2020-13-01/2021", "can't be selected: "),
        (
            "--time 1999/2000",
            "the data have no time in 1999/2000: they reach from 2020-12-31 06:00:00 to 2021-01-01",
        ),
        ("--time 2021/2020", "the data have no time in 2021/2020"),
        ("--region 1,2,3", "'1,2,3' is no region: write it as north,west,south,east"),
        ("--region a,b,c,d", "'a,b,c,d' is no region"),
        ("--region 10,0,20,30", "the data have no point in the region 10,0,20,30 (north,west,sou"),
        ("--region 5,1,-5,2", "the data have no point in the region 5,1,-5,2"),
        ("--region nan,0,0,10", "the data have no point in the region nan"),
        ("--region 30,0,0,45", "'latitude' has 4 points, fewer than the 6 of one neighborhood"),
        ("--fields temprature", "the model has no field 'temprature'; did you mean 'temperature'"),
        ("--layer 3", "layer 3 doesn't exist"),
        ("--pool heights", "pool 'heights' is unknown"),
        ("--batch-size 0", "batch_size must be at least 1, not 0"),
        ("--device warp", "device 'warp' is not a torch device"),
        ("--model nowhere", "there is no model and no folder 'nowhere'"),
        ("--model @data.zarr", "data.zarr/manifest.json is missing (no model"),
        ("--model @data.nc", "is a file; a model is a folder"),
        ("--model era5-surface-tiny", "no variable is recognized as 'mean_sea_level_pressure'"),
    ],
)
def test_mistakes_in_the_options(run, words, message):
    model = "" if "--model" in words else "--model @model"
    assert message in run(f"embed @data.zarr {model} {words} --out e.zarr", 1)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("era5-smaple", "there is no catalog entry or file 'era5-smaple'; entries: era5-sample,"),
        ("./none.zarr", "there is no zarr store or netCDF file at './none.zarr'"),
        ("empty", "there is no zarr store or netCDF file at"),
        ("text.txt", "can't be read as netCDF"),
        ("text.nc", "can't be read as netCDF"),
        ("http://127.0.0.1:1/data.zarr", "127.0.0.1:1"),
        ("gsx://bucket/data.zarr", "fsspec knows no URLs of the kind 'gsx'"),
        ("curvilinear.nc", "the grid is curvilinear"),
        ("no-time.nc", "the data have no dimension of time, along which to select"),
    ],
)
def test_mistakes_in_the_data(run, data, message):
    os.mkdir("empty")
    Path("text.txt").write_text("text")
    Path("text.nc").write_text("text")
    horizontal = {"lat": (("y", "x"), np.eye(2)), "lon": (("y", "x"), np.eye(2))}
    dates = {"time": np.array(["2020-01-01"], "M8[ns]")}
    xr.Dataset({"a": (("y", "x"), np.eye(2))}, horizontal | dates).to_netcdf("curvilinear.nc")
    dataset().isel(time=0).to_netcdf("no-time.nc")
    before = sorted(os.listdir())
    error = run(f"embed {data} --model @model --time 2020/2021 --out e.zarr", 1)
    assert message in error
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--at-time yesterday --latitude 0 --longitude 0 --level 500", "'yesterday' of the query"),
        ("--at-time 2025-01-01 --latitude 0 --longitude 0 --level 500", "lies outside of the data"),
        ("--at-time 2021-01-01 --latitude 0 --longitude 0", "has several levels: the query needs"),
        ("--at-time 2021-01-01 --latitude 0 --longitude 0 --level 7", "has no level 7"),
    ],
)
def test_mistakes_in_a_place(run, words, message):
    assert message in run(f"attention @data.zarr --model @model {words} --out a.zarr", 1)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lead-time 12", 'lead_time 12 has no unit: write it as "3h"'),
        ("--lead-time soon", "lead_time 'soon' is no duration"),
        ("--lead-time 7h", "no positive multiple of the model's time step, 6h"),
        ("--lead-time 24h", "the largest lead time of the model small is 18h"),
        ("--lead-time 6h --init-time 2021-01-01T01", "2021-01-01T01 is no time of these data"),
        ("--lead-time 6h --init-time 2020-12-31T12", "reads 5 frames up to its init time, the da"),
    ],
)
def test_mistakes_in_a_forecast(run, words, message):
    assert message in run(f"forecast @data.zarr --model @forecaster {words} --out f.zarr", 1)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no configuration file at run.yaml"),
        ("a: [", "is not valid YAML"),
        ("- a", "must hold keys and values"),
        ("stesp: 3", "run.yaml: model: Field required (found nothing); steps: Field required"),
    ],
)
def test_mistakes_in_a_configuration_are_one_line(run, text, message):
    if text is not None:
        Path("run.yaml").write_text(text)
    assert message in run("pretrain @data.zarr --config run.yaml --out run", 1)
    assert not os.path.exists("run")


@pytest.mark.parametrize(
    "command",
    [
        "embed nowhere",
        "predict nowhere",
        "forecast nowhere --lead-time 3h",
        "attention nowhere --at-time 2021 --latitude 0 --longitude 0",
        "evaluate nowhere",
    ],
)
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("there.zarr", "there.zarr exists: name a new one, or remove it"),
        ("e.csv", "e.csv must end with .zarr or .nc"),
        ("none/e.zarr", "none doesn't exist: make it first"),
        ("gs://bucket/e.zarr", "is a URL: results are written to a local path"),
    ],
)
def test_an_impossible_out_is_refused_before_the_data_are_opened(run, command, out, message):
    Path("there.zarr").write_text("mine")
    assert message in run(f"{command} --out {out}", 1)
    assert Path("there.zarr").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: command"),
        ("emebd", "invalid choice: 'emebd'"),
        ("embed", "the following arguments are required: data, --out"),
        ("embed data --out e.zarr --layer last", "argument --layer: invalid int value: 'last'"),
        ("predict data --out p.zarr --where here", "argument --where: invalid choice: 'here'"),
        ("attention data --out a.zarr --at-time 2020 --latitude 0", "required: --longitude"),
        ("forecast data --out f.zarr", "the following arguments are required: --lead-time"),
        ("models --sorted", "unrecognized arguments: --sorted"),
    ],
)
def test_wrong_usage_ends_with_status_2(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(shlex.split(words))
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for command in (
        "demo",
        "embed",
        "predict",
        "forecast",
        "attention",
        "pretrain",
        "evaluate",
        "catalog",
    ):
        assert f"\n    {command} " in text


# ---- failures in the middle


def test_nothing_is_left_of_a_run_that_fails_in_the_middle(run, monkeypatch):
    """The disk is full after the first time slab."""
    from xatmorep.tasks import assembly

    calls = []

    def run_slab(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return assembly.run_slab(*arguments)

    monkeypatch.setattr("xatmorep.tasks.engine.run_slab", run_slab)
    for out in ("e.zarr", "e.nc"):
        calls.clear()
        error = run(f"embed @data.zarr --model @model --out {out}", 1)
        assert error == "[Errno 28] No space left on device"
        assert os.listdir() == []


def test_an_interruption_leaves_nothing(run, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("xarray.Dataset.to_zarr", interrupted)
    assert run("embed @data.zarr --model @model --out e.zarr", 1) == "interrupted"
    assert os.listdir() == []


def test_a_mistake_of_ours_stays_visible(run, monkeypatch):
    def wrong(*arguments, **options):
        raise TypeError("a mistake")

    monkeypatch.setattr("xatmorep.tasks.embed.embed", wrong)
    with pytest.raises(TypeError, match="a mistake"):
        main(["embed", "era5-sample", "--out", "e.zarr"])
    assert os.listdir() == []
