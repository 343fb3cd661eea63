"""Runs on SLURM, which a few scripts stand in for: sbatch, srun, scontrol and sacct."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.ranks import free_port
from tests.toys import ROOT, no_validation, process, state_of, toy_words

SCRIPTS = {
    "sbatch": """
        cp "$1" "$SLURM/script"
        "$SLURM/start"
        echo "Submitted batch job $JOB"
    """,
    "start": """
        unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT  # a job has no rank's
        export SLURM_JOB_ID=$JOB SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=2 SLURM_NODEID=0
        SLURM_PROCID=0 SLURM_LOCALID=0 setsid bash "$SLURM/script" </dev/null >>"$SLURM/log" 2>&1 &
        echo $! >"$SLURM/group"
    """,
    "srun": """
        while [[ $1 == --* ]]; do
            case $1 in
                --output) out=$2; shift 2;;
                --error) err=$2; shift 2;;
                *) shift;;
            esac
        done
        export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost
        for rank in 0 1; do
            named() { local path=${1//%j/$JOB}; echo "${path//%t/$rank}"; }
            SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" >>"$(named "$out")" 2>>"$(named "$err")" &
        done
        wait
    """,
    "scontrol": """
        [ "$1 $2" = "requeue $JOB" ] || exit 1
        echo requeued >>"$SLURM/log"
        again='sleep 1; kill -KILL -- -$(cat "$SLURM/group"); "$SLURM/start"'
        setsid bash -c "$again" </dev/null >>"$SLURM/log" 2>&1 &
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        echo "$JOB|RUNNING|localhost"
    """,
}
"""One machine, one job of one step with two tasks."""


@pytest.fixture
def slurm(in_folder):
    """Return the environment of a machine with SLURM; end its job behind the test."""
    folder = in_folder / "slurm"
    folder.mkdir()
    for name, text in SCRIPTS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}")
        (folder / name).chmod(0o755)
    job = str(free_port())  # the port of the ranks depends on it
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    yield {"SLURM": str(folder), "JOB": job, "PATH": path}
    if (folder / "group").exists():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((folder / "group").read_text()), signal.SIGKILL)


def logs(run: Path) -> str:
    return "\n".join(path.read_text() for path in run.glob(".submitit/*/*_log.*"))


@pytest.mark.slow
@pytest.mark.dist
def test_a_preempted_job_of_two_tasks_goes_back_into_the_queue_and_on(in_folder, slurm):
    """Step 3 sends each task what SLURM sends before it takes the machine away."""
    (in_folder / "preempted").mkdir()
    (in_folder / "preempted/loss.py").write_text(
        "import os, signal, time\n"
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        if step == 3:\n"
        "            os.kill(os.getpid(), signal.SIGUSR2)\n"
        "        if step < 20:\n"
        "            time.sleep(0.2)\n"
        "        return pred.square().mean()\n"
    )
    words = [
        "train",
        *no_validation(*toy_words(in_folder, "train.steps=40")),
        "plugins=[preempted]",
        "objective.l1.loss={_target_: preempted.loss.Loss}",
        "+cluster=slurm",
        "hydra.launcher.tasks_per_node=2",
        "hydra.launcher.gpus_per_node=2",
    ]
    path = os.pathsep.join([str(ROOT), str(in_folder)])
    waiting = process(words, in_folder, PYTHONPATH=path, **slurm)
    run = in_folder / "runs/toy"
    try:
        out, err = waiting.communicate(timeout=240)
    finally:
        waiting.kill()
    assert waiting.returncode == 0, (out, err, logs(run))
    assert "each run is a job of its own" in out
    assert (in_folder / "slurm/log").read_text().count("requeued") == 1
    log = (run / "sweep_0/train.log").read_text()
    assert log.count("learns on 2 processes") == 2
    assert log.count("stopped by SIGUSR2 after step ") == 1
    assert log.count("resumed from ") == 1
    assert "-m sr_train train resume=runs/toy/sweep_0" in logs(run)
    assert state_of(run / "sweep_0", 40)["step"] == 40


@pytest.mark.slow
@pytest.mark.dist
def test_the_tasks_of_an_srun_step_train_as_one_run(in_folder):
    words = ["train", *no_validation(*toy_words(in_folder))]
    step = {
        "SLURM_JOB_ID": str(free_port()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
    }
    tasks = []
    for rank in "01":
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        tasks.append(process(words, in_folder, **step, **place))
    try:
        (out, err), (other, _) = (task.communicate(timeout=120) for task in tasks)
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0, 0], (out, err)
    assert "learns on 2 processes" in out
    assert "loss" not in other
    assert len(list((in_folder / "runs/toy/.hydra").glob("*"))) == 1
    assert state_of(in_folder / "runs/toy", 4)["step"] == 4
