"""A network of one's own, from training to use: what a run's folder and what a file must say."""

import json
import shlex
import shutil
import sys

import pytest

from sr_train.commands.run_plugins import with_plugins_of_run
from sr_train.config.schema import UseConfig
from tests.toys import toy_words

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 12, 1), nn.PixelShuffle(2)
        )
    def forward(self, lq):
        return self.body(lq)
"""

ARCH = "+arch={_target_: own_nets.nets.Net, width: 6}"


@pytest.fixture
def trained(command, in_folder):
    """Train a network that takes no scale and says nothing about itself; return what was told."""
    (in_folder / "own_nets").mkdir()
    (in_folder / "own_nets/nets.py").write_text(NET)
    words = [word for word in toy_words(in_folder) if not word.startswith("arch")]
    return command("train", *words, "plugins=[own_nets]", ARCH).succeeds()


def typed(line: str, **given: str) -> list[str]:
    """Return the words of a line that a command proposed, its placeholders filled."""
    for placeholder, text in given.items():
        line = line.replace(placeholder, text)
    words = shlex.split(line)
    return words[words.index("sr_train") + 1 :]


def proposed(text: str) -> list[str]:
    """Return the lines of this program that are told to be tried next."""
    lines = text.split("try next")[1].splitlines()
    return [line for line in lines if "-m sr_train" in line]


def test_the_lines_to_try_next_work_as_typed(trained, command, in_folder):
    infer, export = proposed(trained.out)
    done = command(*typed(infer, IMAGE_OR_FOLDER="gt")).succeeds()
    assert "runs/toy: plugins own_nets" in done.out
    assert len(list((in_folder / "upscaled").iterdir())) == 3
    shipped = command(*typed(export)).succeeds()
    (use,) = proposed(shipped.out)
    assert "plugins=[own_nets]" in use
    shutil.rmtree(in_folder / "upscaled")
    command(*typed(use, IMAGE_OR_FOLDER="gt")).succeeds()
    assert len(list((in_folder / "upscaled").iterdir())) == 3


def test_a_file_in_a_runs_folder_is_of_that_run(trained, command):
    best = "checkpoint=runs/toy/checkpoints/best_psnr_y.safetensors"
    command("validate", best, "+dataset=main", "data.val.main.gt=val").succeeds()
    state = "checkpoint=runs/toy/checkpoints/step_00000004.pt"
    command("infer", state, "input=val", "output=up").succeeds()


def test_its_constructor_needs_no_scale(trained, command):
    words = ["checkpoint=runs/toy", "plugins=[own_nets]", ARCH, "scale=2"]
    command("infer", *words, "input=val", "output=up").succeeds()
    command("export", *words, "output=x.safetensors").succeeds()


def refuse_import(in_folder):
    """Let Python forget the package, and see to it that nobody imports it."""
    (in_folder / "own_nets/__init__.py").write_text("raise SystemExit('was imported')")
    for name in [name for name in sys.modules if name.split(".")[0] == "own_nets"]:
        del sys.modules[name]


def test_a_weights_file_alone_makes_nothing_be_imported(trained, command, in_folder):
    shutil.copy(in_folder / "runs/toy/checkpoints/last.safetensors", in_folder / "got.safetensors")
    refuse_import(in_folder)
    done = command("infer", "checkpoint=got.safetensors", "input=val", "output=up")
    done.fails_with("own_nets.nets.Net", "plugins=[own_nets]")


@pytest.mark.parametrize("change", ["copied", "forged"])
def test_a_runs_folder_from_elsewhere_makes_nothing_be_imported(
    trained, command, in_folder, change
):
    run = in_folder / "runs/toy"
    if change == "copied":
        shutil.copytree(run, in_folder / "runs/got")
        run = in_folder / "runs/got"
    else:
        launches = json.loads((run / "manifest.json").read_text())
        launches[-1] |= {"plugins": ["own_nets"], "folder_id": 1}
        (run / "manifest.json").write_text(json.dumps(launches))
    refuse_import(in_folder)
    done = command("infer", f"checkpoint={run}", "input=val", "output=up")
    done.fails_with("own_nets.nets.Net", "plugins=[own_nets]")
    assert "add plugins=[own_nets] if you trust it" in done.out


def test_a_run_that_was_moved_is_still_ones_own(trained, command, in_folder):
    (in_folder / "runs/toy").rename(in_folder / "moved")
    command("infer", "checkpoint=moved", "input=val", "output=up").succeeds()


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "{}", "[3]", '[{"plugins": 3}]', '[{"plugins": ["a b", 4]}]']
)
def test_a_manifest_that_says_nothing_changes_nothing(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    cfg = UseConfig(checkpoint=str(tmp_path), plugins=["mine"])
    assert with_plugins_of_run(cfg) == cfg
