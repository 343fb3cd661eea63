"""Whole runs that adapt: precision, size of micro-batches, and what is told at the end."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from sr_train.engine.weights import read_weights
from tests.toys import differing, metrics_rows, no_validation, state_of, toy_words

OVERFLOWING = """
import torch
from torch import nn

class Net(nn.Module):
    "Its output passes 65504 on the way, in the first `for_calls` forwards of training."
    def __init__(self, scale: int, for_calls: int = 0) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        self.for_calls = for_calls
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, lq):
        found = self.body(lq)
        if self.training:
            self.calls += 1
            if self.calls <= self.for_calls:
                found = (found + 10.0) * 1e5 / 1e5 - 10.0
        return self.shuffle(found)
"""


LARGE = """
import torch
from torch import nn

class Net(nn.Module):
    "As a network that fits into memory with `most` samples at most, from the second step on."
    def __init__(self, scale: int, most: int = 1) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        self.most = most
        self.calls = 0

    def forward(self, lq):
        self.calls += 1
        if self.calls > 1 and len(lq) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.shuffle(self.body(lq))
"""


def train_words(folder: Path, *more: str) -> list[str]:
    return ["train", *no_validation(*toy_words(folder)), *more]


def overflowing_words(folder: Path, for_calls: int, *more: str) -> list[str]:
    """Return words of an fp16 run that overflows in its first forwards, with a short memory."""
    (folder / "over").mkdir(exist_ok=True)
    (folder / "over/nets.py").write_text(OVERFLOWING)
    words = [w for w in train_words(folder) if not w.startswith("arch")]
    return [
        *words,
        "plugins=[over]",
        f"+arch={{_target_: over.nets.Net, scale: 2, for_calls: {for_calls}}}",
        "precision=fp16",
        "precision.adaptive=true",
        "precision.good_windows=3",
        "train.log_every=5",
        "train.max_skipped_in_row=30",
        *more,
    ]


def test_auto_alone_adapts_unless_it_is_asked_for(command, in_folder):
    for name, adaptive in {"auto": True, "fp32": False, "bf16": False, "fp16": False}.items():
        shown = command(*train_words(in_folder, f"precision={name}", "--cfg", "job")).succeeds()
        assert f"adaptive: {str(adaptive).lower()}" in shown.out


def test_fp16_that_overflows_gives_way_to_bf16_and_comes_back(command, in_folder):
    """The scale collapses at step 17, is seen at 20; fp16 is tried again 15 good steps later."""
    words = overflowing_words(in_folder, 20, "train.steps=60", "train.checkpoint_every=25")
    done = command(*words).succeeds()
    run = in_folder / "runs/toy"
    assert "step 20: the loss scale of net_g fell to " in done.out
    assert "(scale grows 1/2 as often) -> bf16" in done.out
    assert "step 35: no step was skipped for 3 log intervals: precision bf16 -> fp16" in done.out
    skipped = dict(metrics_rows(run, "skipped_steps/g"))
    assert (skipped[20], skipped[25], skipped[35]) == (20, 20, 20)
    assert state_of(run, 25)["precision"] == "bf16"
    assert state_of(run, 60)["precision"] == "fp16"
    losses = dict(metrics_rows(run, "loss/total"))
    assert set(losses) == {*range(25, 61, 5)}
    assert all(math.isfinite(value) for value in losses.values())
    assert losses[60] < losses[25]
    changes = state_of(run, 60)["callbacks"]["precision.adaptive"]["changes"]
    assert [change.split(":")[0] for change in changes] == ["step 10", "step 20", "step 35"]


def test_a_resume_in_the_midst_keeps_the_precision_given_way_to(command, in_folder):
    words = overflowing_words(in_folder, 20, "train.steps=40", "train.checkpoint_every=25")
    command(*words).succeeds()
    halves = [*words, "name=halves"]
    command(*halves, "train.steps=25", "scheduler.steps=40").succeeds()
    again = command(*halves, "resume=auto").succeeds()
    assert "adaptive precision resumes with bf16" in again.out
    assert "precision bf16 -> fp16" in again.out
    ends = [state_of(in_folder / "runs" / name, 40) for name in ("toy", "halves")]
    for key in ("net_g", "ema", "generator", "callbacks", "precision"):
        assert differing(ends[0][key], ends[1][key]) == [], key


def test_without_adapting_the_same_run_is_lost(command, in_folder):
    words = overflowing_words(in_folder, 1000, "precision.adaptive=false", "train.steps=60")
    command(*words).fails_with("30 steps in a row", "precision=fp32")


def large_words(folder: Path, most: int, *more: str) -> list[str]:
    """Return words of a run whose network fails with more than `most` samples."""
    (folder / "large").mkdir(exist_ok=True)
    (folder / "large/nets.py").write_text(LARGE)
    words = [w for w in train_words(folder) if not w.startswith("arch")]
    node = f"+arch={{_target_: large.nets.Net, scale: 2, most: {most}}}"
    return [*words, "plugins=[large]", node, "data.batch_size=6", *more]


def test_a_run_that_is_short_of_memory_goes_on_in_smaller_parts(command, in_folder):
    smooth = ("optimizer=sgd", "objective=[charbonnier]")  # see engine/test_joined_step.py
    whole = command(*large_words(in_folder, 6, "name=whole", *smooth)).succeeds()
    split = command(*large_words(in_folder, 2, *smooth)).succeeds()
    assert "out of memory" not in whole.out
    said = "step 2: out of memory; each step continues in 3 micro-batches, each of 2 sample(s)"
    assert said in split.out
    assert "train.accum=3" in split.out
    ends = [state_of(in_folder / "runs" / name, 4)["net_g"] for name in ("whole", "toy")]
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=0, atol=1e-6)
    rows = [metrics_rows(in_folder / "runs" / name, "loss/total") for name in ("whole", "toy")]
    assert rows[0][-1][1] == pytest.approx(rows[1][-1][1], rel=1e-5)


def test_check_tells_a_step_that_is_too_large(command, in_folder):
    words = large_words(in_folder, 2)
    cpu_words = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    for error in ("torch.OutOfMemoryError('CUDA out of memory.')", f'RuntimeError("{cpu_words}")'):
        text = LARGE.replace(
            'torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")', error
        )
        assert error in text
        (in_folder / "large/nets.py").write_text(text)
        for name in [name for name in sys.modules if name.split(".")[0] == "large"]:
            del sys.modules[name]
        command("check", *words[1:]).fails_with(
            "data.batch_size=6", "the activations of a step take more than", "train.accum"
        )


def test_samples_that_do_not_fit_alone_end_the_run_with_its_state_saved(command, in_folder):
    command(*large_words(in_folder, 0)).fails_with(
        "step 2: out of memory with 6 micro-batch(es) per step", "train.accum", "data.lq_size"
    )
    assert state_of(in_folder / "runs/toy", 1)["step"] == 1


@pytest.mark.parametrize("optimizer", ["nadam", "radam", "adan", "schedulefree_adamw"])
def test_optimizers_that_are_not_fused_learn_and_resume_exactly(command, in_folder, optimizer):
    if optimizer in {"adan", "schedulefree_adamw"}:
        pytest.importorskip("pytorch_optimizer")
    words = train_words(
        in_folder,
        f"optimizer={optimizer}",
        "optimizer.lr=1e-2",
        "scheduler=constant",
        "precision=fp16",
        "train.steps=12",
        "train.log_every=4",
        "train.checkpoint_every=6",
    )
    command(*words).succeeds()
    rows = metrics_rows(in_folder / "runs/toy", "loss/total")
    assert rows[-1][1] < rows[0][1]
    command(*words, "name=halves", "train.steps=6").succeeds()
    again = command(*words, "name=halves", "resume=auto").succeeds()
    assert "optimizer state kept" in again.out
    ends = [state_of(in_folder / "runs" / name, 12) for name in ("toy", "halves")]
    for key in ("net_g", "ema", "generator"):
        assert differing(ends[0][key], ends[1][key]) == [], key


def test_the_average_of_a_schedule_free_optimizer_is_what_is_scored_and_shipped(command, in_folder):
    pytest.importorskip("pytorch_optimizer")
    words = ["train", *toy_words(in_folder, "optimizer=schedulefree_adamw", "scheduler=constant")]
    words += ["train.steps=12", "train.checkpoint_every=6", "optimizer.lr=1e-2"]
    done = command(*words, "train.val_every=6").succeeds()
    assert "averages by itself" in done.out
    run = in_folder / "runs/toy"
    state = state_of(run, 12)
    assert differing(state["net_g"], state["ema"]["net"]) != []
    last = read_weights(run)
    assert (last.card.weights, differing(last.tensors, state["ema"]["net"])) == ("ema", [])
    path = run / "checkpoints/step_00000012.pt"
    told = {}
    for kind in ("ema", "live"):
        use = ["device=cpu", "+dataset=main", "data.val.main.gt=val", f"output={kind}"]
        command("validate", f"checkpoint={path}", *use, f"weights={kind}").succeeds()
        told[kind] = json.loads((in_folder / kind / "results.json").read_text())["model"]["mean"]
    logged = metrics_rows(run, "val/main/psnr_y")[-1][1]
    assert told["ema"]["psnr_y"] == pytest.approx(logged, abs=1e-6)
    assert told["live"]["psnr_y"] != pytest.approx(logged, abs=1e-6)
    # Validation and saving in between have not changed the run.
    command(*words, "name=unseen", "train.checkpoint_every=0").succeeds()
    assert differing(state["net_g"], state_of(in_folder / "runs/unseen", 12)["net_g"]) == []


def test_a_schedule_free_optimizer_takes_no_other_average(command, in_folder):
    pytest.importorskip("pytorch_optimizer")
    words = train_words(in_folder, "optimizer=schedulefree_adamw", "swa.enabled=true")
    command(*words, "ema.enabled=false").fails_with(
        "ema.enabled=false: pytorch_optimizer.ScheduleFreeAdamW averages by itself",
        "swa.enabled=true: pytorch_optimizer.ScheduleFreeAdamW averages by itself",
    )


def last_launch(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())[-1]


def test_the_end_of_a_run_tells_precision_speed_memory_and_trouble(command, in_folder):
    words = overflowing_words(in_folder, 20, "train.steps=30")
    done = command(*words).succeeds()
    launch = last_launch(in_folder / "runs/toy")
    told = launch["summary"]
    assert launch["stopped_by"] is None
    assert (told["precision"], told["skipped_steps"], told["steps"]) == (
        "bf16",
        {"g": 20},
        {"g": 30},
    )
    assert [change.split(":")[0] for change in told["precision_changes"]] == ["step 10", "step 20"]
    assert told["samples_per_sec"] == pytest.approx(2 * told["steps_per_sec"])
    assert set(told["seconds"]) == {"training", "saving"}
    assert told["peak_host_gib"] > 0.05
    cells = [line.split("\u2502")[1].strip() for line in done.out.splitlines() if "\u2502" in line]
    labels = [cell for cell in cells if cell]
    assert labels == ["precision", "speed", "time", "peak memory", "skipped steps"]


def test_a_run_that_a_signal_ends_tells_it_too(command, in_folder):
    (in_folder / "stops").mkdir()
    (in_folder / "stops/loss.py").write_text(
        "import os, signal, torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        if step == 3:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return pred.square().mean()\n"
    )
    words = train_words(in_folder, "train.steps=1000", "plugins=[stops]")
    done = command(*words, "objective.l1.loss={_target_: stops.loss.Loss}").succeeds()
    launch = last_launch(in_folder / "runs/toy")
    assert launch["stopped_by"] == "SIGTERM"
    assert launch["summary"]["steps"] == {"g": 3}
    assert launch["summary"]["steps_per_sec"] > 0  # of a window that was never logged
    assert "peak memory" in done.out


def test_a_split_is_told_at_the_end(command, in_folder):
    done = command(*large_words(in_folder, 3)).succeeds()
    told = last_launch(in_folder / "runs/toy")["summary"]
    assert (told["micro_batches"], told["micro_batches_configured"]) == (2, 1)
    assert "memory ran out" in done.out


def test_tensorboard_and_csv_carry_the_loss_scale_and_its_history(command, in_folder):
    """Overflow in the first three steps, then growth every second step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = overflowing_words(in_folder, 3, "train.steps=9", "train.log_every=3")
    words = [w for w in words if w != "logger=none"]
    command(*words, "precision.growth_interval=2", "precision.adaptive=false").succeeds()
    run = in_folder / "runs/toy"
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    expected = {
        "loss_scale/g": [65536 / 8, 65536 / 4, 65536],
        "loss_scale_backoffs/g": [3, 3, 3],
        "loss_scale_growths/g": [0, 1, 3],
        "skipped_steps/g": [3, 3, 3],
    }
    for name, values in expected.items():
        assert [value for _, value in metrics_rows(run, name)] == values, name
        assert [(e.step, e.value) for e in events.Scalars(name)] == list(
            zip((3, 6, 9), values, strict=True)
        ), name


