"""Mutated overrides and odd config files through `check` and `train`: code 0 or 2, nothing run.

Example: python -m scripts.chaos.fuzz_config --cases 320 --seed 1 --out chaos

`--cases` mutated command lines, then every odd experiment file with and without its header
(`--files` of them at random; 0: all). Code that a config brings along would make a file that must
not be there.
"""

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from scripts.chaos import children, toy_runs
from scripts.chaos.config_cases import FILES, LARGE, NUMBERS, TARGETS, VALUES, WORDS
from scripts.chaos.report import JUDGED, Report, arguments

LIMIT_S = 45.0
GAN = [
    "discriminator=patchgan", "discriminator.arch.num_feat=4", "discriminator.arch.num_layers=1",
    "data.lq_size=16", "+objective=gan", "objective_d=[gan]",
]  # fmt: skip


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def touching(canary: Path) -> Call:
    """Return what makes a file when it is unpickled."""
    return Call(os.system, f"touch {canary}")


def plain(data: Path) -> list[str]:
    """Return words that are right, to be spoilt."""
    sets = [f"data.train.gt={data}/gt", f"data.val.main.gt={data}/val"]
    return ["name=f", *toy_runs.TINY, *sets, "train.steps=2"]


def known_keys(words: list[str]) -> list[str]:
    """Return every dotted key of a composed config."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from sr_train.config.schema import store_schemas

    store_schemas()
    with initialize_config_module("configs", version_base="1.3"):
        composed = compose("train", overrides=[*words, *GAN])
    GlobalHydra.instance().clear()
    return list(_keys(OmegaConf.to_container(composed), ""))


def _keys(node: Any, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def spoilt(words: list[str], draw: random.Random, known: list[str], canary: Path) -> list[str]:
    """Return a command line with one to three faults."""
    words = [*words, *(GAN if draw.random() < 0.2 else [])]
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        kind, key = draw.random(), draw.choice(known)
        if kind < 0.40:
            words.append(f"{key}={draw.choice(VALUES)}")
        elif kind < 0.55:
            words.append(f"{draw.choice(NUMBERS)}={draw.choice(LARGE)}")
        elif kind < 0.70:
            where = draw.choice([k for k in known if k.endswith("_target_")])
            words.append(f"{where}={draw.choice(TARGETS)}")
            if draw.random() < 0.5:
                words.append(f"+{where.rpartition('.')[0]}.command='touch {canary}'")
        elif kind < 0.80:
            before = draw.choice(["+", "++", "~", ""])
            behind = draw.choice(["", "x", ".x", ".0", "[0]", "..x", "@y"])
            words.append(f"{before}{key}{behind}={draw.choice(VALUES)}")
        elif kind < 0.86:
            words.append(f"~{key}")
        elif kind < 0.93:
            other = draw.choice(known)
            words += [f"{key}=${{{other}}}", f"{other}=${{{key}}}"]
        else:
            words.append(draw.choice(WORDS))
    return words


def lay_traps(folder: Path, canary: Path) -> None:
    """Make files that make the canary when they are imported or unpickled."""
    folder.mkdir()
    code = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\ndef x(**k):\n    return None\n"
    (folder / "hubconf.py").write_text(code)
    torch.save(touching(canary), folder / "evil.pth")


class Fuzzer:
    """Runs command lines and judges their ends.

    Args:
        report: of the harness.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.canary = report.work / "canary"
        self.traps = report.work / "traps"
        lay_traps(self.traps, self.canary)

    def command(self, words: list[str], case: Any) -> None:
        """Run one command line."""
        self.canary.unlink(missing_ok=True)
        shutil.rmtree(self.report.work / "runs", ignore_errors=True)
        ended = children.run(
            words, self.report.work, self.report.log, limit_s=LIMIT_S, patience_s=2.5
        )
        self.report.judge(case, ended, canary=self.canary)

    def file(self, label: str, with_header: bool) -> None:
        """Run `check` with one experiment file."""
        folder = self.report.work / "conf" / label.replace(" ", "_")
        (folder / "experiment").mkdir(parents=True, exist_ok=True)
        text = FILES[label].replace("{canary}", str(self.canary)).replace("{hub}", str(self.traps))
        content = ("# @package _global_\n" if with_header else "") + text
        how = "latin-1" if label == "latin-1" else "utf-8"
        (folder / "experiment/case.yaml").write_bytes(content.encode(how, "surrogatepass"))
        words = ["check", "--config-dir", str(folder), "+experiment=case", *plain(self.report.data)]
        self.command(words, {"file": label, "header": with_header})


def main() -> int:
    """Spoil configs; return 1 where one was not answered as it should be."""
    options = arguments(__doc__, cases=320, files=0)
    report = Report("fuzz_config", options, JUDGED)
    draw = random.Random(options.seed)
    children.preload()
    fuzzer, right = Fuzzer(report), plain(report.data)
    known = known_keys(right)
    for _ in range(options.cases):
        command = draw.choice(["check", "check", "train"])
        words = [command, *spoilt(right, draw, known, fuzzer.canary)]
        fuzzer.command(words, [command, *words[1 + len(right) :]])
    cases = [(label, with_header) for label in FILES for with_header in (True, False)]
    for label, with_header in draw.sample(cases, options.files) if options.files else cases:
        fuzzer.file(label, with_header)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
