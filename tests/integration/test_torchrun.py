"""`torchrun -m sr_train train`: one run, one log, the weights of one process."""

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from tests.closeness import assert_rounded_alike
from tests.ranks import torchrun
from tests.toys import differing, fill, metrics_rows, state_of, toy_words

pytestmark = [pytest.mark.dist, pytest.mark.timeout(240)]

GAN = (
    "objective=[charbonnier,gan]",
    "objective_d=[gan]",
    "discriminator=unet_sn",
    "discriminator.arch.num_feat=4",
    "train.log_every=1",
    "train.steps=5",
    "scheduler.steps=9",
    # Steps that are continuous in the gradient, see tests/sr_train/engine/test_joined_step.py: each
    # of five adds up to lr / eps = 2 roundings of the discriminator's terms, which add up to 1.
    "optimizer.lr=2e-4",
    "+optimizer.eps=1e-4",
)
SPLIT = (
    "arch=swinir_light",
    "arch.img_size=8",
    "arch.window_size=4",
    "arch.embed_dim=12",
    "arch.depths=[2,2]",
    "arch.num_heads=[2,2]",
    "+arch.drop_path_rate=0.0",
    "swa.enabled=true",
    "swa.start=2",
    "objective=[charbonnier,gan,ldl]",
    "distributed.strategy=fsdp",
)


def words_of(folder, name, batch_size, *more):
    words = [w for w in toy_words(folder) if not w.startswith(("name=", "data.batch_size="))]
    if SPLIT[0] in more:
        words = [w for w in words if not w.startswith("arch")]
    return ["train", f"name={name}", f"data.batch_size={batch_size}", *words, *GAN, *more]


def finish(child, limit_s=90):
    """Return exit code, stdout, stderr of a child that must end by itself."""
    try:
        out, err = child.communicate(timeout=limit_s)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.returncode, out, err


def nets_of(state):
    nets = {"net_g": state["net_g"], "net_d": state["adversary"]["net"], "ema": state["ema"]["net"]}
    if state["swa"] is not None:
        nets["swa"] = state["swa"]["net"]
    return nets


def assert_same_weights(folder, step, *names):
    states = [nets_of(state_of(folder / "runs" / name, step)) for name in names]
    for other in states[1:]:
        for net, weights in states[0].items():
            for key, value in weights.items():
                assert_rounded_alike(other[net][key], value, 16, size=1.0, name=f"{net}.{key}")


def files_of(run):
    return {
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.is_file() and ".hydra" not in path.parts
    }


def test_two_processes_train_as_one(command, in_folder):
    command(*words_of(in_folder, "alone", 4, "train.steps=2")).succeeds()
    words = words_of(in_folder, "both", 2, "train.steps=2")
    code, out, err = finish(torchrun(words, in_folder))
    assert code == 0, (out, err)
    assert out.count("step 2/2 (100 %)  loss ") == 1, "one log"
    assert_same_weights(in_folder, 2, "alone", "both")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SPLIT], ids=["ddp", "fsdp"])
def test_two_processes_train_validate_save_and_resume_as_one(command, in_folder, more):
    command(*words_of(in_folder, "alone", 4, *more)).succeeds()
    code, out, err = finish(torchrun(words_of(in_folder, "both", 2, *more), in_folder))
    assert code == 0, (out, err)
    assert "Warning" not in err
    assert out.count("step 5/5 (100 %)  loss ") == 1, "one log"
    assert out.count("try next") == 1
    assert_same_weights(in_folder, 5, "alone", "both")
    alone, both = in_folder / "runs/alone", in_folder / "runs/both"
    assert files_of(alone) == files_of(both)
    assert len(list((both / ".hydra").iterdir())) == 1
    for name in ("loss/charbonnier", "loss_d/gan", "grad_norm/g", "grad_norm/d", "val/main/psnr_y"):
        rows, expected = metrics_rows(both, name), metrics_rows(alone, name)
        assert [step for step, _ in rows] == [step for step, _ in expected], name
        values = [value for _, value in rows]
        assert values == pytest.approx([value for _, value in expected], rel=1e-4), name
    # Each goes on with the state of the other.
    alone_again = words_of(in_folder, "both", 4, *more, "train.steps=7", "resume=auto")
    command(*alone_again).succeeds()
    source = "resume=runs/alone/checkpoints/step_00000005.pt"
    joined = words_of(in_folder, "third", 2, *more, "train.steps=7", source)
    code, out, err = finish(torchrun(joined, in_folder))
    assert code == 0, (out, err)
    assert "at step 5" in out
    assert_same_weights(in_folder, 7, "both", "third")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_bit_for_bit(in_folder):
    more = ("objective_d=[gan,gradient_penalty]", "precision=bf16", "train.accum=2")
    for name in ("first", "second"):
        code, out, err = finish(torchrun(words_of(in_folder, name, 2, *more), in_folder))
        assert code == 0, (out, err)
    states = [state_of(in_folder / "runs" / name, 5) for name in ("first", "second")]
    for key in ("net_g", "ema", "generator", "adversary", "random"):
        assert differing(states[0][key], states[1][key]) == [], key
    numbers = states[0]["random"]
    assert differing(numbers[0]["torch"], numbers[1]["torch"]) != [], "each rank draws its own"


