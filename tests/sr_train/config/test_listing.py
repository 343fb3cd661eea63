"""What there is to choose from, in a sentence each."""

import pytest

from sr_train.api.errors import ConfigError
from sr_train.config.listing import comment_of, groups, listed
from sr_train.config.sources import SHIPPED


def test_every_shipped_choice_is_listed_and_says_what_it_is():
    found = groups()
    shipped = {path.relative_to(SHIPPED) for path in SHIPPED.rglob("*/*.yaml")}
    names = {SHIPPED.joinpath(g, f"{c.name}.yaml") for g, choices in found.items() for c in choices}
    assert names == {SHIPPED / path for path in shipped}
    silent = [f"{g}/{c.name}" for g, choices in found.items() for c in choices if not c.comment]
    assert silent == []


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("# One sentence.\na: 1\n", "One sentence."),
        (
            "# @package _global_\n# python -m sr_train train a=1\n#     b=2\n# This one.\n",
            "This one.",
        ),
        ("# after that: python -m sr_train check\n# This one.\n", "This one."),
        ("# Two. Of them.\n# More.\n", "Two. Of them."),
        ("# One. The next goes\n# on here. And on.\n", "One."),
        ("# A long one that goes\n# on here. And on.\n", "A long one that goes on here."),
        ("# Folders: a=... [b=...]\n# More.\n", "Folders: a=... [b=...]"),
        ("# By Wang et al. 2018.\n", "By Wang et al. 2018."),
        ("# A colon:\n# more\n", "A colon:"),
        ("# No end\n", "No end"),
        ("a: 1\n# not at the head\n", ""),
        ("", ""),
    ],
)
def test_the_opening_sentence_of_a_file(text, comment, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert comment_of(path) == comment


@pytest.fixture
def mine(tmp_path):
    for name, text in {
        "arch/tiny.yaml": "# Mine.\n_target_: mine.Tiny\n",
        "arch/compact.yaml": "# Mine, too.\n",
        "other/deep/x.yaml": "a: 1\n",
        "top.yaml": "a: 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_users_own_files_are_marked(mine):
    lines = listed("arch", mine).splitlines()
    assert lines[0] == "arch   arch=NAME"
    (tiny,) = (line.split() for line in lines if line.startswith("  tiny "))
    assert tiny == f"tiny Mine. [yours: {mine}/arch/tiny.yaml]".split()
    hidden = [line for line in lines if "hidden by the shipped one of that name" in line]
    assert len(hidden) == 1
    assert f"{mine}/arch/compact.yaml]" in hidden[0]
    assert "other/deep" in groups(mine)
    assert all(choice.name != "top" for found in groups(mine).values() for choice in found)


@pytest.mark.parametrize(
    ("group", "how"),
    [
        ("experiment", "+experiment=NAME"),
        ("dataset", "dataset=[NAME,...]"),
        ("objective", "objective=[NAME,...]"),
        ("precision", "precision=NAME"),
    ],
)
def test_how_to_choose_is_said(group, how):
    assert listed(group).splitlines()[0] == f"{group}   {how}"


def test_all_groups_are_listed_without_a_name():
    text = listed()
    assert all(f"{listed(group)}" in text for group in groups())


def test_a_group_that_there_is_none_of():
    with pytest.raises(ConfigError, match="config list expermient: no such group; did you mean"):
        listed("expermient")


def test_a_folder_or_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"--config-dir .*nowhere: no such folder"):
        groups(tmp_path / "nowhere")
    (tmp_path / "arch").mkdir()
    (tmp_path / "arch/x.yaml").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read"):
        groups(tmp_path)
