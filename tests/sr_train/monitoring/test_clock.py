import pytest

from sr_train.monitoring import clock as module
from sr_train.monitoring.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """Return a time that the test moves: now.append(seconds)."""
    times = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: times[-1])
    return times


def test_a_window_has_the_pace_of_its_steps(now):
    clock = Clock()
    clock.restart(10)
    now.append(4.0)
    assert clock.close(18, waited=1.0) == {
        "time/steps_per_sec": 2.0,
        "time/data_wait_fraction": 0.25,
    }


def test_what_is_beside_training_is_told_apart(now):
    clock = Clock()
    clock.restart(0)
    now.append(7.0)
    clock.leave_out("validation", 2.0)
    clock.leave_out("saving", 0.5)
    clock.leave_out("saving", 0.5)
    assert clock.close(8, waited=0.0)["time/steps_per_sec"] == 2.0
    assert clock.beside == {"validation": 2.0, "saving": 1.0}
    assert clock.training == 4.0


def test_totals_are_over_all_windows_but_those_begun_anew(now):
    clock = Clock()
    clock.restart(0)
    now.append(100.0)  # the first step, with all that starts up
    clock.restart(1)
    now.append(102.0)
    clock.close(5, waited=1.0)
    now.append(108.0)
    clock.close(9, waited=1.0)
    assert clock.totals() == {"steps_per_sec": 1.0, "data_wait_fraction": 0.25}


def test_a_window_without_a_step_counts_nothing(now):
    clock = Clock()
    clock.restart(3)
    now.append(5.0)
    assert clock.close(3, waited=0.0) == {}
    assert clock.totals() == {}


def test_the_time_left_has_what_is_beside_training(now):
    clock = Clock()
    assert clock.left(100) is None
    now.append(8.0)
    clock.close(4, waited=0.0)
    assert clock.left(6) == 12.0
    now.append(12.0)
    clock.leave_out("validation", 4.0)
    clock.close(4, waited=0.0)
    assert clock.left(6) == 18.0  # (8 + 4) s for 4 steps
    assert clock.left(0) == 0.0
