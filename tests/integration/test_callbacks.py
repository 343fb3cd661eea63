"""Callbacks in whole runs: stops, states, failures, and what `check` finds before."""

import json
from pathlib import Path

import pytest

from tests.toys import differing, metrics_rows, state_of, toy_words

MINE = """
import random
import torch
from sr_train.api.callback import Callback

class Counts(Callback):
    "Counts its events, draws numbers, and stops where it is told to."
    def __init__(self, stop_at: int = -1) -> None:
        self.stop_at = stop_at
        self.counts = {}
        self.drawn = torch.zeros(3)

    def _count(self, event):
        self.counts[event] = self.counts.get(event, 0) + 1

    def on_step_start(self, run):
        self._count("step_start")

    def on_step_end(self, run):
        self._count("step_end")
        self.drawn += torch.rand(3) + random.random()
        if run.step == self.stop_at:
            run.stop("told to")

    def on_log(self, run, window):
        self._count("log")
        assert window.means["loss/total"] > 0
        run.log({"mine/weight": float(next(run.model.generator.net.parameters()).detach().sum())})

    def on_validation_start(self, run):
        self._count("validation_start")

    def on_validation_end(self, run, scores):
        self._count("validation_end")
        assert scores["psnr_y"] == scores["main/psnr_y"]

    def on_save(self, run, path):
        assert run.is_rehearsal or path.is_file()

    def on_run_end(self, run, outcome):
        (run.folder / "outcome.txt").write_text(f"{outcome.kind} {outcome.reason}")

    def state_dict(self):
        return {"counts": self.counts, "drawn": self.drawn}

    def load_state_dict(self, state):
        self.counts, self.drawn = state["counts"], state["drawn"]
"""

FAULTY = """
from sr_train.api.callback import Callback

class Fails(Callback):
    def on_log(self, run, window):
        return window.means["loss/none"]

class FailsLate(Callback):
    def on_validation_end(self, run, scores):
        return scores["psnr"]

class Misspelt(Callback):
    def on_validate_end(self, run, scores): ...

class TakesTooLittle(Callback):
    def on_log(self, run): ...

class KeepsObjects(Callback):
    def state_dict(self):
        return {"seen": {1, 2}}

class CannotRead(Callback):
    def state_dict(self):
        return {"a": 1}
    def load_state_dict(self, state):
        self.b = state["b"]

class Exits(Callback):
    def on_run_start(self, run):
        raise SystemExit(3)

class NoCallback:
    def on_log(self, run, window): ...
"""

EVERY = ("train.steps=6", "train.log_every=2", "train.val_every=3", "train.checkpoint_every=3")


def words_of(folder: Path, *more: str) -> list[str]:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine/callbacks.py").write_text(MINE)
    (folder / "mine/faulty.py").write_text(FAULTY)
    return [*toy_words(folder), "plugins=[mine]", *more]


def counts_words(folder: Path, *more: str) -> list[str]:
    """Return words of a run with the counting callback."""
    node = "callbacks.counts={_target_: mine.callbacks.Counts}"
    return ["train", *words_of(folder, *EVERY, node, *more)]


def test_every_event_is_heard_and_a_resume_restores_all_of_it(command, in_folder):
    words = counts_words(in_folder, "scheduler.steps=6")
    command(*words).succeeds()
    whole = state_of(in_folder / "runs/toy", 6)
    counts = whole["callbacks"]["callbacks.counts"]["counts"]
    assert counts == {
        "step_start": 6,
        "step_end": 6,
        "log": 3,
        "validation_start": 2,
        "validation_end": 2,
    }
    assert (in_folder / "runs/toy/outcome.txt").read_text() == "complete "
    assert len(metrics_rows(in_folder / "runs/toy", "mine/weight")) == 3
    command(*words, "name=halves", "train.steps=4").succeeds()
    command(*words, "name=halves", "resume=auto").succeeds()
    halves = state_of(in_folder / "runs/halves", 6)
    halves_counts = halves["callbacks"]["callbacks.counts"]["counts"]
    assert halves_counts == {**counts, "validation_start": 3, "validation_end": 3}  # at step 4 too
    drawn = [each["callbacks"]["callbacks.counts"]["drawn"] for each in (whole, halves)]
    assert differing(*drawn) == []
    for key in ("net_g", "ema", "generator", "random"):
        assert differing(whole[key], halves[key]) == [], key


