"""Being told to end: what is said, what is raised where, and the exit code."""

import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from sr_train.utils.signals import ENDING, Stop, Stopped


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_is_said_at_once_and_nothing_is_raised(number, capfd):
    with Stop("stops after this image; again: at once") as stop:
        assert (stop.requested, stop.exit_code) == (None, 0)
        stop.check()
        send(number)
        assert stop.requested == number
        said = capfd.readouterr().err
        assert said == f"{number.name}: stops after this image; again: at once\n"
        with pytest.raises(Stopped):
            stop.check()
    assert stop.exit_code == 128 + number


@pytest.mark.parametrize("number", ENDING)
def test_what_nobody_catches_becomes_the_exit_code_of_the_first_signal(number):
    def work():
        with Stop("stops") as stop:
            send(number)
            stop.check()

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 128 + number


def test_the_second_signal_raises_wherever_the_program_is():
    with Stop("stops") as stop:
        send(signal.SIGTERM)
        with pytest.raises(Stopped):
            send(signal.SIGINT)
        with pytest.raises(Stopped):
            send(signal.SIGINT)
    assert stop.exit_code == 143


def test_a_hangup_that_comes_twice_is_one():
    with Stop("stops") as stop:
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        stop._requested_at -= 3.0
        with pytest.raises(Stopped):
            send(signal.SIGHUP)


def test_what_can_be_left_off_is_broken_off_at_once():
    reached = []
    with Stop("stops") as stop:
        with stop.leaving_off():
            reached.append("before")
        with pytest.raises(Stopped), stop.leaving_off():
            reached.append(send(signal.SIGTERM))
        with pytest.raises(Stopped), stop.leaving_off():
            reached.append("never")
    assert reached == ["before"]


def test_a_command_that_keeps_nothing_ends_at_the_first_signal():
    with pytest.raises(SystemExit) as ended, Stop("stops", at_once=True):
        send(signal.SIGTERM)
    assert ended.value.code == 143


def test_other_errors_pass_and_handlers_are_put_back():
    before = [signal.getsignal(number) for number in ENDING]
    with pytest.raises(KeyError), Stop("stops"):
        raise KeyError("x")
    assert [signal.getsignal(number) for number in ENDING] == before


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop("stops") as stop:
            send(signal.SIGHUP)
            assert stop.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Stop("stops"):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_what_must_not_be_cut_is_finished_first():
    reached = []
    with Stop("stops") as stop:
        send(signal.SIGINT)
        with pytest.raises(Stopped), stop.holding():
            reached.append([send(signal.SIGINT), "all of it"][1])
    assert reached == ["all of it"]


@contextmanager
def file_like(reached, *, signals=0):
    try:
        yield "file"
    except BaseException as err:
        reached.append(f"discarded for {type(err).__name__}")
        raise
    for _ in range(signals):
        send(signal.SIGINT)
    reached.append("written")


def test_signals_do_not_break_off_the_end_of_a_file():
    reached = []
    with Stop("stops") as stop, stop.shielding(file_like(reached, signals=3)) as opened:
        assert opened == "file"
    assert (reached, stop.exit_code) == (["written"], 130)


def test_errors_reach_what_is_shielded():
    reached = []
    with Stop("stops") as stop, pytest.raises(KeyError), stop.shielding(file_like(reached)):
        raise KeyError
    assert reached == ["discarded for KeyError"]


WAITING = """
import sys, time
from sr_train.utils.signals import Stop, Stopped
with Stop("stops") as stop:
    print("ready", flush=True)
    while stop.requested is None:
        time.sleep(0.01)
    print("still here", flush=True)
    sys.stderr.write("and here")
    sys.stderr.flush()
open(sys.argv[1], "w").write(str(stop.exit_code))
"""


def test_a_terminal_that_is_gone_does_not_end_what_is_being_saved(tmp_path):
    """Whatever is printed to a closed terminal fails with EIO."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path / "code")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"\n" not in shown:
        shown += os.read(ours, 100)
    os.close(ours)
    child.send_signal(signal.SIGHUP)
    assert child.wait(20) == 0
    assert (tmp_path / "code").read_text() == "129"
