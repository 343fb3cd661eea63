"""What people get wrong, and how they learn what it was: exit code 2, a message, no traceback."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sr_train.io.images import write_image
from tests.toys import (
    differing,
    fill,
    fill_lq,
    metrics_rows,
    no_validation,
    state_of,
    stripes,
    toy_words,
)

RUN = Path("runs/toy")


@pytest.fixture
def check(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    return lambda *more: command("check", *words, *more)


def test_an_empty_folder(train, in_folder):
    (in_folder / "nothing").mkdir()
    train("data.train.gt=nothing").fails_with(
        "data.train", str(in_folder / "nothing"), "no images found", ".png", "nothing"
    )


def test_a_missing_folder(train, in_folder):
    train("data.train.gt=photos/train").fails_with(
        str(in_folder / "photos/train"), "no such folder", "'photos'"
    )


def test_a_folder_name_in_the_wrong_case(train, in_folder):
    fill(in_folder / "Train")
    train("data.train.gt=train").fails_with("no such folder", "did you mean 'Train'?")


def test_a_text_file_named_png(train, check, in_folder):
    (in_folder / "gt/notes.png").write_text("not an image")
    for command in (train, check):
        command().fails_with(str(in_folder / "gt/notes.png"), "1 problem")
    assert "left out: 1" in train("data.train.on_bad=skip").succeeds().out


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_stops_training_and_keeps_the_state(train, in_folder, workers):
    """Its header is whole, so that only decoding can tell."""
    truncate(fill(in_folder / "gt", 40) / "p39.png")
    stopped = train("train.steps=100", f"data.stream.num_workers={workers}")
    stopped.fails_with(str(in_folder / "gt/p39.png"))
    states = list((in_folder / RUN / "checkpoints").glob("step_*.pt"))
    assert len(states) == 1
    assert f"state of step {int(states[0].stem[5:])} saved" in stopped.out


@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_images_are_skipped_on_request(train, in_folder, workers):
    """Named once, another image stands in, and a resumed run is the unbroken one."""
    folder = fill(in_folder / "gt", 6)
    for number in (1, 4):
        truncate(folder / f"p{number}.png")
    words = ("data.train.on_bad=skip", f"data.stream.num_workers={workers}", "train.steps=12")
    train(*words).succeeds()
    told = (in_folder / RUN / "train.log").read_text()
    for number in (1, 4):
        assert told.count(f"p{number}.png") == 1
    assert "2 damaged files were met and left out (on_bad=skip)" in told
    train(*words, "name=halves", "train.steps=5", "scheduler.steps=12").succeeds()
    train(*words, "name=halves", "resume=auto").succeeds()
    ends = [state_of(in_folder / "runs" / name, 12) for name in ("toy", "halves")]
    assert differing(ends[0]["net_g"], ends[1]["net_g"]) == []


def test_a_truncated_validation_image_is_left_out_on_request(command, in_folder):
    words = toy_words(in_folder, "train.val_every=3", "data.val.main.on_bad=skip")
    truncate(fill(in_folder / "val", 3, (40, 48)) / "p1.png")
    done = command("train", *words).succeeds()
    assert "left out: 1" in done.out
    assert str(in_folder / "val/p1.png") in done.out
    results = (in_folder / RUN / "results.csv").read_text()
    assert "p0" in results
    assert "p1" not in results


def test_a_truncated_validation_image_keeps_the_state(command, in_folder):
    words = toy_words(in_folder, "train.val_every=3")
    truncate(in_folder / "val/p0.png")
    command("train", *words).fails_with(str(in_folder / "val/p0.png"))
    assert state_of(in_folder / RUN, 3)["step"] == 3


def test_check_decodes_every_image_on_request(check, in_folder):
    truncate(in_folder / "gt/p1.png")
    check("step=false").succeeds()
    check("decode=true").fails_with("data.train", str(in_folder / "gt/p1.png"))


def test_a_pair_of_the_wrong_scale(train, check, in_folder):
    fill_lq(in_folder / "lq", in_folder / "gt", 2)
    write_image(in_folder / "lq/p1.png", stripes(20, 20))
    for command in (train, check):
        command("data.train.lq=lq").fails_with("p1.png", "72x64", "20x20")


def test_a_missing_partner(train, in_folder):
    fill_lq(in_folder / "lq", in_folder / "gt", 2)
    (in_folder / "lq/p2.png").unlink()
    train("data.train.lq=lq").fails_with(str(in_folder / "gt/p2.png"), str(in_folder / "lq"))


def test_a_hundred_small_images(train, in_folder):
    """Not a hundred lines, and what to do about them all."""
    for number in range(100):
        write_image(in_folder / f"gt/small{number}.png", stripes(20, 20))
    done = train()
    done.fails_with("100 problems", "... and 80 more", "data.train.on_bad=skip")
    assert len(done.err.splitlines()) < 30
    train("data.train.on_bad=skip").succeeds()


@pytest.mark.parametrize("word", ["data.train.gt=''", "data.train.gt=[gt,'']", "data.train.gt=[]"])
def test_no_folder_is_never_the_working_directory(train, word):
    train(word).fails_with("data.train", "gt")


def test_an_image_smaller_than_the_crop(train, in_folder):
    write_image(in_folder / "gt/small.png", stripes(20, 20))
    train().fails_with("small.png", "20x20")


def test_check_tells_everything_at_once(check, in_folder):
    (in_folder / "gt/notes.png").write_text("not an image")
    done = check("data.batch_size=0", "ema.decay=2", "+train.speed=1", "out_dir=gt/p0.png/x")
    done.fails_with(
        "data.batch_size=0",
        "ema.decay=2",
        "train.speed: no such key",
        "notes.png",
        "is a file, expected a folder",
        "5 problems",
    )


def test_every_override_that_does_not_compose_is_named(train, in_folder):
    train(
        "trian.steps=3",
        "train.step=3",
        "arch.num_feet=3",
        "train.steps=many",
        "scale=2.5",
        "scheduler=cosin",
        "precision.name=fp8",
        "optimizer.lr=-1",
    ).fails_with(
        "8 problems",
        "trian.steps: no such key; did you mean 'train.steps'?",
        "train.step: no such key; did you mean 'train.steps'?",
        "arch.num_feet: SRVGGNetCompact has no such argument; did you mean 'num_feat'?",
        "train.steps=many: expected a whole number",
        "scale=2.5: expected a whole number",
        "scheduler=cosin: no such choice; did you mean 'cosine'?",
        "precision.name=fp8: expected one of auto, fp32, bf16, fp16",
        "optimizer.lr=-1",
    )
    assert not (in_folder / RUN).exists()


def test_every_value_that_cannot_be_is_named(train, in_folder):
    train(
        "+train.speed=3",
        "scale=-2",
        "train.steps=0",
        "data.batch_size=3",
        "train.accum=2",
        "train.max_norm=0",
        "arch.num_feat=many",
        "optimizer.lr=-1",
        "objective.l1.weight=0",
        "objective.l1.target=gtt",
        "objective.l1.loss._target_=losses.pixel.L2Loss",
        "net_g.pretrained=nowhere.pth",
        "resume=nowhere.pt",
        "name=a/b",
        "no_such.key=1",
    ).fails_with(
        "14 problems",
        "train.speed: no such key",
        "scale=-2: expected a whole number from 1 up",
        "train.steps=0: expected a whole number from 1 up",
        "data.batch_size=3: must be a multiple of train.accum=2",
        "train.max_norm=0.0: expected a number above 0",
        "arch.num_feat=many: expected a whole number, found text",
        "optimizer.lr=-1: expected a number from 0 up",
        "objective.l1.weight=0: expected a finite number other than zero; to drop the term: "
        "~objective.l1",
        "objective.l1.target=gtt: expected gt or lq",
        "losses.pixel has no 'L2Loss'; did you mean 'L1Loss'?",
        "net_g.pretrained=nowhere.pth: no such file or folder",
        "resume=nowhere.pt: no such file or folder; expected none, auto, or a path",
        "name=a/b: expected the name of a folder: printable letters without '/'",
        "no_such.key: no such key",
    )
    assert not (in_folder / "runs").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["+train.speed=3"], ["1 problem:", "train.speed: no such key"]),
        (["arch=imnd"], ["arch=imnd", "did you mean 'imdn'?", "1 problem:"]),
        (["objective=[l1,msee]"], ["objective=[l1,msee]", "did you mean 'mse'?", "1 problem:"]),
        (["--config-dir=nowhere"], ["--config-dir nowhere: no such folder"]),
        (["train.steps"], ["train.steps"]),
        (["+experiment=quikstart"], ["did you mean 'quickstart'?", "1 problem:"]),
        (["optimizer.betas=0.9"], ["optimizer.betas=0.9: expected a list"]),
        (["optimizer.betas=[2.0,3.0]"], ["optimizer: Adam: ", "beta"]),
        (["arch._target_=os.system"], ["arch._target_=os.system", "outside", "plugins="]),
        (["device=cuda:7"], ["device=cuda:7", "device=auto"]),
        (["device=gpu"], ["device=gpu: no such device; write device=cuda\n"]),
        (["device=gpu:1"], ["device=gpu:1: no such device; write device=cuda:1\n"]),
        (["device=0"], ["device=0: no such device; write device=cuda:0\n"]),
        (["param_groups=[{match: 'head.*', lr_factor: 0.1}]"], ["param_groups[0]", "head.*"]),
        (["scheduler=multistep"], ["scheduler.milestones", "no value"]),
        (["scheduler.warmup=9"], ["scheduler", "steps (4)", "warmup (9)"]),
        (["data.stream.num_workers=-1"], ["num_workers >= 0", "-1"]),
        (["arch.scale=3"], ["arch.scale=3", "scale=2"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)
def test_a_wrong_setting(train, in_folder, words, parts):
    train(*words).fails_with(*parts)
    assert not (in_folder / RUN / "checkpoints").exists()


def test_missing_values_are_named_together(command, in_folder):
    command("train").fails_with("name:", "scale:", "arch:", "train.steps:", "data.train.gt:")


def test_an_output_below_a_file(train, in_folder):
    (in_folder / "file").write_text("in the way")
    train("out_dir=file/runs").fails_with("file/runs")


def test_lpips_without_its_weights(train, command, in_folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(in_folder / "empty"))
    words = [*toy_words(in_folder), "metrics=[lpips]", "best_metric=lpips"]
    command("train", *words).fails_with("LPIPS", "weights")


def test_best_metric_must_be_among_the_metrics(command, in_folder):
    words = [*toy_words(in_folder), "best_metric=psnr"]
    command("train", *words).fails_with("best_metric=psnr", "did you mean 'psnr_y'?")


@pytest.fixture
def trained(finished, in_folder):
    """Return the folder of a finished toy run."""
    return finished("train", *no_validation(*toy_words(in_folder)))


@pytest.mark.parametrize("name", ["empty.pt", "empty.pth", "empty.safetensors"])
@pytest.mark.parametrize("use", ["resume", "net_g.pretrained", "checkpoint"])
def test_a_checkpoint_of_no_bytes(train, command, in_folder, name, use):
    (in_folder / name).touch()
    if use == "checkpoint":
        done = command("infer", f"checkpoint={name}", "input=gt", "output=up")
    else:
        done = train(f"{use}={name}")
    done.fails_with(name, "empty, 0 bytes")


def test_no_checkpoint_is_never_the_working_directory(trained, command, monkeypatch):
    monkeypatch.chdir(trained)
    for words in (["validate"], ["infer", "input=a", "output=b"], ["export", "output=b"]):
        command(*words, "checkpoint=").fails_with("checkpoint: is empty; expected a path")


def test_a_checkpoint_that_is_no_checkpoint(command, in_folder):
    toy_words(in_folder)
    (in_folder / "a.pth").write_text("hello")
    (in_folder / "a.safetensors").write_bytes(b"\xff\xfe" * 9)
    for name, told in (("a.pth", "is a text file"), ("a.safetensors", "damaged")):
        done = command(
            "infer", f"checkpoint={name}", "input=gt", "output=up", "arch=imdn", "scale=2"
        )
        done.fails_with(name, told)


def test_a_checkpoint_of_another_architecture(trained, command, train, in_folder):
    weights = "runs/toy/checkpoints/last.safetensors"
    done = command("infer", f"checkpoint={weights}", "arch=imdn", "input=gt", "output=up")
    done.fails_with(weights, "not weights of this IMDN", "missing in the file", "unknown to the")
    other = ["name=other", "arch.num_feat=12"]
    train(*other, f"net_g.pretrained={weights}").fails_with(
        weights, "of another shape", "found (8, 3, 3, 3), expected (12, 3, 3, 3)"
    )


def test_a_missing_checkpoint(command, in_folder):
    toy_words(in_folder)
    for name in ("nowhere", "nowhere.pth", "nowhere.safetensors"):
        command("infer", f"checkpoint={name}", "input=gt", "output=up").fails_with(
            f"checkpoint={name}", "no such file or folder"
        )
    command("infer", "checkpoint=gt", "input=gt", "output=up").fails_with("no checkpoint", "p0.png")


def test_an_unwritable_output(trained, command, in_folder):
    (in_folder / "file").write_text("in the way")
    run = "checkpoint=runs/toy"
    command("infer", run, "input=gt", "output=file/up").fails_with(str(in_folder / "file/up"))
    command("export", run, "output=file/x.safetensors").fails_with("file/x.safetensors")
    words = ["+dataset=main", "data.val.main.gt=val", "output=file/scores"]
    command("validate", run, *words).fails_with("file/scores")


def test_one_bad_image_does_not_stop_the_rest(trained, command, in_folder):
    truncate(in_folder / "gt/p1.png")
    done = command("infer", "checkpoint=runs/toy", "input=gt", "output=up")
    done.fails_with("1 of 3 inputs failed", str(Path("gt/p1.png")))
    assert sorted(path.name for path in (in_folder / "up").iterdir()) == ["p0.png", "p2.png"]


def test_export_refuses_other_names_and_to_overwrite(trained, command, in_folder):
    command("export", "checkpoint=runs/toy", "output=x.pth").fails_with("x.pth", ".safetensors")
    (in_folder / "x.safetensors").write_text("mine")
    command("export", "checkpoint=runs/toy", "output=x.safetensors").fails_with(
        "x.safetensors", "exists", "overwrite=true"
    )
    assert (in_folder / "x.safetensors").read_text() == "mine"


def test_unknown_commands(command):
    command("trian").fails_with("unknown command 'trian'", "did you mean 'train'?", "usage:")


NAN_LOSS = """
import torch
class Loss(torch.nn.Module):
    def forward(self, pred, target, step):
        loss = (pred - target).abs().mean()
        return loss * float("nan") if step >= 3 else loss
