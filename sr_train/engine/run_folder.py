"""The folder of a run: what lies where, and when it may be written into."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sr_train.api.errors import ConfigError
from sr_train.engine.averages import KINDS
from sr_train.io.files import remove_leftovers, set_aside


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

    def weights_of(self, kind: str) -> Path:
        """Return where the weights of an average lie, see `sr_train.engine.averages.KINDS`."""
        return self.checkpoints / f"{kind}.safetensors"

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

    def tidy(self) -> None:
        """Set aside what stands where something is to be written, and remove parts of files.

        Only for who holds the lock.
        """
        folders = (self.checkpoints, self.samples, self.root / "tensorboard")
        for folder in (*folders, self.checkpoints / "abandoned", self.checkpoints / "diverged"):
            if folder.exists() and not folder.is_dir():
                set_aside(folder, "is a file, expected a folder")
        files = [self.metrics_file, self.log_file, self.manifest, self.last_weights]
        files += [*map(self.weights_of, KINDS), *self.checkpoints.glob("best_*.safetensors")]
        files += [*self.checkpoints.glob("step_*.pt"), *self.checkpoints.glob("step_*.sha256")]
        files += self.samples.glob("*.png")
        for file in files:
            if file.is_dir():
                set_aside(file, "is a folder, expected a file")
        for file in (self.metrics_file, self.log_file):
            if file.is_symlink():  # a folder from elsewhere could have lines added anywhere
                set_aside(file, "is a link, expected a file")
        for folder in (self.root, *folders):
            remove_leftovers(folder)

    def lock(self) -> AbstractContextManager[object]:
        """Return a context that keeps other processes out of the folder.

        The system lifts the lock when the process ends, however it ends.

        Raises:
            ConfigError: when entered while another process holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self.root / ".lock"
        if lock.is_dir():
            set_aside(lock, "is a folder, expected a file")
        try:
            return FileLock(lock).acquire(timeout=0)
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
        rows = 0
        if self.metrics_file.is_file():
            rows = len(self.metrics_file.read_bytes().splitlines())
        if rows > 1 or any(self.checkpoints.glob("*")):
            raise ConfigError(
                f"{self.root}: holds a run already; resume it with resume=auto, or choose "
                "another name=..."
            )
