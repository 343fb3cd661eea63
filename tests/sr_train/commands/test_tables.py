"""Scores for people and programs: which way a metric gets better, and by how much."""

import csv
import io
import json
import math

import pytest
from rich.console import Console

from sr_train.commands import tables
from sr_train.commands.tables import directions_of, gain, score_table, write_scores
from sr_train.engine.validator import Scores
from sr_train.metrics import LPIPS, PSNR, TemporalDifference

WAYS = {"psnr_y": True, "lpips": False}

MODEL = Scores({"main": {"a": {"psnr_y": 30.0, "lpips": 0.25}}})
BICUBIC = Scores({"main": {"a": {"psnr_y": 28.5, "lpips": 0.75}}})


def shown(monkeypatch, encoding="utf-8"):
    """Return the cells of the rows of a table, and the whole text."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=120)
    monkeypatch.setattr(tables, "console", console)
    console.print(score_table(MODEL, BICUBIC, "toy", WAYS))
    file.flush()
    text = raw.getvalue().decode(encoding)
    lines = [line.replace("\u2502", "|").split("|") for line in text.splitlines()]
    rows = [[cell.strip() for cell in line[1:-1]] for line in lines if len(line) == 8]
    return [row for row in rows if row[3] != "model"], text


def test_a_gain_above_zero_is_better_whatever_the_metric(monkeypatch):
    (psnr, lpips), text = shown(monkeypatch)
    assert psnr[2:] == ["psnr_y \u2191", "30.00", "28.50", "+1.50"]
    assert lpips[2:] == ["lpips \u2193", "0.2500", "0.7500", "+0.5000"]
    assert "\u2191 higher is better, \u2193 lower; gain > 0 is better" in text


def test_a_terminal_without_arrows_gets_letters(monkeypatch):
    (_, lpips), text = shown(monkeypatch, "latin-1")
    assert lpips[2] == "lpips v"
    assert "^ higher is better, v lower" in text


def test_results_hold_the_gain_and_the_direction(tmp_path):
    write_scores(tmp_path, MODEL, BICUBIC, {"step": 3}, WAYS)
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["higher_is_better"] == WAYS
    assert document["gain"]["mean"] == {"psnr_y": 1.5, "lpips": 0.5}
    assert document["gain"]["sets"] == {"main": {"psnr_y": 1.5, "lpips": 0.5}}


def test_without_a_baseline_there_is_no_gain(tmp_path):
    write_scores(tmp_path, MODEL, None, {}, WAYS)
    assert "gain" not in json.loads((tmp_path / "results.json").read_text())
    assert [column.header for column in score_table(MODEL, None, "toy", WAYS).columns] == [
        "data set",
        "count",
        "metric",
        "model",
    ]


@pytest.mark.parametrize(
    ("value", "reference", "higher", "expected"),
    [(30.0, 28.0, True, 2.0), (0.2, 0.5, False, 0.3), (0.5, 0.2, False, -0.3), (1.0, 1.0, True, 0)],
)
def test_gain(value, reference, higher, expected):
    assert gain(value, reference, higher) == pytest.approx(expected)


def test_a_perfect_image_gains_without_bound():
    assert gain(math.inf, 30.0, True) == math.inf


def test_directions_are_those_of_the_metrics():
    metrics = {"p": PSNR(), "l": LPIPS(random_init=True), "t": TemporalDifference()}
    assert directions_of(metrics) == {"p": True, "l": False, "t": False}


def test_names_in_the_table_steer_no_terminal_and_are_no_formulas(tmp_path):
    names = ["=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "a\x1b[31m\nb", "caf\udce9", 'a,"b']
    scores = Scores({"=set": {name: {"=m": 1.5} for name in names}})
    write_scores(tmp_path, scores, None, {}, {"=m": True})
    head, *rows = csv.reader((tmp_path / "results.csv").read_text().splitlines())
    assert head == ["data_set", "image", "'=m"]
    assert [row[0] for row in rows] == ["'=set"] * len(names)
    assert [row[1] for row in rows] == [
        "'=cmd|' /C calc'!A0", "'+1", "'-2", "'@SUM(A1)", r"a\x1b[31m\nb", r"caf\xe9", 'a,"b',
    ]  # fmt: skip
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["results.csv", "results.json"]