def wait_for_first_steps(run, child):
    for _ in range(1200):
        if (run / "metrics.csv").is_file() and len(metrics_rows(run, "lr/g")) >= 2:
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    raise AssertionError("the run did not come to its first steps")


def worker_of_rank(child, rank):
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == child.pid and f"RANK={rank}".encode() in words:
            return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


LONG = ("train.steps=1000000", "scheduler.steps=1000000", "train.checkpoint_every=2")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_process_that_dies_ends_the_others_with_a_message(in_folder):
    child = torchrun(words_of(in_folder, "toy", 2, *LONG), in_folder)
    try:
        wait_for_first_steps(in_folder / "runs/toy", child)
        os.kill(worker_of_rank(child, 1), signal.SIGKILL)
        started = time.monotonic()
    finally:
        code, _, err = finish(child)
    assert code != 0
    assert time.monotonic() - started < 60
    assert "another rank has ended or does not answer" in err
    assert "resume=auto" in err


@pytest.mark.slow
def test_sigterm_ends_all_processes_after_the_same_step(in_folder):
    child = torchrun(words_of(in_folder, "toy", 2, *LONG), in_folder)
    try:
        wait_for_first_steps(in_folder / "runs/toy", child)
        os.kill(worker_of_rank(child, 1), signal.SIGTERM)
    finally:
        code, out, err = finish(child)
    assert code == 0, (out, err)
    assert "stopped by SIGTERM" in out
    line = next(line for line in out.splitlines() if "torchrun --nproc-per-node=2" in line)
    assert shlex.split(line)[3:] == ["sr_train", "train", "resume=runs/toy"]


PICKY = """
import os
from data.images import ImageDataset
from sr_train.api.errors import DataError

class Picky(ImageDataset):
    "Fails on rank 1 after some epochs."
    def batch(self, positions, pool=None):
        epoch, index = positions[0]
        if epoch > 5 and os.environ["RANK"] == "1":
            raise DataError(f"image {index} is damaged")
        return super().batch(positions, pool)
"""


@pytest.mark.slow
def test_a_damaged_image_of_one_process_ends_all_without_waiting(in_folder):
    (in_folder / "picky").mkdir()
    (in_folder / "picky/sets.py").write_text(PICKY)
    own = ("plugins=[picky]", "data.train._target_=picky.sets.Picky", *LONG)
    started = time.monotonic()
    code, out, err = finish(torchrun(words_of(in_folder, "toy", 2, *own), in_folder))
    assert code != 0
    assert time.monotonic() - started < 80
    assert "rank 1: error: " in err
    assert "is damaged" in err
    assert "sr_train/cli" not in err, "no traceback but torchrun's own"
    assert (in_folder / "runs/toy/checkpoints/step_00000002.pt").exists(), (out, err)


