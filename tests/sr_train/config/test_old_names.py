"""Configs of runs from before keys and classes were renamed."""

import copy

from sr_train.config.old_names import in_new_names

OLD = {
    "adversary": {"gan": {"loss": {"_target_": "losses.gan.DiscriminatorLoss"}}},
    "data": {
        "train": {"_target_": "data.pictures.PictureSet", "gt": "data.pictures.PictureSet"},
        "val": {"a": {"_target_": "data.clips.ClipSet", "frames": None}},
        "stream": {"_target_": "data.loader.TrainStream"},
    },
    "more": [{"_target_": "data.clips.ClipSet"}, "${data.root}/adversary", 3],
}

NEW = {
    "objective_d": {"gan": {"loss": {"_target_": "losses.gan.DiscriminatorLoss"}}},
    "data": {
        "train": {"_target_": "data.images.ImageDataset", "gt": "data.pictures.PictureSet"},
        "val": {"a": {"_target_": "data.clips.ClipDataset", "frames": None}},
        "stream": {"_target_": "data.loading.stream.TrainLoader"},
    },
    "more": [{"_target_": "data.clips.ClipDataset"}, "${data.root}/adversary", 3],
}


def test_keys_and_targets_are_renamed_and_nothing_else():
    old = copy.deepcopy(OLD)
    assert in_new_names(old) == NEW
    assert old == OLD


def test_new_names_stay():
    assert in_new_names(NEW) == NEW
    assert in_new_names({"adversary": {"old": 1}, "objective_d": {"new": 2}}) == {
        "objective_d": {"new": 2}
    }