def test_swa_weights_are_written_scored_used_and_exported(command, in_folder):
    words = train_words(in_folder, "swa.enabled=true", "swa.start=2", "train.checkpoint_every=1")
    done = command(*words, "train.steps=5", "train.keep_last=9").succeeds()
    assert "SWA          runs/toy/checkpoints/swa.safetensors" in done.out
    run = in_folder / "runs/toy"
    lived = [state_of(run, step)["net_g"] for step in (3, 4, 5)]
    shipped = read_weights(run / "checkpoints/swa.safetensors")
    assert shipped.card.weights == "swa"
    for name, weight in shipped.tensors.items():
        mean = sum(state[name].double() for state in lived) / 3
        torch.testing.assert_close(weight.double(), mean, rtol=0, atol=1e-7)
    assert differing(read_weights(run, "swa").tensors, shipped.tensors) == []
    use = ("checkpoint=runs/toy", "weights=swa")
    command("export", *use, "output=swa.safetensors").succeeds()
    assert differing(read_weights(in_folder / "swa.safetensors").tensors, shipped.tensors) == []
    command("infer", *use, "input=val", "output=up").succeeds()
    command("validate", *use, "+dataset=main", "data.val.main.gt=val", "output=a").succeeds()
    scored = json.loads((in_folder / "a/results.json").read_text())["model"]["mean"]
    again = ("checkpoint=swa.safetensors", "+dataset=main", "data.val.main.gt=val", "output=b")
    command("validate", *again).succeeds()
    assert scored == json.loads((in_folder / "b/results.json").read_text())["model"]["mean"]


def test_swa_goes_on_over_a_resume(command, in_folder):
    words = train_words(in_folder, "swa.enabled=true", "swa.start=1", "train.checkpoint_every=2")
    command(*words).succeeds()
    command(*words, "name=halves", "train.steps=2", "scheduler.steps=4").succeeds()
    command(*words, "name=halves", "resume=auto").succeeds()
    ends = [state_of(in_folder / "runs" / name, 4)["swa"] for name in ("toy", "halves")]
    assert differing(*ends) == []
    assert int(ends[0]["num_updates"]) == 3


def test_swa_weights_that_are_not_there_yet_are_an_error(command, in_folder):
    words = train_words(in_folder, "swa.enabled=true", "swa.start=3", "train.checkpoint_every=2")
    command(*words).succeeds()
    early = "checkpoint=runs/toy/checkpoints/step_00000002.pt"
    command("export", early, "weights=swa", "output=x.safetensors").fails_with(
        "holds no swa weights yet", "swa.start"
    )
