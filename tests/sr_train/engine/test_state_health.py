"""Which states count as good: those that a whole finite log window followed."""

import pytest

from sr_train.engine.checkpoint import save_state, states, step_of
from sr_train.engine.state_health import (
    StateHealth,
    read_healthy,
    set_aside_diverged,
    went_back,
    write_healthy,
)
from sr_train.monitoring.meter import LogWindow, Meter

FINITE = LogWindow({"loss/total": 0.1, "grad_norm/g": 1.0}, {"loss/total": 2, "grad_norm/g": 2}, {})


def window(counts, non_finite):
    return LogWindow(dict.fromkeys(counts, 0.1), dict(counts), dict(non_finite))


NOT_FINITE = {
    "no value at all": window({}, {}),
    "a loss": window({"loss/total": 1, "grad_norm/g": 2}, {"loss/l1": 1}),
    "a loss of the discriminator": window({"loss/total": 2, "grad_norm/g": 2}, {"loss_d/gan": 1}),
    "every gradient": window({"loss/total": 2}, {"grad_norm/g": 2}),
    "every gradient of the discriminator": window(
        {"loss/total": 2, "grad_norm/g": 2}, {"grad_norm/d": 1}
    ),
}


def test_a_state_is_confirmed_by_the_window_that_begins_behind_it():
    health = StateHealth()
    health.add(3, keep_last=9)
    assert not health.close_window(4, FINITE)  # it began before the state
    assert health.close_window(8, FINITE)
    assert health.healthy == 3
    health.add(8, keep_last=9)
    health.add(10, keep_last=9)
    assert health.close_window(12, FINITE)
    assert health.healthy == 8


@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_window_that_is_not_finite_confirms_nothing(name):
    health = StateHealth([4], healthy=None, step=4)
    assert not health.close_window(8, NOT_FINITE[name])
    assert health.healthy is None
    health.close_window(12, FINITE)
    assert health.healthy == 4


def test_single_overflows_of_half_precision_do_not_count():
    health = StateHealth([4], step=4)
    health.close_window(8, window({"loss/total": 2, "grad_norm/g": 1}, {"grad_norm/g": 1}))
    assert health.healthy == 4


def test_an_empty_meter_is_no_finite_window():
    health = StateHealth([4], step=4)
    health.close_window(8, Meter().read())
    assert health.healthy is None


def save(folder, health, step, keep_last):
    health.add(step, keep_last)
    state = {"generator": {}, "healthy": health.healthy, "awaiting": health.awaiting}
    save_state(folder, step, state, keep_last)


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_the_healthy_state_and_its_successor_are_never_dropped(tmp_path, keep_last):
    """Whatever the rhythms are, what is known here is what lies there."""
    health, healthy = StateHealth(), []
    for step in range(1, 60):
        if step % 10 == 0:
            good = step < 40
            health.close_window(step, FINITE if good else NOT_FINITE["a loss"])
            healthy.append(health.healthy)
        save(tmp_path, health, step, keep_last)
        assert {step_of(path) for path in states(tmp_path)} == health.saved
        assert len(health.saved) <= keep_last + 2
    assert healthy == [None, 10, 20, 20, 20]
    assert 20 in health.saved


def test_what_diverged_is_set_aside_with_its_weights(tmp_path):
    health = StateHealth()
    for step in (5, 10, 15):
        save(tmp_path, health, step, 9)
    last = tmp_path / "last.safetensors"
    last.write_bytes(b"x")
    assert not went_back(tmp_path, 5)
    set_aside_diverged(tmp_path, 5, [last, tmp_path / "swa.safetensors"])
    assert [step_of(path) for path in states(tmp_path)] == [5]
    moved = {path.name for path in (tmp_path / "diverged").iterdir()}
    assert moved == {
        "last.safetensors",
        *(f"step_000000{step}.{end}" for step in (10, 15) for end in ("pt", "sha256")),
    }
    assert went_back(tmp_path, 5)
    assert not went_back(tmp_path, 15)  # a run that came further since


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 99, b"1" * 99])
def test_a_note_that_makes_no_sense_says_nothing(tmp_path, content):
    assert read_healthy(tmp_path) is None
    write_healthy(tmp_path, 15)
    assert read_healthy(tmp_path) == 15
    (tmp_path / "healthy_step.txt").write_bytes(content)
    assert read_healthy(tmp_path) in (None, int(b"1" * 20))