"""

NAN_PIXELS = """
import torch
from sr_train.api.dataset import TrainDataset
class Pixels(TrainDataset):
    def __init__(self, good):
        self.good = good
    def __len__(self):
        return 8
    def sample(self, epoch, index):
        draw = torch.Generator().manual_seed(epoch * 8 + index)
        lq = torch.rand(3, 16, 16, generator=draw)
        gt = torch.rand(3, 32, 32, generator=draw)
        if epoch >= self.good:
            lq[0, 0, 0] = float("nan")
        return {"lq": lq, "gt": gt}
    def report(self):
        return "floats"
    def fingerprint(self):
        return "floats"
"""


def plugin(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


def assert_untouched(a: dict, b: dict) -> None:
    """Assert that weights, averages and the optimizer's state of two stored steps are the same."""
    assert differing(a["net_g"], b["net_g"]) == []
    assert differing(a["ema"], b["ema"]) == []
    assert differing(a["generator"]["optimizer"], b["generator"]["optimizer"]) == []


NAN_RUN = (
    "train.steps=50",
    "train.log_every=1",
    "train.checkpoint_every=1",
    "train.keep_last=9",
    "train.max_skipped_in_row=4",
)


def set_aside(folder: Path, step: int) -> dict:
    """Return a state that no finite log window followed."""
    path = folder / RUN / f"checkpoints/diverged/step_{step:08d}.pt"
    state = torch.load(path, weights_only=True)
    assert isinstance(state, dict)
    return state


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "sgd optimizer.fused=false"])
def test_nan_in_a_loss_touches_nothing_and_stops(train, in_folder, optimizer):
    plugin(in_folder, "sour", NAN_LOSS)
    words = ["plugins=[sour]", "objective.l1.loss={_target_: sour.Loss}"]
    stopped = train(*NAN_RUN, *words, *f"optimizer={optimizer}".split())
    batch = in_folder / RUN / "non_finite_step_00000006.pt"
    stopped.fails_with(
        "step 6: 4 steps in a row of net_g had a non-finite loss or gradient",
        "loss terms: loss/total, loss/l1",
        "batch with non-finite pixels: no",
        str(batch),
        "parameters: body.",
        "resume=auto resumes from step 1",
    )
    assert_untouched(*(set_aside(in_folder, step) for step in (2, 5)))
    assert metrics_rows(in_folder / RUN, "skipped_steps/g")[-1] == (6, 4.0)
    stored = torch.load(batch, weights_only=True)
    assert stored["lq"].shape == (2, 3, 16, 16)
    assert stored["gt"].shape == (2, 3, 32, 32)


