"""The commands one after another, as a person uses them."""

import csv
import json
import re
import shutil
from collections import OrderedDict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from archs.compact import SRVGGNetCompact
from archs.span import SPAN
from sr_train.cli.entry import COMMANDS
from sr_train.engine.weights import read_weights
from sr_train.io.images import read_image, write_image
from tests.toys import differing, fill, metrics_rows, no_validation, state_of, stripes, toy_words

ON_VAL = ("+dataset=main", "data.val.main.gt=val")


@pytest.fixture
def trained(finished, in_folder):
    """Return the folder of a finished run with validation."""
    return finished("train", *toy_words(in_folder))


def test_a_run_without_tensorboard_does_not_speak_of_it(command, in_folder):
    done = command("train", *no_validation(*toy_words(in_folder))).succeeds()
    assert "tensorboard" not in done.out.lower()


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_the_whole_way(command, in_folder):
    toy = [word for word in toy_words(in_folder) if word != "logger=none"]
    words = ["train", *toy, "train.log_every=2", "train.val_every=2"]
    done = command(*words, "train.steps=2").succeeds()
    for part in ("bicubic", "gain", "infer checkpoint=runs/toy", "tensorboard --logdir runs"):
        assert part in done.out
    command(*words, "resume=auto").succeeds()
    run = in_folder / "runs/toy"
    assert [step for step, _ in metrics_rows(run, "val/main/psnr_y")] == [2, 4]
    assert [step for step, _ in metrics_rows(run, "loss/l1")] == [2, 4]
    for path in ("train.log", "manifest.json", "samples/step_00000004.png"):
        assert (run / path).is_file()
    assert len(json.loads((run / "manifest.json").read_text())) == 2
    assert list((run / ".hydra").glob("*/config.yaml"))

    # On the device of the run: another one rounds otherwise.
    on_cpu = (*ON_VAL, "device=cpu")
    command("validate", "checkpoint=runs/toy", *on_cpu, "output=a").succeeds()
    scored = results(in_folder / "a")
    assert scored["model"]["sets"]["main"]["psnr_y"] == pytest.approx(
        metrics_rows(run, "val/main/psnr_y")[-1][1], abs=1e-6
    )

    command("infer", "checkpoint=runs/toy", "input=val", "output=up", "suffix=_x2").succeeds()
    assert read_image(in_folder / "up/p0_x2.png").pixels.shape == (80, 96, 3)

    command("export", "checkpoint=runs/toy", "output=out/toy.safetensors").succeeds()
    command("validate", "checkpoint=out/toy.safetensors", *on_cpu, "output=b").succeeds()
    again = results(in_folder / "b")
    assert again["model"] == scored["model"]
    assert again["bicubic"] == scored["bicubic"]


def test_results_hold_every_image(trained, command, in_folder):
    fill(in_folder / "val", 2, (40, 48), first_seed=7)
    fill(in_folder / "more", 1, (32, 32), first_seed=9)
    second = "+data.val.other={_target_: data.images.ImageDataset, gt: more, scale: 2}"
    done = command(
        "validate", "checkpoint=runs/toy", *ON_VAL, second, "output=scores", "save_images=true"
    ).succeeds()
    cells = [line.split("\u2502") for line in done.out.splitlines()]
    shown = [row[1].strip() for row in cells if len(row) > 2]
    assert [name for name in shown if name] == ["main", "other", "all"]
    with (in_folder / "scores/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["data_set"], row["image"]) for row in rows] == [
        ("main", "p0"),
        ("main", "p1"),
        ("other", "p0"),
    ]
    document = results(in_folder / "scores")
    values = [float(row["psnr_y"]) for row in rows]
    assert document["model"]["mean"]["psnr_y"] == pytest.approx(sum(values) / 3)
    assert document["model"]["sets"]["main"]["psnr_y"] == pytest.approx(sum(values[:2]) / 2)
    assert document["model"]["images"]["other"]["p0"]["psnr_y"] == values[2]
    assert float(rows[0]["bicubic_psnr_y"]) == document["bicubic"]["images"]["main"]["p0"]["psnr_y"]
    assert document["scale"] == 2
    for name in ("main/p0.png", "main/p1.png", "other/p0.png"):
        assert (in_folder / "scores" / name).is_file()


