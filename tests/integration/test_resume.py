"""Going on with a run: exact, after every kind of end, and refused where it cannot be."""

import errno
import importlib
import os
import random
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from sr_train.engine import checkpoint, weights
from tests.toys import differing, metrics_rows, no_validation, process, state_of, toy_words

STATE = ("net_g", "ema", "generator", "random", "step", "precision")


def train_words(folder: Path, *more: str) -> list[str]:
    return ["train", *no_validation(*toy_words(folder)), "train.checkpoint_every=2", *more]


def assert_same_end(folder: Path, step: int, a: str = "toy", b: str = "halves") -> None:
    ends = [state_of(folder / "runs" / name, step) for name in (a, b)]
    for key in STATE:
        assert differing(ends[0][key], ends[1][key]) == [], key
    assert ends[0]["generator"]["optimizer"], "the optimizer has a state to compare"


def assert_same_weights(folder: Path) -> None:
    whole, halves = (weights.read_weights(folder / "runs" / name) for name in ("toy", "halves"))
    assert differing(whole.tensors, halves.tensors) == []
    assert whole.card == halves.card


@pytest.mark.parametrize(
    "words",
    [
        ("precision=fp32", "data.stream.num_workers=0"),
        pytest.param(("precision=fp32", "data.stream.num_workers=2"), marks=pytest.mark.slow),
        ("precision=bf16", "data.stream.num_workers=2", "train.accum=2"),
        pytest.param(("precision=bf16", "data.stream.num_workers=2"), marks=pytest.mark.slow),
        ("precision=fp16", "data.stream.num_workers=0", "precision.growth_interval=3"),
        pytest.param(
            ("precision=fp16", "data.stream.num_workers=2", "train.accum=2"), marks=pytest.mark.slow
        ),
        ("precision=fp32", "ema.enabled=false", "optimizer=adamw", "train.max_norm=0.1"),
    ],
    ids=" ".join,  # every precision and worker count is met by the quick ones too
)
def test_two_halves_equal_the_whole(command, in_folder, words):
    every = train_words(in_folder, "train.steps=20", "train.checkpoint_every=10", *words)
    command(*every).succeeds()
    # The cosine of the first half must have the length of the whole.
    command(*every, "name=halves", "train.steps=10", "scheduler.steps=20").succeeds()
    second = command(*every, "name=halves", "resume=auto").succeeds()
    assert "at step 10" in second.out
    assert_same_end(in_folder, 20)


def test_a_run_with_validation_also_goes_on_exactly(command, in_folder):
    every = ["train", *toy_words(in_folder), "train.steps=6", "train.val_every=2"]
    command(*every).succeeds()
    command(*every, "name=halves", "train.steps=3", "scheduler.steps=6").succeeds()
    command(*every, "name=halves", "resume=auto").succeeds()
    assert_same_end(in_folder, 6)
    whole, halves = (
        metrics_rows(in_folder / "runs" / name, "val/main/psnr_y") for name in ("toy", "halves")
    )
    assert [row for row in halves if row[0] != 3] == whole


@pytest.mark.parametrize(
    ("before", "after"), [("fp32", "fp16"), pytest.param("fp16", "bf16", marks=pytest.mark.slow)]
)
def test_precision_may_change(command, in_folder, before, after):
    words = train_words(in_folder)
    command(*words, "train.steps=2", f"precision={before}").succeeds()
    done = command(*words, f"precision={after}", "resume=auto").succeeds()
    assert f"precision: was {before}, now {after}" in done.out
    assert state_of(in_folder / "runs/toy", 4)["precision"] == after


def test_a_new_learning_rate_takes_effect(command, in_folder):
    words = train_words(in_folder, "scheduler=constant", "train.log_every=1")
    command(*words, "train.steps=2", "optimizer.lr=1e-3").succeeds()
    done = command(*words, "optimizer.lr=5e-4", "resume=auto").succeeds()
    assert "config: optimizer.lr was 0.001, now 0.0005" in done.out
    assert [value for _, value in metrics_rows(in_folder / "runs/toy", "lr/g")] == [
        1e-3,
        1e-3,
        5e-4,
        5e-4,
    ]


