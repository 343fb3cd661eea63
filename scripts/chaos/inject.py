"""Names and texts from files: none leaves the output folder, steers a terminal, or forges a line.

Example: python -m scripts.chaos.inject --out chaos

File names with escape sequences, line ends, formulas, markup, bytes that are no UTF-8, and of 255
bytes; weights whose metadata hold escape sequences; links in output folders: through every command.
"""

import csv
import os
import shutil
import sys
from pathlib import Path

import safetensors.torch

from scripts.chaos import children, toy_runs
from scripts.chaos.children import Ended
from scripts.chaos.report import JUDGED, Report, arguments

NEVER = (
    *JUDGED, "raw_escapes", "forged_lines", "raw_formulas", "outside", "not_written",
    "unnamed",
)  # fmt: skip
ESCAPE = "\x1b]0;TITLE\x07\x1b[2J"
"""Sets the title of a terminal and clears it."""
FORGED = "WARNING forged line"
FORMULA = "=cmd|' calc'!A1"


def look(report: Report, case: str, ended: Ended, text: str = "") -> None:
    """Judge a command and what it printed and logged."""
    shown = ended.out + text
    report.judge(case, ended)
    if "\x1b]0;TITLE" in shown or "\x1b[2J" in shown:
        report.add("raw_escapes", case=case)
    before, forged, after = f"\n{shown}".partition(f"\n{FORGED}")
    if forged:
        report.add("forged_lines", case=case, shown=before[-300:] + forged + after[:100])


class Injector:
    """Runs commands over files with odd names.

    Args:
        report: of the harness.
        network: folder of a run to be used.
    """

    def __init__(self, report: Report, network: Path) -> None:
        self.report, self.network = report, network
        self.image = report.data / "val/v0.png"

    def folder(self, name: str, *good: str, bad: tuple[str, ...] = ()) -> str:
        """Make a folder of files with these names; bad ones hold nonsense."""
        folder = self.report.work / name
        folder.mkdir()
        for each in good:
            shutil.copy(self.image, folder / each)
        for each in bad:
            (folder / each).write_bytes(b"nonsense")
        return name

    def run(self, words: list[str], **environment: str) -> Ended:
        """Run one command in the work folder."""
        report = self.report
        return children.run(words, report.work, report.log, environment=environment)

    def commands(self, folder: str) -> dict[str, list[str]]:
        """Return a command of each kind that reads a folder."""
        tiny = toy_runs.tiny_words(folder, "t")
        use = [f"checkpoint={self.network}", "device=cpu"]
        return {
            "infer": ["infer", *use, f"input={folder}", f"output=out_{folder}"],
            "video": ["infer", *use, f"input={folder}", f"output={folder}.mp4", "fps=5"],
            "validate": ["validate", *use, "+dataset=main", f"data.val.main.gt={folder}",
                         f"output=scores_{folder}", "save_images=true"],
            "check": ["check", *tiny],
            "train": ["train", *tiny, "data.train.on_bad=skip"],
        }  # fmt: skip

    def every_command(self, folder: str, **environment: str) -> None:
        """Run every command over a folder."""
        runs = self.report.work / "runs"
        for name, words in self.commands(folder).items():
            shutil.rmtree(runs / "t", ignore_errors=True)
            ended = self.run(words, **environment)
            log = runs / "t/train.log"
            text = log.read_text(errors="replace") if name == "train" and log.exists() else ""
            case = f"{name}: {folder} {environment or ''}"
            look(self.report, case, ended, text)
            if ended.code == 2 and f"{folder}/" not in ended.out:
                self.report.add("unnamed", case=case, said=ended.last_line())

    def tables(self, folder: str) -> None:
        """Look for formulas in tables that spreadsheets open."""
        for path in self.report.work.glob(f"scores_{folder}/*.csv"):
            with path.open(newline="") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            if any(cell.startswith(("=", "@")) for cell in cells):
                self.report.add("raw_formulas", case=folder, cells=cells[:20])

    def long_name(self) -> None:
        """Write files whose names are as long as a file system takes."""
        folder = self.folder("long", "n" * 251 + ".png")
        look(self.report, "infer: a name of 255 bytes", self.run(self.commands(folder)["infer"]))
        if not list((self.report.work / "out_long").glob("n*.png")):
            self.report.add("not_written", case="a name of 255 bytes")

    def no_utf8(self) -> None:
        """Read a file whose name is no UTF-8, in two locales."""
        (self.report.work / "bytes").mkdir()
        target = os.path.join(os.fsencode(self.report.work / "bytes"), b"bad\xff\xfe.png")
        shutil.copy(os.fsencode(self.image), target)
        self.every_command("bytes")
        self.every_command("bytes", LC_ALL="C", PYTHONUTF8="0")

    def metadata(self) -> None:
        """Use weights whose metadata hold escape sequences and line ends."""
        tensors, meta = toy_runs.tensors_and_metadata(self.network / "checkpoints/last.safetensors")
        path = self.report.work / "odd.safetensors"
        for key in meta:
            odd = {**meta, key: f"{ESCAPE}\n{FORGED}"}
            path.write_bytes(safetensors.torch.save(tensors, metadata=odd))
            use = ["infer", "checkpoint=odd.safetensors", "input=plain", "output=o", "device=cpu"]
            look(self.report, f"infer: metadata {key}", self.run(use))
            export = ["export", "checkpoint=odd.safetensors", "output=x.safetensors"]
            look(self.report, f"export: metadata {key}", self.run([*export, "overwrite=true"]))

    def links(self) -> None:
        """Write where links lie that lead out of the output folder."""
        victim = self.report.work / "victim"
        for name in ("p.png", "x.safetensors", "results.csv", "train.log", "metrics.csv",
                     "manifest.json"):  # fmt: skip
            for place in ("links", "runs/t"):
                victim.write_text("precious")
                for folder in ("links", "runs/t"):
                    shutil.rmtree(self.report.work / folder, ignore_errors=True)
                (self.report.work / place).mkdir(parents=True)
                (self.report.work / place / name).symlink_to(victim)
                words = self.commands("plain")
                for argv in (
                    [w.replace("out_plain", "links") for w in words["infer"]],
                    [w.replace("scores_plain", "links") for w in words["validate"]],
                    ["export", f"checkpoint={self.network}", "output=links/x.safetensors",
                     "overwrite=true"],
                    [*words["train"], "resume=auto"],
                ):  # fmt: skip
                    look(self.report, f"{argv[0]}: {place}/{name} is a link", self.run(argv))
                if victim.read_text() != "precious":
                    self.report.add("outside", case=f"{place}/{name}")


def main() -> int:
    """Try every name; return 1 where one did what it should not."""
    report = Report("inject", arguments(__doc__), NEVER)
    children.preload()
    injector = Injector(report, toy_runs.tiny_run(report))
    injector.folder("plain", "p.png")
    terminal = injector.folder(
        "terminal",
        f"{ESCAPE}good.png",
        f"a\n{FORGED}.png",
        bad=(f"{ESCAPE}.png", f"b\n{FORGED} bad.png"),
    )
    sheet = injector.folder("sheet", f"{FORMULA}.png", "@sum.png", "a,b\nc.png", "[red]x[-red].png")
    for folder in (terminal, sheet):
        injector.every_command(folder)
        injector.tables(folder)
    injector.no_utf8()
    injector.long_name()
    injector.metadata()
    injector.links()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
