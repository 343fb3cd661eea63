"""Many runs of one command line: grids, searches, jobs of a cluster."""

import csv
import gc
import os
import pickle
import signal
import types
import weakref

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sr_train.cli import sweeping
from sr_train.cli.sweeping import FailedRunError
from sr_train.commands import train
from sr_train.engine import trainer
from sr_train.utils.launch import Stopped
from tests.toys import ROOT, broken_loss, metrics_rows, no_validation, state_of, toy_words

SEARCH = ("+search=lr", "hydra.sweeper.n_trials=3")

BREAKS = ("train.max_skipped_in_row=1", "train.log_every=1")
"""Lets a run with a learning rate of 1e30 fail in its second step."""


def sweep_words(folder, *more):
    return ["train", *no_validation(*toy_words(folder)), *more]


def test_a_grid_makes_one_run_for_each_value(command, in_folder):
    done = command(*sweep_words(in_folder), "-m", "optimizer.lr=1e-3,1e-4").succeeds()
    for number, lr in enumerate((1e-3, 1e-4)):
        assert f"sweep_{number} (optimizer.lr={lr})" in done.out
        state = state_of(in_folder / f"runs/toy/sweep_{number}", 4)
        assert state["config"]["optimizer"]["lr"] == lr
    first = (in_folder / "runs/toy/sweep_0/train.log").read_text()
    assert "sweep_1" not in first, "a run's log is its own"


def test_a_run_that_fails_leaves_the_others_alone(command, in_folder):
    words = sweep_words(in_folder, *BREAKS)
    done = command(*words, "optimizer.lr=1e30,1e-3,2e30", "-m")
    done.fails_with("error: 2 runs of runs/toy failed", "- sweep_0: step 2: 1 steps in a row")
    assert "- sweep_2: step 2: 1 steps in a row" in done.err
    state_of(in_folder / "runs/toy/sweep_1", 4)
    assert not (in_folder / "runs/toy/sweep_1/error.txt").exists()
    assert "try a smaller learning rate" in (in_folder / "runs/toy/sweep_2/error.txt").read_text()


def test_the_end_of_a_sweep_shows_its_runs_the_best_first(command, in_folder):
    swept = "optimizer.lr=1e-1,1e-3,1e30"
    done = command("train", *toy_words(in_folder), *BREAKS, swept, "-m")
    done.fails_with("- sweep_2: step 2: 1 steps in a row")
    with (in_folder / "runs/toy/sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = {
        f"sweep_{number}": metrics_rows(in_folder / f"runs/toy/sweep_{number}", "val/main/psnr_y")
        for number in (0, 1)
    }
    best = sorted(values, key=lambda name: values[name][-1][1], reverse=True)
    assert [row["run"] for row in rows] == [*best, "sweep_2"]
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    assert [float(row["best_value"]) for row in rows[:2]] == [values[n][-1][1] for n in best]
    assert {row["run"]: row["overrides"] for row in rows} == {
        "sweep_0": "optimizer.lr=0.1",
        "sweep_1": "optimizer.lr=0.001",
        "sweep_2": "optimizer.lr=1e+30",
    }
    table = done.out[done.out.index("3 runs in runs/toy") :]
    places = [table.index(f" {row['run']} ") for row in rows]
    assert places == sorted(places)
    assert "best psnr_y" in table


def test_every_problem_of_a_run_that_failed_is_told_at_the_end(command, in_folder):
    done = command(*sweep_words(in_folder), "train.accum=1,3,1", "seed=1,-1", "-m")
    done.fails_with(
        "4 runs of runs/toy failed",
        "- sweep_1: seed=-1: expected a whole number from 0 up",
        "- sweep_2: data.batch_size=2: must be a multiple of train.accum=3",
        "- sweep_3: seed=-1: expected a whole number from 0 up; data.batch_size=2: must be",
    )


def test_tensorboard_compares_the_runs_of_a_sweep(command, in_folder):
    words = [word for word in toy_words(in_folder) if word != "logger=none"]
    command("train", *words, "optimizer.lr=1e-3,1e-4", "objective=[l1],[mse]", "-m").succeeds()
    run = in_folder / "runs/toy/sweep_1"
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    content = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    chosen = start.session_start_info.hparams
    assert set(chosen) == {"optimizer.lr", "objective"}
    assert chosen["optimizer.lr"].number_value == 1e-3
    assert chosen["objective"].string_value == "[mse]"
    described = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert [each.name.tag for each in described.metric_infos] == ["best/psnr_y"]
    (best,) = events.Scalars("best/psnr_y")
    assert best.value == pytest.approx(max(v for _, v in metrics_rows(run, "val/main/psnr_y")))


