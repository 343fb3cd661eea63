"""No work is lost: a state is saved before anything that can fail, and the good ones stay."""

import csv
import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sr_train.engine.weights import read_weights
from sr_train.io.images import read_image, write_image
from tests.toys import differing, no_validation, state_of, stripes, toy_words

RUN = Path("runs/toy")

VALIDATES = ("train.steps=8", "train.val_every=2", "train.log_every=2", "logger=tensorboard")


def package(folder: Path, text: str) -> None:
    """Write the package `mine` with one module, `mine.parts`."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine/parts.py").write_text(
        "import os, signal, sys\nimport torch\nfrom torch import nn\n" + text
    )


def with_part(folder: Path, where: str, text: str, *arguments: str) -> list[str]:
    """Return words that put the class `Part` of a package of one's own in a place."""
    package(folder, text)
    if where.startswith("+"):
        given = "".join(f", {argument}" for argument in arguments)
        return ["plugins=[mine]", f"{where}={{_target_: mine.parts.Part{given}}}"]
    more = (f"+{where}.{argument.replace(': ', '=')}" for argument in arguments)
    return ["plugins=[mine]", f"{where}._target_=mine.parts.Part", *more]


def metric(body: str, arguments: str = "pred, gt, scale") -> str:
    return (
        "class Part:\n    higher_is_better = True\n"
        f"    def __call__(self, {arguments}):\n        {body}\n"
    )


WANTS_FOURS = """
class Part(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.conv = nn.Conv2d(3, 3 * scale**2, 3, padding=1)
        self.scale = scale
    def forward(self, lq):
        b, c, h, w = lq.shape
        lq = lq.reshape(b, c, h // 4, 4, w // 4, 4).reshape(b, c, h, w)
        return nn.functional.pixel_shuffle(self.conv(lq), self.scale)
"""


def arch_words(folder: Path, text: str) -> list[str]:
    words = [word for word in toy_words(folder) if not word.startswith("arch")]
    return [*words, *with_part(folder, "+arch", text, "scale: 2")]


