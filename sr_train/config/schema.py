"""The typed shape of every config: what exists, of which type, with which neutral value.

A misspelt key or a wrong type stops at composition. Components are `_target_` nodes of type Any.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from sr_train.config.settings import (
    Cadence,
    LossScaleConfig,
    ObjectiveTermConfig,
    PaceConfig,
    TermConfig,
    at_least,
)


class PrecisionName(Enum):
    """Names of precisions; `auto` chooses by device and says why."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class ChannelsLast(Enum):
    """When to lay weights and 4-D inputs out as NHWC."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass
class PrecisionConfig(LossScaleConfig):
    """Mixed precision and its loss scale (the scale is used in fp16 only)."""

    name: PrecisionName = PrecisionName.auto
    adaptive: bool = False
    """Leave a precision that overflows again and again, return once no step is skipped."""
    most_skipped: float = 0.05
    """Fraction of skipped steps in a log interval that is taken as normal, in [0, 1)."""
    patience: int = 2
    """Log intervals with more, in a row, before something is changed."""
    good_windows: int = 20
    """Log intervals without a skipped step before the precision left is tried again."""

    def problems(self, where: str) -> Iterator[str]:
        if not 0.0 <= self.most_skipped < 1.0:
            yield f"{where}.most_skipped={self.most_skipped}: expected a number in [0, 1)"
        yield from at_least(where, 1, patience=self.patience, good_windows=self.good_windows)
        yield from super().problems(where)


@dataclass
class LearnerConfig:
    """How a network that learns starts and runs."""

    pretrained: str | None = None
    """Weights to start from: .safetensors, .pth, run or state (of D: a run or state with one)."""
    strict: bool = True
    """False: load what fits by name and shape, and list what was left out."""
    compile: bool = False
    """torch.compile the network in place."""
    freeze: list[str] = field(default_factory=list)
    """Shell patterns on parameter names that stay as they are, for example `conv_first.*`."""


@dataclass
class NetConfig(LearnerConfig):
    """The generator."""

    channels_last: ChannelsLast = ChannelsLast.auto
    """auto: for half precision on CUDA and CPU. The discriminator follows."""


@dataclass
class DiscriminatorConfig(PaceConfig, LearnerConfig):
    """The discriminator; without an arch there is none."""

    arch: Any = None
    optimizer: Any = None
    """null: the same as the generator's."""
    lr: float | None = None
    """Instead of the optimizer's lr."""
    scheduler: Any = None
    """null: the same as the generator's."""
    max_norm: float | None = None
    """Clip the gradient to this L2 norm; null: no clipping."""
    frames: int | None = None
    """Frames of each clip that it sees, drawn anew at each step; null: all."""

    def problems(self, where: str) -> Iterator[str]:
        yield from super().problems(where)
        if self.frames is not None and self.frames < 1:
            yield f"{where}.frames={self.frames}: expected null or a number from 1 up"
        if self.max_norm is not None and self.max_norm <= 0:
            yield f"{where}.max_norm={self.max_norm}: expected a number above 0, or null"
        if self.lr is not None and self.lr < 0:
            yield f"{where}.lr={self.lr}: expected a number from 0 up"


@dataclass
class ParamGroupConfig:
    """A learning rate of its own for the parameters whose name matches."""

    match: str = MISSING
    """Shell pattern on the parameter name, for example `tail.*`."""
    lr_factor: float = 1.0
    """Times the optimizer's lr; 0 keeps the parameters as they are."""
    start: int = 0
    """Steps that pass before they learn, as a pretrained flow network waits for the rest."""


@dataclass
class EmaConfig:
    """The averaged generator."""

    enabled: bool = True
    decay: float = 0.999
    """Largest decay, in [0, 1); it rises from 0.1 over the first updates."""


@dataclass
class SwaConfig:
    """The plain mean of the generator's weights along the end of a run."""

    enabled: bool = False
    start: int | None = None
    """Steps that pass before the first weights are taken; null: three quarters of train.steps."""
    every: int = 1
    """Steps between two takings."""


class Strategy(Enum):
    """How several processes share a network."""

    ddp = "ddp"
    fsdp = "fsdp"


@dataclass
class DistributedConfig:
    """Several processes, started by torchrun; a single process reads nothing of it."""

    strategy: Strategy = Strategy.ddp
    """ddp: a whole network on each; fsdp: the generator in shards, for what does not fit."""
    timeout_sec: float = 600.0
    """A process that does not answer for so many seconds ends the run."""
    find_unused: bool = False
    """For networks some of whose weights get no gradient in some steps (slower)."""


@dataclass
class TrainConfig(Cadence):
    """The loop."""

    max_norm: float | None = None
    """Clip the gradient to this L2 norm; None: no clipping."""
    max_skipped_in_row: int = 20
    """Stop after this many non-finite steps in a row (seen at the log interval)."""
    deterministic: bool = False
    """Use only deterministic algorithms (slower on GPUs); a CPU run is exact without it."""


@dataclass
class DataConfig:
    """Training and validation images."""

    root: str = "datasets"
    """Folder that shipped data sets interpolate as ${data.root}."""
    batch_size: int = 16
    """Samples per step and process."""
    lq_size: int = 48
    """Side of a training crop, LQ pixels."""
    frames: int = 1
    """Frames of a training clip, where the network takes clips."""
    train: Any = None
    val: dict[str, Any] = field(default_factory=dict)
    """Validation sets by name."""
    stream: Any = None
    """Makes endless batches of `train`."""