def test_what_the_first_run_finds_wrong_with_the_config_ends_a_sweep_at_once(command, in_folder):
    done = command(*sweep_words(in_folder), "optimizer.lr=1e-3,1e-4", "data.lq_size=0", "-m")
    done.fails_with("data.lq_size=0: expected a whole number from 1 up")
    assert done.err.count("error:") == 1
    assert not (in_folder / "runs/toy/sweep_1").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "optimizer.lr=1e-3,1e-4", "seed=range(1,3)"],
        pytest.param(["+search=lr", "optimizer.lr=interval(1e-4,1e-3)"], marks=pytest.mark.slow),
    ],
)
def test_a_misspelt_key_is_the_only_problem_told_of_a_sweep(command, in_folder, words):
    done = command(*sweep_words(in_folder), *words, "trian.max_norm=1")
    done.fails_with("1 problem:\n  - trian.max_norm: no such key; did you mean 'train.max_norm'?")


def test_a_value_of_a_sweep_that_does_not_exist_is_told(command, in_folder):
    done = command(*sweep_words(in_folder), "optimizer=adam,adma", "-m")
    done.fails_with("adma")
    assert not (in_folder / "runs/toy/sweep_0").exists()


def test_a_defect_in_one_run_is_told_and_ends_the_sweep_with_one(command, in_folder, monkeypatch):
    write = trainer.save_weights

    def fail_once(*arguments):
        monkeypatch.setattr(trainer, "save_weights", write)
        del arguments[0].nothing

    monkeypatch.setattr(trainer, "save_weights", _of_the_program(fail_once))
    done = command(*sweep_words(in_folder), "seed=1,2", "-m")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "- sweep_0: AttributeError" in done.err
    state_of(in_folder / "runs/toy/sweep_1", 4)


def _of_the_program(function):
    """Let a function pass for the program's own, which a test's is not."""
    own = function.__code__.replace(co_filename=trainer.__file__)
    return types.FunctionType(own, function.__globals__, closure=function.__closure__)


def test_a_failing_part_of_ones_own_in_one_run_is_told(command, in_folder):
    swept = "objective.l1.loss._target_=broken.loss.Loss,losses.pixel.L1Loss"
    done = command(*sweep_words(in_folder, broken_loss(in_folder)), swept, "-m")
    done.fails_with("objective.l1.loss: Loss failed on", "ZeroDivisionError", "broken/loss.py:4")
    state_of(in_folder / "runs/toy/sweep_1", 4)


@pytest.mark.parametrize("lr", ["1e-3", "1e30"])
def test_a_finished_run_leaves_memory_before_the_next_starts(
    command, in_folder, monkeypatch, request, lr
):
    """Also where it failed: the error that Hydra keeps must not hold on to the network."""
    models, alive = [], []
    make = train.prepare

    def prepare(*arguments):
        alive.append([model() for model in models].count(None))
        trainer = make(*arguments)
        models.append(weakref.ref(trainer.model))
        return trainer

    monkeypatch.setattr(train, "prepare", prepare)
    gc.disable()  # by chance it may collect in time
    request.addfinalizer(gc.enable)
    command(*sweep_words(in_folder, *BREAKS), f"optimizer.lr={lr}", "seed=1,2", "-m")
    assert alive == [0, 1]


def test_a_search_returns_the_best_validation_and_goes_on_with_the_same_line(command, in_folder):
    words = ["train", *toy_words(in_folder, "train.val_every=2"), *SEARCH]
    done = command(*words).succeeds()
    root = in_folder / "runs/toy"
    trials = sorted(root.glob("trial_*"))
    assert len(trials) == 3
    result = yaml.safe_load((root / "optimization_results.yaml").read_text())
    values = {}
    for trial in trials:
        lr = state_of(trial, 4)["config"]["optimizer"]["lr"]
        values[lr] = max(value for _, value in metrics_rows(trial, "val/main/psnr_y"))
    best = result["best_params"]["optimizer.lr"]
    assert len(values) == 3, "each trial has values of its own"
    assert result["best_value"] == values[best] == max(values.values())
    assert f"best trial   psnr_y {values[best]:.4f}" in done.out
    folder = next(t for t in trials if state_of(t, 4)["config"]["optimizer"]["lr"] == best)
    assert done.out.rstrip().endswith(str(folder.relative_to(in_folder)))
    again = command(*words, "hydra.sweeper.n_trials=4").succeeds()
    assert "search: 3 trials are done, 1 to go" in again.out
    (fourth,) = set(root.glob("trial_*")) - set(trials)
    assert state_of(fourth, 4)["config"]["optimizer"]["lr"] not in values


def test_a_trial_that_fails_is_counted_and_the_search_goes_on(command, in_folder):
    words = ["train", *toy_words(in_folder, *BREAKS), *SEARCH, "hydra.sweeper.sampler.seed=4"]
    done = command(*words, "optimizer.lr=choice(1e30,1e-3)").succeeds()
    failed = {note.parent.name for note in (in_folder / "runs/toy").glob("*/error.txt")}
    assert 0 < len(failed) < 3, "both values are tried"
    assert done.err.count("error: step 2: 1 steps in a row") == len(failed)
    best = done.out.rsplit("best trial", 1)[1]
    assert "optimizer.lr=0.001" in best
    for name in failed:
        assert f"failed       {name}: step 2: 1 steps in a row" in best


