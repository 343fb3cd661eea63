"""What the TAB key finds."""

import shutil
import subprocess
import sys

import pytest

from sr_train.api.errors import ConfigError
from sr_train.cli.completing import candidates, complete
from sr_train.cli.table import HELP
from tests.toys import ROOT


def found(line: str) -> list[str]:
    return sorted(candidates(line, list(HELP)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python -m sr_train ", [f"{name} " for name in sorted(HELP)]),
        ("python -m sr_train tr", ["train "]),
        ("sr-train ex", ["export "]),
        ("/some/bin/sr-train ex", ["export "]),
        ("sr-train train experiment=quicks", ["quickstart"]),
        ("sr-train train +experiment=quicks", ["quickstart"]),
        ("sr-train train objective=[l1,temporal_c", ["[l1,temporal_consistency"]),
        ("sr-train train optimi", ["optimizer.", "optimizer="]),
        ("sr-train train experiment=quickstart arch.num_f", ["arch.num_feat="]),
        ("sr-train train data.tr", ["data.train."]),
        ("sr-train train data.train.g", ["data.train.gt="]),
        ("sr-train train precision.name=fp", ["fp16", "fp32"]),
        ("sr-train train ema.enabled=", ["false", "true"]),
        ("sr-train train --conf", ["--config-dir "]),
        ("sr-train conf", ["config "]),
        ("sr-train config li", ["list "]),
        ("sr-train config list exp", ["experiment "]),
        ("sr-train config schema val", ["validate "]),
        ("sr-train infer che", ["checkpoint="]),
        ("sr-train validate dataset=vid4", ["vid4"]),
        ("python other.py tr", []),
        ("sr-train nope a", []),
        ("", []),
        ("sr-train train 'name=a b", []),
    ],
)
def test_what_may_follow_is_found(line, expected):
    assert found(line) == expected


def test_own_experiments_are_found(tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/faces.yaml").write_text("# @package _global_\n")
    assert found(f"sr-train train --config-dir {tmp_path}/mine +experiment=fa") == ["faces"]


@pytest.mark.parametrize("words", [[], ["install"], ["install=ksh"], ["a=b"], ["query=bash", "x"]])
def test_what_completion_does_not_know(words):
    with pytest.raises(ConfigError, match="install=bash"):
        complete(words, list(HELP))


def test_completion_is_quiet_about_a_line_that_makes_no_sense(command, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "sr-train train --config-dir /nonexistent arch=[")
    done = command("-sc", "query=bash").succeeds()
    assert done.err == ""


def test_a_command_takes_the_flag_too(command):
    assert "complete -o nospace" in command("train", "-sc", "install=zsh").succeeds().out
    assert "complete -r sr-train" in command("-sc", "uninstall=bash").succeeds().out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_line():
    script = (
        f'export PYTHONPATH={ROOT}; eval "$({sys.executable} -m sr_train -sc install=bash)"\n'
        'COMP_LINE="python -m sr_train train +experiment=quicks" COMP_POINT=${#COMP_LINE}\n'
        '_sr_train_complete; echo "${COMPREPLY[@]}"\n'
        'COMP_LINE="python other.py --x" COMP_POINT=${#COMP_LINE} COMPREPLY=()\n'
        '_sr_train_complete; echo "none: ${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "quickstart\nnone: \n"