FAILING = {
    "a metric that takes one image": (
        "+metrics.mine",
        metric("return (lambda image: 0.0)(*images)", "*images"),
        (
            "metrics.mine: Part failed on pred (40, 48, 3) uint8, gt (40, 48, 3) uint8, scale=2",
            "takes 1 positional argument but 3 were given",
        ),
    ),
    "a metric that raises": (
        "+metrics.mine",
        metric("return {}['nothing']"),
        ("metrics.mine: Part failed", "KeyError: 'nothing'", "mine/parts.py:7"),
    ),
    "a metric that gives no number": (
        "+metrics.mine",
        metric("return None"),
        ("metrics.mine: Part returned nothing (None); expected one number",),
    ),
    "a metric that ends the program": (
        "+metrics.mine",
        metric("sys.exit()"),
        ("some code called sys.exit()",),
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_validation_that_fails_leaves_the_state_of_its_step(command, in_folder, name):
    where, text, told = FAILING[name]
    words = [*toy_words(in_folder), "train.val_every=3", *with_part(in_folder, where, text)]
    done = command("train", *words)
    done.fails_with(*told)
    assert state_of(RUN, 3)["step"] == 3
    assert read_weights(RUN / "checkpoints/last.safetensors").card.step == 3
    assert "state saved is that of step 3" in done.out


def test_a_network_that_fails_on_a_whole_image_leaves_the_state(command, in_folder):
    """It takes all sizes that were tried before the first step."""
    text = WANTS_FOURS.replace("b, c, h, w = lq.shape", "b, c, h, w = lq.shape; 1 // (w - 28)")
    words = [*arch_words(in_folder, text), "train.val_every=2"]
    (in_folder / "val/p0.png").unlink()
    write_image(in_folder / "val/odd.png", stripes(42, 50))
    done = command("train", *words)
    done.fails_with(
        "main/odd: arch: Part failed on an input of (1, 3, 24, 28) float32", "mine/parts.py"
    )
    assert state_of(RUN, 2)["step"] == 2


def test_a_network_that_wants_fours_is_trained_and_used_on_any_size(command, in_folder):
    words = [*arch_words(in_folder, WANTS_FOURS), "train.val_every=2", "data.lq_size=15"]
    write_image(in_folder / "val/odd.png", stripes(42, 50))
    said = "arch: Part needs sizes that are multiples of 4; inputs are padded"
    done = command("train", *words).succeeds()
    assert done.out.count(said) == 1
    assert said in command("infer", "checkpoint=runs/toy", "input=val", "output=up").succeeds().out
    assert read_image(in_folder / "up/odd.png").pixels.shape == (84, 100, 3)
    command("export", "checkpoint=runs/toy", "output=net.safetensors").succeeds()
    with safe_open(in_folder / "net.safetensors", "pt") as file:
        assert json.loads(file.metadata()["padding"]) == {"size_multiple": 4, "min_size": 4}


def test_a_network_that_fails_in_eval_mode_is_told_before_the_first_step(command, in_folder):
    text = WANTS_FOURS.replace(
        "b, c, h, w = lq.shape", "b, c, h, w = lq.shape; assert self.training"
    )
    done = command("train", *arch_words(in_folder, text))
    done.fails_with(
        "arch: in eval mode, as in validation: Part failed on an input of (1, 3, 16, 16)"
    )
    assert not list((in_folder / RUN).glob("checkpoints/*.pt"))


def test_an_image_too_small_for_a_metric_leaves_the_state(command, in_folder):
    words = [*toy_words(in_folder), "train.val_every=2"]
    write_image(in_folder / "val/small.png", stripes(12, 40))
    command("train", *words).fails_with("12", "40")
    assert state_of(RUN, 2)["step"] == 2


PARTS_OF_A_STEP = {
    "a loss": (
        "objective.l1.loss",
        "class Part(nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        return pred.mean() if step < 4 else pred.nothing\n",
        "objective.l1.loss: Part failed on pred: a tensor (2, 3, 32, 32) float32",
    ),
    "a loss that returns a map": (
        "objective.l1.loss",
        "class Part(nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        return pred.mean() if step < 4 else pred\n",
        "objective.l1.loss: Part returned a tensor (2, 3, 32, 32) float32; expected a tensor of "
        "one number",
    ),
    "a loss that returns a float": (
        "objective.l1.loss",
        "class Part(nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        return pred.mean() if step < 4 else 0.5\n",
        "objective.l1.loss: Part returned float 0.5; expected a tensor of one number",
    ),
    "a loss that ends the program": (
        "objective.l1.loss",
        "class Part(nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        return pred.mean() if step < 4 else sys.exit(0)\n",
        "some code called sys.exit()",
    ),
    "a logger": (
        "+logger.mine",
        "from sr_train.api.logger import Logger\n"
        "class Part(Logger):\n"
        "    def scalars(self, values, step):\n        assert step < 3, 'full'\n",
        "logger.mine: Part failed on the scalars of step 3: AssertionError: full",
    ),
    "a data set": (
        "+data.train",
        "from sr_train.api.dataset import TrainDataset\n"
        "class Part(TrainDataset):\n"
        "    def __len__(self):\n        return 7\n"
        "    def sample(self, epoch, index):\n"
        "        assert epoch == 0, 'no second epoch'\n"
        "        ones = torch.ones(3, 32, 32)\n"
        "        return {'lq': ones[:, :16, :16], 'gt': ones}\n",
        "data.train: Part failed on sample(1, ",
    ),
}


@pytest.mark.parametrize("name", PARTS_OF_A_STEP)
def test_whatever_fails_in_a_step_leaves_the_state_before_it(command, in_folder, name):
    where, text, told = PARTS_OF_A_STEP[name]
    words = no_validation(*toy_words(in_folder, "train.steps=9", "train.log_every=1"))
    if where == "+data.train":
        words = [word for word in words if not word.startswith(("data.train", "~data.val"))]
        words.append("dataset=[]")
    done = command("train", *words, *with_part(in_folder, where, text))
    done.fails_with(told)
    assert state_of(RUN, 3)["step"] == 3
    assert "state of step 3 saved" in done.out


NETWORKS = {
    "a tuple": ("made, None", "Part returned a tuple of 2"),
    "nothing": ("None", "Part returned nothing (None)"),
    "a float": ("0.5", "Part returned float 0.5"),
    "a map": ("{'out': made}", "Part returned a dict with the keys out"),
    "one size more": ("made[..., :-1]", "Part made (2, 3, 32, 31) float32"),
    "integers": ("made.int()", "Part made (2, 3, 32, 32) int32"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_returns_something_else_is_named(command, in_folder, name):
    returned, told = NETWORKS[name]
    text = WANTS_FOURS.replace("return ", "made = ") + f"        return {returned}\n"
    words = no_validation(*arch_words(in_folder, text))
    command("train", *words).fails_with(f"arch: {told}", "expected", "(2, 3, 32, 32)")


EXPLODES = """
class Part(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.at = at
    def forward(self, pred, target, step):
        return (pred - target).abs().mean() * (1e17 if step == self.at else 1.0)
"""

UNTIL_STOPPED = ("train.max_skipped_in_row=3", "train.log_every=2", "train.checkpoint_every=1")


def diverging_words(folder: Path, at: int, *more: str) -> list[str]:
    """Return words of a run whose step `at` blows the weights up; its loss is still finite."""
    words = no_validation(*toy_words(folder, "train.steps=16", *UNTIL_STOPPED))
    part = with_part(folder, "objective.l1.loss", EXPLODES, f"at: {at}")
    return [
        "train",
        *words,
        "optimizer=sgd",
        "optimizer.lr=1e-2",
        "scheduler=constant",
        *part,
        *more,
    ]


def test_a_run_that_diverged_goes_back_to_the_newest_healthy_state(command, in_folder):
    done = command(*diverging_words(in_folder, 7, "train.keep_last=1"))
    done.fails_with("resume=auto resumes from step 4", "checkpoints/diverged", "net_g")
    folder = in_folder / RUN / "checkpoints"
    assert [path.name for path in folder.glob("step_*.pt")] == ["step_00000004.pt"]
    newest = max((folder / "diverged").glob("step_*.pt"))
    exploded = torch.load(newest, weights_only=True)["net_g"]
    assert max(float(value.abs().max()) for value in exploded.values()) > 1e12
    assert (folder / "diverged/last.safetensors").is_file()
    assert read_weights(in_folder / RUN).card.step == 4
    again = command(*diverging_words(in_folder, 99), "resume=auto").succeeds()
    assert "the run diverged after step 4: going back to that step" in again.out
    assert "at step 4" in again.out
    assert state_of(RUN, 16)["step"] == 16


def test_a_run_that_diverges_before_any_healthy_state_begins_anew(command, in_folder):
    command(*diverging_words(in_folder, 1)).fails_with(
        "No state was followed by finite steps", "resume=auto begins anew"
    )
    done = command(*diverging_words(in_folder, 99), "resume=auto").succeeds()
    assert "starting at step 0" in done.out


def test_a_second_divergence_goes_back_to_the_same_state(command, in_folder):
    """It is known to be healthy, whatever a second attempt makes of it."""
    command(*diverging_words(in_folder, 7)).fails_with("resumes from step 4")
    for _ in range(2):
        command(*diverging_words(in_folder, 5), "resume=auto").fails_with("resumes from step 4")
    assert "at step 4" in command(*diverging_words(in_folder, 99), "resume=auto").succeeds().out


def test_a_state_that_leads_to_no_finite_step_is_gone_back_from(command, in_folder):
    """A run that was killed on its way down goes on from an exploded state, then from before."""
    words = diverging_words(in_folder, 7, "train.max_skipped_in_row=20")
    command(*words, "train.steps=8").succeeds()
    assert state_of(RUN, 8)["healthy"] == 4
    (in_folder / RUN / "checkpoints/healthy_step.txt").write_bytes(b"\xff")
    command(*words, "resume=auto", "train.max_skipped_in_row=3").fails_with("resumes from step 4")
    assert "at step 4" in command(*diverging_words(in_folder, 99), "resume=auto").succeeds().out


def test_a_single_bad_batch_costs_no_state(command, in_folder):
    """It is skipped; the states around it count as healthy with the next finite window."""
    text = EXPLODES.replace("1e17", "float('nan')")
    words = no_validation(*toy_words(in_folder, "train.steps=16", *UNTIL_STOPPED))
    part = with_part(in_folder, "objective.l1.loss", text, "at: 7")
    command("train", *words, *part).succeeds()
    assert state_of(RUN, 16)["healthy"] == 14
    assert not (in_folder / RUN / "checkpoints/diverged").exists()


def gan_words(folder: Path, *more: str) -> list[str]:
    small = ("num_feat=4", "num_layers=1")
    return [
        "train",
        *no_validation(*toy_words(folder, "train.steps=16", *UNTIL_STOPPED)),
        "discriminator=patchgan",
        *(f"discriminator.arch.{word}" for word in small),
        "+objective=gan",
        "objective_d=[gan]",
        "logger=tensorboard",
        *more,
    ]


EXPLODING_DISCRIMINATOR = """
class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights, self.calls = nn.Parameter(torch.ones(3)), 0
    def forward(self, image):
        self.calls += self.weights.requires_grad  # twice a step, in its own half
        factor = 1e17 if self.calls in (13, 14) and os.path.exists('armed') else 1.0
        return image.mean((1, 2, 3)) * self.weights.prod() * factor
"""


def test_a_diverged_discriminator_is_named_and_gone_back_from(command, in_folder):
    words = [word for word in gan_words(in_folder) if not word.startswith("discriminator")]
    words += with_part(in_folder, "+discriminator.arch", EXPLODING_DISCRIMINATOR)
    words.append("discriminator.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 1.0}")
    (in_folder / "armed").touch()
    done = command(*words)
    done.fails_with("steps in a row of net_d", "discriminator.lr", "resumes from step 4")
    (in_folder / "armed").unlink()
    again = command(*words, "resume=auto").succeeds()
    assert "at step 4" in again.out
    events = EventAccumulator(str(in_folder / RUN / "tensorboard"))
    events.Reload()
    assert all(event.value > 0 for event in events.Scalars("gan/d_accuracy"))


@pytest.mark.parametrize("left", ["best_psnr_y.safetensors", "last.safetensors"])
def test_auto_does_not_overwrite_weights_without_a_state(command, in_folder, left):
    words = ["train", *toy_words(in_folder)]
    command(*words).succeeds()
    folder = in_folder / RUN / "checkpoints"
    for path in folder.iterdir():
        if path.name != left:
            path.unlink()
    before = (folder / left).read_bytes()
    command(*words, "resume=auto").fails_with(
        left, "no training state", "name=", f"net_g.pretrained={folder / left}"
    )
    assert (folder / left).read_bytes() == before


def test_auto_says_that_it_begins(command, in_folder):
    words = ["train", *no_validation(*toy_words(in_folder))]
    assert "starting at step 0" in command(*words, "resume=auto").succeeds().out


STOPS = """
class Part:
    higher_is_better = True
    def __init__(self, signal_name):
        self.signal, self.calls = getattr(signal, signal_name), 0
    def __call__(self, pred, gt, scale):
        self.calls += 1
        if self.calls == 3 and os.path.exists('armed'):
            os.remove('armed')
            os.kill(os.getpid(), self.signal)
        return 1.0
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_in_a_validation_is_seen_between_images(command, in_folder, name):
    """Two images each: it comes with the first of the second validation."""
    words = ["train", *toy_words(in_folder), *VALIDATES]
    words += with_part(in_folder, "+metrics.mine", STOPS, f"signal_name: {name}")
    write_image(in_folder / "val/p1.png", stripes(40, 48, seed=3))
    command(*words, "name=whole").succeeds()
    (in_folder / "armed").touch()
    done = command(*words).succeeds()
    assert f"stopped by {name} after step 4; state saved" in done.out
    told = f"{name}: stops after this image of the validation, with the state saved"
    assert (told in done.err) == (name != "SIGHUP")
    assert state_of(RUN, 4)["validated"] is False
    again = command(*words, "resume=auto").succeeds()
    assert "making up for the validation" in again.out
    assert_same_run(in_folder, "whole", "toy")


def assert_same_run(folder: Path, one: str, other: str) -> None:
    """Assert that two runs have the same states, weights, rows and events, each step once."""
    rows, events = {}, {}
    for name in (one, other):
        run = folder / "runs" / name
        with (run / "metrics.csv").open(newline="") as file:
            found = [tuple(row) for row in csv.reader(file)]
        rows[name] = [row for row in found if not row[1].startswith(("time/", "memory/"))]
        reader = EventAccumulator(str(run / "tensorboard"))
        reader.Reload()
        tags = reader.Tags()
        events[name] = {
            tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in tags["scalars"]
        }
        events[name] |= {tag: [e.step for e in reader.Images(tag)] for tag in tags["images"]}
        for tag in [tag for tag in events[name] if tag.startswith(("time/", "memory/"))]:
            del events[name][tag]
    assert sorted(rows[one]) == sorted(rows[other])
    assert events[one] == events[other]
    states = [
        torch.load(next((folder / "runs" / name).glob("checkpoints/*08.pt")), weights_only=True)
        for name in (one, other)
    ]
    for key in ("net_g", "ema", "generator", "random", "best", "validated", "step"):
        assert differing(states[0][key], states[1][key]) == [], key
    for file in ("last", "best_psnr_y"):
        a, b = (
            read_weights(folder / "runs" / name / f"checkpoints/{file}.safetensors")
            for name in (one, other)
        )
        assert differing(a.tensors, b.tensors) == []
        assert a.card == b.card


def test_a_validation_that_failed_is_made_up_for(command, in_folder):
    words = ["train", *toy_words(in_folder), *VALIDATES]
    command(*words, "name=whole").succeeds()
    part = with_part(in_folder, "+metrics.mine", metric("return 1 / 0"))
    command(*words, *part).fails_with("metrics.mine", "ZeroDivisionError")
    again = command(*words, "resume=auto").succeeds()
    assert "step 2: making up for the validation" in again.out
    assert_same_run(in_folder, "whole", "toy")


def test_death_behind_the_rows_of_a_validation_leaves_each_row_once(
    command, in_folder, monkeypatch
):
    words = ["train", *toy_words(in_folder), *VALIDATES]
    command(*words, "name=whole").succeeds()
    from sr_train.engine.trainer import Trainer

    save, calls = Trainer.save, []

    def dies(self, **settings):
        calls.append(self.step)
        if len(calls) == 2:  # the save behind the first validation
            raise KeyboardInterrupt
        save(self, **settings)

    monkeypatch.setattr(Trainer, "save", dies)
    assert command(*words).code == 130
    monkeypatch.setattr(Trainer, "save", save)
    command(*words, "resume=auto").succeeds()
    assert_same_run(in_folder, "whole", "toy")


def test_a_finished_run_gets_no_more_rows(command, in_folder):
    words = ["train", *toy_words(in_folder, "logger=tensorboard")]
    command(*words).succeeds()
    run = in_folder / RUN
    rows = (run / "metrics.csv").read_bytes()
    best = (run / "checkpoints/best_psnr_y.safetensors").stat().st_mtime_ns
    done = command(*words, "resume=auto").succeeds()
    assert "done already" in done.out
    assert "gain" in done.out
    assert (run / "metrics.csv").read_bytes() == rows
    assert (run / "checkpoints/best_psnr_y.safetensors").stat().st_mtime_ns == best
    reader = EventAccumulator(str(run / "tensorboard"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("loss/total")] == [4]


def test_what_is_ignored_stays_ignored(command, in_folder):
    """nohup lets a run outlive its terminal."""
    package(
        in_folder,
        "class Part(nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        if step == 2:\n"
        "            os.kill(os.getpid(), signal.SIGHUP)\n"
        "        return pred.square().mean()\n",
    )
    words = [*no_validation(*toy_words(in_folder)), "plugins=[mine]"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = command("train", *words, "objective.l1.loss={_target_: mine.parts.Part}").succeeds()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "stopped by" not in done.out
    assert state_of(RUN, 4)["step"] == 4


def test_a_nan_is_never_the_best(command, in_folder):
    text = metric(
        "self.n = getattr(self, 'n', 0) + 1\n        return float('nan') if self.n < 2 else 0.5"
    )
    words = [
        "train",
        *toy_words(in_folder, "train.val_every=2"),
        *with_part(in_folder, "+metrics.mine", text),
    ]
    command(*words).succeeds()
    assert state_of(RUN, 4)["best"]["mine"] == 0.5
    assert read_weights(in_folder / RUN / "checkpoints/best_mine.safetensors").card.step == 4


def test_a_discriminator_that_is_always_right_is_warned_of_once(command, in_folder):
    """Its logits tell which of the two it is fed: what it is fed of the generator has a graph."""
    words = [word for word in gan_words(in_folder) if not word.startswith("discriminator")]
    part = with_part(
        in_folder,
        "+discriminator.arch",
        "class Part(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight, self.calls = nn.Parameter(torch.ones(1)), 0\n"
        "    def forward(self, image):\n"
        "        self.calls += self.weight.requires_grad\n"
        "        return image.mean((1, 2, 3)) * 0 * self.weight + float(self.calls % 2 == 0)\n",
    )
    done = command(*words, *part).succeeds()
    warned = [line for line in done.out.splitlines() if "right about every image" in line]
    assert len(warned) == 1
    assert re.match(r"\d\d:\d\d:\d\d warning: step 2: ", warned[0])


@pytest.mark.parametrize("how", ["garbage", "empty", "folder"])
@pytest.mark.parametrize(
    "name",
    ["metrics.csv", "manifest.json", "train.log", ".lock", "checkpoints/best_psnr_y.safetensors"],
)
def test_side_files_never_stop_a_resume(command, finished, in_folder, name, how):
    words = ["train", *toy_words(in_folder, "train.steps=6", "train.val_every=3")]
    finished(*words, "name=whole")
    finished(*words, "train.steps=3", "scheduler.steps=6")
    path = in_folder / RUN / name
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
        (path / "kept").write_text("somebody's own")
    else:
        path.write_bytes(os.urandom(600) if how == "garbage" else b"")
    command(*words, "resume=auto").succeeds()
    whole, halves = (state_of(Path("runs") / run, 6) for run in ("whole", "toy"))
    for key in ("net_g", "ema", "generator", "random"):
        assert differing(whole[key], halves[key]) == []
    assert read_weights(in_folder / RUN / "checkpoints/best_psnr_y.safetensors").tensors
    assert path.is_file()
    if how == "folder":
        assert list((path.parent).glob(f"{path.name}.bad*/kept"))


@pytest.mark.parametrize("name", ["tensorboard", "samples", "checkpoints/abandoned"])
def test_files_in_the_place_of_folders_never_stop_a_resume(command, in_folder, name):
    words = [
        "train",
        *toy_words(in_folder, "train.steps=6", "train.val_every=3", "logger=tensorboard"),
    ]
    command(*words, "train.steps=3", "scheduler.steps=6").succeeds()
    path = in_folder / RUN / name
    if path.exists():
        path.rename(path.with_name("moved"))
    path.write_text("a file")
    command(*words, "resume=auto").succeeds()
    assert state_of(RUN, 6)["step"] == 6
    assert path.with_name(f"{path.name}.bad").read_text() == "a file"
