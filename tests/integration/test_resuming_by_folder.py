"""`resume=runs/NAME` needs nothing else: the folder holds the config."""

import json
import re
import shlex
import shutil

import pytest
import torch
import yaml

from sr_train.config.stored import replaced_groups
from sr_train.engine.checkpoint import save_state
from tests.toys import differing, metrics_rows, no_validation, state_of, toy_words

CANARY = {"_target_": "os.mkdir", "path": "canary"}

STATE = ("net_g", "ema", "generator", "random", "step", "precision")


def train_words(folder, *more: str) -> list[str]:
    return ["train", *no_validation(*toy_words(folder)), "train.checkpoint_every=2", *more]


def test_a_folder_alone_goes_on_with_its_run_bit_for_bit(command, in_folder):
    every = train_words(in_folder, "train.max_norm=0.1", "optimizer=adamw", "seed=5")
    command(*every, "name=whole", "train.steps=6").succeeds()
    command(*every, "train.steps=4", "scheduler.steps=6").succeeds()
    done = command("train", "resume=runs/toy", "train.steps=6").succeeds()
    assert "at step 4" in done.out
    ends = [state_of(in_folder / "runs" / name, 6) for name in ("whole", "toy")]
    for key in STATE:
        assert differing(ends[0][key], ends[1][key]) == [], key


def _in_old_names(config):
    """Return a config as it was stored before keys and classes were renamed."""
    text = json.dumps(config).replace('"objective_d"', '"adversary"')
    for new, old in {
        "data.images.ImageDataset": "data.pictures.PictureSet",
        "data.loading.stream.TrainLoader": "data.loader.TrainStream",
    }.items():
        assert new in text
        text = text.replace(new, old)
    return json.loads(text)


def test_a_run_from_before_the_renaming_resumes_bit_for_bit(command, in_folder):
    gan = ("discriminator=unet_sn", "discriminator.arch.num_feat=4", "+objective=gan")
    every = train_words(in_folder, *gan, "objective_d=[gan]", "data.lq_size=16")
    command(*every, "name=whole", "train.steps=6").succeeds()
    command(*every, "train.steps=4", "scheduler.steps=6").succeeds()
    run = in_folder / "runs/toy"
    for path in run.glob(".hydra/*/config.yaml"):
        path.write_text(yaml.safe_dump(_in_old_names(yaml.safe_load(path.read_text()))))
    state = state_of(run, 4)
    del state["checksum"], state["callbacks"]  # the checksum is that of the config of now
    old = {**state, "config": _in_old_names(state["config"]), "policies": {}}
    save_state(run / "checkpoints", 4, old, keep_last=3)
    done = command("train", "resume=runs/toy", "train.steps=6").succeeds()
    assert "at step 4" in done.out
    assert not {"adversary", "objective_d", "_target_"} & {*re.findall(r"\w+", done.out)}
    ends = [state_of(in_folder / "runs" / name, 6) for name in ("whole", "toy")]
    for key in (*STATE, "adversary"):
        assert differing(ends[0][key], ends[1][key]) == [], key
    assert "objective_d" in ends[1]["config"]


def test_references_of_the_config_stay_references(command, finished, in_folder):
    finished(*train_words(in_folder))
    command("train", "resume=runs/toy", "train.steps=6").succeeds()
    assert state_of(in_folder / "runs/toy", 6)["config"]["scheduler"]["steps"] == 6


@pytest.mark.parametrize("place", ["moved/here", "runs/other", "my (moved) run"])
def test_a_folder_may_have_been_moved_or_copied(command, finished, in_folder, place):
    finished(*train_words(in_folder))
    shutil.copytree(in_folder / "runs/toy", in_folder / place)
    before = state_of(in_folder / "runs/toy", 4)
    command("train", f"resume={place}", "train.steps=6").succeeds()
    assert state_of(in_folder / place, 6)["step"] == 6
    assert not (in_folder / "runs/toy/checkpoints/step_00000006.pt").exists()
    assert differing(before, state_of(in_folder / "runs/toy", 4)) == []