def test_a_search_without_one_good_trial_says_so(command, in_folder):
    words = ["train", *toy_words(in_folder, *BREAKS), *SEARCH, "hydra.sweeper.n_trials=2"]
    done = command(*words, "optimizer.lr=choice(1e30,1e31)")
    done.fails_with("search: no trial came to its end")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["metrics=[y_crop_scale,lpips]", "best_metric=lpips"], ["direction=maximize", "minimize"]),
        (["hydra.sweeper.direction=minimize"], ["direction=minimize", "expected maximize"]),
        (["~data.val.main"], ["best_metric", "needs data.val"]),
    ],
)
def test_a_search_in_the_wrong_direction_does_not_start(command, in_folder, words, parts):
    command("train", *toy_words(in_folder), *SEARCH, *words).fails_with(*parts)
    assert not list((in_folder / "runs/toy").glob("trial_*"))


@pytest.mark.parametrize(
    ("group", "choice", "words", "extra"),
    [
        ("sweeper", "optuna", ["+search=lr"], "sweep"),
        ("sweeper", "optuna", ["hydra/sweeper=optuna", "-m"], "sweep"),
        ("launcher", "submitit_slurm", ["+cluster=slurm"], "slurm"),
    ],
)
def test_a_missing_extra_is_named(command, in_folder, monkeypatch, group, choice, words, extra):
    command("--version")
    choices = ConfigStore.instance().repo["hydra"][group]
    monkeypatch.delitem(choices, f"{choice}.yaml")
    done = command("train", *toy_words(in_folder), *words)
    done.fails_with(f'pip install "sr_train[{extra}]"')
    assert done.err.count("error:") == 1


def test_a_cluster_without_slurm_is_told(command, in_folder, monkeypatch):
    monkeypatch.setenv("PATH", str(in_folder))
    command("train", *toy_words(in_folder), "+cluster=slurm").fails_with("no SLURM here")


def test_check_takes_the_line_of_a_search_and_others_do_not(command, in_folder):
    words = [*toy_words(in_folder), *SEARCH]
    assert "no problem found" in command("check", *words).succeeds().out
    command("overfit", *words).fails_with("+search=lr", "it is for train")


def test_a_failed_run_travels_between_processes():
    sent = pickle.loads(pickle.dumps(FailedRunError("sweep_1: step 2", "runs/toy", True)))
    assert str(sent) == "sweep_1: step 2"
    assert (sent.sweep_dir, sent.is_defect) == ("runs/toy", True)


@pytest.mark.parametrize(
    ("executor", "name", "expected"),
    [
        (None, "SIGUSR2", []),
        ("local", "SIGINT", []),
        ("local", "SIGUSR2", ["SIGUSR2"]),
        ("slurm", "SIGTERM", ["SIGTERM", "waited"]),
    ],
)
def test_a_stopped_run_is_left_to_the_launcher(monkeypatch, executor, name, expected):
    seen = []
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    if executor is not None:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    monkeypatch.setattr(sweeping.time, "sleep", lambda seconds: seen.append("waited"))
    number = signal.Signals[name]
    before = signal.signal(number, lambda number, frame: seen.append(signal.Signals(number).name))
    try:
        sweeping._hand_back(Stopped(name))
    finally:
        signal.signal(number, before)
    assert seen == expected


@pytest.mark.slow
@pytest.mark.dist
def test_a_preempted_job_goes_on_where_it_stopped(command, in_folder, monkeypatch):
    """The loss of step 3 sends what a cluster sends before it takes the machine away."""
    (in_folder / "preempted").mkdir()
    (in_folder / "preempted/loss.py").write_text(
        "import os, signal\n"
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        if step == 3:\n"
        "            os.kill(os.getpid(), signal.SIGUSR2)\n"
        "        return pred.square().mean()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(in_folder)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    loss = ["plugins=[preempted]", "objective.l1.loss={_target_: preempted.loss.Loss}"]
    words = sweep_words(in_folder, *loss, "hydra/launcher=submitit_local", "resume=auto")
    done = command(*words, "seed=1,2", "-m").succeeds()
    assert "each run is a job of its own" in done.out
    for number in (0, 1):
        log = (in_folder / f"runs/toy/sweep_{number}/train.log").read_text()
        assert "stopped by SIGUSR2 after step 3; state saved" in log
        assert "step_00000003.pt at step 3" in log
        state = state_of(in_folder / f"runs/toy/sweep_{number}", 4)
        assert state["config"]["seed"] == number + 1
