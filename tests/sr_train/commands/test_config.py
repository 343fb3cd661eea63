"""`python -m sr_train config`: what it prints, and what a wrong word says."""

import json

import pytest


def test_list_and_schema_print(command, in_folder):
    assert "quickstart" in command("config", "list", "experiment").succeeds().out
    assert command("config", "list").succeeds().out.count("\n") > 100
    schema = json.loads(command("config", "schema").succeeds().out)
    assert "objective" in schema["properties"]
    assert (
        "checkpoint"
        in json.loads(command("config", "schema", "infer").succeeds().out)["properties"]
    )
    (in_folder / "my/arch").mkdir(parents=True)
    (in_folder / "my/arch/tiny.yaml").write_text("# Mine.\n")
    assert (
        "yours: my/arch/tiny.yaml" in command("config", "list", "arch", "-cd", "my").succeeds().out
    )
    assert "'tiny'" not in command("config", "schema").succeeds().out
    assert '"tiny"' in command("config", "schema", "--config-dir=my").succeeds().out


@pytest.mark.parametrize("words", [[], ["--help"], ["list", "--help"]])
def test_its_help(words, command):
    assert "config list [GROUP]" in command("config", *words).succeeds().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lsit"], "config lsit: expected list or schema; did you mean 'list'"),
        (["list", "archs"], "config list archs: no such group; did you mean 'arch'"),
        (["list", "arch", "compact"], "expected no further word, found compact"),
        (["schema", "trian"], "did you mean 'train'"),
        (["list", "--cfg", "job"], "expected no other flag than --config-dir DIR"),
        (["list", "--gropu"], "--gropu: no such flag"),
        (["list", "--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
    ],
)
def test_a_wrong_word(words, says, command):
    command("config", *words).fails_with(says)


def test_it_is_in_the_usage(command):
    assert "\n  config " in command("--help").succeeds().out
    command("confg").fails_with("unknown command 'confg'; did you mean 'config'")
