"""Schedules against torch's own, and at the points that matter."""

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from sr_train.api.errors import ConfigError
from sr_train.config.build import build
from sr_train.engine.schedule import Constant, Cosine, CosineRestarts, MultiStep, OneCycle

PEAK = 0.01


def rates_of_torch(make, steps, lr=PEAK):
    """Return the learning rate of each step under one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return rates


def rates(schedule, steps):
    return [PEAK * schedule(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "make", "steps"),
    [
        (
            Cosine(steps=20, final=0.1),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1 * PEAK),
            20,
        ),
        (
            MultiStep(milestones=[3, 5, 9], gamma=0.3),
            lambda o: lr_scheduler.MultiStepLR(o, [3, 5, 9], gamma=0.3),
            15,
        ),
        (
            CosineRestarts(periods=[4, 4, 4], final=0.2),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, eta_min=0.2 * PEAK),
            12,
        ),
        (
            CosineRestarts(periods=[3, 6, 12]),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, T_mult=2),
            21,
        ),
        (OneCycle(steps=30), lambda o: lr_scheduler.OneCycleLR(o, PEAK, total_steps=30), 30),
        (
            OneCycle(steps=17, pct_start=0.45, div_factor=10, final_div_factor=50),
            lambda o: lr_scheduler.OneCycleLR(
                o, PEAK, total_steps=17, pct_start=0.45, div_factor=10, final_div_factor=50
            ),
            17,
        ),
    ],
    ids=["cosine", "multistep", "restarts", "growing_restarts", "one_cycle", "one_cycle_numbers"],
)
def test_rates_are_those_of_torch(schedule, make, steps):
    assert rates(schedule, steps) == pytest.approx(rates_of_torch(make, steps), rel=1e-9)


def test_restart_weights_are_heights_above_the_foot():
    """Between restarts the published formula: final + w (1 - final) (1 + cos(pi t / T)) / 2."""
    schedule = CosineRestarts(periods=[4, 8], restart_weights=[1.0, 0.5], final=0.1)
    assert [schedule(step) for step in (0, 2, 4, 8, 12, 99)] == pytest.approx(
        [1.0, 0.55, 0.55, 0.325, 0.1, 0.1]
    )


ALL = {
    "constant": lambda warmup: Constant(warmup=warmup),
    "cosine": lambda warmup: Cosine(steps=40, warmup=warmup),
    "multistep": lambda warmup: MultiStep(milestones=[20, 30], warmup=warmup),
    "restarts": lambda warmup: CosineRestarts(
        periods=[10, 20], restart_weights=[0.5, 1.0], warmup=warmup
    ),
    "one_cycle": lambda warmup: OneCycle(steps=40, warmup=warmup),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


@every
def test_warmup_rises_in_a_line_to_where_the_schedule_starts(make):
    schedule, start = make(9), make(0)(0)
    assert [schedule(step) for step in range(10)] == pytest.approx(
        [start * (step + 1) / 10 for step in range(10)]
    )


@every
def test_factors_stay_between_zero_and_one_far_beyond_the_end(make):
    for warmup in (0, 7):
        factors = [make(warmup)(step) for step in range(200)]
        assert all(0 <= factor <= 1 for factor in factors)
        assert factors[0] > 0
        assert factors[-1] == factors[-2]


def test_restarts_begin_after_the_warmup():
    plain, late = CosineRestarts(periods=[5, 7]), CosineRestarts(periods=[5, 7], warmup=3)
    assert [late(step + 3) for step in range(15)] == [plain(step) for step in range(15)]


def test_one_cycle_ends_at_its_last_step_with_or_without_warmup():
    for warmup in (0, 11):
        schedule = OneCycle(steps=40, warmup=warmup)
        assert max(schedule(step) for step in range(40)) == pytest.approx(1, abs=0.02)
        assert schedule(39) == pytest.approx(1 / 25e4)
        assert schedule(38) > 2 * schedule(39)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("pct_start", [0.0, 0.3, 1.0])
def test_a_very_short_cycle_is_finite(steps, pct_start):
    schedule = OneCycle(steps=steps, pct_start=pct_start)
    assert all(0 < schedule(step) <= 1 for step in range(steps))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "CosineRestarts", "periods": []}, "periods must be one or more positive"),
        ({"_target_": "CosineRestarts", "periods": [3, 0]}, "periods must be one or more positive"),
        (
            {"_target_": "CosineRestarts", "periods": [3, 3], "restart_weights": [1.0]},
            "restart_weights must be one for each of the 2 periods, got 1",
        ),
        ({"_target_": "OneCycle", "steps": 5, "warmup": 5}, r"steps \(5\) must be more than"),
        ({"_target_": "OneCycle", "steps": 5, "pct_start": 1.5}, r"pct_start must be in \[0, 1\]"),
        ({"_target_": "OneCycle", "steps": 5, "div_factor": 0}, "div_factor and final_div_factor"),
        ({"_target_": "MultiStep", "milestones": [5, 5]}, "milestones must rise"),
        ({"_target_": "Cosine", "steps": 5, "warmup": 9}, r"steps \(5\) must be more than"),
    ],
)
def test_impossible_schedules_are_refused(node, message):
    target = f"sr_train.engine.schedule.{node['_target_']}"
    with pytest.raises(ConfigError, match=message):
        build({**node, "_target_": target}, "scheduler")
