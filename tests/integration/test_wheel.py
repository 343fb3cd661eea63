"""The built package works from another folder, without the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the unpacked wheel and nothing else of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files behind; not in the checkout
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("sr_train", "archs", "losses", "data", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(folder / "dist")]
    subprocess.run([*pip, *build], check=True, cwd=folder)
    (wheel,) = (folder / "dist").glob("sr_train-*.whl")
    install = ["install", str(wheel), "--no-deps", "--target", str(folder / "site")]
    subprocess.run([*pip, *install], check=True, cwd=folder)
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