def test_live_and_averaged_weights_differ(trained, command, in_folder):
    sources = ["runs/toy", "runs/toy/checkpoints/step_00000004.pt"]
    for number, (source, kind) in enumerate(product(sources, ("ema", "live"))):
        command(
            "export",
            f"checkpoint={source}",
            f"weights={kind}",
            f"output={kind}{number}.safetensors",
        ).succeeds()
        exported = read_weights(in_folder / f"{kind}{number}.safetensors")
        state = state_of(trained, 4)
        stored = state["net_g"] if kind == "live" else state["ema"]["net"]
        assert differing(exported.tensors, stored) == []
        assert exported.card is not None
        assert (exported.card.weights, exported.card.step) == (kind, 4)
        assert exported.card.architecture == "archs.compact.SRVGGNetCompact"
        assert exported.card.arguments["num_feat"] == 8


def test_infer_keeps_depth_channels_and_alpha(trained, command, in_folder):
    deep = stripes(20, 24).astype(np.uint16) * 257
    alpha = np.tile(np.linspace(0, 255, 24).astype(np.uint8), (20, 1))
    folder = in_folder / "in/sub"
    folder.mkdir(parents=True)
    write_image(folder / "deep.png", deep)
    write_image(folder / "alpha.png", stripes(20, 24), alpha)
    write_image(folder / "grey.png", stripes(20, 24, channels=1))
    write_image(folder / "tiny.png", stripes(1, 1))
    command("infer", "checkpoint=runs/toy", "input=in", "output=up").succeeds()
    up = {path.stem: read_image(path) for path in (in_folder / "up/sub").iterdir()}
    assert up["deep"].pixels.dtype == np.uint16
    assert up["deep"].pixels.shape == (40, 48, 3)
    assert up["alpha"].alpha is not None
    assert up["alpha"].alpha.shape == (40, 48)
    assert up["alpha"].alpha.std() > 50
    assert up["grey"].pixels.shape[:2] == (40, 48)
    assert up["grey"].pixels.ndim == 2 or up["grey"].pixels.shape[2] == 1
    assert up["tiny"].pixels.shape == (2, 2, 3)


def test_infer_in_tiles_is_the_same(trained, command, in_folder):
    one = ["infer", "checkpoint=runs/toy", "input=gt/p0.png"]
    command(*one, "output=whole", "tiling.tile=null").succeeds()
    command(*one, "output=tiled", "tiling.tile=16").succeeds()
    whole, tiled = (read_image(in_folder / d / "p0.png").pixels for d in ("whole", "tiled"))
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1


def test_check_says_what_a_step_needs(command, in_folder):
    done = command("check", *toy_words(in_folder)).succeeds()
    for part in ("no problem found", "toy step: loss", "activations", "GiB free"):
        assert part in done.out
    assert not (in_folder / "runs").exists()


