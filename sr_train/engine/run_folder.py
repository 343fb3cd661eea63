"""The folder of a run: what lies where, and when it may be written into."""

from dataclasses import dataclass
from pathlib import Path

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

    def refuse_if_used(self) -> None:
        """Raise where another run has left its results.

        Raises:
            ConfigError: naming the folder and the ways out.
        """
        if self.metrics_file.exists() or any(self.checkpoints.glob("*")):
            raise ConfigError(
                f"{self.root}: holds a run already; go on with it by resume=auto, or choose "
                "another name=..."
            )
