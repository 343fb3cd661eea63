"""What is read from the folders of a sweep, whatever state they are in."""

import csv
import json

import pytest

from sr_train.cli.sweep_table import failures, sweep_table, swept_runs, write_sweep


@pytest.fixture
def add(tmp_path):
    """Return a function that makes the folder of a run."""

    def make(name, words, launch=None, error=None):
        folder = tmp_path / name
        (folder / ".hydra/20260101-000000").mkdir(parents=True)
        text = "".join(f"- {json.dumps(word)}\n" for word in words) or "[]"
        (folder / ".hydra/20260101-000000/overrides.yaml").write_text(text)
        if launch is not None:
            (folder / "manifest.json").write_text(json.dumps([launch]))
        if error is not None:
            (folder / "error.txt").write_text(error)

    return make


def ended(value, rises=True, **more):
    best = {"metric": "m", "value": value, "higher_is_better": rises}
    return {"ended": "now", "best": best, **more}


@pytest.mark.parametrize(("rises", "order"), [(True, "bac"), (False, "cab")])
def test_the_best_is_first_whichever_way_a_metric_gets_better(add, tmp_path, rises, order):
    for name, value in {"a": 2.0, "b": 3.0, "c": 0.0}.items():
        add(name, ["scale=2", f"seed={name}"], ended(value, rises))
    runs = swept_runs(tmp_path)
    assert "".join(run.folder.name for run in runs) == order
    assert {run.overrides for run in runs} == {("seed=a",), ("seed=b",), ("seed=c",)}


def test_states(add, tmp_path):
    add("r1", [], ended(1.0))
    add("r2", [], ended(1.0, stopped_by="SIGTERM"))
    add("r3", [], {"started": "then"})
    add("r4", [], ended(None), error="broke\n")
    add("r5", [])
    (tmp_path / "r5/manifest.json").write_text("no json")
    (tmp_path / "r5/.hydra/20260101-000000/overrides.yaml").write_text("a: [")
    add("r6", [], {"ended": "now", "best": {"metric": "m", "value": "much"}})
    add("r10", [], {"ended": "now", "best": None})
    assert {run.folder.name: run.state for run in swept_runs(tmp_path)} == {
        "r1": "done",
        "r2": "stopped by SIGTERM",
        "r3": "not ended",
        "r4": "failed",
        "r5": "not ended",
        "r6": "done",
        "r10": "done",
    }


def test_a_long_sweep_is_cut_in_the_table_alone(add, tmp_path):
    for number in range(30):
        add(f"r{number}", [f"seed={number}"], ended(number))
    runs = swept_runs(tmp_path)
    table = sweep_table(runs, tmp_path)
    assert table.row_count == 20
    assert table.caption == "... and 10 more, in sweep.csv"
    with write_sweep(runs, tmp_path).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 30


def test_what_is_typed_becomes_no_formula(add, tmp_path):
    add("a", ["=cmd()"], ended(1.0))
    add("b", ["x=1"], ended(2.0))
    with write_sweep(swept_runs(tmp_path), tmp_path).open(newline="") as file:
        assert [row["overrides"] for row in csv.DictReader(file)] == ["x=1", "'=cmd()"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("step 2: not finite\n  try this\n", "step 2: not finite"),
        ("1 problem:\n  - a.b: wrong\n", "a.b: wrong"),
        ("5 problems:\n  - a\n  - b\n  - c\n  - d\n  - e\n", "a; b; c; and 2 more"),
        ("Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("", "no reason given"),
    ],
)
def test_the_line_of_an_error_that_says_what_is_wrong(add, tmp_path, text, problem):
    add("r", [], None, text)
    assert failures(tmp_path) == {"r": problem}