def test_a_sweep_makes_a_run_for_each_value(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    command("train", *words[:3], "--multirun", *words[3:], "optimizer.lr=1e-3,1e-4").succeeds()
    rates = [
        state_of(in_folder / f"runs/toy/sweep_{number}", 4)["config"]["optimizer"]["lr"]
        for number in (0, 1)
    ]
    assert rates == [1e-3, 1e-4]


READS = {
    "train": "data.train.gt",
    "validate": "checkpoint",
    "infer": "checkpoint",
    "export": "output",
    "check": "decode",
    "overfit": "num_samples",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_what_a_command_reads(name, command):
    done = command(name, "--help").succeeds()
    assert READS[name].split(".")[-1] in done.out
    assert "arch" in done.out
    assert "imdn" in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_help_names_every_command(command, words):
    done = command(*words).succeeds()
    assert all(name in done.out for name in COMMANDS)


@pytest.mark.parametrize("name", ["train", "validate"])
def test_hydra_shows_a_config(name, command):
    words = ["+experiment=quickstart"] if name == "train" else []
    shown = command(name, *words, "--cfg", "job").succeeds().out
    assert "arch:" in shown
    if words:
        assert "name: quickstart" in shown


def test_hydra_explains_the_defaults(command):
    assert (
        "experiment/quickstart"
        in command("train", "+experiment=quickstart", "--info", "defaults").succeeds().out
    )


LAYOUTS = {
    "params": lambda weights: {"params": weights},
    "params_ema": lambda weights: {"params": zeros(weights), "params_ema": weights},
    "params-ema": lambda weights: {"params-ema": weights, "iter": 5},
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "bare": lambda weights: weights,
    "module": lambda weights: {f"module.{name}": value for name, value in weights.items()},
    "ordered": lambda weights: OrderedDict(params=OrderedDict(weights)),
}


def zeros(weights: dict) -> dict:
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def foreign_net() -> SRVGGNetCompact:
    torch.manual_seed(5)
    return SRVGGNetCompact(2, num_feat=8, num_conv=1)


FOREIGN = ("arch=compact", "arch.num_feat=8", "arch.num_conv=1", "scale=2")


@pytest.mark.parametrize(
    ("layout", "old_pickle"),
    [*((name, False) for name in LAYOUTS), ("params_ema", True), ("bare", True)],
)
def test_weights_of_other_programs(command, in_folder, layout, old_pickle):
    weights = foreign_net().state_dict()
    torch.save(
        LAYOUTS[layout](weights),
        in_folder / "other.pth",
        _use_new_zipfile_serialization=not old_pickle,
    )
    command("export", "checkpoint=other.pth", *FOREIGN, "output=o.safetensors").succeeds()
    exported = read_weights(in_folder / "o.safetensors")
    assert differing(exported.tensors, dict(weights)) == []
    assert exported.card is not None
    assert exported.card.scale == 2


def test_other_programs_weights_are_used_by_validate_and_infer(command, in_folder):
    toy_words(in_folder)
    torch.save({"params": foreign_net().state_dict()}, in_folder / "other.pth")
    command("validate", "checkpoint=other.pth", *FOREIGN, *ON_VAL, "output=scores").succeeds()
    command("infer", "checkpoint=other.pth", *FOREIGN, "input=val", "output=up").succeeds()
    assert (in_folder / "up/p0.png").is_file()


def test_a_file_that_names_no_architecture_asks_for_it(command, in_folder):
    torch.save(foreign_net().state_dict(), in_folder / "other.pth")
    out = "output=o.safetensors"
    command("export", "checkpoint=other.pth", out).fails_with(
        "other.pth", "names no architecture", "arch=imdn scale=2"
    )
    command("export", "checkpoint=other.pth", "arch=compact", out).fails_with(
        "other.pth", "scale=2, 3 or 4"
    )


def test_a_trained_span_is_shipped_merged(command, in_folder):
    torch.manual_seed(0)
    branched = SPAN(2, num_feat=8)
    torch.save(branched.state_dict(), in_folder / "span.pth")
    words = ["checkpoint=span.pth", "arch=span", "arch.num_feat=8", "scale=2"]
    merge = [*words, "arch.reparameterised=true", "output=merged.safetensors"]
    command("export", *merge).fails_with("unknown to the network")
    told = command("export", *merge, "strict=false").succeeds()
    assert "left out" in told.out
    merged = read_weights(in_folder / "merged.safetensors")
    assert merged.card is not None
    assert merged.card.arguments["reparameterised"] is True
    assert differing(merged.tensors, branched.merged().state_dict()) == []


class Stowaway:
    pass


def test_a_pickled_object_is_refused(command, in_folder):
    torch.save({"params": foreign_net().state_dict(), "args": Stowaway()}, in_folder / "o.pth")
    command("export", "checkpoint=o.pth", *FOREIGN, "output=o.safetensors").fails_with(
        "o.pth", "Stowaway", "could run code", "save only the state dict"
    )
    assert not (in_folder / "o.safetensors").exists()


def test_a_run_starts_from_given_weights(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    torch.save({"params": foreign_net().state_dict()}, in_folder / "other.pth")
    command("train", *words, "net_g.pretrained=other.pth", "optimizer.lr=0").succeeds()
    state = state_of(in_folder / "runs/toy", 4)
    assert differing(state["net_g"], dict(foreign_net().state_dict())) == []


def test_parameter_groups_have_their_own_rate(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    groups = "param_groups=[{match: 'body.0.*', lr_factor: 0}]"
    torch.save(foreign_net().state_dict(), in_folder / "other.pth")
    command("train", *words, groups, "net_g.pretrained=other.pth").succeeds()
    before, after = foreign_net().state_dict(), state_of(in_folder / "runs/toy", 4)["net_g"]
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"body.0.weight", "body.0.bias"}


USER_PACKAGE = '''
"""A user's own network and loss, neither of which knows sr_train."""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, scale, width=4):
        super().__init__()
        self.up = nn.Upsample(scale_factor=scale)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image):
        return self.conv(self.up(image))

class Loss(nn.Module):
    def forward(self, pred, target, lq, step):
        assert pred.shape == target.shape
        assert lq.shape[-1] * 2 == pred.shape[-1]
        return (pred - target).pow(2).mean() + 0.0 * step
'''

USER_EXPERIMENT = """# @package _global_
defaults:
  - override /objective: []
name: mine
scale: 2
plugins: [my_package]
arch:
  _target_: my_package.parts.Net
  scale: ${scale}
objective:
  own:
    loss:
      _target_: my_package.parts.Loss
train:
  steps: 3
"""


@pytest.fixture
def own(in_folder):
    """Return the command-line words of a user's own experiment in their own folders."""
    (in_folder / "my_package").mkdir()
    (in_folder / "my_package/parts.py").write_text(USER_PACKAGE)
    (in_folder / "my_configs/experiment").mkdir(parents=True)
    (in_folder / "my_configs/experiment/mine.yaml").write_text(USER_EXPERIMENT)
    data = [w for w in toy_words(in_folder) if w.startswith(("data.", "logger"))]
    return ["--config-dir", "my_configs", "+experiment=mine", *data, "device=cpu"]


def test_a_users_own_package_and_configs(own, command, in_folder):
    done = command("train", *own).succeeds()
    assert "Net declares no spec" in done.out
    assert metrics_rows(in_folder / "runs/mine", "loss/own")
    plugins = "plugins=[my_package]"
    command("check", *own).succeeds()
    command("infer", "checkpoint=runs/mine", "input=val", "output=up").succeeds()
    assert read_image(in_folder / "up/p0.png").pixels.shape == (80, 96, 3)
    shutil.copy(in_folder / "runs/mine/checkpoints/last.safetensors", in_folder / "x.safetensors")
    alone = ["infer", "checkpoint=x.safetensors", "input=val", "output=up"]
    command(*alone).fails_with("my_package.parts.Net", "outside the allowed packages", plugins)
    command(*alone, plugins).succeeds()


def test_an_error_in_a_users_own_experiment(own, command, in_folder):
    path = in_folder / "my_configs/experiment/mine.yaml"
    path.write_text(USER_EXPERIMENT.replace("  steps: 3", "  step: 3"))
    command("train", *own).fails_with(
        "experiment=mine", "train.step", "did you mean 'train.steps'?"
    )
    path.write_text(
        USER_EXPERIMENT.replace("  - override /objective: []", "  - override /arch: imnd")
    )
    command("train", *own).fails_with("did you mean 'imdn'?")
    path.write_text(USER_EXPERIMENT.replace("parts.Net", "parts.Nett"))
    command("train", *own).fails_with("arch._target_=my_package.parts.Nett", "did you mean 'Net'?")
    path.write_text("a: b: c\n")
    command("train", *own).fails_with("my_configs/experiment/mine.yaml", "line 1")


def test_a_log_without_a_terminal_tells_how_far_a_run_is(command, in_folder):
    words = no_validation(*toy_words(in_folder, "train.steps=8", "train.log_every=2"))
    done = command("train", *words).succeeds()
    line = re.compile(r"\d\d:\d\d:\d\d step (\d)/8 \((\d+) %\)  loss \S+.* wait \d+ %(.*)")
    told = [found.groups() for each in done.out.splitlines() if (found := line.fullmatch(each))]
    assert [(step, share) for step, share, _ in told] == [
        ("2", "25"),
        ("4", "50"),
        ("6", "75"),
        ("8", "100"),
    ]
    assert all(re.fullmatch(r"  left \d+\.\d s", left) for _, _, left in told[:-1])
    assert told[-1][2] == ""


@pytest.mark.parametrize("group", ["objective", "logger", "metrics"])
def test_a_group_of_several_is_taken_out_by_its_choices(command, group):
    done = command("train", "+experiment=quickstart", f"~{group}", "--cfg", "job")
    done.fails_with(f"~{group}: takes several choices; to take out all: {group}=[]")
    kept = command("train", "+experiment=quickstart", f"{group}=[]", "--cfg", "job").succeeds()
    assert f"\n{group}: {{}}\n" in kept.out