@pytest.mark.parametrize(
    "path", ["runs/toy/checkpoints", "runs/toy/checkpoints/step_00000004.pt", "runs/toy/"]
)
def test_a_path_inside_the_folder_means_the_folder(command, finished, in_folder, path):
    finished(*train_words(in_folder))
    command("train", f"resume={path}", "train.steps=6").succeeds()
    assert state_of(in_folder / "runs/toy", 6)["step"] == 6


def test_the_working_directory_may_be_the_folder(command, in_folder, monkeypatch):
    every = [w.replace("=gt", f"={in_folder}/gt") for w in train_words(in_folder)]
    command(*every).succeeds()
    monkeypatch.chdir(in_folder / "runs/toy")
    command("train", "resume=.", "train.steps=6").succeeds()
    assert state_of(in_folder / "runs/toy", 6)["step"] == 6


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["optimizer.lr=5e-4"], "optimizer.lr", 5e-4),
        (["optimizer=sgd"], "optimizer", {"_target_": "torch.optim.SGD", "lr": 0.01}),
        (["scheduler=constant"], "scheduler._target_", "sr_train.engine.schedule.Constant"),
        (["precision=bf16"], "precision.name", "bf16"),
        (["objective=[mse]"], "objective", ["mse"]),
        (["+objective=tv"], "objective", ["l1", "tv"]),
        (["data.train.exclude=[p0]"], "data.train.exclude", ["p0"]),
        (["name=other"], "name", "other"),
    ],
)
def test_what_is_typed_beside_it_wins(command, finished, in_folder, words, key, expected):
    finished(*train_words(in_folder))
    done = command("train", "resume=runs/toy", "train.steps=5", *words).succeeds()
    assert "at step 4" in done.out
    run = in_folder / "runs" / ("other" if "name=other" in words else "toy")
    found = state_of(run, 5)["config"]
    for part in key.split("."):
        found = found[part]
    if isinstance(expected, dict):
        assert {name: found[name] for name in expected} == expected
        assert "betas" not in found, "of the optimizer that was chosen before"
    else:
        assert (list(found) if isinstance(found, dict) else found) == expected


def test_a_line_that_says_all_by_itself_is_taken_as_it_is(command, in_folder):
    every = train_words(in_folder)
    command(*every, "train.max_norm=0.5").succeeds()
    command(*every, "resume=runs/toy", "train.steps=6").succeeds()
    assert state_of(in_folder / "runs/toy", 6)["config"]["train"]["max_norm"] is None


def test_plug_ins_and_own_configs_are_those_of_the_launch(command, in_folder):
    (in_folder / "mine").mkdir()
    (in_folder / "mine/losses.py").write_text(
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred, target):\n"
        "        return (pred - target).abs().mean()\n"
    )
    for group, text in {
        "experiment": "# @package _global_\nplugins: [mine]\n"
        "objective: {l1: {loss: {_target_: mine.losses.Loss}}}\n",
        "scheduler": "_target_: sr_train.engine.schedule.Constant\nwarmup: 3\n",
    }.items():
        (in_folder / "confs" / group).mkdir(parents=True)
        (in_folder / "confs" / group / "slow.yaml").write_text(text)
    command(*train_words(in_folder), "--config-dir", "confs", "+experiment=slow").succeeds()
    done = command("train", "resume=runs/toy", "train.steps=6", "scheduler=slow").succeeds()
    assert "plug-in mine: " in done.out
    config = state_of(in_folder / "runs/toy", 6)["config"]
    assert config["objective"]["l1"]["loss"]["_target_"] == "mine.losses.Loss"
    assert config["scheduler"]["warmup"] == 3