@dataclass
class TilingConfig:
    """Inference in tiles, LQ pixels, and of clips in chunks, frames."""

    tile: Any = "auto"
    """Its side; null: whole; `auto`: whole if small, or if it fits and tiles are not exact."""
    overlap: int | None = None
    """Context of a tile; null: the receptive field, or a blend where that is unbounded."""
    tile_batch: int = 1
    frames: Any = "auto"
    """Frames of a chunk, with those shared; `auto`: 30, or three times those; null: whole clips."""
    frame_overlap: int | None = None
    """Frames that chunks share; null: twice the network's time field or, if unbounded, 10."""


@dataclass
class IoConfig:
    """How files are read."""

    max_megapixels: float = 200.0
    """Larger images are refused undecoded; 200 take up to 3 GiB."""


@dataclass
class RunConfig:
    """A training run: what `train`, `check` and `overfit` compose."""

    name: str = MISSING
    """Names the run's folder."""
    scale: int = MISSING
    """Upscaling factor; 1 for restoration."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    out_dir: str = "runs"
    """The run's folder is out_dir/name."""
    resume: str = "none"
    """none, auto (the newest state in the run's folder, if any), or a path."""
    plugins: list[str] = field(default_factory=list)
    """Your own packages that `_target_` may name."""
    arch: Any = MISSING
    net_g: NetConfig = field(default_factory=NetConfig)
    objective: dict[str, ObjectiveTermConfig] = field(default_factory=dict)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    objective_d: dict[str, TermConfig] = field(default_factory=dict)
    """The discriminator's terms."""
    optimizer: Any = MISSING
    param_groups: list[ParamGroupConfig] = field(default_factory=list)
    scheduler: Any = MISSING
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    swa: SwaConfig = field(default_factory=SwaConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    io: IoConfig = field(default_factory=IoConfig)
    metrics: dict[str, Any] = field(default_factory=dict)
    best_metric: str = "psnr_y"
    """Of `metrics`: what a sweep looks at and `overfit` must raise. Each metric's best is kept."""
    tiling: TilingConfig = field(default_factory=TilingConfig)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class CheckConfig(RunConfig):
    """`check`: a run's config, and how far to look."""

    decode: bool = False
    """Decode every image in full, not only its header."""
    step: bool = True
    """Build what train builds, try each part, rehearse validation and save, measure a step."""


@dataclass
class OverfitConfig(RunConfig):
    """`overfit`: a run's config on a handful of samples."""

    num_samples: int = 4
    """Crops, taken from the training images without regard to the epoch."""
    num_steps: int = 500
    """Instead of train.steps; the learning rate falls along a cosine."""
    threshold: float = 2.0
    """By how much `best_metric` must beat bicubic on the training crops themselves."""
    gan: bool = False
    """Keep the discriminator and the terms that ask for it; they do not raise `best_metric`."""


@dataclass
class UseConfig:
    """What every command that uses a trained network shares."""

    checkpoint: str = MISSING
    """Run folder, training checkpoint, .safetensors, or another program's .pth."""
    weights: str = "ema"
    """`ema`, `live` or `swa`, where a training checkpoint holds several."""
    strict: bool = True
    """False: load what fits by name and shape, and list what was left out."""
    arch: Any = None
    """Needed for files that name no architecture."""
    scale: int | None = None
    plugins: list[str] = field(default_factory=list)


@dataclass
class NetworkUseConfig(UseConfig):
    """What every command that runs a trained network shares."""

    device: str = "auto"
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    io: IoConfig = field(default_factory=IoConfig)


@dataclass
class ValidateConfig(NetworkUseConfig):
    """`validate`."""

    data: DataConfig = field(default_factory=DataConfig)
    metrics: dict[str, Any] = field(default_factory=dict)
    output: str = "validation"
    """Folder of results.csv and results.json."""
    save_images: bool = False
    baseline: bool = True
    """Score bicubic beside the model."""


@dataclass
class VideoConfig:
    """How `infer` writes video files."""

    codec: str = "h264"
    """h264, hevc, av1, or ffv1, which loses nothing."""
    quality: int | None = None
    """CRF, 0 is best; null: 17 (h264), 19 (hevc), 20 (av1)."""
    pixel_format: str | None = None
    """FFmpeg's name; null: yuv420p, with 10 bit for inputs of more than 8."""
    audio: bool = True
    """Copy the audio of the input."""


@dataclass
class InferConfig(NetworkUseConfig):
    """`infer`."""

    input: Any = field(default=MISSING, metadata={"hint": str | list[str]})
    """An image, a video, a folder (of frames, or searched through), or a list of such."""
    output: str = MISSING
    """A video or an image by its suffix, else the folder of the results."""
    format: str = "png"
    """Of images: png, tif, webp, jpg, bmp, or same (as the input)."""
    suffix: str = ""
    """Appended to each name, for example _x2."""
    overwrite: bool = False
    fps: Any = None
    """Of a video made from a folder of images: 25, 23.976 or 30000/1001."""
    video: VideoConfig = field(default_factory=VideoConfig)
    extra: dict[str, str] = field(default_factory=dict)
    """Further inputs by name: a folder of .npy or .pt tensors (C, H, W), named as the frames."""


@dataclass
class ExportConfig(UseConfig):
    """`export`."""

    output: str = MISSING
    """A .safetensors file."""
    overwrite: bool = False


SCHEMAS = {
    "train": RunConfig,
    "check": CheckConfig,
    "overfit": OverfitConfig,
    "validate": ValidateConfig,
    "infer": InferConfig,
    "export": ExportConfig,
}


@cache
def store_schemas() -> None:
    """Make the schemas known to Hydra as `schema_<command>`."""
    store = ConfigStore.instance()
    for command, schema in SCHEMAS.items():
        store.store(name=f"schema_{command}", node=schema, provider="sr_train")