@pytest.mark.slow
def test_ranks_that_see_different_data_are_refused(in_folder):
    words = words_of(in_folder, "toy", 2)
    fill(in_folder / "gt0", 3)
    fill(in_folder / "gt1", 2)
    words = [word for word in words if not word.startswith("data.train.gt")]
    code, _, err = finish(torchrun([*words, "data.train.gt=gt${oc.env:RANK}"], in_folder))
    assert code != 0
    assert err.count("the ranks see different data") == 1
    assert "data.train: rank 1 sees 2 samples" in err
    assert "rank 0 3 (" in err
    assert "sr_train/cli" not in err, "no traceback but torchrun's own"


FAILS_ON_ONE = """
import os
class Part:
    higher_is_better = True
    def __call__(self, pred, gt, scale):
        assert os.environ["RANK"] == "0", "out of luck"
        return 1.0
"""


@pytest.mark.slow
def test_a_validation_that_fails_on_one_rank_leaves_the_state(in_folder):
    (in_folder / "mine").mkdir()
    (in_folder / "mine/parts.py").write_text(FAILS_ON_ONE)
    words = words_of(in_folder, "toy", 2, "plugins=[mine]", "train.val_every=2")
    fill(in_folder / "val", 3, (40, 48), first_seed=7)
    words.append("+metrics.mine={_target_: mine.parts.Part}")
    code, _, err = finish(torchrun(words, in_folder))
    assert code != 0
    assert "rank 1: metrics.mine: Part failed" in err
    assert "out of luck" in err
    assert state_of(in_folder / "runs/toy", 2)["step"] == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_ranks_save_and_end_when_torchrun_is_killed(in_folder):
    child = torchrun(words_of(in_folder, "toy", 2, *LONG), in_folder)
    ranks = []
    try:
        wait_for_first_steps(in_folder / "runs/toy", child)
        ranks = [worker_of_rank(child, rank) for rank in (0, 1)]
        child.kill()
        child.communicate()
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{rank}").exists() for rank in ranks):
            assert time.monotonic() < deadline, "ranks outlive torchrun"
            time.sleep(0.1)
    finally:
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)
    log = (in_folder / "runs/toy/train.log").read_text()
    assert "stopped by SIGTERM" in log
    assert "state saved" in log


@pytest.mark.slow
def test_a_fault_of_the_config_is_told_once(in_folder):
    words = words_of(in_folder, "toy", 2, "arch.num_feet=3", "data.train.gt=nowhere")
    code, out, err = finish(torchrun(words, in_folder))
    assert code != 0
    assert (out + err).count("arch.num_feet: SRVGGNetCompact has no such argument") == 1
    assert not (in_folder / "runs/toy/train.log").exists()


STOPS = """
from sr_train.api.callback import Callback
from sr_train.api.errors import ConfigError

class StopsOnRankOne(Callback):
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def on_run_start(self, run):
        if self.fails:
            raise ConfigError("nothing to watch")

    def on_step_end(self, run):
        if run.rank == 1 and run.step == 3:
            run.stop("rank 1 has seen enough")

    def on_run_end(self, run, outcome):
        (run.folder / f"end_{run.rank}.txt").write_text(f"{run.step} {outcome.kind}")
"""


@pytest.mark.slow
def test_a_stop_that_one_rank_asks_for_ends_all_at_the_next_log(in_folder):
    (in_folder / "stops").mkdir()
    (in_folder / "stops/callbacks.py").write_text(STOPS)
    node = "callbacks.x={{_target_: stops.callbacks.StopsOnRankOne, fails: {}}}"
    more = (*LONG, "plugins=[stops]", "train.log_every=4", "train.checkpoint_every=0")
    words = words_of(in_folder, "toy", 2, *more)
    code, out, err = finish(torchrun([*words, node.format("false")], in_folder))
    assert code == 0, (out, err)
    assert "step 4: ended by callbacks.x: rank 1 has seen enough" in out
    run = in_folder / "runs/toy"
    assert [(run / f"end_{rank}.txt").read_text() for rank in (0, 1)] == ["4 stopped"] * 2
    assert [step for step, _ in metrics_rows(run, "val/main/psnr_y")] == [4]
    assert state_of(run, 4)["step"] == 4
    words = words_of(in_folder, "fails", 2, *more)
    code, _, err = finish(torchrun([*words, node.format("true")], in_folder))
    assert code != 0
    assert err.count("callbacks.x: nothing to watch") == 1
