"""Config files that are damaged, mistyped or hostile: a message with file and line."""

import os

import pytest
from omegaconf import OmegaConf

from sr_train.api.errors import ConfigError
from sr_train.config.yaml_files import header_of, read_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a file, bytes or text, and gives its path."""

    def write(content):
        path = tmp_path / "case.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x: !!python/object/apply:os.system ['true']\n", "line 1, column 4: the tag !!python"),
        ("x: !!python/object/apply:pathlib.Path ['a']\n", "the tag !!python/object/apply:pathlib"),
        ("x: !!binary aGVsbG8=\n", "the tag !!binary is not allowed; expected a plain value"),
        ("x: !foo 1\n", "the tag !foo is not allowed"),
        ("a: &a [*a]\n", "line 1, column 4: refers to itself"),
        ("train: &t\n  steps: *t\n", "line 1, column 8: refers to itself"),
        ("a: *nope\n", "line 1, column 4: found undefined alias 'nope'"),
        (BOMB, "holds more than 20,000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "values lie too deep in each other"),
        ("".join(" " * n + f"k{n}:\n" for n in range(900)), "lie too deep"),
        ("seed: 1\nseed: 2\n", "line 2, column 1: found duplicate key seed"),
        ("seed:\t1\n\ttrain: 2\n", "indent with spaces"),
        ("seed: 1\0\n", "special characters are not allowed"),
        ("- 1\n- 2\n", "expected keys and values, `key: value`"),
        ("hello\n", "expected keys and values"),
        ("seed: 1\n---\nseed: 2\n", "expected a single document in the stream"),
        ("1: 2\n", "line 1, column 1: the key 1 is read as a number; write '1'"),
        ("007: [0, 8]\n", "the key 007 is read as a number; write '007'"),
        ("on: 1\n", "the key on is read as true or false; write 'on'"),
        ("? \n: 1\n", "the key  is read as null"),
        ("? [a, b]\n: 1\n", "a list or mapping cannot be a key"),
        ("'': 1\n", "expected a key of 1 to 200 printable characters"),
        ("k" * 1000 + ": 1\n", "line 1"),
        ('name: "\\ud800"\n', "holds half a character"),
        ("seed: " + "9" * 5000 + "\n", "cannot be read: Exceeds the limit"),
        ("name: '${'\n", "name: "),
        ("name: caf\u00e9\n".encode("latin-1"), "line 1: is no UTF-8 text (byte 0xe9)"),
        (b"a: 1\nb: \xff\xfe\n", "line 2: is no UTF-8 text (byte 0xff)"),
        (b"#" * (2**20 + 1), "bytes; no config is that large"),
    ],
)
def test_what_is_no_config_is_told_with_its_place(written, content, says):
    path = written(content)
    with pytest.raises(ConfigError) as err:
        read_yaml(path)
    assert str(err.value).startswith(f"{path}: ")
    assert says in str(err.value)
    assert "omegaconf" not in str(err.value).lower()


@pytest.mark.parametrize(
    ("content", "config"),
    [
        ("", {}),
        ("# nothing but a comment\n", {}),
        ("\ufeffseed: 1\n", {"seed": 1}),
        ("seed: !!int '12'\n", {"seed": 12}),
        ("a: &a {seed: 1}\nb: *a\nc:\n  <<: *a\n  x: 2\n", None),
        ("lr: 1e-4\n", {"lr": 1e-4}),
        ("name: \u65e5\u672c\n", {"name": "\u65e5\u672c"}),
        ("'007': [0, 8]\n", {"007": [0, 8]}),
        ("x: ${seed}\n", {"x": "${seed}"}),
    ],
)
def test_what_is_a_config_is_read(written, content, config):
    found = OmegaConf.to_container(read_yaml(written(content)), resolve=False)
    assert found == (
        {"a": {"seed": 1}, "b": {"seed": 1}, "c": {"seed": 1, "x": 2}} if config is None else config
    )


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "case.yaml")
    with pytest.raises(ConfigError, match="is no file"):
        read_yaml(tmp_path / "case.yaml")


@pytest.mark.parametrize(
    ("content", "package"),
    [
        ("# @package _global_\n", "_global_"),
        ("\n#@package data\nseed: 1\n", "data"),
        ("# a comment\n# @package data\n", None),
        ("seed: 1\n# @package data\n", None),
        ("", None),
    ],
)
def test_the_package_is_what_the_head_says(written, content, package):
    assert header_of(written(content))["package"] == package


def test_a_head_that_cannot_be_read_is_told(written):
    with pytest.raises(ConfigError, match="expected for example # @package _global_"):
        header_of(written("# @package _global_ and more\n"))


@pytest.mark.parametrize("text", ["2024_01_15", "1e5", "1.50", "007", "0x10", "1:30", "true", "on"])
def test_names_and_paths_are_the_text_that_stands_there(written, text):
    path = written(
        f"name: {text}\ndata: {{train: {{gt: {text}, include: [{text}, b]}}}}\nseed: 1_0\n"
    )
    config = read_yaml(path)
    assert config.name == config.data.train.gt == config.data.train.include[0] == text
    assert config.seed == 10
