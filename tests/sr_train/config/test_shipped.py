"""Every shipped config file: composes, fits its constructors, trains."""

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from sr_train.api.errors import Problems
from sr_train.config.build import build
from sr_train.config.compose import plain
from sr_train.config.preflight import run_problems
from sr_train.factory.models import check_discriminator
from tests.configs import composed, raw
from tests.toys import ROOT, fill, fill_clips, fill_lq, metrics_rows

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs/experiment").glob("*.yaml"))

BASE = ["name=toy", "scale=2", "arch=compact", "train.steps=9", "dataset=[skimage]"]

PATHS_OF = {
    "folder": ["data.train.gt=gt", "data.val.main.gt=gt"],
    "main": ["data.val.main.gt=gt"],
    "clips": ["data.train.gt=gt", "data.val.main.gt=gt"],
    "clips_main": ["data.val.main.gt=gt"],
    "video_files": ["data.train.gt=gt", "data.val.main.gt=gt"],
}
"""What a data set leaves to the user."""

TOY = {
    "archs.compact.SRVGGNetCompact": ["arch.num_feat=8", "arch.num_conv=1"],
    "archs.fsrcnn.FSRCNN": ["arch.d=8", "arch.s=4", "arch.m=1"],
    "archs.imdn.IMDN": ["arch.num_block=1"],
    "archs.rrdb.RRDBNet": ["arch.num_feat=4", "arch.num_block=1", "arch.num_grow=4"],
    "archs.span.SPAN": ["arch.num_feat=8"],
    "archs.swinir.SwinIR": [
        "arch.window_size=4",
        "arch.img_size=8",
        "arch.embed_dim=8",
        "arch.depths=[2]",
        "arch.num_heads=[2]",
    ],
    "archs.temporal.TemporalWindow": ["arch.net.num_feat=8", "arch.net.num_conv=1"],
    "archs.basicvsr.BasicVSR": ["arch.mid_channels=8", "arch.num_blocks=1"],
    "archs.basicvsrpp.BasicVSRPlusPlus": ["arch.mid_channels=16", "arch.num_blocks=1"],
    "archs.vrt.VRT": [
        "arch.window_size=[2,4,4]",
        "arch.depths=[2,2,2,2,2,2,2,2,2]",
        "arch.indep_reconsts=[8]",
        "arch.embed_dims=[8,8,8,8,8,8,8,8,8]",
        "arch.num_heads=[2,2,2,2,2,2,2,2,2]",
        "arch.deformable_groups=4",
    ],
}
"""What makes a network small enough for a test."""

CLIPS = ("archs.temporal", "archs.basicvsr", "archs.basicvsrpp", "archs.vrt")
"""Where the networks are that take clips."""

TOY_CRITIC = {
    "archs.unet_discriminator.UNetDiscriminatorSN": ["discriminator.arch.num_feat=4"],
    "archs.vgg_discriminator.VGGStyleDiscriminator": [
        "discriminator.arch.num_feat=4",
        "discriminator.arch.input_size=64",
    ],
}
"""The same for a discriminator, of crops of 64 pixels."""


def group(name: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "configs" / name).glob("*.yaml"))


def experiment_words(name: str) -> list[str]:
    """Return an experiment with what it leaves to the user."""
    cfg = raw(f"+experiment={name}")
    words = [f"+experiment={name}"]
    if OmegaConf.is_missing(cfg.data.train, "gt"):
        words += PATHS_OF["folder"]
    if OmegaConf.is_missing(cfg.data.train, "lq"):
        words += ["data.train.lq=lq", "data.val.main.lq=lq"]
    if OmegaConf.is_missing(cfg.arch, "spynet"):
        words += ["arch.spynet=null", "param_groups=[]"]
    return words


