"""Loggers of services, offline against the real packages: what they wrote is read back."""

import json
import logging
import os
import sqlite3
import struct
from contextlib import closing, suppress

import numpy as np
import pytest

from sr_train.monitoring.run_record import RunRecord

IMAGE = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
CONFIG = {"name": "toy", "scale": 2, "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3}}

OFFLINE = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_X_DISABLE_STATS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


class Broken(Exception):
    """What ends a launch before its time."""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)


def launch(make, run, first_step, scalars, lr=1e-3, error=None):
    """Log as one launch of a run does."""
    run.mkdir(exist_ok=True)
    logger = make(run, first_step)
    with suppress(Broken), closing(logger):
        logger.config({**CONFIG, "optimizer": {**CONFIG["optimizer"], "lr": lr}})
        for step, values in scalars:
            logger.scalars(values, step)
            logger.image("main/p0", IMAGE, step)
            logger.histogram("weights", np.linspace(0, 1, 9, dtype=np.float32), step)
        logger.text("note", "some words")
        if error is not None:
            raise error


def resumed_twice(make, run):
    """Log steps 2, 4, 6; be cut off; resume at step 4, with a value that was not there before."""
    launch(
        make, run, 1, [(2, {"loss": 2.0}), (4, {"loss": 4.0, "bad": np.nan}), (6, {"loss": 6.0})]
    )
    again = [(4, {"loss": 40.0, "val/psnr": 1.5}), (6, {"loss": 60.0}), (8, {"loss": 8.0})]
    launch(make, run, 4, again, lr=1e-4)


LOSSES = [(2, 2.0), (4, 4.0), (6, 6.0), (8, 8.0)]
"""Each step once, though two launches logged steps 4 and 6."""


# Weights & Biases


def wandb_logger(run, first_step=1, **more):
    pytest.importorskip("wandb")
    from sr_train.monitoring.wandb_logger import WandbLogger

    return WandbLogger(run, first_step, **more)


