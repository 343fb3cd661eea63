"""What a logger of runs elsewhere keeps of earlier launches: which run it is, and what it has."""

import json
import logging
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from sr_train.io.files import write_atomically

log = logging.getLogger(__name__)

_SWEEP = re.compile(r"sweep_\d+")


class RunRecord:
    """A file in a run's folder, so that a resumed run goes on as the same run elsewhere.

    What such services are sent cannot be taken back: what an earlier launch logged of a step
    stays, and a launch that repeats the step does not log it a second time.

    Args:
        run_dir: the run's folder.
        service: e.g. `wandb`.
        place: where the run lies there, e.g. a project; another place is another run.
        first_step: that this launch will log at the earliest.
        dry_run: keep nothing, and find nothing to log.
    """

    def __init__(
        self, run_dir: Path, service: str, place: str, first_step: int = 1, dry_run: bool = False
    ) -> None:
        self.name = (
            f"{run_dir.parent.name}-{run_dir.name}" if _SWEEP.fullmatch(run_dir.name) else ""
        )
        self.name = self.name or run_dir.name
        """For people; of a sweep, with the name of what is swept."""
        self._path = run_dir / "loggers" / f"{service}-{zlib.crc32(place.encode()):08x}.json"
        self._dry_run = dry_run
        stored = json.loads(self._path.read_text()) if self._path.is_file() else {}
        self.run_id: str | None = stored.get("run_id")
        self.num_rows: int = stored.get("num_rows", 0)
        """Times that something was logged, over all launches."""
        self._last: dict[str, int] = stored.get("last_steps", {})
        newest = max(self._last.values(), default=0)
        if newest >= first_step:
            log.info(
                "%s has steps %d to %d of an earlier launch; they stay there as they are",
                service,
                first_step,
                newest,
            )

    def keep(self, run_id: str) -> None:
        """Store the identity of the run."""
        if run_id != self.run_id:
            self.run_id, self.num_rows, self._last = run_id, 0, {}
            self._store()

    def unwritten(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Return those values that are to be logged: finite, and of a step not logged so far."""
        new = {
            name: float(value)
            for name, value in values.items()
            if math.isfinite(value) and step > self._last.get(name, -1)
        }
        if self._dry_run or not new:
            return {}
        self._last |= dict.fromkeys(new, step)
        self.num_rows += 1
        self._store()
        return new

    def is_new(self, name: str, step: int) -> bool:
        """Whether an image or a histogram is to be logged."""
        return bool(self.unwritten({name: 0.0}, step))

    def _store(self) -> None:
        stored = {"run_id": self.run_id, "num_rows": self.num_rows, "last_steps": self._last}
        self._path.parent.mkdir(exist_ok=True)
        write_atomically(self._path, json.dumps(stored, indent=1).encode(), sync=False)
