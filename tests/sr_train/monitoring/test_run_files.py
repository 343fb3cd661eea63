import errno
import json

import pytest
import torch

from sr_train.monitoring.drift import ParameterDrift
from sr_train.monitoring.non_finite import NonFiniteError, NonFiniteMonitor
from sr_train.monitoring.run_files import MetricsFile, close_manifest, write_manifest


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


def test_drift_is_counted_on_from_what_a_launch_before_counted_from():
    weight = torch.ones(2, requires_grad=True)
    drift = ParameterDrift([weight])
    drift.restore([torch.zeros(3)])  # another parameter, as where others are frozen now
    assert float(drift.read()) == 0.0
    drift.restore([torch.tensor([-2.0, -3.0])])
    assert torch.equal(drift.before()[0], torch.tensor([-2.0, -3.0]))
    assert float(drift.read()) == 5.0


def test_sentinel_is_silent_while_all_is_well(caplog, tmp_path):
    NonFiniteMonitor(3, tmp_path).report(0, 100, {}, 100, "net_g")
    assert not caplog.records


def test_sentinel_counts_and_names(caplog, tmp_path):
    NonFiniteMonitor(3, tmp_path).report(2, 100, {"loss/l1": 2}, 300, "net_d")
    assert "2 of the last 100 steps of net_d" in caplog.text
    assert "loss/l1 (2)" in caplog.text


def test_sentinel_saves_the_batch_and_names_all(tmp_path):
    batch = {"lq": torch.tensor([float("nan")]), "gt": torch.tensor([1])}
    error = NonFiniteMonitor(3, tmp_path).stop(7, 3, batch, ["loss/l1"], ["body.0.weight"])
    assert isinstance(error, NonFiniteError)
    for words in ("step 7", "3 steps in a row", "loss/l1", "body.0.weight", "pixels: lq"):
        assert words in str(error)
    saved = torch.load(tmp_path / "non_finite_step_00000007.pt", weights_only=True)
    assert torch.isnan(saved["lq"]).all()


def test_each_of_several_ranks_saves_its_own_batch(tmp_path):
    told = set()
    for rank in range(2):
        error = NonFiniteMonitor(3, tmp_path, rank).stop(7, 3, {"lq": torch.tensor([rank])}, [], [])
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


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"{}", b"[1]", b"[" * 100_000])
def test_a_manifest_that_is_none_is_set_aside(tmp_path, caplog, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    write_manifest(path, {"device": "cpu"})
    assert [launch["device"] for launch in json.loads(path.read_text())] == ["cpu"]
    assert (tmp_path / "manifest.json.bad").read_bytes() == content
    assert "set aside as manifest.json.bad" in caplog.text


@pytest.mark.parametrize("content", [b"\xff" * 50, b"PK\x03\x04\0\0", b"a,b\n1,2\n"])
def test_a_table_that_is_none_is_set_aside(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    MetricsFile(path, first_step=5).append({"loss": 1.0}, 5)
    assert path.read_text().split() == ["step,name,value", "5,loss,1.0"]
    assert (tmp_path / "metrics.csv.bad").read_bytes() == content


def test_rows_that_make_no_sense_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,name,value\n1,a,0.5\n\xff,a,1\n2,a,x\n-3,a,1\n4,a\0,2.0\n" + b"9" * 50)
    MetricsFile(path, first_step=5)
    assert path.read_text().split() == ["step,name,value", "1,a,0.5", "4,a,2.0"]


def test_what_is_written_again_is_dropped_at_its_step_alone(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for step in (2, 4):
        file.append({"loss/l1": 0.5, "val/main/psnr_y": 20.0}, step)
    MetricsFile(path, first_step=5, drop="val/")
    assert path.read_text().split() == [
        "step,name,value",
        "2,loss/l1,0.5",
        "2,val/main/psnr_y,20.0",
        "4,loss/l1,0.5",
    ]


def test_errors_of_the_disk_name_the_file(tmp_path, monkeypatch):
    def fails(*arguments, **settings):
        raise OSError(errno.EIO, "Input/output error")

    table = MetricsFile(tmp_path / "metrics.csv")
    monkeypatch.setattr("sr_train.monitoring.run_files._write_launches", fails)
    monkeypatch.setattr("sr_train.monitoring.run_files.csv.writer", fails)
    for write in (
        lambda: write_manifest(tmp_path / "manifest.json", {}),
        lambda: table.append({"a": 1.0}, 1),
    ):
        with pytest.raises(OSError, match="Input/output") as caught:
            write()
        assert caught.value.filename in {
            str(tmp_path / "manifest.json"),
            str(tmp_path / "metrics.csv"),
        }