def test_a_callback_changes_nothing_of_the_run_beside_it(command, in_folder):
    plain = ["train", *words_of(in_folder, *EVERY)]
    shipped = "callbacks=[early_stopping,weight_histograms,detect_anomaly]"
    command(*plain).succeeds()
    command(*plain, "name=watched", shipped).succeeds()
    ends = [state_of(in_folder / "runs" / name, 6) for name in ("toy", "watched")]
    for key in ("net_g", "ema", "generator", "random", "best"):
        assert differing(ends[0][key], ends[1][key]) == [], key


def test_a_stop_ends_the_run_as_after_its_last_step_and_a_resume_goes_on(command, in_folder):
    words = counts_words(in_folder)
    command(*words).succeeds()
    done = command(*words, "name=stopped", "callbacks.counts.stop_at=5").succeeds()
    run = in_folder / "runs/stopped"
    assert "step 5: ended by callbacks.counts: told to" in done.out
    assert (run / "outcome.txt").read_text() == "stopped callbacks.counts: told to"
    launch = json.loads((run / "manifest.json").read_text())[-1]
    assert (launch["stopped_by"], launch["stop_reason"]) == (None, "callbacks.counts: told to")
    assert [step for step, _ in metrics_rows(run, "loss/total")] == [2, 4, 5]
    assert [step for step, _ in metrics_rows(run, "val/main/psnr_y")] == [3, 5]
    assert (run / "checkpoints/last.safetensors").is_file()
    command(*words, "name=stopped", "resume=auto").succeeds()
    ends = [state_of(in_folder / "runs" / name, 6)["net_g"] for name in ("toy", "stopped")]
    assert differing(*ends) == []


def test_early_stopping_resumes_where_its_patience_is_raised_and_says_why_where_not(
    command, in_folder
):
    settings = ("train.steps=9", "train.val_every=1", "callbacks.early_stopping.min_delta=100")
    words = ["train", *words_of(in_folder, *settings), "callbacks=[early_stopping]"]
    patience = "callbacks.early_stopping.patience={}".format
    command(*words, "name=whole", patience(4)).succeeds()
    done = command(*words, patience(2)).succeeds()
    reason = "callbacks.early_stopping: psnr_y has not risen for 2 validations, best "
    assert f"step 3: ended by {reason}" in done.out
    again = command(*words, patience(2), "resume=auto").succeeds()
    assert f"step 3: ended by {reason}" in again.out
    command(*words, patience(4), "resume=auto").succeeds()
    ends = [state_of(in_folder / "runs" / name, 5) for name in ("whole", "toy")]
    for key in ("net_g", "generator", "callbacks", "best"):
        assert differing(ends[0][key], ends[1][key]) == [], key


FAULTS = {
    "Fails": ["callbacks.x: Fails failed on on_log, step 2: KeyError: 'loss/none'", "faulty.py:6"],
    "FailsLate": ["callbacks.x: FailsLate failed on on_validation_end", "KeyError: 'psnr'"],
    "Misspelt": [
        "callbacks.x: Misspelt: on_validate_end is no event; did you mean 'on_validation_end'?"
    ],
    "TakesTooLittle": ["callbacks.x: TakesTooLittle: its on_log(run) is called as on_log(run, win"],
    "KeepsObjects": ["callbacks.x: KeepsObjects: state_dict()['seen'], a set, is not what"],
    "CannotRead": ["callbacks.x: CannotRead failed on load_state_dict(state): KeyError: 'b'"],
    "Exits": ["callbacks.x: Exits called sys.exit(3) on on_run_start"],
    "NoCallback": ["is no callback; expected a subclass of sr_train.api.callback.Callback"],
    "None": ["callbacks.x._target_=mine.faulty.None: mine.faulty has no 'None'"],
}


