import copy
import logging
from pathlib import Path

import pytest
import torch

from sr_train.api.callback import Run
from sr_train.config.schema import PrecisionConfig
from sr_train.engine import adaptive as module
from sr_train.engine.adaptive import AdaptivePace, AdaptivePrecision, levels_from
from sr_train.engine.precision import Precision, resolve_precision
from sr_train.monitoring.meter import LogWindow

CPU = torch.device("cpu")


def window(skipped=0, taken=100, learner="g"):
    key = f"grad_norm/{learner}"
    counts = {key: taken - skipped} if taken > skipped else {}
    return LogWindow({}, counts, {key: skipped} if skipped else {})


def collapse(model):
    model.generator.scaler.scale.fill_(0.5)


def adaptive_of(model, num_ranks=1, **settings):
    return AdaptivePrecision(model, PrecisionConfig(**settings), num_ranks)


def test_the_levels_end_in_fp32_and_starts_with_the_chosen_precision():
    slow = "fp16 (scale grows 1/2 as often)"
    levels = {
        name: [str(level) for level in levels_from(resolve_precision(name, CPU))]
        for name in ("fp16", "bf16", "fp32")
    }
    assert levels == {
        "fp16": ["fp16", slow, "bf16", "fp32"],
        "bf16": ["bf16", "fp32"],
        "fp32": ["fp32"],
    }


