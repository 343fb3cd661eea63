"""The folder of a run: what lies where, and when it may be written into."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sr_train.ops.errors import ConfigError


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `out_dir/name`."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def last_weights(self) -> Path:
        return self.checkpoints / "last.safetensors"

    @property
    def swa_weights(self) -> Path:
        return self.checkpoints / "swa.safetensors"

    def best_weights(self, metric: str) -> Path:
        return self.checkpoints / f"best_{metric}.safetensors"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def log_file(self) -> Path:
        return self.root / "train.log"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that keeps other processes out of the folder.

        The system lifts the lock when the process ends, however it ends.

        Raises:
            ConfigError: when entered while another process holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(self.root / ".lock").acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"{self.root}: another process is writing into this run; stop it first, or choose "
                "another name=..."
            ) from None

    def refuse_if_used(self) -> None:
        """Raise where another run has left results; a launch that failed before is no run.

        Raises:
            ConfigError: naming the folder and the ways out.
        """
        rows = self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []
        if len(rows) > 1 or any(self.checkpoints.glob("*")):
            raise ConfigError(
                f"{self.root}: holds a run already; go on with it by resume=auto, or choose "
                "another name=..."
            )