def test_a_run_folder_in_use_is_refused(command, finished, in_folder):
    words = train_words(in_folder)
    finished(*words)
    before = state_of(in_folder / "runs/toy", 4)
    command(*words).fails_with("runs/toy", "holds a run already", "resume=auto")
    assert differing(before, state_of(in_folder / "runs/toy", 4)) == []


@pytest.mark.parametrize("change", ["arch.num_feat=12", "arch=fsrcnn", "scale=4"])
def test_another_network_is_refused(command, finished, in_folder, change):
    words = train_words(in_folder)
    finished(*words)
    if change == "arch=fsrcnn":
        words = [w for w in words if not w.startswith("arch.")]
    key = change.split("=")[0].replace("arch=fsrcnn", "arch._target_")
    command(*words, change, "resume=auto").fails_with("stored", key, "net_g.pretrained=")


def test_auto_starts_afresh_where_there_is_nothing(command, in_folder):
    command(*train_words(in_folder), "resume=auto").succeeds()
    assert state_of(in_folder / "runs/toy", 4)["step"] == 4


@pytest.mark.parametrize(
    "path", ["runs/toy/checkpoints/step_00000002.pt", "first", "first/checkpoints"]
)
def test_a_path_resumes_into_a_run_of_another_name(command, finished, in_folder, path):
    words = train_words(in_folder)
    finished(*words)
    command(*words, "name=first", "out_dir=.", "train.steps=2", "scheduler.steps=4").succeeds()
    command(*words, "name=halves", f"resume={path}").succeeds()
    assert_same_end(in_folder, 4)


def test_a_path_does_not_resume_into_another_run(command, finished, in_folder):
    words = train_words(in_folder)
    finished(*words)
    command(*words, "name=halves", "train.steps=2").succeeds()
    command(*words, "resume=runs/halves").fails_with("runs/toy", "holds a run already")
    command(*words, "resume=runs/toy/checkpoints/step_00000002.pt").succeeds()


def test_a_finished_run_says_so(command, finished, in_folder):
    words = train_words(in_folder)
    finished(*words)
    assert "done already" in command(*words, "resume=auto").succeeds().out


@pytest.mark.parametrize("written", [1, 2, 3])
def test_death_within_the_last_save_loses_nothing(
    command, finished, in_folder, monkeypatch, written
):
    """A save writes three files; after any of them a resume ends with the same weights."""
    words = train_words(in_folder, "train.checkpoint_every=3")
    finished(*words)
    write, names = checkpoint.write_atomically, []

    def die(path, data):
        write(path, data)
        names.append(path.name)
        if len(names) == 3 + written:
            raise KeyboardInterrupt

    for module in (checkpoint, weights):
        monkeypatch.setattr(module, "write_atomically", die)
    assert command(*words, "name=halves").code == 130
    for module in (checkpoint, weights):
        monkeypatch.setattr(module, "write_atomically", write)
    command(*words, "name=halves", "resume=auto").succeeds()
    assert_same_end(in_folder, 4)
    assert_same_weights(in_folder)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path: Path) -> None:
    """Damage a weight; most bits between the parts of an archive mean nothing."""
    data = bytearray(path.read_bytes())
    weight = next(iter(torch.load(path, weights_only=True)["net_g"].values()))
    data[data.index(weight.numpy().tobytes())] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_one_bit, empty])
def test_a_damaged_newest_state_falls_back_to_the_one_before(command, finished, in_folder, damage):
    words = train_words(in_folder)
    finished(*words)
    newest = in_folder / "runs/toy/checkpoints/step_00000004.pt"
    whole = state_of(in_folder / "runs/toy", 4)
    damage(newest)
    done = command(*words, "resume=auto").succeeds()
    assert "warning" in done.out + done.err
    assert str(newest) in done.out + done.err
    assert "at step 2" in done.out
    assert "step_00000002.pt" in done.out
    again = state_of(in_folder / "runs/toy", 4)
    assert differing(whole["net_g"], again["net_g"]) == []


