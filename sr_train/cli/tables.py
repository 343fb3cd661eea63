"""Tables of scores for people, and their CSV and JSON for programs."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from sr_train.engine.validator import Scores


def score_table(model: Scores, baseline: Scores | None, title: str) -> Table:
    """Return a table: a row per data set and metric, the model beside bicubic, then the means."""
    table = Table(title=title, title_justify="left")
    table.add_column("data set", no_wrap=True)
    for column in ("count", "metric", "model"):
        table.add_column(column, justify="right", no_wrap=True)
    if baseline is not None:
        table.add_column("bicubic", justify="right", style="dim", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
    names: list[str | None] = [*model.pictures]
    if len(names) > 1:
        names.append(None)
    for name in names:
        for row in _rows(model, baseline, name):
            table.add_row(*row)
        table.add_section()
    return table


def _rows(model: Scores, baseline: Scores | None, name: str | None) -> Iterator[list[str]]:
    sets = model.pictures if name is None else [name]
    labels = [name or "all", str(sum(len(model.pictures[s]) for s in sets))]
    for metric, value in model.mean(name).items():
        digits = 2 if metric.startswith("psnr") else 4
        cells = [*labels, metric, f"{value:.{digits}f}"]
        if baseline is not None:
            reference = baseline.mean(name)[metric]
            cells += [f"{reference:.{digits}f}", f"{value - reference:+.{digits}f}"]
        yield cells
        labels = ["", ""]


def write_scores(folder: Path, model: Scores, baseline: Scores | None, facts: dict) -> list[Path]:
    """Write results.csv, a row per picture or clip, and results.json, with the means."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = list(model.mean())
    csv_path, json_path = folder / "results.csv", folder / "results.json"
    references = [] if baseline is None else [f"bicubic_{metric}" for metric in metrics]
    with csv_path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data_set", "picture", *metrics, *references])
        for set_name, pictures in model.pictures.items():
            for picture, row in pictures.items():
                values = [row[metric] for metric in metrics]
                if baseline is not None:
                    values += [baseline.pictures[set_name][picture][m] for m in metrics]
                writer.writerow([set_name, picture, *values])
    document = {**facts, "model": _as_dict(model)}
    if baseline is not None:
        document["bicubic"] = _as_dict(baseline)
    json_path.write_text(json.dumps(_json_numbers(document), indent=2, allow_nan=False) + "\n")
    return [csv_path, json_path]


def _json_numbers(value: Any) -> Any:
    """Write the PSNR of identical pictures as "inf": JSON has no such number."""
    if isinstance(value, dict):
        return {key: _json_numbers(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _as_dict(scores: Scores) -> dict:
    return {
        "mean": scores.mean(),
        "sets": {name: scores.mean(name) for name in scores.pictures},
        "pictures": scores.pictures,
    }
