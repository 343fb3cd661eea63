"""Whole commands on clips: train, resume, validate, check, overfit."""

import csv
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.ranks import torchrun
from tests.toys import (
    clip_words,
    differing,
    fill_clips,
    metrics_rows,
    no_validation,
    process,
    state_of,
)

SHARED_MEMORY = Path("/dev/shm")


def test_a_run_on_clips_trains_validates_and_keeps_what_others_load(command, in_folder):
    done = command("train", *clip_words(in_folder, "metrics=[y_crop_scale,temporal]")).succeeds()
    assert "TemporalWindow" in done.out
    run = in_folder / "runs/toy"
    for name in ("psnr_y", "ssim_y", "temporal_difference", "warping_error"):
        assert [step for step, _ in metrics_rows(run, f"val/main/{name}")] == [4]
    assert (run / "samples/step_00000004.png").exists()
    with (run / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["c", "d"]
    command("export", "checkpoint=runs/toy", "output=toy.safetensors").succeeds()
    command(
        "validate",
        "checkpoint=toy.safetensors",
        "+dataset=clips_main",
        "data.val.main.gt=clips/val",
        "metrics=[vid4,temporal]",
    ).succeeds()
    with (in_folder / "validation/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["c", "d"]
    assert float(rows[0]["bicubic_temporal_difference"]) > 0


@pytest.mark.parametrize(
    "words",
    [
        ("data.stream.num_workers=0",),
        ("data.stream.num_workers=2", "data.train.reverse=true", "train.accum=2"),
        pytest.param(
            ("data.stream.num_workers=2", "data.train.cache=encoded"), marks=pytest.mark.slow
        ),
        pytest.param(
            ("data.stream.num_workers=2", "data.train.cache_gib=0", "precision=bf16"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_two_halves_equal_the_whole(command, in_folder, words):
    every = ["train", *no_validation(*clip_words(in_folder)), "train.steps=8", *words]
    command(*every).succeeds()
    command(*every, "name=halves", "train.steps=3", "scheduler.steps=8").succeeds()
    command(*every, "name=halves", "resume=auto").succeeds()
    ends = [state_of(in_folder / "runs" / name, 8) for name in ("toy", "halves")]
    for key in ("net_g", "ema", "generator", "random"):
        assert differing(ends[0][key], ends[1][key]) == [], key


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="Linux alone has it")
def test_a_killed_run_leaves_nothing_in_memory_and_goes_on_exactly(command, in_folder):
    fixed = ("data.stream.num_workers=2", "train.checkpoint_every=2", "train.steps=4000")
    words = ["train", *no_validation(*clip_words(in_folder)), *fixed, "scheduler=constant"]
    before = set(SHARED_MEMORY.iterdir())
    run = process(words, in_folder)
    wait_for(lambda: list(in_folder.glob("runs/toy/checkpoints/*.pt")))
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not processes_of(run.pid))
    assert set(SHARED_MEMORY.iterdir()) == before
    kept = max(int(path.stem[-8:]) for path in in_folder.glob("runs/toy/checkpoints/*.pt"))
    end = kept + 2
    command(*words, "resume=auto", f"train.steps={end}").succeeds()
    command(*words, "name=whole", f"train.steps={end}").succeeds()
    ends = [state_of(in_folder / "runs" / name, end) for name in ("toy", "whole")]
    assert differing(ends[0]["net_g"], ends[1]["net_g"]) == []


def wait_for(found, seconds=60.0):
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def processes_of(group):
    """Return the processes of a group that are still there."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            living.append(stat.parent.name)
    return living


NETS = {
    "window": (),
    "fsdp basicvsrpp": (
        "arch=basicvsrpp",
        "arch.mid_channels=16",
        "arch.num_blocks=1",
        "scale=4",
        "distributed.strategy=fsdp",
        "optimizer.fused=false",
    ),
    "fsdp vrt": (
        "arch=vrt",
        "arch.window_size=[2,4,4]",
        "arch.depths=[2,2,2,2,2,2,2,2,2]",
        "arch.indep_reconsts=[8]",
        "arch.embed_dims=[8,8,8,8,8,8,8,8,8]",
        "arch.num_heads=[2,2,2,2,2,2,2,2,2]",
        "arch.deformable_groups=4",
        "arch.drop_path_rate=0",
        "scale=4",
        "distributed.strategy=fsdp",
        "optimizer.fused=false",
    ),
}


def two_words(folder, *more):
    """Return the words of a run whose steps do not magnify rounding."""
    dropped = ("name=", "data.batch_size=", "scale=" if more else "-", "arch" if more else "-")
    words = [word for word in clip_words(folder) if not word.startswith(dropped)]
    return ["train", *words, "optimizer=sgd", "metrics=[y_crop_scale,temporal]", *more]


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("words", NETS.values(), ids=NETS)
def test_two_processes_learn_what_one_with_the_batches_of_both_does(command, in_folder, words):
    every = [*no_validation(*two_words(in_folder, *words)), "train.steps=2"]
    code, _, err = ended(torchrun([*every, "name=two", "data.batch_size=1"], in_folder))
    assert code == 0, err
    command(*every, "name=one", "data.batch_size=2").succeeds()
    one, two = (state_of(in_folder / "runs" / name, 2)["net_g"] for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_score_clips_as_one_does(command, in_folder):
    command(*no_validation(*two_words(in_folder)), "name=one", "data.batch_size=2").succeeds()
    scoring = ["+dataset=clips_main", "data.val.main.gt=clips/val", "metrics=[vid4,temporal]"]
    scoring = ["validate", "checkpoint=runs/one", "device=cpu", *scoring]
    code, out, err = ended(torchrun([*scoring, "output=both"], in_folder))
    assert code == 0, err
    assert out.count("temporal_difference") == 1, "rank 0 alone tells"
    command(*scoring, "output=alone").succeeds()
    both, alone = (in_folder / name / "results.csv" for name in ("both", "alone"))
    assert both.read_text() == alone.read_text()


def ended(child, limit_s=120):
    """Return exit code, stdout, stderr of a child that must end by itself."""
    try:
        out, err = child.communicate(timeout=limit_s)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.returncode, out, err


def test_a_gan_on_clips_with_frames_drawn_at_random(command, in_folder):
    words = no_validation(*clip_words(in_folder, "objective=[l1,gan,temporal_difference]"))
    gan = ["discriminator=unet_sn", "discriminator.arch.num_feat=4", "objective_d=[gan]"]
    command("train", *words, *gan, "discriminator.frames=1", "train.log_every=1").succeeds()
    run = in_folder / "runs/toy"
    for name in ("loss/gan", "loss/temporal_difference", "loss_d/gan", "gan/d_accuracy"):
        assert len(metrics_rows(run, name)) == 4, name


def test_overfit_takes_clips(command, in_folder):
    words = clip_words(in_folder, "num_steps=3", "threshold=-100", "num_samples=2")
    assert "overfit passed" in command("overfit", *words).succeeds().out


def test_check_tells_clips_memory_and_what_was_left_out(command, in_folder):
    words = clip_words(in_folder)
    fill_clips(in_folder / "clips/train", short=2)
    done = command("check", *words).succeeds()
    for part in ("2 sequences", "too short", "short", "activations", "data.frames=3", "available"):
        assert part in done.out, part


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["arch=compact", "-arch"], ["data.train: gives clips", "arch=compact_temporal"]),
        (["dataset=[folder]", "data.train.gt=gt"], ["data.train: gives images", "[clips]"]),
        (["data.frames=0"], ["data.frames=0", "from 1 up"]),
        (["data.frames=7"], ["data.train", "too short"]),
        (["objective=[temporal_difference]", "data.frames=1"], ["clips of at least 2"]),
        (
            [
                "discriminator=unet_sn",
                "objective=[gan]",
                "objective_d=[gan]",
                "discriminator.frames=0",
            ],
            ["discriminator.frames=0"],
        ),
        (["objective=[temporal_consistency]"], ["objective.temporal_consistency", "SpyNet"]),
    ],
    ids=lambda words: " ".join(words),
)
@pytest.mark.parametrize("name", ["train", "check"])
def test_what_does_not_fit_clips_is_told(command, in_folder, change, told, name, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(in_folder))
    words = clip_words(in_folder)
    if "-arch" in change:
        words = [word for word in words if not word.startswith("arch")]
        change = [*(word for word in change if word != "-arch"), "arch.num_feat=8"]
    if "dataset=[folder]" in change:
        words = [word for word in words if not word.startswith(("dataset", "data.train"))]
    command(name, *words, *change).fails_with(*told)


def test_a_network_of_images_is_scored_on_clips_frame_by_frame(command, in_folder):
    from tests.toys import toy_words

    clip_words(in_folder)
    command("train", *no_validation(*toy_words(in_folder))).succeeds()
    done = command(
        "validate",
        "checkpoint=runs/toy",
        "+dataset=clips_main",
        "data.val.main.gt=clips/val",
        "metrics=[vid4,temporal]",
        "save_images=true",
    ).succeeds()
    assert "temporal_difference" in done.out
    assert len(list((in_folder / "validation/main/c").glob("*.png"))) == 3
