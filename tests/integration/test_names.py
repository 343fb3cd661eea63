"""Names as people have them: whole runs in folders that Hydra's grammar could not read."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.toys import fill, state_of, toy_words

NAMES = [
    "my pic (1)",
    "\u00fcml\u00e4ut",
    "\u65e5\u672c\u8a9e",
    "a[b]",
    "[x,y]",
    "c,d",
    "e=f",
    "50%",
    "g#h",
    "i&j",
    "it's",
    'q"r',
    "a$b",
    "back\\slash",
    "end\\",
    " lead",
    "trail ",
    "~tilde",
    "-dash",
    "semi;colon",
    "{br}",
    "ex!cl",
    "<x>",
    "`bt`",
    "2024_01_15",
    "1e3",
    "true",
    "007",
    "None",
    "???x",
    "choice",
    "str(5)x",
]


def words(folder: Path, name: str, *more: str) -> list[str]:
    """Return the settings of a toy run called `name`, on images in folders of that name."""
    toy_words(folder)
    if not (folder / name).exists():
        for kind in ("gt", "val"):
            (folder / name / kind).mkdir(parents=True)
            for image in (folder / kind).glob("*.png"):
                shutil.copy(image, folder / name / kind / f"{name}{image.name}")
    taken = ("name=", "data.train.gt", "data.val.main.gt", "train.steps")
    kept = [word for word in toy_words(folder) if not word.startswith(taken)]
    sets = [f"data.train.gt={name}/gt", f"data.val.main.gt={name}/val"]
    return [f"name={name}", "train.steps=2", *kept, *sets, *more]


def printed(out: str, program: str) -> list[str]:
    """Return the words behind `sr_train` of the printed line that holds `program`."""
    (line,) = [line for line in out.splitlines() if f"-m sr_train {program}" in line]
    typed = shlex.split(line)
    return typed[typed.index("sr_train") + 1 :]


@pytest.mark.parametrize(
    "name",
    [
        name if n % 8 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for n, name in enumerate(NAMES)
    ],
)
def test_a_run_may_have_any_name_and_read_any_folder(command, in_folder, name):
    done = command("train", *words(in_folder, name)).succeeds()
    run = in_folder / "runs" / name
    assert state_of(run, 2)["config"]["name"] == name
    assert state_of(run, 2)["config"]["data"]["train"]["gt"] == f"{name}/gt"
    # What the end of the run tells to type:
    infer = [word.replace("IMAGE_OR_FOLDER", f"{name}/val") for word in printed(done.out, "infer")]
    command(*infer).succeeds()
    assert (in_folder / "upscaled" / f"{name}p0.png").is_file()
    command(*printed(done.out, "export")).succeeds()
    assert (in_folder / f"{name}.safetensors").is_file()
    again = command("train", f"resume=runs/{name}", "train.steps=3").succeeds()
    assert "at step 2" in again.out
    assert state_of(run, 3)["config"]["name"] == name


@pytest.mark.parametrize("name", ["my pic (1)", "it's, 2024", "2024_01_15"])
def test_one_image_of_that_name_is_upscaled_to_one_of_that_name(command, finished, in_folder, name):
    finished("train", *words(in_folder, "toy"))
    fill(in_folder / name, 1, (20, 24))
    done = command("infer", "checkpoint=runs/toy", f"input={name}/p0.png", f"output={name} x2")
    done.succeeds()
    assert (in_folder / f"{name} x2" / "p0.png").is_file()


def test_a_folder_whose_name_looks_like_a_reference(command, in_folder):
    every = [word.replace("name=${z", "name=toy") for word in words(in_folder, "${z")]
    command("train", *every).succeeds()
    assert state_of(in_folder / "runs/toy", 2)["config"]["data"]["train"]["gt"] == "${z/gt"


@pytest.mark.parametrize("name", ["a/b", "..", "", "a${b", "x" * 201, "a\tb", "a\x1bb"])
def test_what_cannot_be_the_name_of_a_run_leaves_no_folder(command, in_folder, name):
    done = command("train", *words(in_folder, "toy"), f"name={name}")
    done.fails_with("name=", "expected the name of a folder")
    assert not (in_folder / "runs").exists()


def test_lists_of_folders_take_such_names_too(command, in_folder):
    command_words = words(in_folder, "my pic (1)")
    words(in_folder, "2024_01_15")
    done = command("train", *command_words, "data.train.gt=[my pic (1)/gt, 2024_01_15/gt]")
    done.succeeds()
    stored = state_of(in_folder / "runs/my pic (1)", 2)["config"]["data"]["train"]["gt"]
    assert stored == ["my pic (1)/gt", "2024_01_15/gt"]


def test_a_sweep_over_such_names_makes_a_run_of_each(command, in_folder):
    every = words(in_folder, "my pic (1)")
    words(in_folder, "2024_01_15")
    swept = "data.train.gt=my pic (1)/gt,2024_01_15/gt"
    done = command("train", *every, swept, "-m").succeeds()
    found = [
        state_of(in_folder / f"runs/my pic (1)/sweep_{number}", 2)["config"]["data"]["train"]["gt"]
        for number in (0, 1)
    ]
    assert found == ["my pic (1)/gt", "2024_01_15/gt"]
    assert "sweep_1 (data.train.gt=2024_01_15/gt)" in done.out


def test_what_is_written_in_hydras_way_stays_as_it_is(command, in_folder):
    every = words(in_folder, "toy")
    command("train", *every, "name='my run'").succeeds()
    command("train", *every, "name=run_${scale}").succeeds()
    assert {path.name for path in (in_folder / "runs").iterdir()} == {"my run", "run_2"}
