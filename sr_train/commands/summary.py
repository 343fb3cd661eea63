"""What a launch of `train` came to in precision, speed, memory and trouble, reported at its end."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from sr_train.api.text import duration
from sr_train.engine.adaptive import ADAPTIVE_PRECISION, AdaptivePrecision
from sr_train.engine.metric_logger import peak_memory
from sr_train.engine.run_folder import RunFolder
from sr_train.engine.trainer import Trainer
from sr_train.monitoring.console import console
from sr_train.monitoring.run_files import close_manifest


def print_summary(trainer: Trainer, folder: RunFolder, stopped_by: str | None) -> None:
    """Print the summary as a table and keep it, as numbers, with the launch in manifest.json."""
    facts = summary_of(trainer)
    console.print(summary_table(facts, f"{folder.root.name}, step {trainer.step}"))
    if trainer.world.is_main:
        ended = trainer.callbacks.stopped
        end = {
            "stopped_by": stopped_by,
            "stop_reason": ended,
            "best": best_of(trainer),
            "summary": facts,
        }
        close_manifest(folder.manifest, end)


def best_of(trainer: Trainer) -> dict[str, Any] | None:
    """Return the best value of the metric that a sweep looks at; None without validation."""
    metric = trainer.config["best_metric"]
    best = trainer.best.get(metric)
    if best is None or best.value is None:
        return None
    return {"metric": metric, "value": best.value, "higher_is_better": best.higher_is_better}


def summary_of(trainer: Trainer) -> dict[str, Any]:
    """Return the facts as plain numbers and words.

    Speed and times are those of this launch, without its first step; skipped steps and changes of
    the precision are those of the whole run.
    """
    model, clock = trainer.model, trainer.metric_logger.clock
    pace = clock.totals()
    if pace:
        samples = trainer.config["data"]["batch_size"] * trainer.world.size
        pace["samples_per_sec"] = pace["steps_per_sec"] * samples
    adaptive = trainer.callbacks.parts.get(ADAPTIVE_PRECISION)
    return {
        "precision": model.precision.name,
        "precision_changes": (
            list(adaptive.state.changes) if isinstance(adaptive, AdaptivePrecision) else []
        ),
        **pace,
        "seconds": {"training": clock.training, **clock.beside},
        **peak_memory(model.device),
        "skipped_steps": {name: each.num_skipped for name, each in model.learners.items()},
        "steps": {name: each.steps for name, each in model.learners.items()},
        "micro_batches": trainer.micro_batcher.micro_batches,
        "micro_batches_configured": trainer.cadence.accum,
    }


def summary_table(facts: Mapping[str, Any], title: str) -> Table:
    """Return the facts for people, a row each."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _rows(facts):
        table.add_row(label, text)
    return table


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "precision", "\n".join([facts["precision"], *facts["precision_changes"]])
    if "steps_per_sec" in facts:
        yield (
            "speed",
            f"{facts['steps_per_sec']:.2f} step/s, {facts['samples_per_sec']:.1f} samples/s, "
            f"{100 * facts['data_wait_fraction']:.0f} % of the time waiting for data",
        )
    yield (
        "time",
        ", ".join(f"{what} {duration(seconds)}" for what, seconds in facts["seconds"].items()),
    )
    places = {"peak_device_gib": "on the device", "peak_host_gib": "of host memory"}
    peaks = [f"{facts[key]:.2f} GiB {place}" for key, place in places.items() if key in facts]
    if peaks:
        yield "peak memory", ", ".join(peaks)
    yield (
        "skipped steps",
        ", ".join(
            f"net_{name} {skipped} of {facts['steps'][name]}"
            for name, skipped in facts["skipped_steps"].items()
        ),
    )
    if facts["micro_batches"] != facts["micro_batches_configured"]:
        yield (
            "memory ran out",
            f"each step was taken in {facts['micro_batches']} micro-batches instead of "
            f"{facts['micro_batches_configured']}, with the same gradient; to start like this: "
            f"train.accum={facts['micro_batches']}",
        )
