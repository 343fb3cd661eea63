"""What a network is fed must be what the data set gives."""

from types import SimpleNamespace

import pytest

from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.commands.checks.inputs import check_inputs

IMAGES = SimpleNamespace()
CLIPS = SimpleNamespace(num_frames=5, extra_channels={})
SPIKES = SimpleNamespace(num_frames=5, extra_channels={"spikes": 5})

OF_IMAGES = NetSpec(scale=1)
OF_CLIPS = NetSpec(scale=1, takes_clips=True, min_frames=2)
OF_SPIKES = NetSpec(scale=1, takes_clips=True, extra_inputs={"spikes": 5})


@pytest.mark.parametrize(
    ("spec", "given"),
    [(OF_IMAGES, IMAGES), (OF_CLIPS, CLIPS), (OF_CLIPS, SPIKES), (OF_SPIKES, SPIKES)],
)
def test_what_fits_passes(spec, given):
    check_inputs(spec, {"data.train": given, "data.val.main": given})


def test_validation_may_mix_images_and_clips():
    check_inputs(OF_IMAGES, {"data.train": IMAGES, "data.val.main": CLIPS})
    check_inputs(OF_CLIPS, {"data.train": CLIPS, "data.val.main": IMAGES})


@pytest.mark.parametrize(
    ("spec", "sets", "told"),
    [
        (OF_CLIPS, {"data.train": IMAGES}, r"^data\.train: gives images.*dataset=\[clips\]"),
        (OF_IMAGES, {"data.train": CLIPS}, r"^data\.train: gives clips.*arch=basicvsr"),
        (
            OF_CLIPS,
            {"data.train": SimpleNamespace(num_frames=1)},
            r"^data\.frames=1: .*at least 2 frames",
        ),
        (
            OF_SPIKES,
            {"data.train": SPIKES, "data.val.x": CLIPS},
            r"^data\.val\.x: .*'spikes' of 5 .*no further inputs.*data\.val\.x\.modalities\.spikes",
        ),
        (
            NetSpec(scale=1, takes_clips=True, extra_inputs={"spikes": 7}),
            {"data.train": SPIKES},
            r"of 7 channels beside lq, the files have 5; set arch\.extra_inputs\.spikes=5",
        ),
        (
            NetSpec(scale=1, takes_clips=True, extra_inputs={"events": 5}),
            {"data.train": SPIKES},
            r"'events' of 5 channels beside lq, the data set gives spikes",
        ),
    ],
)
def test_what_does_not_fit_is_told(spec, sets, told):
    with pytest.raises(ConfigError, match=told):
        check_inputs(spec, sets)