def test_a_gpu_without_bfloat16_goes_from_fp16_to_fp32(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_bf16_supported", lambda emulated=True: False)
    levels = levels_from(Precision("fp16", torch.device("cuda"), "config"))
    assert [level.precision for level in levels] == ["fp16", "fp16", "fp32"]


def test_good_windows_change_nothing(make_model):
    model = make_model("fp16")
    adaptive = adaptive_of(model)
    assert [adaptive.adapt(window()) for _ in range(50)] == [None] * 50
    assert model.precision.name == "fp16"


def test_repeated_overflow_first_slows_the_growth_then_leaves_fp16_then_bf16(make_model):
    model = make_model("fp16", growth_interval=100)
    adaptive = adaptive_of(model, patience=2)
    said = [adaptive.adapt(window(skipped=10)) for _ in range(6)]
    assert [text is None for text in said] == [True, False] * 3
    assert "10 % of the steps were skipped" in said[1]
    assert "grows 1/2 as often" in said[1]
    assert "-> bf16" in said[3]
    assert "bf16 -> fp32" in said[5]
    assert model.precision.name == "fp32"
    assert len(adaptive.state.changes) == 3


def test_bad_windows_must_come_in_a_row(make_model):
    model = make_model("fp16")
    adaptive = adaptive_of(model, patience=2)
    assert [adaptive.adapt(window(skipped=n)) for n in (10, 0, 10, 0, 10)] == [None] * 5


def test_a_slower_scale_grows_half_as_often(make_model):
    model = make_model("fp16", growth_interval=3)
    adaptive = adaptive_of(model, patience=1)
    adaptive.adapt(window(skipped=10))
    scaler = model.generator.scaler
    grown_at = []
    for step in range(1, 13):
        before = float(scaler.scale)
        scaler.update(torch.tensor(0.0))
        if float(scaler.scale) > before:
            grown_at.append(step)
    assert grown_at == [6, 12]
    assert model.precision.name == "fp16"


def test_a_collapsed_scale_leaves_half_precision_at_once(make_model):
    model = make_model("fp16")
    adaptive = adaptive_of(model, patience=5)
    collapse(model)
    said = adaptive.adapt(window(skipped=17, taken=20))
    assert said == "the loss scale of net_g fell to 0.5: precision fp16 -> bf16"
    assert model.precision.name == "bf16"
    assert (model.generator.scaler.dynamic, float(model.generator.scaler.scale)) == (False, 1.0)


def test_without_a_loss_scale_many_skipped_steps_in_a_row_are_the_sign(make_model):
    model = make_model("bf16")
    adaptive = adaptive_of(model)
    model.generator.skipped_in_row.fill_(adaptive.hopeless)
    said = adaptive.adapt(window(skipped=1, taken=1))
    assert said == "10 steps of net_g in a row were skipped: precision bf16 -> fp32"
    assert int(model.generator.skipped_in_row) == 0


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("taken", [1, 10, 100])
def test_one_bad_batch_in_a_window_is_no_bad_window(make_model, precision, taken):
    model = make_model(precision)
    adaptive = adaptive_of(model, patience=1)
    assert [adaptive.adapt(window(1, taken)) for _ in range(30)] == [None] * 30


def test_fp32_has_nothing_to_change(make_model):
    model = make_model("fp32")
    adaptive = adaptive_of(model, patience=1)
    model.generator.skipped_in_row.fill_(50)
    assert [adaptive.adapt(window(100, 100)) for _ in range(9)] == [None] * 9
    assert (model.precision.name, adaptive.state.changes) == ("fp32", [])
    assert int(model.generator.skipped_in_row) == 50  # the non-finite monitor's to judge


def test_skipped_steps_of_the_discriminator_count_too(make_model):
    model = make_model("bf16")
    adaptive = adaptive_of(model, patience=1)
    assert adaptive.adapt(window(skipped=20, learner="d")) is not None
    assert model.precision.name == "fp32"


def test_a_window_of_several_ranks_holds_each_step_once_per_rank(make_model):
    model = make_model("bf16")
    adaptive = adaptive_of(model, patience=1, num_ranks=4)
    assert adaptive.adapt(window(skipped=4, taken=40)) is None
    assert adaptive.adapt(window(skipped=8, taken=40)) is not None


def test_it_returns_after_good_windows_and_each_return_takes_twice_as_many(make_model):
    model = make_model("bf16")
    adaptive = adaptive_of(model, patience=1, good_windows=3)

    def windows_until_return():
        adaptive.adapt(window(skipped=50))
        assert model.precision.name == "fp32"
        for number in range(1, 30):
            if adaptive.adapt(window()) is not None:
                return number
        raise AssertionError("it never came back")

    assert [windows_until_return() for _ in range(3)] == [3, 6, 12]
    assert model.precision.name == "bf16"


def test_a_skipped_step_begins_the_count_of_good_windows_anew(make_model):
    model = make_model("bf16")
    adaptive = adaptive_of(model, patience=1, good_windows=3)
    adaptive.adapt(window(skipped=50))
    said = [adaptive.adapt(window(skipped=n)) for n in (0, 0, 1, 0, 0, 0)]
    assert [text is None for text in said] == [True] * 5 + [False]


def test_a_return_to_fp16_begins_with_slow_growth_and_the_first_scale(make_model):
    model = make_model("fp16")
    adaptive = adaptive_of(model, good_windows=1)
    collapse(model)
    adaptive.adapt(window(skipped=17, taken=20))
    adaptive.adapt(window())
    scaler = model.generator.scaler
    assert (model.precision.name, scaler.patience) == ("fp16", 2)
    assert (scaler.dynamic, float(scaler.scale)) == (True, scaler.init_scale)
    adaptive.adapt(window())
    adaptive.adapt(window())
    assert (adaptive.state.level, scaler.patience) == (0, 1)


def test_the_fused_optimizer_goes_on_after_a_change(make_model, make_batch):
    model = make_model("fp16")
    adaptive = adaptive_of(model, patience=1)
    for seed in range(3):
        model.optimize_parameters(make_batch(seed), last_micro_batch=True)
    collapse(model)
    adaptive.adapt(window(skipped=17, taken=20))
    for seed in range(3):
        model.optimize_parameters(make_batch(seed), last_micro_batch=True)
    state = model.generator.optimizer.state[model.generator.parameters[0]]
    assert float(state["step"]) == 6
    assert model.generator.num_skipped == 0


def stored(model, adaptive):
    return copy.deepcopy((model.state_dict(), adaptive.state_dict()))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_resume_restores_the_level_and_does_so_twice_alike(make_model, level, caplog):
    old = make_model("fp16", growth_interval=7)
    adaptive = adaptive_of(old, patience=1, good_windows=5)
    for _ in range(level):
        adaptive.adapt(window(skipped=10))
    adaptive.adapt(window())
    weights, kept = stored(old, adaptive)
    new = make_model("fp16", growth_interval=7)
    again = adaptive_of(new, patience=1, good_windows=5)
    for _ in range(2):
        new.load_state_dict(weights)
        with caplog.at_level(logging.INFO):
            again.load_state_dict(copy.deepcopy(kept))
    assert f"resumes with {again.levels[level]}" in caplog.text
    assert new.precision.name == old.precision.name
    assert (new.generator.scaler.growth_interval, new.generator.scaler.patience) == (
        7,
        old.generator.scaler.patience,
    )
    assert again.state == adaptive.state
    assert again.state.good_windows == 1


def test_resume_in_slow_fp16_keeps_the_loss_scale(make_model):
    old = make_model("fp16")
    adaptive = adaptive_of(old, patience=1)
    adaptive.adapt(window(skipped=10))
    old.generator.scaler.scale.fill_(128.0)
    weights, kept = stored(old, adaptive)
    new = make_model("fp16")
    new.load_state_dict(weights)
    adaptive_of(new).load_state_dict(kept)
    assert float(new.generator.scaler.scale) == 128.0


def test_counts_of_the_loss_scale_outlive_a_resume_in_another_precision(make_model):
    old = make_model("fp16")
    adaptive = adaptive_of(old)
    old.generator.scaler.update(torch.tensor(1.0))
    collapse(old)
    adaptive.adapt(window(skipped=17, taken=20))
    assert old.precision.name == "bf16"
    weights, kept = stored(old, adaptive)
    new = make_model("fp16")
    new.load_state_dict(weights)
    adaptive_of(new).load_state_dict(kept)
    assert float(new.generator.scaler.num_backoffs) == 1
    assert not new.generator.scaler.dynamic


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_a_state_of_another_precision_begins_anew(make_model, chosen, caplog):
    old = make_model("fp16")
    adaptive = adaptive_of(old, patience=1)
    adaptive.adapt(window(skipped=10))
    new = make_model(chosen)
    again = adaptive_of(new)
    with caplog.at_level(logging.INFO):
        again.load_state_dict(adaptive.state_dict())
    assert "adaptive precision starts anew" in caplog.text
    assert (again.state.level, new.precision.name) == (0, chosen)


def run_of(model, **facts):
    return Run(model, steps=10, folder=Path("nowhere"), log=print, **facts)


def test_the_pace_needs_a_discriminator(make_model):
    pace, won = AdaptivePace(), LogWindow({"gan/d_accuracy": 1.0}, {}, {})
    pace.on_log(run_of(make_model()), won)
    assert pace.state_dict() == {}


@pytest.mark.parametrize("rank", [0, 1])
def test_the_main_rank_reports_a_change(make_model, rank, caplog):
    model = make_model("bf16")
    adaptive = adaptive_of(model, patience=1)
    adaptive.on_log(run_of(model, rank=rank, num_ranks=2), window(skipped=50))
    assert model.precision.name == "fp32"
    said = "step 0: 50 % of the steps were skipped: precision bf16 -> fp32"
    assert (said in caplog.text) == (rank == 0)
