"""The harnesses of scripts/chaos in small: nothing is lost, different, or run that must not be."""

import json
import os
import subprocess
import sys

import pytest

from scripts.chaos import photographs
from tests.toys import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = {
    "kill_runs": ("--trials", "1"),
    "stop_runs": ("--trials", "1"),
    "stop_validation": ("--trials", "1"),
    "kill_cache": ("--trials", "1"),
    "damage": ("--flips", "12", "--sides", "8"),
    "full_disk": ("--points", "2"),
    "clock": (),
    "fuzz_config": ("--cases", "10", "--files", "14"),
    "fuzz_images": ("--cases", "50", "--special", "14"),
    "fuzz_weights": ("--cases", "8", "--handmade", "16"),
    "fuzz_videos": ("--cases", "24"),
    "fuzz_tensors": ("--cases", "60"),
    "inject": (),
    "sockets": (),
    "load": ("--files", "300", "--steps", "20", "--jobs", "2", "--images", "20"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of results in which the images are made."""
    out = tmp_path_factory.mktemp("chaos")
    photographs.make(out / "data")
    return out


def harness(out, name, *sizes):
    words = [sys.executable, "-m", f"scripts.chaos.{name}", "--out", str(out), *sizes]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, cwd=out, env=environment, capture_output=True, text=True)
    assert (out / f"{name}.json").exists(), done.stderr[-3000:]
    return done.returncode, json.loads((out / f"{name}.json").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_found(data, name):
    code, summary = harness(data, name, *SMALL[name])
    assert summary["found"] == dict.fromkeys(summary["found"], 0), summary["cases"]
    assert code == 0
    assert summary["figures"]


@pytest.mark.dist
def test_nothing_is_found_with_ranks(data):
    code, summary = harness(data, "kill_ranks", "--single", "0", "--ranks", "1")
    assert summary["found"] == dict.fromkeys(summary["found"], 0), summary["cases"]
    assert code == 0