def wandb_records(path):
    """Yield the records of a .wandb file: chunks of a LevelDB log, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # too short for another chunk
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in {1, 4}:  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def wandb_launches(run):
    import wandb

    wandb.teardown()  # its service writes the end of a file after `finish` has returned
    folders = sorted(run.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_ctime_ns)
    for folder in folders:
        (path,) = folder.glob("*.wandb")
        yield list(wandb_records(path))


def items_of(record):
    return {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for item in record.history.item
    }


def test_wandb_has_each_step_once_in_one_run(tmp_path):
    resumed_twice(wandb_logger, tmp_path / "toy")
    launches = list(wandb_launches(tmp_path / "toy"))
    assert len(launches) == 2
    runs = [record.run for records in launches for record in records if record.HasField("run")]
    assert {run.run_id for run in runs} == {runs[0].run_id}
    assert {(run.project, run.display_name) for run in runs} == {("sr_train", "toy")}
    records = [record for launch in launches for record in launch if record.HasField("history")]
    rows = [items_of(record) for record in records]
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == LOSSES
    assert [(row["step"], row["val/psnr"]) for row in rows if "val/psnr" in row] == [(4, 1.5)]
    assert not any("bad" in row for row in rows)
    images = [(row["step"], row["main/p0/height"]) for row in rows if "main/p0/height" in row]
    assert images == [(step, 4) for step, _ in LOSSES]
    assert [row["step"] for row in rows if "weights/values" in row] == [step for step, _ in LOSSES]
    numbers = [row["_step"] for row in rows]
    assert numbers == sorted(set(numbers))


def test_wandb_is_told_of_an_error_that_ends_the_run(tmp_path):
    launch(wandb_logger, tmp_path / "a", 1, [], error=Broken())
    launch(wandb_logger, tmp_path / "b", 1, [])
    codes = []
    for run in ("a", "b"):
        (records,) = wandb_launches(tmp_path / run)
        codes += [record.exit.exit_code for record in records if record.HasField("exit")]
    assert codes == [1, 0]


def test_wandb_logs_offline_where_it_knows_no_key(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # what it read of the environment
    with caplog.at_level(logging.INFO):
        launch(wandb_logger, tmp_path / "toy", 1, [(2, {"loss": 1.0})])
    assert len(list(wandb_launches(tmp_path / "toy"))) == 1
    assert "wandb login" in caplog.text


# MLflow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return the address of a database, which takes MLflow seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow_logger(store, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from sr_train.monitoring.mlflow_logger import MlflowLogger

    monkeypatch.chdir(tmp_path)  # artifacts of new experiments go to `mlruns` in it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    return MlflowLogger


def mlflow_runs(store, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(tmp_path.name)
    return client, client.search_runs([experiment.experiment_id])


@pytest.mark.slow
def test_mlflow_has_each_step_once_in_one_run(mlflow_logger, store, tmp_path):
    resumed_twice(mlflow_logger, tmp_path / "toy")
    client, (run,) = mlflow_runs(store, tmp_path)
    assert (run.info.run_name, run.info.status) == ("toy", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((each.step, each.value) for each in history) == LOSSES
    assert set(run.data.metrics) == {"loss", "val/psnr"}
    expected = {"name": "toy", "scale": "2", "optimizer.lr": "0.001"}
    assert run.data.params == {**expected, "optimizer._target_": "torch.optim.Adam"}
    paths = {each.path for each in client.list_artifacts(run.info.run_id, "config")}
    assert paths == {"config/step_00000001.yaml", "config/step_00000004.yaml"}
    images = [each.path for each in client.list_artifacts(run.info.run_id, "images")]
    assert len([path for path in images if path.endswith(".png")]) == len(LOSSES)


@pytest.mark.slow
def test_mlflow_is_told_of_an_error_and_a_lost_run_is_made_anew(mlflow_logger, store, tmp_path):
    launch(mlflow_logger, tmp_path / "toy", 1, [(2, {"loss": 2.0})], error=Broken())
    client, (first,) = mlflow_runs(store, tmp_path)
    assert first.info.status == "FAILED"
    client.delete_run(first.info.run_id)
    launch(mlflow_logger, tmp_path / "toy", 1, [(2, {"a?": 3.0})])
    _, (second,) = mlflow_runs(store, tmp_path)
    assert second.info.run_id != first.info.run_id
    assert second.data.metrics == {"a_": 3.0}


# Trackio


@pytest.fixture
def trackio_logger(tmp_path, monkeypatch):
    """Return the class, with everything of Trackio that names its folder pointed to another."""
    pytest.importorskip("trackio")
    import sys

    from sr_train.monitoring.trackio_logger import TrackioLogger

    folder = tmp_path / "trackio"
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "trackio":
            for place, below in {"TRACKIO_DIR": "", "MEDIA_DIR": "media"}.items():
                if place in vars(module):
                    monkeypatch.setattr(module, place, folder / below)
    return TrackioLogger


def test_trackio_has_each_step_once_in_one_run(trackio_logger, tmp_path):
    resumed_twice(trackio_logger, tmp_path / "toy")
    with closing(sqlite3.connect(tmp_path / "trackio/sr_train.db")) as store:
        rows = store.execute("SELECT run_id, run_name, step, metrics FROM metrics").fetchall()
        configs = [json.loads(text) for (text,) in store.execute("SELECT config FROM configs")]
    assert len({row[0] for row in rows}) == 1
    assert {row[1] for row in rows} == {"toy"}
    logged = [(step, json.loads(values)) for _, _, step, values in rows]
    assert sorted((step, row["loss"]) for step, row in logged if "loss" in row) == LOSSES
    assert [step for step, row in logged if "val/psnr" in row] == [4]
    assert not any("bad" in row for _, row in logged)
    for name in ("main/p0", "weights"):
        assert sorted(step for step, row in logged if name in row) == [step for step, _ in LOSSES]
    assert [config["optimizer"]["lr"] for config in configs] == [1e-4]
    assert len(list((tmp_path / "trackio/media").rglob("*.png"))) == len(LOSSES)
    from trackio import context_vars

    assert context_vars.current_run.get() is None, "it would be ended, and told, once more at exit"


# All of them


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_dry_run_leaves_nothing_outside_the_run(name, request, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")  # it must not be tried
    monkeypatch.chdir(tmp_path)
    make = wandb_logger if name == "wandb" else request.getfixturevalue(f"{name}_logger")
    launch(lambda run, step: make(run, step, dry_run=True), tmp_path / "x", 1, [(2, {"a": 1.0})])
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_earlier_launches_logged_is_kept_by_name(tmp_path, caplog):
    first = RunRecord(tmp_path, "wandb", "p")
    first.keep("id")
    assert first.unwritten({"a": 1, "b": np.inf}, 5) == {"a": 1.0}
    with caplog.at_level(logging.INFO):
        again = RunRecord(tmp_path, "wandb", "p", first_step=4)
    assert "wandb has steps 4 to 5 of an earlier launch" in caplog.text
    assert (again.run_id, again.num_rows) == ("id", 1)
    assert again.unwritten({"a": 2.0, "b": 3.0}, 5) == {"b": 3.0}
    assert again.is_new("image", 5)
    assert not again.is_new("image", 5)
    again.keep("other")
    assert again.unwritten({"a": 2.0}, 5) == {"a": 2.0}
    assert RunRecord(tmp_path, "wandb", "q").run_id is None


def test_a_run_is_called_as_its_folder_is(tmp_path):
    assert RunRecord(tmp_path / "toy", "x", "").name == "toy"
    assert RunRecord(tmp_path / "toy/sweep_3", "x", "").name == "toy-sweep_3"
