"""The rules of the house, read from the source: who imports whom, words, budgets."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUG_INS = ("archs", "losses", "data")

FOUNDATION = {"api", "io", "ops", "utils"}
PLUG_INS_MAY = {f"sr_train.{room}" for room in FOUNDATION}

LAYERS = {
    "cli": {"commands", "factory", "config", "monitoring", "engine", *FOUNDATION},
    "commands": {"factory", "config", "engine", "inference", "metrics", "monitoring", *FOUNDATION},
    "factory": {"config", "engine", "inference", "metrics", "monitoring", *FOUNDATION},
    "engine": {"config", "inference", "metrics", "monitoring", *FOUNDATION},
    "inference": {"config", "metrics", "monitoring", *FOUNDATION},
    "config": {"api", "io", "utils"},
    "callbacks": FOUNDATION,
    "metrics": FOUNDATION,
    "monitoring": FOUNDATION,
    "ops": {"api", "io", "utils"},
    "io": {"api", "utils"},
    "utils": {"api"},
    "api": set(),
}
"""What each room of sr_train may import beside itself; no circle is possible in it."""

BANNED = {
    "sf": "scale",
    "upscale_factor": "scale",
    "scale_factor": "scale",
    "hr": "gt",
    "hq": "gt",
    "img1": "pred",
    "img2": "target",
    "x_hq": "gt",
    "model_d": "net_d",
    "clip_size": "num_frames",
    "num_frame": "num_frames",
    "n_frames": "num_frames",
    "patch_size": "lq_size",
    "gt_size": "lq_size",
    "bs": "batch_size",
    "iters": "steps",
    "num_iter": "steps",
}
"""Names nobody may give to a parameter or a variable, and the word to use."""


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return tuple(files)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its room"
            assert node.module is not None
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def faults_of_plug_in(path: Path) -> list[str]:
    own = path.relative_to(ROOT).parts[0]
    return [
        f"{path}:{line}: {own} imports {module}"
        for line, module in imports(path)
        if module.split(".")[0] in {*PLUG_INS, "sr_train", "configs"} - {own}
        and ".".join(module.split(".")[:2]) not in {"sr_train", *PLUG_INS_MAY}
    ]


@pytest.mark.parametrize("package", PLUG_INS)
def test_plug_ins_know_the_foundation_only(package):
    assert [fault for path in sources(package) for fault in faults_of_plug_in(path)] == []


def test_a_fault_in_a_plug_in_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_layering.ROOT", tmp_path)
    path = tmp_path / "archs" / "invented.py"
    path.parent.mkdir()
    path.write_text(
        "from losses.pixel import L1Loss\n"
        "import sr_train.engine.model\n"
        "from sr_train import inference\n"
        "from sr_train.api.network import NetSpec\n"
        "from sr_train.ops import colour\n"
        "from archs.common import init\n"
    )
    lines = {int(fault.split(":")[1]) for fault in faults_of_plug_in(path)}
    assert lines == {1, 2, 3}


DATA_LAYERS = ("index", "cache", "loading", "")
"""The rooms of `data`, each of which imports those before it only; last, what a config names."""


def faults_in_data(path: Path) -> list[str]:
    parts = path.relative_to(ROOT).parts
    own = DATA_LAYERS.index(parts[1] if len(parts) > 2 else "")
    return [
        f"{path}:{line}: {module}"
        for line, module in imports(path)
        if module.startswith("data.")
        and DATA_LAYERS.index(room(module) if room(module) in DATA_LAYERS else "") > own
    ]


def test_the_rooms_of_data_import_downwards():
    assert [fault for path in sources("data") for fault in faults_in_data(path)] == []


def test_a_fault_in_data_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_layering.ROOT", tmp_path)
    path = tmp_path / "data" / "cache" / "invented.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from data.index.folders import FoundFile\n"
        "from data.loading.sampler import InfiniteSampler\n"
        "import data.images\n"
    )
    assert {int(fault.split(":")[1]) for fault in faults_in_data(path)} == {2, 3}


def test_the_framework_names_no_plug_in():
    found = [
        f"{path}:{line}: {module}"
        for path in sources("sr_train")
        for line, module in imports(path)
        if module.split(".")[0] in PLUG_INS
    ]
    assert found == []


def test_rooms_import_downwards():
    found = []
    for path in sources("sr_train"):
        parts = path.relative_to(ROOT).parts
        own = parts[1] if len(parts) > 2 else ""
        for line, module in imports(path):
            other = room(module)
            ours = module.startswith("sr_train.") and own and other in LAYERS
            if ours and other not in LAYERS[own] | {own}:
                found.append(f"{path}:{line}: {own} imports {module}")
    assert found == []


def test_nothing_of_a_step_is_made_in_inference_mode():
    """A tensor made there cannot be saved for a backward; `inference_mode(False)` leaves it."""
    found = []
    for path in sources("sr_train/engine", "sr_train/ops", "losses", "archs", "data"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("inference_mode"):
                arguments = [ast.unparse(argument) for argument in node.args]
                if arguments != ["False"]:
                    found.append(f"{path}:{node.lineno}")
    assert found == []


def test_every_room_has_a_layer():
    rooms = {path.name for path in (ROOT / "sr_train").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(LAYERS)


def test_layers_hold_no_circle():
    left = {name: set(below) for name, below in LAYERS.items()}
    while left:
        lowest = [name for name, below in left.items() if not below & set(left)]
        assert lowest, f"a circle among {sorted(left)}"
        for name in lowest:
            del left[name]


def given_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every parameter and every assigned name or attribute."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def test_banned_words_are_not_given():
    found = []
    for path in sources(*PLUG_INS, "sr_train", "tests"):
        place = path.relative_to(ROOT).as_posix()
        found += [
            f"{place}:{line}: {name}, say {BANNED[name]}"
            for line, name in given_names(path)
            if name in BANNED
        ]
    assert found == []


MAX_FILE, MAX_FUNCTION = 400, 60


def test_files_and_functions_stay_readable():
    found = []
    for path in sources(*PLUG_INS, "sr_train", "scripts"):
        place = path.relative_to(ROOT).as_posix()
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE:
            found.append(f"{place}: {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # Arguments and docstring do not make a function harder to follow.
                first = node.body[1:2] if ast.get_docstring(node) else node.body[:1]
                length = (node.end_lineno or 0) - first[0].lineno + 1 if first else 0
                if length > MAX_FUNCTION:
                    found.append(f"{place}:{node.lineno}: {node.name} has {length} lines")
    assert found == []


def test_source_is_ascii():
    folders = (*PLUG_INS, "sr_train", "configs", "scripts", "tests")
    assert [str(path) for path in sources(*folders) if not path.read_text().isascii()] == []
