"""What launchers say about a process, and how it is understood."""

import os
import signal

import pytest

from sr_train.engine.stop import GracefulStop
from sr_train.utils.launch import Launch, Stopped, adopt_srun, announcement

STEP = {
    "SLURM_JOB_ID": "21007",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def said(monkeypatch):
    """Return a function that makes the environment one that a launcher leaves."""
    for name in [*TORCHRUN, *STEP, "SLURM_NTASKS", "SUBMITIT_EXECUTOR", "SUBMITIT_PREEMPT_SIGNAL"]:
        monkeypatch.setenv(name, "")  # so that what is set by the program is taken back, too
        monkeypatch.delenv(name)

    def say(words):
        for name, word in words.items():
            monkeypatch.setenv(name, word)

    return say


def test_the_processes_of_an_srun_step_are_ranks(said):
    said(STEP)
    adopt_srun()
    assert Launch.from_environment() == Launch(rank=5, size=8, local_rank=1)
    assert os.environ["MASTER_ADDR"] == "gpu07"
    assert os.environ["MASTER_PORT"] == "13010"


def test_the_script_of_a_job_is_one_process(said):
    said({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    adopt_srun()
    assert Launch.from_environment() == Launch()


def test_a_step_of_one_task_is_one_process(said):
    said({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    adopt_srun()
    assert not Launch.from_environment().several


def test_torchrun_inside_a_step_has_the_last_word(said):
    said({**STEP, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "29500"})
    adopt_srun()
    assert Launch.from_environment() == Launch(rank=1, size=2, local_rank=1)
    assert os.environ["MASTER_PORT"] == "29500"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu07", "gpu07"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("gpu[3,5]", "gpu3"),
        ("rack[1-2]node[04-08]", "rack1node04"),
        ("a100-node-1,a100-node-2", "a100-node-1"),
    ],
)
def test_the_first_node_of_a_list(said, nodes, first):
    said({**STEP, "SLURM_STEP_NODELIST": nodes})
    adopt_srun()
    assert os.environ["MASTER_ADDR"] == first


def test_the_signal_that_announces_the_end_of_a_job(said):
    assert announcement() is None
    said({"SUBMITIT_EXECUTOR": "slurm"})
    assert announcement() == signal.SIGUSR2
    said({"SUBMITIT_PREEMPT_SIGNAL": "USR1"})
    assert announcement() == signal.SIGUSR1


def test_a_run_stops_at_the_announced_end_of_its_job_and_gives_the_signal_back(said):
    said({"SUBMITIT_EXECUTOR": "local"})
    launcher = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: launcher.append(number))
    try:
        with GracefulStop() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert stop.agreed() == "SIGUSR2"
        assert launcher == []
        signal.raise_signal(signal.SIGUSR2)
        assert launcher == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_outside_of_a_job_the_signal_is_not_touched(said):
    before = signal.getsignal(signal.SIGUSR2)
    with GracefulStop():
        assert signal.getsignal(signal.SIGUSR2) is before


def test_a_stopped_run_is_an_exit_without_fault():
    assert Stopped("SIGTERM").code == 0
    assert Stopped("SIGTERM").signal == "SIGTERM"
