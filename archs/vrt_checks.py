"""Whether the numbers that describe a VRT fit each other."""

from collections.abc import Mapping, Sequence

from archs.common import check_count
from sr_train.api.errors import ConfigError

NUM_STAGES = 7
"""Stages at changing sizes; the groups of attention after them are any number from one on."""

ALIKE = ((0, 6), (1, 5), (2, 4))
"""Stages whose features are added."""


def check_window(window_size: Sequence[int]) -> None:
    """Raise a ConfigError unless a window is three numbers, two or more to each side."""
    if len(window_size) != 3:
        raise ConfigError(
            f"VRT: window_size must be frames, rows and columns; got {list(window_size)}"
        )
    for index, least in enumerate((1, 2, 2)):
        check_count("VRT", f"window_size[{index}]", window_size[index], least=least)


def check_stages(
    depths: Sequence[int],
    embed_dims: Sequence[int],
    num_heads: Sequence[int],
    indep_reconsts: Sequence[int],
) -> None:
    """Raise a ConfigError unless stages and groups can follow each other."""
    count = len(depths)
    if count <= NUM_STAGES or len(embed_dims) != count or len(num_heads) != count:
        raise ConfigError(
            f"VRT: depths, embed_dims and num_heads must be of the same length, at least "
            f"{NUM_STAGES + 1}; got {count}, {len(embed_dims)} and {len(num_heads)}"
        )
    for index, (depth, channels, heads) in enumerate(
        zip(depths, embed_dims, num_heads, strict=True)
    ):
        check_count("VRT", f"depths[{index}]", depth)
        check_count("VRT", f"embed_dims[{index}]", channels, least=4)
        check_count("VRT", f"num_heads[{index}]", heads)
        if channels % 4 or channels % heads:
            raise ConfigError(
                f"VRT: embed_dims[{index}] must be a multiple of 4 and of num_heads[{index}] "
                f"({heads}); got {channels}"
            )
    for first, second in (*ALIKE, *((NUM_STAGES, other) for other in range(NUM_STAGES, count))):
        if embed_dims[first] != embed_dims[second]:
            raise ConfigError(
                f"VRT: embed_dims[{second}] must equal embed_dims[{first}] "
                f"({embed_dims[first]}), to which it is added; got {embed_dims[second]}"
            )
    for index in indep_reconsts:
        if not NUM_STAGES <= index < count:
            raise ConfigError(
                f"VRT: indep_reconsts must lie in {NUM_STAGES} to {count - 1}, the groups after "
                f"the stages; got {index}"
            )


def check_numbers(mul_attn_ratio: float, mlp_ratio: float, drop_path_rate: float) -> None:
    """Raise a ConfigError unless every number lies in its range."""
    if not 0 <= mul_attn_ratio <= 1:
        raise ConfigError(f"VRT: mul_attn_ratio must be in [0, 1]; got {mul_attn_ratio}")
    if mlp_ratio <= 0:
        raise ConfigError(f"VRT: mlp_ratio must be above 0; got {mlp_ratio}")
    if not 0 <= drop_path_rate < 1:
        raise ConfigError(f"VRT: drop_path_rate must be in [0, 1); got {drop_path_rate}")


def check_alignment(embed_dims: Sequence[int], reach: int, deformable_groups: int) -> None:
    """Raise a ConfigError unless the features of `reach` neighbours part into the groups."""
    if reach == 0:
        return
    check_count("VRT", "deformable_groups", deformable_groups)
    if deformable_groups % reach:
        raise ConfigError(
            f"VRT: deformable_groups must be a multiple of pa_frames / 2 ({reach}); "
            f"got {deformable_groups}"
        )
    for index, channels in enumerate(embed_dims[:NUM_STAGES]):
        if channels % reach or reach * channels % deformable_groups:
            raise ConfigError(
                f"VRT: embed_dims[{index}] must be a multiple of pa_frames / 2 ({reach}), and "
                f"that times it a multiple of deformable_groups ({deformable_groups}); "
                f"got {channels}"
            )


def check_extra_inputs(
    extra_inputs: Mapping[str, int] | None, nonblind_denoising: bool
) -> dict[str, int]:
    """Return the further inputs, the level of noise last.

    Raises:
        ConfigError: for channels that are no positive number.
    """
    checked = dict(extra_inputs or {})
    for name, channels in checked.items():
        check_count("VRT", f"extra_inputs.{name}", channels)
    if nonblind_denoising:
        if "noise_level" in checked:
            raise ConfigError(
                "VRT: extra_inputs.noise_level: nonblind_denoising=true brings it already"
            )
        checked["noise_level"] = 1
    return checked
