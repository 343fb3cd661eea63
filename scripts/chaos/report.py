"""Arguments and results that all harnesses have alike."""

import argparse
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.chaos import photographs
from scripts.chaos.children import Ended


def arguments(about: str, **numbers: int) -> argparse.Namespace:
    """Read the command line of a harness.

    Args:
        about: its docstring.
        numbers: sizes that it takes as `--name N`, with their defaults.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("chaos"), help="folder of results")
    parser.add_argument("--seed", type=int, default=0)
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default: {value}")
    return parser.parse_args()


class Report:
    """What a harness found: things that must not be, and figures; one JSON file.

    Args:
        name: of the harness.
        options: as it was called.
        never: kinds of findings, each of which must stay at zero.
    """

    def __init__(self, name: str, options: argparse.Namespace, never: Sequence[str]) -> None:
        self.name = name
        self.figures: dict[str, Any] = {}
        out = options.out.absolute()
        self.work = out / "work" / name
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.data = photographs.make(out / "data")
        self._file = out / f"{name}.json"
        self._options = {key: value for key, value in vars(options).items() if key != "out"}
        self._found: dict[str, list[Any]] = {kind: [] for kind in never}
        self._tables: dict[str, Counter[str]] = defaultdict(Counter)
        self._started = time.monotonic()

    @property
    def log(self) -> Path:
        """Where children print to."""
        return self.work / "child.log"

    def add(self, kind: str, **case: Any) -> None:
        """Note one thing that must not be."""
        self._found[kind].append(case)
        print(f"{self.name}: {kind}: {case}", flush=True)

    def count(self, table: str, key: str) -> None:
        """Count one outcome in a table of the figures."""
        self._tables[table][key] += 1

    def judge(
        self,
        case: Any,
        ended: Ended,
        *,
        table: str = "ends",
        codes: Sequence[int] = (0, 2),
        slow_s: float = 20.0,
        canary: Path | None = None,
    ) -> None:
        """Note how a command ended, and what of that must not be.

        Args:
            case: what it was given.
            ended: how it ended.
            table: of the figures, by kind of end.
            codes: exit codes that are right.
            slow_s: longer is a finding.
            canary: a file that exists if code of the case was run.
        """
        self.count(table, ended.kind)
        faults = {
            "hangs": ended.hangs,
            "memory": ended.takes_too_much,
            "tracebacks": ended.traceback,
            "slow": not ended.hangs and ended.seconds > slow_s,
            "left_processes": ended.left_processes > 0,
            "code_executed": canary is not None and canary.exists(),
        }
        lost = ended.hangs or ended.takes_too_much
        faults["crashes"] = ended.signal is not None and not lost
        faults["exit_codes"] = ended.signal is None and ended.code not in codes
        if ended.traceback:
            faults["exit_codes"] = False
        facts = {
            "case": case,
            "end": ended.kind,
            "seconds": round(ended.seconds, 1),
            "mib": round(ended.peak_mib),
            "fault": ended.fault(),
            "tail": ended.out[-2000:],
        }
        for kind in (kind for kind, is_so in faults.items() if is_so):
            self.add(kind, **facts)

    def finish(self) -> int:
        """Write and print the summary; return 1 where something was found that must not be."""
        seconds = round(time.monotonic() - self._started, 1)
        summary = {
            "harness": self.name,
            **self._options,
            "seconds": seconds,
            "found": {kind: len(cases) for kind, cases in self._found.items()},
            "figures": {**self.figures, **{k: dict(v) for k, v in self._tables.items()}},
        }
        whole = {**summary, "groups": self._groups(), "cases": self._found}
        self._file.write_text(json.dumps(whole, indent=1, default=str) + "\n")
        print(json.dumps(summary, indent=1, default=str))
        return int(any(self._found.values()))

    def _groups(self) -> dict[str, int]:
        """Return how many findings there are of each fault: most have few causes."""
        faults = (
            f"{kind} | {case.get('fault', '')}"
            for kind, cases in self._found.items()
            for case in cases
        )
        return dict(Counter(faults).most_common())


JUDGED = (
    "hangs", "memory", "tracebacks", "slow", "left_processes", "code_executed", "crashes",
    "exit_codes",
)  # fmt: skip
"""Kinds that `Report.judge` may find."""