def fill_clip_sets(folder: Path, scale: int) -> None:
    """Make what the experiments on clips read, in sequences of five frames."""
    fill_clips(folder / "gt", a=5)
    fill_clips(folder / "lq", a=5)
    reds = folder / "sets/REDS"
    fill_clips(reds / "train_sharp", **{"000": 2, "011": 2, "015": 2, "020": 2, "001": 5})
    for sequence in sorted((reds / "train_sharp").iterdir()):
        lq = reds / f"train_sharp_bicubic/X{scale}" / sequence.name
        fill_lq(lq, sequence, scale)
    for split in ("train", "val"):
        sequence = folder / "sets/spike_deblur" / split / "s"
        fill_clips(sequence, blur=5, sharp=5)
        (sequence / "spike_vox").mkdir()
        for number in range(5):
            np.save(sequence / f"spike_vox/p{number}.npy", np.ones((5, 64, 72), np.float32))


def test_there_are_experiments():
    assert {"quickstart", "imdn_x2", "swinir_x4", *LONG} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_and_its_network_builds(name):
    cfg = composed(*experiment_words(name))
    assert run_problems(cfg) == []
    assert cfg.name == name
    with torch.device("meta"):
        net = build(cfg.arch, "arch")
    assert net.spec.scale == cfg.scale
    text = (ROOT / f"configs/experiment/{name}.yaml").read_text()
    assert text.startswith(f"# @package _global_\n# python -m sr_train train +experiment={name}")


LONG = ("vrt_x4", "vrt_deblur", "vrt_spike_deblur", "basicvsr_x4", "basicvsrpp_x4")
LONG += ("swinir_gan_x4", "realesrgan_style_compact_x4")
"""Experiments of several seconds; all but one have a smaller kin."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in EXPERIMENTS],
)
def test_an_experiment_trains(name, command, in_folder):
    cfg = composed(*experiment_words(name))
    fill(in_folder / "gt", 2, (80, 96))
    for folder in ("DIV2K_train_HR", "DIV2K_valid_HR", "Flickr2K", "train/T91"):
        fill(in_folder / "sets" / folder, 1, (80, 96))
    for folder in ("train/BSDS500_train", "val/Set5/HR"):
        fill(in_folder / "sets" / folder, 1, (80, 96), first_seed=5)
    set5 = in_folder / "sets/val/Set5"
    fill_lq(set5 / f"LR_bicubic/X{cfg.scale}", set5 / "HR", cfg.scale)
    on_clips = cfg.arch["_target_"].startswith(CLIPS)
    if on_clips:
        shutil.rmtree(in_folder / "gt")
        fill_clip_sets(in_folder, cfg.scale)
    words = ["data.root=sets", "data.batch_size=2", "data.lq_size=16", "train.steps=2"]
    words += ["train.accum=1", "data.frames=3"]
    words += ["device=cpu", "logger=none", "scheduler.warmup=0", *TOY[cfg.arch["_target_"]]]
    if cfg.discriminator.arch is not None:
        words += TOY_CRITIC[cfg.discriminator.arch["_target_"]]
    if "perceptual" in cfg.objective:
        words += ["objective.perceptual.loss.random_init=true"]
    if name == "quickstart":  # its photographs are large
        words += ["data.train.gt=gt", "data.train.include=null", "~data.val.photos"]
    done = command("train", *experiment_words(name), *words).succeeds()
    assert "step 2/2 (100 %)  loss " in done.out
    # Offsets of deformable convolutions start at zero, and so do gradients of what makes them.
    silent = re.findall(r"no gradient reaches (.*)", done.out)
    assert all("conv_offset" in names for names in silent), silent
    for learner in "g" if cfg.discriminator.arch is None else "gd":
        skipped = metrics_rows(in_folder / "runs" / name, f"skipped_steps/{learner}")
        assert skipped == [(2, 0.0)]


def first_stage(name: str) -> tuple[str, list[str]]:
    """Return the words of the first stage that an experiment's comment names, and its folder."""
    text = (ROOT / f"configs/experiment/{name}.yaml").read_text()
    comment = " ".join(line[1:] for line in text.splitlines() if line.startswith("#"))
    (source,) = re.findall(r"net_g\.pretrained=(\S+)", comment)
    (command,) = re.findall(r"for PSNR: python -m sr_train train((?: +\+?[\w.]+=\S+)+)", comment)
    return source, command.split()


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if "gan" in name])
def test_a_gan_starts_from_the_weights_of_the_first_stage_that_it_names(name):
    cfg = composed(*experiment_words(name))
    assert {"l1", "perceptual", "ldl", "gan"} == set(cfg.objective)
    assert cfg.ema.enabled
    source, words = first_stage(name)
    before = composed(*words)
    assert source == f"{before.out_dir}/{before.name}"
    assert before.discriminator.arch is None
    with torch.device("meta"):
        nets = [build(stage.arch, "arch") for stage in (before, cfg)]
    nets[1].load_state_dict(nets[0].state_dict(), assign=True)


