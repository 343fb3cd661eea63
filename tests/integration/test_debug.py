"""Each file of configs/debug, run once for real, and beside every experiment."""

import json

import pytest
import torch

from sr_train.config.preflight import run_problems
from tests.sr_train.config.test_shipped import EXPERIMENTS, composed, experiment_words
from tests.sr_train.config.test_shipped import group as choices
from tests.toys import metrics_rows, toy_words

QUICK = ("quickstart", "esrgan_x4", "vrt_x4")
"""Experiments of each kind; the slow tests take all."""


@pytest.mark.parametrize("debug", choices("debug"))
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS],
)
def test_a_debug_file_composes_with_an_experiment(name, debug):
    cfg = composed(*experiment_words(name), f"+debug={debug}")
    assert run_problems(cfg) == []
    assert (cfg.name, cfg.out_dir) == (name, "runs/debug")


@pytest.fixture
def debug(command, in_folder):
    """Return a function that runs the toy with a debug file, which says how long that is."""
    words = [word for word in toy_words(in_folder) if not word.startswith("train.")]

    def run(name, *more):
        done = command("train", *words, f"+debug={name}", *more)
        return done, in_folder / "runs/debug/toy"

    return run


def test_two_steps_of_everything(debug):
    done, run = debug("two_steps")
    done.succeeds()
    assert [step for step, _ in metrics_rows(run, "loss/total")] == [1, 2]
    assert [step for step, _ in metrics_rows(run, "val/main/psnr_y")] == [1, 2]
    assert sorted(path.name for path in run.glob("checkpoints/step_*.pt")) == [
        "step_00000001.pt",
        "step_00000002.pt",
    ]


def test_one_batch_is_learnt(debug):
    settings = ("train.steps=100", "train.log_every=10", "optimizer.lr=5e-3", "scheduler=constant")
    done, run = debug("overfit_batch", *settings)
    done.succeeds()
    losses = [value for _, value in metrics_rows(run, "loss/total")]
    assert losses == sorted(losses, reverse=True)  # of other batches, it goes up and down
    assert losses[-1] < 0.7 * losses[0]


def test_the_trace_of_the_profiler_names_the_operations_of_each_step(debug):
    done, run = debug("profiler")
    done.succeeds()
    assert "aten::convolution" in done.out
    (path,) = run.glob("profile/*")
    assert path.name == "steps_11_13.pt.trace.json"
    names = [event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]]
    steps = {name for name in names if name.startswith("train_step")}
    assert steps == {"train_step 11", "train_step 12", "train_step 13"}
    expected = {"aten::convolution", "aten::convolution_backward", "Optimizer.step#Adam.step"}
    assert expected <= set(names)


NAN = """
import torch
class Loss(torch.nn.Module):
    def forward(self, pred):
        return (pred * 0).sqrt().mean() * 0
"""


def test_an_anomaly_names_the_operation(debug, in_folder):
    (in_folder / "nan").mkdir()
    (in_folder / "nan/loss.py").write_text(NAN)
    words = ("plugins=[nan]", "objective.bad={loss: {_target_: nan.loss.Loss}}", "train.steps=3")
    with pytest.warns(UserWarning, match=r"\(pred \* 0\)\.sqrt\(\)"):  # of the forward pass
        done, _ = debug("detect_anomaly", *words)
    assert done.code != 0
    assert "'SqrtBackward0' returned nan values" in done.err
    assert not torch.is_anomaly_enabled()


def test_detecting_anomalies_of_a_run_that_has_none_changes_nothing(debug):
    done, _ = debug("detect_anomaly", "train.steps=3")
    done.succeeds()
