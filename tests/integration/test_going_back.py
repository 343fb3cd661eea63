"""Where a run goes on after it went wrong: by its folder, and where only a validation did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys import ROOT, no_validation, state_of, toy_words

RUN = Path("runs/toy")

NETS = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
    def forward(self, lq):
        return nn.functional.pixel_shuffle(self.conv(lq), 2)
class NanInUse(Net):
    def forward(self, lq):
        return super().forward(lq) * (1.0 if self.training else float("nan"))
class Nothing(Net):
    def forward(self, lq):
        return None
class NeverANumber:
    higher_is_better = True
    def __call__(self, pred, gt, scale):
        return float("nan")
"""


def words_with(folder: Path, net: str, *more: str) -> list[str]:
    (folder / "mine.py").write_text(NETS)
    words = [word for word in toy_words(folder) if not word.startswith("arch")]
    return ["train", *words, "plugins=[mine]", f"+arch._target_=mine.{net}", *more]


def test_a_validation_that_is_not_finite_keeps_the_only_state(command, in_folder):
    """An image or the network's own code may be at fault: no work may be lost for it."""
    words = words_with(in_folder, "NanInUse", "train.val_every=2")
    state = in_folder / RUN / "checkpoints/step_00000002.pt"
    command(*words).fails_with("main/p0, frame 0", "not finite", f"resume={state}")
    assert state_of(RUN, 2)["step"] == 2
    done = command(*no_validation(*words), f"resume={state}").succeeds()
    assert "at step 2" in done.out


def test_a_validation_that_is_not_finite_names_the_state_set_aside(command, in_folder):
    words = words_with(
        in_folder, "NanInUse", "train.log_every=1", "train.checkpoint_every=1", "train.val_every=3"
    )
    state = in_folder / RUN / "checkpoints/diverged/step_00000003.pt"
    command(*words).fails_with("resume=auto resumes from step 2", f"resume={state}")
    done = command("train", f"resume={RUN}", "~data.val.main").succeeds()
    assert "going back to that step" in done.out
    assert "at step 2" in done.out


def test_the_folder_of_a_run_with_weights_alone_says_what_to_do(command, in_folder):
    words = ["train", *toy_words(in_folder)]
    command(*words).succeeds()
    for path in (RUN / "checkpoints").glob("step_*"):
        path.unlink()
    command("train", f"resume={RUN}").fails_with(
        f"resume={RUN}", "no training state to resume from", "net_g.pretrained="
    )


def test_a_launch_that_did_no_step_leaves_the_folder_free(command, in_folder):
    command(*words_with(in_folder, "Nothing")).fails_with("returned nothing (None)")
    assert not list((RUN / "checkpoints").glob("*"))
    command(*words_with(in_folder, "Net")).succeeds()


def test_a_value_that_is_never_a_number_is_no_best_one(command, in_folder):
    done = command(*words_with(in_folder, "Net", "+metrics.mine._target_=mine.NeverANumber"))
    assert "best_psnr_y.safetensors" in done.succeeds().out
    assert "best_mine" not in done.out


def test_a_term_of_ones_own_needs_no_file(command, in_folder):
    text = "+objective.mine.loss._target_=losses.pixel.MSELoss"
    command("train", *toy_words(in_folder, text, "+objective.mine.weight=2")).succeeds()
    config = state_of(RUN, 4)["config"]["objective"]["mine"]
    assert (config["weight"], config["target"]) == (2.0, "gt")
    whole = "+objective.mine={loss: {_target_: losses.pixel.MSELoss}}"
    command("train", *toy_words(in_folder, "name=two", whole, "objective.mine.weight=3")).succeeds()
    assert state_of(Path("runs/two"), 4)["config"]["objective"]["mine"]["weight"] == 3.0


def test_a_term_without_a_loss_is_told(command, in_folder):
    command("train", *toy_words(in_folder, "+objective.mine.weight=2")).fails_with(
        "objective.mine.loss: no value"
    )
    command("train", *toy_words(in_folder, "+objective.mine=x")).fails_with("expected a mapping")


LIMITED = """
import resource, sys
import sr_train.commands.train
from sr_train.cli.entry import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
sys.exit(main())
"""


@pytest.mark.slow
def test_a_config_that_cannot_be_written_is_told_with_its_folder(in_folder):
    """Hydra writes it, before any code of a run."""
    words = [sys.executable, "-c", LIMITED, "train", *toy_words(in_folder)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False
    )
    assert done.returncode == 2, done
    assert "error: runs/toy: File too large" in done.stderr
