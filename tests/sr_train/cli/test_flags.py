"""Flags, and what to write instead of those of other programs."""

from pathlib import Path

import pytest

from sr_train.api.errors import ConfigError
from sr_train.cli.flags import Flags, is_override, parse, stray


@pytest.mark.parametrize(
    ("words", "overrides", "flags"),
    [
        ([], [], Flags()),
        (["a=1", "-m", "b=2"], ["a=1", "b=2"], Flags(multirun=True)),
        (["--cfg", "job", "a=1"], ["a=1"], Flags(cfg="job")),
        (["a=1", "--cfg=job", "--resolve"], ["a=1"], Flags(cfg="job", resolve=True)),
        (["-c", "all", "-p", "train"], [], Flags(cfg="all", package="train")),
        (["--info", "a=1", "b=2"], ["a=1", "b=2"], Flags(info="all")),
        (["--info", "defaults", "a=1"], ["a=1"], Flags(info="defaults")),
        (["a=1", "-i=searchpath"], ["a=1"], Flags(info="searchpath")),
        (["--config-dir", "mine", "a=1"], ["a=1"], Flags(config_dir=Path("mine"))),
        (["a=1", "--config-dir=my folder"], ["a=1"], Flags(config_dir=Path("my folder"))),
        (["-cd", "mine"], [], Flags(config_dir=Path("mine"))),
        (["-h"], [], Flags(help=True)),
        (["--hydra-help"], [], Flags(hydra_help=True)),
        (["-sc", "install=bash"], ["install=bash"], Flags(shell_completion=True)),
        (["~a.b", "+c=d=e", "word"], ["~a.b", "+c=d=e", "word"], Flags()),
    ],
)
def test_flags_may_stand_anywhere(words, overrides, flags):
    assert parse("train", words) == (overrides, flags)


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("train", ["--experiment", "x"], "settings are written without dashes: experiment=x"),
        ("train", ["--experiment=x"], "settings are written without dashes: experiment=x"),
        ("train", ["-opt", "x.yml"], "--config-dir DIR +experiment=NAME"),
        ("train", ["--opt=x.yml"], "--config-dir DIR +experiment=NAME"),
        ("train", ["-c", "x.yaml"], "expected one of job, hydra, all; own configs lie in"),
        ("train", ["--config", "x.yaml"], "--config-dir DIR +experiment=NAME"),
        ("train", ["--config-name", "x"], "choose yours with --config-dir DIR +experiment=NAME"),
        ("train", ["--config-path=x"], "add your own with --config-dir DIR"),
        ("train", ["-cn", "x"], "choose yours with --config-dir"),
        ("train", ["--experimental-rerun", "x"], "use resume=runs/NAME"),
        ("train", ["--launcher", "pytorch"], "torchrun --nproc-per-node=N -m sr_train train"),
        ("train", ["--local-rank=0"], "torchrun --nproc-per-node=N"),
        ("train", ["--local_rank=0"], "torchrun --nproc-per-node=N"),
        ("train", ["--auto_resume"], "write resume=auto, or resume=runs/NAME"),
        ("train", ["--resume"], "write resume=auto"),
        ("train", ["--lr", "1e-4"], "optimizer.lr=1e-4"),
        ("train", ["--batch-size", "4"], "data.batch_size=4"),
        ("train", ["--epochs=3"], "train.steps=3"),
        ("train", ["--gpus", "2"], "device=cuda:0; several: torchrun --nproc-per-node=N"),
        ("train", ["--gpu", "2"], "without dashes: device=cuda:2"),
        ("train", ["--gpu", "cpu"], "without dashes: device=cpu"),
        ("train", ["--name", "a=b"], "name=..."),
        ("train", ["--debug"], "python -m sr_train check ..."),
        ("train", ["--multirn"], "did you mean '--multirun'?"),
        ("infer", ["--input", "a.png"], "input=a.png"),
        ("infer", ["-o", "out"], "output=out"),
        ("infer", ["--tile", "64"], "tiling.tile=64"),
        ("infer", ["--fp16"], "precision=..."),
        ("infer", ["--model_path=x.pth"], "checkpoint=x.pth"),
        ("infer", ["-s", "4"], "scale=4"),
        ("train", ["--cfg"], "--cfg: expected one of job"),
        ("train", ["--config-dir"], "--config-dir: expected a folder"),
        ("train", ["--info=x"], "--info=x: expected one of all, config"),
        ("train", ["--resolve"], "--resolve: goes with --cfg job"),
        ("train", ["-m", "--cfg=job"], "--cfg and --multirun: expected one of them"),
        ("train", ["-1"], "no such flag"),
        ("train", ["-"], "no such flag"),
        ("train", ["--"], "no such flag"),
    ],
)
def test_habits_from_elsewhere_are_answered(command, words, says):
    with pytest.raises(ConfigError) as err:
        parse(command, words)
    assert says in str(err.value)


@pytest.mark.parametrize(
    ("command", "word", "says"),
    [
        ("train", "quickstart", "to choose an experiment: +experiment=quickstart"),
        ("train", "x.yml", "--config-dir DIR +experiment=NAME"),
        ("train", "name", "expected a value, name=..."),
        ("train", "+experiment", "expected a value, +experiment=..."),
        ("infer", "photo.png", "photo.png: expected key=value"),
        ("infer", "inputt", "did you mean 'input'?"),
    ],
)
def test_a_word_that_sets_nothing_is_answered(command, word, says):
    assert says in stray(command, word)


@pytest.mark.parametrize("word", ["=x", "+=3", "~", "+", "~=x"])
def test_a_word_without_a_key_is_no_override(word):
    assert not is_override(word)
    assert stray("train", word) == f"{word}: expected key=value"