def test_the_config_is_that_of_the_last_launch_that_began(command, in_folder):
    every = train_words(in_folder)
    command(*every, "train.log_every=3").succeeds()
    command(*every, "resume=auto", "arch.num_feat=12").fails_with("of another network")
    run = in_folder / "runs/toy"
    assert len(list((run / ".hydra").iterdir())) == 2, "the one that failed left a config, too"
    command("train", "resume=runs/toy", "train.steps=6").succeeds()
    assert state_of(run, 6)["config"]["train"]["log_every"] == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: [", "line 1"),
        (b"caf\xe9: 1\n", "no UTF-8"),
        (b"- 1\n", "expected keys and values"),
        (b"hydra: {callbacks: {x: {_target_: os.mkdir, path: canary}}}\n", "holds hydra"),
        (b"defaults: [/experiment/quickstart]\n", "holds defaults"),
        (b"nonsense: 1\n", "nonsense"),
        (b"train: 5\n", "train"),
        (b"", "scale: no value"),
    ],
)
def test_a_stored_config_is_read_as_any_other(command, finished, in_folder, content, says):
    finished(*train_words(in_folder))
    (stored,) = (in_folder / "runs/toy/.hydra").glob("*/config.yaml")
    stored.write_bytes(content)
    command("train", "resume=runs/toy", "train.steps=6").fails_with(says)
    assert not (in_folder / "canary").exists()


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("arch",), CANARY, "outside the allowed packages"),
        (("data", "train", "include"), [CANARY], "found a component"),
        (("plugins",), ["os"], "is part of Python itself"),
        (("metrics",), {"x": CANARY}, "outside the allowed packages"),
    ],
)
def test_a_stored_config_names_no_more_than_any_other(
    command, finished, in_folder, place, value, says
):
    finished(*train_words(in_folder))
    (stored,) = (in_folder / "runs/toy/.hydra").glob("*/config.yaml")
    config = yaml.safe_load(stored.read_text())
    node = config
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    stored.write_text(yaml.safe_dump(config))
    command("train", "resume=runs/toy", "train.steps=6").fails_with(says)
    assert not (in_folder / "canary").exists()


def test_a_folder_without_its_config_says_what_to_type(command, finished, in_folder):
    finished(*train_words(in_folder))
    shutil.rmtree(in_folder / "runs/toy/.hydra")
    command("train", "resume=runs/toy").fails_with(
        "resume=runs/toy: ", "holds no config of that run", "resume=auto"
    )


def test_check_and_overfit_take_it_too(command, finished, in_folder):
    finished(*train_words(in_folder))
    assert "no problem found" in command("check", "resume=runs/toy").succeeds().out
    done = command("overfit", "resume=runs/toy", "num_steps=1", "threshold=100")
    done.fails_with("overfit failed")


def test_the_printed_line_goes_on_with_a_stopped_run(command, in_folder):
    (in_folder / "signals").mkdir()
    (in_folder / "signals/loss.py").write_text(
        "import os, signal\n"
        "import torch\n"
        "class Loss(torch.nn.Module):\n"
        "    def forward(self, pred, step):\n"
        "        if step == 2:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return pred.square().mean()\n"
    )
    own = ["plugins=[signals]", "objective.l1.loss={_target_: signals.loss.Loss}"]
    every = train_words(in_folder, *own, "name=it's (mine), 2024")
    done = command(*every).succeeds()
    (line,) = [line for line in done.out.splitlines() if "-m sr_train train" in line]
    assert shlex.split(line)[3:] == ["train", "resume=runs/it's (mine), 2024"]
    assert "at step 2" in command(*shlex.split(line)[3:]).succeeds().out
    run = in_folder / "runs/it's (mine), 2024"
    assert torch.load(run / "checkpoints/step_00000004.pt", weights_only=True)["step"] == 4
    assert metrics_rows(run, "lr/g")


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        (["optimizer=sgd"], ["optimizer"]),
        (["+objective=tv"], []),
        (["objective=[tv]"], ["objective"]),
        (["optimizer.lr=1"], []),
        (["arch={_target_: x}"], []),
        (["dataset=[set5]", "train.steps=3"], ["dataset"]),
    ],
)
def test_which_groups_are_chosen_anew(words, groups):
    assert replaced_groups("train", words) == groups


def test_what_names_no_run_is_told_alone(command, finished, in_folder):
    finished(*train_words(in_folder))
    for path, says in {
        "runs/tyo": "resume=runs/tyo: no such file or folder; did you mean 'toy'?",
        "runs": "resume=runs: is not the folder of a run; valid: toy",
        "gt": "resume=gt: is not the folder of a run; expected auto, a run's folder",
        "nowhere": "resume=nowhere: no such file or folder",
        "runs/toy/checkpoints/step_9.pt": "no such file or folder; expected auto",
        "runs/toy/manifest.json": "is not the folder of a run",
    }.items():
        failed = command("train", f"resume={path}")
        failed.fails_with(says)
        assert "no value" not in failed.err