NEED_DISCRIMINATOR = {
    "feature_matching",
    *(name for name in group("objective") if name.startswith("gan")),
}
"""The terms that need a discriminator."""

PARTNERS = {
    "feature_matching": ["objective=[gan,feature_matching]"],
    "gan_relativistic": ["objective=[gan_relativistic]", "objective_d=[gan_relativistic]"],
    "gan_wgan": ["objective=[gan_wgan]", "objective_d=[gan,gradient_penalty]"],
    "gradient_penalty": ["objective=[gan_wgan]", "objective_d=[gan,gradient_penalty]"],
    "r1": ["objective_d=[gan,r1]"],
}
"""What a choice of a GAN goes with, where that is not `gan` alone."""

LEFT_TO_THE_USER = {
    "multistep": ["scheduler.milestones=[3]"],
    "cosine_restarts": ["scheduler.periods=[4,5]"],
}

EXTRAS = {
    "optimizer=adan": ("pytorch_optimizer", "optimizers"),
    "optimizer=schedulefree_adamw": ("pytorch_optimizer", "optimizers"),
    **{f"logger={name}": (name, name) for name in ("wandb", "mlflow", "trackio")},
}
"""Choices that need a package which a plain install lacks, and the extra that brings it."""


def gan_words(*words: str) -> list[str]:
    """Return the words of a GAN; those given win."""
    usual = {"discriminator": "unet_sn", "objective": "[gan]", "objective_d": "[gan]"}
    given = dict(word.split("=") for word in words)
    return [f"{name}={value}" for name, value in {**usual, **given}.items()]


CHOICES = [
    *((f"arch={name}",) for name in group("arch")),
    *((f"objective=[{name}]",) for name in group("objective") if name not in NEED_DISCRIMINATOR),
    *((f"optimizer={name}",) for name in group("optimizer") if f"optimizer={name}" not in EXTRAS),
    *((f"precision={name}",) for name in group("precision")),
    *((f"logger={name}",) for name in group("logger") if f"logger={name}" not in EXTRAS),
    *((f"callbacks=[{name}]",) for name in group("callbacks")),
    *((f"scheduler={name}", *LEFT_TO_THE_USER.get(name, [])) for name in group("scheduler")),
    *((f"dataset=[skimage,{name}]", *PATHS_OF.get(name, [])) for name in group("dataset")),
    ("objective=[l1,mse_y]",),
    ("metrics=[y_crop_scale,rgb,lpips]",),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda words: words[0])
def test_a_choice_fits(choice):
    assert run_problems(composed(*BASE, *choice)) == []


@pytest.mark.parametrize("name", sorted(NEED_DISCRIMINATOR))
def test_a_term_that_needs_a_discriminator_fits_one_and_is_told_of_without(name):
    words = gan_words(*PARTNERS.get(name, [f"objective=[{name}]"]))
    assert run_problems(composed(*BASE, *words)) == []
    (problem,) = run_problems(composed(*BASE, f"objective=[l1,{name}]"))
    assert problem.startswith(f"objective.{name.split('_')[0] if 'gan' in name else name}.loss")
    assert problem.endswith("it needs a discriminator: discriminator=unet_sn objective_d=[gan]")


@pytest.mark.parametrize("name", group("objective_d"))
def test_a_term_of_the_discriminator_fits_and_is_told_of_without_one(name):
    words = gan_words(*PARTNERS.get(name, []))
    assert name in words[-1]
    assert run_problems(composed(*BASE, *words)) == []
    problems = run_problems(composed(*BASE, *words, "discriminator=none"))
    assert "objective_d: has terms, but there is no discriminator; add discriminator=unet_sn" in (
        problems
    )


