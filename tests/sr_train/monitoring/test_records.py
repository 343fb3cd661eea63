import json

import torch

from sr_train.monitoring.drift import ParameterDrift
from sr_train.monitoring.records import MetricsFile, close_manifest, write_manifest
from sr_train.monitoring.sentinel import NonFiniteError, Sentinel


def test_metrics_file_drops_what_a_cut_off_run_left(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (10, 20, 30):
        first.append({"loss/l1": step / 10}, step)
    path.write_text(path.read_text() + "40,loss")  # cut off in the middle of a row
    MetricsFile(path, first_step=21).append({"loss/l1": 9.0}, 30)
    rows = path.read_text().split()
    assert rows == ["step,name,value", "10,loss/l1,1.0", "20,loss/l1,2.0", "30,loss/l1,9.0"]


def test_manifest_keeps_every_launch(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, {"device": "cpu"})
    write_manifest(path, {"device": "cuda"})
    launches = json.loads(path.read_text())
    assert [launch["device"] for launch in launches] == ["cpu", "cuda"]
    assert launches[0]["versions"]["torch"] != "not installed"


def test_drift_is_the_norm_of_the_change_since_the_last_reading():
    weight = torch.zeros(2, requires_grad=True)
    drift = ParameterDrift([weight])
    weight.data += torch.tensor([3.0, 4.0])
    assert float(drift.read()) == 5.0
    assert float(drift.read()) == 0.0


def test_sentinel_is_silent_while_all_is_well(caplog, tmp_path):
    Sentinel(3, tmp_path).report(0, 100, {}, 100, "net_g")
    assert not caplog.records


def test_sentinel_counts_and_names(caplog, tmp_path):
    Sentinel(3, tmp_path).report(2, 100, {"loss/l1": 2}, 300, "net_d")
    assert "2 of the last 100 steps of net_d" in caplog.text
    assert "loss/l1 (2)" in caplog.text


def test_sentinel_saves_the_batch_and_names_all(tmp_path):
    batch = {"lq": torch.tensor([float("nan")]), "gt": torch.tensor([1])}
    error = Sentinel(3, tmp_path).stop(7, 3, batch, ["loss/l1"], ["body.0.weight"])
    assert isinstance(error, NonFiniteError)
    for words in ("step 7", "3 steps in a row", "loss/l1", "body.0.weight", "pixels: lq"):
        assert words in str(error)
    saved = torch.load(tmp_path / "non_finite_step_00000007.pt", weights_only=True)
    assert torch.isnan(saved["lq"]).all()


def test_each_of_several_ranks_saves_its_own_batch(tmp_path):
    told = set()
    for rank in range(2):
        error = Sentinel(3, tmp_path, rank).stop(7, 3, {"lq": torch.tensor([rank])}, [], [])
        told.add(str(error))
        saved = torch.load(tmp_path / f"non_finite_step_00000007_rank{rank}.pt")
        assert int(saved["lq"]) == rank
    assert len(told) == 1  # the same words on all ranks are told once
    assert "non_finite_step_00000007_rank*.pt" in told.pop()


def test_the_end_of_a_launch_is_told_with_it(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, {"device": "cpu"})
    close_manifest(path, {"stopped_by": "SIGTERM"})
    write_manifest(path, {"device": "cpu"})
    launches = json.loads(path.read_text())
    assert launches[0]["stopped_by"] == "SIGTERM"
    assert launches[0]["ended"] >= launches[0]["started"]
    assert "ended" not in launches[1]
