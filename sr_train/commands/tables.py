"""Tables of scores for people, and their CSV and JSON for programs."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from sr_train.api.text import csv_cell
from sr_train.engine.validator import Scores
from sr_train.io.files import write_atomically
from sr_train.monitoring.console import console

Directions = Mapping[str, bool]
"""Whether higher is better, by metric."""


def directions_of(metrics: Mapping[str, Any]) -> dict[str, bool]:
    """Return which way each metric gets better."""
    return {name: bool(metric.higher_is_better) for name, metric in metrics.items()}


def gain(value: float, reference: float, higher_is_better: bool) -> float:
    """Return by how much a value is better than another: above 0 is better, whatever the metric."""
    return value - reference if higher_is_better else reference - value


def score_table(
    model: Scores, baseline: Scores | None, title: str, directions: Directions
) -> Table:
    """Return a table: a row per data set and metric, the model beside bicubic, then the means.

    Args:
        model: its scores.
        baseline: bicubic's; None: no such column, and no gain.
        title: of the table.
        directions: of each metric, shown beside its name.
    """
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("data set", no_wrap=True)
    for column in ("count", "metric", "model"):
        table.add_column(column, justify="right", no_wrap=True)
    if baseline is not None:
        table.add_column("bicubic", justify="right", style="dim", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
        table.caption = f"{_mark(True)} higher is better, {_mark(False)} lower; gain > 0 is better"
    names: list[str | None] = [*model.images]
    if len(names) > 1:
        names.append(None)
    for name in names:
        for row in _rows(model, baseline, name, directions):
            table.add_row(*row)
        table.add_section()
    return table


def _mark(higher_is_better: bool) -> str:
    """Return an arrow, or what a terminal has that cannot show one."""
    if console.encoding.lower().startswith("utf"):
        return "\u2191" if higher_is_better else "\u2193"
    return "^" if higher_is_better else "v"


def _rows(
    model: Scores, baseline: Scores | None, name: str | None, directions: Directions
) -> Iterator[list[str]]:
    sets = model.images if name is None else [name]
    labels = [name or "all", str(sum(len(model.images[s]) for s in sets))]
    for metric, value in model.mean(name).items():
        digits = 2 if metric.startswith("psnr") else 4
        better = directions[metric]
        cells = [*labels, f"{metric} {_mark(better)}", f"{value:.{digits}f}"]
        if baseline is not None:
            reference = baseline.mean(name)[metric]
            cells += [f"{reference:.{digits}f}", f"{gain(value, reference, better):+.{digits}f}"]
        yield cells
        labels = ["", ""]


def write_scores(
    folder: Path,
    model: Scores,
    baseline: Scores | None,
    facts: Mapping[str, Any],
    directions: Directions,
) -> list[Path]:
    """Write results.csv, a row per image or clip, and results.json, with means and gains."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = list(model.mean())
    csv_path, json_path = folder / "results.csv", folder / "results.json"
    references = [] if baseline is None else [f"bicubic_{metric}" for metric in metrics]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["data_set", "image", *map(csv_cell, (*metrics, *references))])
    for set_name, images in model.images.items():
        for image, row in images.items():
            values = [row[metric] for metric in metrics]
            if baseline is not None:
                values += [baseline.images[set_name][image][m] for m in metrics]
            writer.writerow([csv_cell(set_name), csv_cell(image), *values])
    write_atomically(csv_path, text.getvalue().encode())
    document = {**facts, "higher_is_better": dict(directions), "model": _as_dict(model)}
    if baseline is not None:
        document["bicubic"] = _as_dict(baseline)
        document["gain"] = {
            "mean": _gains(model.mean(), baseline.mean(), directions),
            "sets": {
                name: _gains(model.mean(name), baseline.mean(name), directions)
                for name in model.images
            },
        }
    words = json.dumps(_json_numbers(document), indent=2, allow_nan=False)
    write_atomically(json_path, f"{words}\n".encode())
    return [csv_path, json_path]


def _json_numbers(value: Any) -> Any:
    """Write the PSNR of identical images as "inf": JSON has no such number."""
    if isinstance(value, dict):
        return {key: _json_numbers(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _gains(
    model: Mapping[str, float], baseline: Mapping[str, float], directions: Directions
) -> dict[str, float]:
    return {name: gain(value, baseline[name], directions[name]) for name, value in model.items()}


def _as_dict(scores: Scores) -> dict:
    return {
        "mean": scores.mean(),
        "sets": {name: scores.mean(name) for name in scores.images},
        "images": scores.images,
    }
