import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys import Outcome, no_validation, toy_words


@pytest.fixture
def train(command: Callable[..., Outcome], in_folder: Path) -> Callable[..., Outcome]:
    """Return a function that trains the toy without validation, its settings amended."""
    words = no_validation(*toy_words(in_folder))
    return lambda *more: command("train", *words, *more)


@pytest.fixture(scope="session")
def finished_runs() -> dict[tuple[str, ...], Path]:
    """Return the copies of runs that were made in this process, by their command lines."""
    return {}


@pytest.fixture
def finished(
    command: Callable[..., Outcome],
    in_folder: Path,
    finished_runs: dict[tuple[str, ...], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Return a function that gives the folder of the run that a line of toy words makes.

    A line that another test ran before is not run again: its folder is copied, as people do.
    """

    def run_of(*words: str) -> Path:
        names = [word.removeprefix("name=") for word in words if word.startswith("name=")]
        run = in_folder / "runs" / names[-1]
        if words not in finished_runs:
            command(*words).succeeds()
            kept = tmp_path_factory.mktemp("finished") / "run"
            finished_runs[words] = Path(shutil.copytree(run, kept))
        else:
            shutil.copytree(finished_runs[words], run)
        return run

    return run_of