@pytest.mark.parametrize("name", FAULTS)
def test_check_finds_what_is_wrong_with_a_callback(command, in_folder, name):
    words = words_of(in_folder, f"callbacks.x={{_target_: mine.faulty.{name}}}")
    command("check", *words).fails_with(*FAULTS[name])


def test_a_callback_that_exits_before_the_first_step_is_an_error(command, in_folder):
    words = ["train", *words_of(in_folder, "callbacks.x={_target_: mine.faulty.Exits}")]
    command(*words).fails_with("callbacks.x: Exits called sys.exit(3) on on_run_start, step 0")


def test_faults_of_callbacks_and_data_are_told_together(command, in_folder):
    words = words_of(in_folder, "callbacks.x={_target_: mine.faulty.Misspelt}")
    command("check", *words, "data.train.gt=nowhere").fails_with("on_validate_end", "nowhere")


def test_check_passes_a_callback_that_works_and_leaves_nothing(command, in_folder):
    words = counts_words(in_folder, "callbacks=[early_stopping,profiler]")[1:]
    done = command("check", *words).succeeds()
    assert "no problem found" in done.out
    assert sorted(path.name for path in in_folder.iterdir()) == ["gt", "mine", "val"]


def test_a_callback_that_fails_ends_the_run_with_the_state_saved(command, in_folder):
    words = ["train", *words_of(in_folder, "train.log_every=3")]
    done = command(*words, "callbacks.x={_target_: mine.faulty.Fails}")
    done.fails_with("callbacks.x: Fails failed on on_log, step 3: KeyError: 'loss/none'")
    assert state_of(in_folder / "runs/toy", 3)["step"] == 3


def test_a_metric_that_early_stopping_cannot_watch_is_told_before_a_step(command, in_folder):
    words = [*words_of(in_folder), "callbacks=[early_stopping]"]
    for name in ("train", "check"):
        done = command(name, *words, "callbacks.early_stopping.metric=psnr")
        done.fails_with(
            "callbacks.early_stopping: metric=psnr: no such score; did you mean 'psnr_y"
        )
    assert not list((in_folder / "runs/toy").glob("checkpoints/*"))


def test_a_notification_is_sent_at_the_end_and_when_a_run_fails(command, in_folder, monkeypatch):
    words = ["train", *words_of(in_folder), "callbacks=[notification]"]
    command(*words).fails_with("callbacks.notification", "set SR_TRAIN_NOTIFY_COMMAND or")
    told = 'echo "$SR_TRAIN_OUTCOME $SR_TRAIN_NAME $SR_TRAIN_STEP $SR_TRAIN_REASON" >> told'
    monkeypatch.setenv("SR_TRAIN_NOTIFY_COMMAND", told)
    command("check", *words[1:]).succeeds()
    command(*words, "name=good").succeeds()
    fails = "callbacks.x={_target_: mine.faulty.Fails}"
    command(*words, "name=bad", fails).fails_with("KeyError")
    good, bad = (in_folder / "told").read_text().splitlines()
    assert good == "complete good 4 "
    assert bad.startswith("error bad 4 callbacks.x: Fails failed on on_log")


def test_weight_histograms_reach_tensorboard(command, in_folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [word for word in words_of(in_folder) if word != "logger=none"]
    words += ["callbacks=[weight_histograms]", "callbacks.weight_histograms.every=2"]
    command("train", *words, "train.log_every=1").succeeds()
    events = EventAccumulator(str(in_folder / "runs/toy/tensorboard"), {"histograms": 0})
    events.Reload()
    names = set(state_of(in_folder / "runs/toy", 4)["net_g"])
    assert set(events.Tags()["histograms"]) == {f"weights/{name}" for name in names}
    assert [event.step for event in events.Histograms("weights/body.0.weight")] == [2, 4]


def test_overfit_says_that_it_runs_no_callbacks(command, in_folder):
    words = words_of(in_folder, "callbacks=[early_stopping]", "num_steps=1", "threshold=-99")
    assert "overfit runs no callbacks: early_stopping" in command("overfit", *words).succeeds().out