@pytest.mark.parametrize("name", group("discriminator"))
def test_a_discriminator_takes_the_images_of_a_step(name):
    words = gan_words(f"discriminator={name}") if name != "none" else ["discriminator=none"]
    cfg = composed(*BASE, *words, "data.lq_size=64")
    assert run_problems(cfg) == []
    if name != "none":
        with torch.device("meta"):
            net = build(cfg.discriminator.arch, "discriminator.arch")
        check_discriminator(net, (1, 3, 128, 128))


@pytest.mark.parametrize("choice", EXTRAS)
def test_a_choice_of_an_extra_fits_or_reports_what_to_install(choice):
    package, extra = EXTRAS[choice]
    problems = run_problems(composed(*BASE, choice))
    if find_spec(package) is not None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert problems[0].endswith(f'pip install "sr_train[{extra}]"')


@pytest.mark.parametrize("choice", EXTRAS)
def test_a_package_that_is_missing_is_reported_with_its_extra(choice, monkeypatch):
    package, extra = EXTRAS[choice]
    cfg = composed(*BASE, choice)
    for name in list(sys.modules):
        if name.split(".")[0] == package or name.endswith(f".{package}_logger"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (problem,) = run_problems(cfg)
    assert problem.endswith(f'pip install "sr_train[{extra}]"')


@pytest.mark.parametrize("name", group("metrics"))
def test_metrics_fit(name):
    metrics = list(raw(*BASE, f"metrics=[{name}]").metrics)
    cfg = composed(*BASE, f"metrics=[{name}]", f"best_metric={metrics[0]}")
    assert run_problems(cfg) == []


def test_several_objectives_stand_side_by_side():
    cfg = composed(*BASE, "objective=[l1,mse_y]", "objective.mse_y.weight=0.1")
    assert {name: term.weight for name, term in cfg.objective.items()} == {"l1": 1.0, "mse_y": 0.1}
    assert cfg.objective["mse_y"].colour == "y"


def test_a_resolved_config_is_plain_python():
    config = plain(raw(*BASE, "precision=bf16"))
    assert config["precision"]["name"] == "bf16"
    assert config["arch"]["scale"] == 2
    assert config["scheduler"]["steps"] == 9
    assert type(config["objective"]["l1"]["weight"]) is float


def test_missing_values_are_told_together():
    with pytest.raises(Problems) as err:
        composed()
    told = {problem.split(":")[0] for problem in err.value.problems}
    assert {"name", "scale", "arch", "train.steps", "data.train.gt", "data.val.main.gt"} <= told


def test_every_group_is_tested():
    tested = {words[0].split("=")[0] for words in CHOICES}
    tested |= {"metrics", "experiment", "discriminator", "objective_d"}
    tested |= {"search", "cluster"}  # by tests/integration/test_sweeps.py
    tested |= {"debug"}  # by tests/integration/test_debug.py
    folders = {path.parent.name for path in (ROOT / "configs").glob("*/*.yaml")}
    assert folders == tested


def test_a_set_is_the_same_wherever_it_stands():
    """A validation set of one name has one path, whichever file of the group chooses it."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted((ROOT / "configs/dataset").glob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(path))
        is_val = path.read_text().startswith("# @package data.val\n")
        for name, node in (config if is_val else config.get("val", {})).items():
            if name != "main":  # the user's own, in images or clips
                found.setdefault(name, {})[path.stem] = node
    assert {"set5", "set14", "bsd100", "urban100", "vid4", "reds4", "div2k"} <= set(found)
    differing = {name for name, nodes in found.items() if len({*map(str, nodes.values())}) > 1}
    assert differing == {"gopro"}  # in clips, and in images


def test_test_sets_lie_in_one_folder():
    for name, folder in {
        "set5": "Set5",
        "set14": "Set14",
        "bsd100": "BSD100",
        "urban100": "Urban100",
        "vid4": "Vid4",
    }.items():
        node = OmegaConf.to_container(OmegaConf.load(ROOT / f"configs/dataset/{name}.yaml"))[name]
        assert str(node["gt"]).startswith(f"${{data.root}}/val/{folder}/")