def test_nan_in_the_data_is_skipped_and_named(command, in_folder):
    plugin(in_folder, "floats", NAN_PIXELS)
    words = [
        word for word in toy_words(in_folder) if not word.startswith(("data.train", "data.val"))
    ]
    node = "data.train={_target_: floats.Pixels, good: 1}"
    done = command("train", *words, *NAN_RUN, "plugins=[floats]", "dataset=[]", node)
    batch = in_folder / RUN / "non_finite_step_00000008.pt"
    done.fails_with("batch with non-finite pixels: lq", "loss/l1", str(batch))
    assert_untouched(*(set_aside(in_folder, step) for step in (4, 7)))
    assert metrics_rows(in_folder / RUN, "skipped_steps/g")[-1] == (8, 4.0)


def test_a_few_nan_steps_do_not_end_a_run(train, in_folder):
    plugin(in_folder, "sour", NAN_LOSS.replace("step >= 3", "step == 3"))
    done = train(
        "plugins=[sour]", "objective.l1.loss={_target_: sour.Loss}", "train.log_every=1"
    ).succeeds()
    assert "step 3: 1 of the last 1 steps of net_g skipped" in done.out
    assert "loss/l1 (1)" in done.out
    assert metrics_rows(in_folder / RUN, "skipped_steps/g") == [(1, 0), (2, 0), (3, 1), (4, 1)]


def test_an_overflow_in_fp16_backs_off_and_goes_on(train, in_folder):
    done = train(
        "precision=fp16", "precision.init_scale=1e38", "train.steps=3", "train.log_every=1"
    ).succeeds()
    assert "skipped" in done.out
    assert metrics_rows(in_folder / RUN, "loss_scale_backoffs/g")[-1] == (3, 3.0)
    assert metrics_rows(in_folder / RUN, "loss_scale/g")[-1][1] == pytest.approx(1.25e37)


def test_an_image_of_floats_is_refused(train, in_folder):
    cv2.imwrite(str(in_folder / "gt/f.tiff"), np.zeros((64, 64, 3), np.float32))
    train().fails_with(str(in_folder / "gt/f.tiff"), "1 problem")