def test_every_state_damaged_is_an_error(command, finished, in_folder):
    words = train_words(in_folder)
    finished(*words)
    for path in (in_folder / "runs/toy/checkpoints").glob("step_*.pt"):
        truncate(path)
    command(*words, "resume=auto").fails_with("no training state is whole", "step_00000002.pt")


@pytest.mark.parametrize("victim", ["last.safetensors", "step_00000004.pt"])
def test_a_full_disk_leaves_the_earlier_state(command, in_folder, monkeypatch, victim):
    folder = in_folder / "runs/toy/checkpoints"
    words = train_words(in_folder, "train.steps=6")
    write, sync, kept = checkpoint.write_atomically, os.fsync, {}

    def full(path, data):
        fails = path.name == victim and (folder / "step_00000002.pt").exists()
        if fails:
            kept.update({p.name: p.read_bytes() for p in folder.iterdir()})
        monkeypatch.setattr(os, "fsync", no_space if fails else sync)
        write(path, data)

    def no_space(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module in (checkpoint, weights):
        monkeypatch.setattr(module, "write_atomically", full)
    command(*words).fails_with(victim, "No space left on device", "resume=auto")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == kept
    assert "step_00000002.pt" in kept
    for module in (checkpoint, weights):
        monkeypatch.setattr(module, "write_atomically", write)
    monkeypatch.setattr(os, "fsync", sync)
    assert "at step 2" in command(*words, "resume=auto").succeeds().out


LONG = ("train.steps=1000000", "train.log_every=1", "train.checkpoint_every=0")


def with_signals(folder: Path, *names: str) -> list[str]:
    """Return words whose loss sends signals to its own process in step 3."""
    calls = "".join(f"            os.kill(os.getpid(), signal.{name})\n" for name in names)
    (folder / "signals").mkdir()
    (folder / "signals/loss.py").write_text(
        "import os, signal\n"
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred, step):\n"
        f"        if step == 3:\n{calls}"
        "        return pred.square().mean()\n"
    )
    return ["plugins=[signals]", "objective.l1.loss={_target_: signals.loss.Loss}"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_tells_how_to_go_on(command, in_folder, name):
    before = signal.getsignal(signal.SIGTERM)
    words = [*train_words(in_folder, *LONG), *with_signals(in_folder, name)]
    done = command(*words).succeeds()
    assert f"stopped by {name} after step 3; state saved" in done.out
    states = sorted((in_folder / "runs/toy/checkpoints").glob("step_*.pt"))
    assert [path.name for path in states] == ["step_00000003.pt"]
    assert signal.getsignal(signal.SIGTERM) is before
    line = next(line for line in done.out.splitlines() if "python -m sr_train train" in line)
    resumed = command(*shlex.split(line)[3:], "train.steps=4").succeeds()
    assert "at step 3" in resumed.out


def test_a_log_window_that_a_stop_cuts_in_two_is_whole(command, in_folder):
    words = [*train_words(in_folder), "train.steps=5", "train.log_every=5"]
    command(*words, *with_signals(in_folder, "SIGCONT")).succeeds()
    names = ("loss/total", "grad_norm/g", "param_drift/g")
    rows = [metrics_rows(in_folder / "runs/toy", name) for name in names]
    shutil.rmtree(in_folder / "runs")
    shutil.rmtree(in_folder / "signals")
    for name in [name for name in sys.modules if name.split(".")[0] == "signals"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    done = command(*words, *with_signals(in_folder, "SIGTERM")).succeeds()
    assert "stopped by SIGTERM after step 3" in done.out
    command("train", "resume=runs/toy").succeeds()
    run = in_folder / "runs/toy"
    assert [metrics_rows(run, name) for name in names] == rows
    assert [step for step, _ in rows[0]] == [5]


def test_a_signal_ends_a_sweep(command, in_folder):
    words = [*train_words(in_folder, *LONG), *with_signals(in_folder, "SIGINT")]
    done = command("train", *words[1:], "seed=1,2", "--multirun").succeeds()
    assert not (in_folder / "runs/toy/sweep_1").exists()
    line = next(line for line in done.out.splitlines() if "python -m sr_train train" in line)
    resumed = command(*shlex.split(line)[3:], "train.steps=4").succeeds()
    assert "at step 3" in resumed.out
    assert state_of(in_folder / "runs/toy/sweep_0", 4)["config"]["seed"] == 1


def test_a_second_interrupt_stops_at_once(command, in_folder):
    words = [*train_words(in_folder, *LONG), *with_signals(in_folder, "SIGINT", "SIGINT")]
    done = command(*words)
    assert done.code == 130, done
    assert "Traceback" not in done.err
    assert not list((in_folder / "runs/toy/checkpoints").glob("*"))


def wait_for_step(run: Path, least: int, child) -> None:
    """Wait until metrics.csv shows a step."""
    for _ in range(1200):
        if (run / "metrics.csv").is_file():
            rows = metrics_rows(run, "lr/g")
            if rows and rows[-1][0] >= least:
                return
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    raise AssertionError("the run did not come to its first steps")


@pytest.mark.slow
def test_ctrl_c_reaches_the_whole_group_of_processes(in_folder):
    """A terminal interrupts workers too; they must not end before the step does."""
    words = [*train_words(in_folder, *LONG), "data.stream.num_workers=2"]
    child = process(words, in_folder)
    try:
        wait_for_step(in_folder / "runs/toy", 2, child)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 0, (out, err)
    assert "stopped by SIGINT" in out
    assert "Traceback" not in out + err
    assert len(list((in_folder / "runs/toy/checkpoints").glob("step_*.pt"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_at_random_moments_change_nothing(command, in_folder):
    """Kill -9 anywhere from the first step on, then run to the end."""
    words = train_words(
        in_folder, "train.steps=3000", "train.checkpoint_every=1", "data.stream.num_workers=2"
    )
    command(*words).succeeds()
    draw = random.Random(0)
    run, kills = in_folder / "runs/halves", 0
    for _ in range(20):
        child = process([*words, "name=halves", "resume=auto"], in_folder)
        before = newest_step(run)
        while newest_step(run) == before and child.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
        child.kill()
        child.communicate()
        kills += child.returncode == -signal.SIGKILL
    assert kills == 20, "each run was still going when it was killed"
    assert 0 < newest_step(run) < 3000
    command(*words, "name=halves", "resume=auto").succeeds()
    assert_same_end(in_folder, 3000)
    assert_same_weights(in_folder)
    assert not list((run / "checkpoints").glob(".*")), "no parts are left behind"
    rows = [step for step, _ in metrics_rows(run, "loss/total")]
    assert rows == sorted(set(rows))


def newest_step(run: Path) -> int:
    found = checkpoint.states(run / "checkpoints")
    return int(found[0].stem.split("_")[1]) if found else -1


def test_random_state_survives(command, in_folder):
    """A component that draws from torch's generator sees the same numbers after a resume."""
    (in_folder / "noisy").mkdir()
    (in_folder / "noisy/loss.py").write_text(
        "import torch\n"
        "class Noisy(torch.nn.Module):\n"
        "    def forward(self, pred, target):\n"
        "        return ((pred - target) * torch.rand_like(pred)).square().mean()\n"
    )
    every = train_words(
        in_folder, "plugins=[noisy]", "objective.l1.loss={_target_: noisy.loss.Noisy}"
    )
    command(*every).succeeds()
    command(*every, "name=halves", "train.steps=2", "scheduler.steps=4").succeeds()
    torch.manual_seed(99)
    command(*every, "name=halves", "resume=auto").succeeds()
    assert_same_end(in_folder, 4)
