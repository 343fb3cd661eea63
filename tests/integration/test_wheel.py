"""The built package works from another folder, without the checkout."""

import os
import subprocess
import sys

import pytest

from tests.installs import PIP, build_wheel
from tests.toys import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the unpacked wheel and nothing else of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    install = ["install", str(wheel), "--no-deps", "--target", str(folder / "site")]
    subprocess.run([*PIP, *install], check=True, cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_composes_and_trains_elsewhere(site, tmp_path):
    code = "import sr_train, configs, archs; print(sr_train.__file__, configs.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    assert run("-c", code).stdout.count(str(site)) == 2
    words = ["train.steps=2", "train.log_every=1", "precision=fp32", "scheduler=constant"]
    done = run("-m", "sr_train", "train", "+experiment=quickstart", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "quickstart" / "checkpoints" / "last.safetensors").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.slow
def test_the_wheel_holds_every_config(site):
    shipped = {p.relative_to(ROOT) for p in (ROOT / "configs").rglob("*.yaml")}
    assert shipped == {p.relative_to(site) for p in (site / "configs").rglob("*.yaml")}


@pytest.mark.slow
def test_the_wheel_holds_the_license_and_the_program(site):
    (info,) = site.glob("sr_train-*.dist-info")
    metadata = (info / "METADATA").read_text()
    assert "License-Expression: Apache-2.0\n" in metadata
    assert (info / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "sr-train = sr_train.cli.entry:program" in (info / "entry_points.txt").read_text()
