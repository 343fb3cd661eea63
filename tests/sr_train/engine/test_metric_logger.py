import csv
import logging
import math

import pytest
import torch

from sr_train.api.logger import Logger
from sr_train.engine.distributed import World
from sr_train.engine.metric_logger import MetricLogger
from sr_train.engine.run_folder import RunFolder
from sr_train.monitoring.non_finite import NonFiniteError, NonFiniteMonitor


class Sink(Logger):
    """A logger that keeps the scalars it is given."""

    def __init__(self):
        self.rows = []

    def scalars(self, values, step):
        self.rows.append((step, dict(values)))

    def text(self, name, text):
        raise AssertionError("nothing is told as text here")


def metric_logger_of(model, folder, limit=20):
    sink = Sink()
    monitor = NonFiniteMonitor(limit, folder)
    metric_logger = MetricLogger(
        model,
        steps=100,
        folder=RunFolder(folder),
        monitor=monitor,
        logger=sink,
        world=World(),
    )
    metric_logger.start_window()
    return metric_logger, sink


def take(model, make_batch, seeds, bad=()):
    for seed in seeds:
        batch = make_batch(seed)
        if seed in bad:
            batch["gt"] = torch.full(batch["gt"].shape, math.nan)
        model.optimize_parameters(batch, last_micro_batch=True)
    return batch


def csv_rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return {(int(r["step"]), r["name"]): float(r["value"]) for r in csv.DictReader(file)}


def test_the_loss_scale_and_all_that_happened_to_it_are_logged(make_model, make_batch, tmp_path):
    model = make_model("fp16", growth_interval=3)
    metric_logger, sink = metric_logger_of(model, tmp_path)
    take(model, make_batch, range(5), bad={1})
    metric_logger.read(0.0)
    take(model, make_batch, range(5, 8))
    metric_logger.read(0.0)
    # Steps: good, bad (back-off, count from 0), good x3 (growth), good x3 (growth).
    names = ("loss_scale", "loss_scale_growths", "loss_scale_backoffs", "skipped_steps")
    expected = {5: (65536.0, 1, 1, 1), 8: (131072.0, 2, 1, 1)}
    rows = csv_rows(tmp_path)
    for step, values in sink.rows:
        told = tuple(values[f"{name}/g"] for name in names)
        assert told == expected[step]
        assert tuple(rows[step, f"{name}/g"] for name in names) == told


def test_a_window_tells_pace_rate_norms_and_memory(make_model, make_batch, tmp_path):
    model = make_model(max_norm=1e-6, lr=0.5)
    metric_logger, sink = metric_logger_of(model, tmp_path)
    take(model, make_batch, range(4))
    _, note = metric_logger.read(0.0)
    (step, values) = sink.rows[0]
    assert step == 4
    assert values["lr/g"] == 0.5
    assert values["clip_fraction/g"] == 1.0
    assert values["param_drift/g"] > 0
    assert values["time/steps_per_sec"] > 0
    assert values["memory/peak_host_gib"] > 0
    assert "lr 5.00e-01" in note


def test_skipped_steps_are_reported_once_by_network(make_model, make_batch, tmp_path, caplog):
    model = make_model()
    metric_logger, _ = metric_logger_of(model, tmp_path)
    batch = take(model, make_batch, range(6), bad={1, 4})
    window, _ = metric_logger.read(0.0)
    with caplog.at_level(logging.WARNING):
        metric_logger.watch(batch, window)
    assert "step 6: 2 of the last 6 steps of net_g skipped" in caplog.text
    caplog.clear()
    batch = take(model, make_batch, range(6, 9))
    window, _ = metric_logger.read(0.0)
    metric_logger.watch(batch, window)
    assert not caplog.records


def test_too_many_in_a_row_end_the_run_and_name_the_term(make_model, make_batch, tmp_path):
    model = make_model()
    metric_logger, _ = metric_logger_of(model, tmp_path, limit=3)
    batch = take(model, make_batch, range(5), bad={2, 3, 4})
    window, _ = metric_logger.read(0.0)
    with pytest.raises(NonFiniteError, match=r"3 steps in a row(.|\n)*loss/l1"):
        metric_logger.watch(batch, window)
    assert (tmp_path / "non_finite_step_00000005.pt").is_file()


def test_a_bad_step_in_between_is_not_a_row(make_model, make_batch, tmp_path):
    model = make_model()
    metric_logger, _ = metric_logger_of(model, tmp_path, limit=2)
    batch = take(model, make_batch, range(6), bad={1, 3, 5})
    window, _ = metric_logger.read(0.0)
    metric_logger.watch(batch, window)


def looks(model, make_batch, tmp_path, caplog, silent):
    """Look after each step; return at which of them `first.bias` was named."""
    metric_logger, _ = metric_logger_of(model, tmp_path)
    named = []
    for number, is_silent in enumerate(silent):
        model.generator.net.first.bias.requires_grad_(True)
        hook = model.generator.net.first.bias.register_hook(
            torch.zeros_like if is_silent else lambda grad: grad
        )
        take(model, make_batch, [number])
        hook.remove()
        caplog.clear()
        metric_logger.warn_of_parameters_without_grad(**({"after": 1} if number == 0 else {}))
        if "no gradient reaches 1 parameters of net_g: first.bias" in caplog.text:
            named.append(number)
    return named


@pytest.mark.parametrize(
    ("silent", "named"),
    [
        ([1, 1, 1, 1, 1], [0]),  # from the start: once
        ([0, 1, 0, 1, 1, 0, 1], []),  # in single steps, as stochastic depth makes them: never
        ([0, 1, 1, 1, 1], [3]),  # from later on: once it is sure
        ([1, 0, 1, 1, 1], [0, 4]),  # again, after it was reached
    ],
)
def test_parameters_without_a_gradient_are_named(
    make_model, make_batch, tmp_path, caplog, silent, named
):
    assert looks(make_model(), make_batch, tmp_path, caplog, silent) == named


def test_other_ranks_write_no_file_and_tell_nothing(make_model, make_batch, tmp_path, caplog):
    model = make_model()
    world = World(rank=1, size=2)
    metric_logger = MetricLogger(
        model,
        steps=9,
        folder=RunFolder(tmp_path),
        monitor=NonFiniteMonitor(9, tmp_path),
        logger=Sink(),
        world=world,
    )
    batch = take(model, make_batch, range(2), bad={1})
    metric_logger.write({"a": 1.0})
    metric_logger.watch(batch, model.meter.read())
    assert not list(tmp_path.iterdir())
    assert not caplog.records
