"""What the harnesses of scripts/chaos stand on: they must see what they look for."""

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from scripts.chaos import children, moments, photographs, toy_runs
from scripts.chaos.mutation import flipped, mutated
from scripts.chaos.report import JUDGED, Report

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses /proc")


@pytest.fixture
def in_child(tmp_path):
    """Return a function that runs a job in a forked child."""

    def run(job, **settings):
        return children.run(job, tmp_path, tmp_path / "log", **settings)

    return run


def test_how_a_child_ends_is_told(in_child):
    assert in_child(lambda: None).kind == "exit 0"
    assert in_child(lambda: sys.exit(2)).code == 2
    failed = in_child(lambda: [][1])
    assert (failed.code, failed.traceback) == (99, True)
    assert failed.fault().startswith("IndexError")
    killed = in_child(moments.die)
    assert (killed.code, killed.signal, killed.kind) == (None, "SIGKILL", "SIGKILL")


def test_a_child_that_hangs_or_grows_is_killed(in_child):
    hung = in_child(lambda: time.sleep(60), limit_s=0.3)
    assert (hung.hangs, hung.kind) == (True, "hang")
    assert hung.seconds < 10

    def grow():
        kept = bytearray(800 << 20)
        kept[::4096] = bytes(len(kept[::4096]))
        time.sleep(60)

    at_start = in_child(lambda: time.sleep(1)).peak_mib  # a fork shows less than its parent
    large = in_child(grow, memory_mib=at_start + 400)
    assert (large.takes_too_much, large.kind) == (True, "memory")


def test_signals_and_hooks_reach_the_child(in_child):
    def wait():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        time.sleep(60)

    assert in_child(wait, signals=((1.0, signal.SIGTERM),)).code == 7
    told = in_child(lambda: sys.stdout.write(os.environ["TOLD"]) and 0, environment={"TOLD": "yes"})
    assert told.last_line() == "yes"


def test_processes_that_a_child_leaves_are_counted_and_killed(in_child):
    def leave():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        sys.stdout.write(str(child.pid))

    ended = in_child(leave)
    assert ended.left_processes == 1
    deadline = time.monotonic() + 20
    while children.resident_mib(int(ended.out)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not children.resident_mib(int(ended.out))


@pytest.mark.parametrize("kind", moments.PATCHES)
def test_every_moment_can_be_waited_for(in_child, kind):
    """The names that it patches are there; a hook fails in the child otherwise."""
    importlib.import_module("sr_train.commands.train")  # once here, not in each child
    ended = in_child(lambda: None, hook=moments.at(kind, 1, moments.die))
    assert ended.code == 0, ended.out


def test_a_hook_acts_at_the_nth_moment(in_child, tmp_path):
    from sr_train.io.files import write_atomically

    def write():
        for number in range(5):
            write_atomically(tmp_path / f"f{number}", b"0123456789")

    assert in_child(write, hook=moments.at("half a file", 3, moments.die)).signal == "SIGKILL"
    assert sorted(path.name for path in tmp_path.glob("f*")) == ["f0", "f1"]
    (left,) = toy_runs.leftovers(tmp_path)
    assert (tmp_path / left).read_bytes() == b"01234"
    assert in_child(write, hook=moments.at("renamed", 2, moments.die)).signal == "SIGKILL"


def test_differences_are_found_bit_for_bit():
    one = {"a": [torch.ones(2), {"b": 1}], "c": None}
    other = {"a": [torch.ones(2), {"b": 2}]}
    assert toy_runs.differing(one, one) == []
    assert toy_runs.differing(one, other) == ["/a/1/b"]
    assert toy_runs.differing(torch.ones(2), torch.ones(2).double(), "x") == ["x"]
    nearly = torch.ones(2).nextafter(torch.full((2,), 2.0))
    assert toy_runs.differing(torch.ones(2), nearly, "x") == ["x"]


def test_rows_twice_missing_and_different_are_found():
    whole = [("5", "loss/l1", "0.5"), ("5", "time/step", "1.0"), ("10", "loss/l1", "0.25")]
    assert toy_runs._faults_of_rows(whole, whole) == []
    assert toy_runs._faults_of_rows([*whole, whole[0]], whole)[0].startswith(
        "metrics.csv: 1 rows twice"
    )
    assert "1 rows missing" in toy_runs._faults_of_rows(whole[:-1], whole)[0]
    slower = [whole[0], ("5", "time/step", "9.0"), ("10", "loss/l1", "0.3")]
    (fault,) = toy_runs._faults_of_rows(slower, whole)
    assert "1 values differ, e.g. ('10', 'loss/l1')" in fault


def test_damage_is_the_same_for_the_same_seed():
    data = bytes(range(256)) * 4
    first = [mutated(data, random.Random(seed)) for seed in range(200)]
    assert first == [mutated(data, random.Random(seed)) for seed in range(200)]
    assert len({*first}) > 190
    off = [a ^ b for a, b in zip(data, flipped(data, random.Random(3)), strict=True)]
    assert sum(bin(each).count("1") for each in off) == 1


@pytest.fixture
def report(tmp_path):
    return Report("trial", argparse.Namespace(out=tmp_path, seed=3), (*JUDGED, "lost"))


def ended(code=0, **about):
    facts = {"signal": None, "seconds": 1.0, "peak_mib": 10.0}
    return children.Ended(code, **{**facts, **about})


BROKEN = (
    'Traceback (most recent call last):\n  File "/x/sr_train/a.py", line 3, in f\nKeyError: 1\n'
)


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({"code": 0}, []),
        ({"code": 2}, []),
        ({"code": 1}, ["exit_codes"]),
        ({"code": 1, "out": BROKEN}, ["tracebacks"]),
        ({"code": 2, "out": BROKEN}, ["tracebacks"]),
        ({"code": None, "signal": "SIGSEGV"}, ["crashes"]),
        ({"code": None, "signal": "SIGKILL", "hangs": True}, ["hangs"]),
        ({"code": None, "signal": "SIGKILL", "takes_too_much": True}, ["memory"]),
        ({"code": 0, "seconds": 99.0}, ["slow"]),
        ({"code": 0, "left_processes": 1}, ["left_processes"]),
    ],
)
def test_ends_that_must_not_be_are_found(report, tmp_path, about, found):
    report.judge("a case", ended(**about), canary=tmp_path / "canary")
    assert report.finish() == int(bool(found))
    summary = json.loads((tmp_path / "trial.json").read_text())
    assert [kind for kind, count in summary["found"].items() if count] == found
    if "out" in about:
        assert list(summary["groups"]) == ["tracebacks | KeyError: 1 @ sr_train/a.py:3 f"]


def test_code_that_ran_is_found(report, tmp_path):
    (tmp_path / "canary").touch()
    report.judge("a case", ended(), canary=tmp_path / "canary")
    assert report.finish() == 1
    summary = json.loads((tmp_path / "trial.json").read_text())
    assert summary["found"]["code_executed"] == 1
    assert summary["seed"] == 3


def test_images_are_made_of_photographs_once(tmp_path):
    made = photographs.make(tmp_path)
    counts = {name: len(list((made / name).glob("*.png"))) for name in ("gt", "val", "clips/val/c")}
    assert counts == {"gt": 6, "val": 2, "clips/val/c": 4}
    before = (made / "gt/p0.png").stat().st_mtime_ns
    assert photographs.make(tmp_path) == made
    assert (made / "gt/p0.png").stat().st_mtime_ns == before
