"""A run's config of before composes under the names of today, and resumes by its folder alone."""

import pytest
import yaml

from sr_train.config import old_names
from sr_train.config.old_names import in_new_names
from sr_train.config.targets import resolve_target
from tests.toys import state_of, toy_words

OLD = """
name: toy
adversary: {gan: {loss: {_target_: losses.gan.GANLoss}}}
precision: {name: fp16, calm: 3, patience: 2}
data:
  train: {_target_: data.pictures.PictureSet, gt: data.pictures.PictureSet, calm: 1}
  val: {a: {_target_: data.clips.ClipSet}}
  stream: {_target_: data.loader.TrainStream}
arch: {parts: [{_target_: data.pictures.PictureSet}, {_target_: archs.compact.SRVGGNetCompact}]}
"""


def test_keys_and_targets_are_renamed_and_values_stay():
    assert in_new_names(yaml.safe_load(OLD)) == {
        "name": "toy",
        "objective_d": {"gan": {"loss": {"_target_": "losses.gan.GANLoss"}}},
        "precision": {"name": "fp16", "good_windows": 3, "patience": 2},
        "data": {
            "train": {
                "_target_": "data.images.ImageDataset",
                "gt": "data.pictures.PictureSet",
                "calm": 1,
            },
            "val": {"a": {"_target_": "data.clips.ClipDataset"}},
            "stream": {"_target_": "data.loading.stream.TrainLoader"},
        },
        "arch": {
            "parts": [
                {"_target_": "data.images.ImageDataset"},
                {"_target_": "archs.compact.SRVGGNetCompact"},
            ]
        },
    }


@pytest.mark.parametrize("target", sorted(set(old_names._TARGETS.values())))
def test_every_new_name_is_there(target):
    assert resolve_target(target, "data.x").__name__ == target.rpartition(".")[2]


def test_a_run_of_before_resumes_by_its_folder(command, in_folder):
    command("train", *toy_words(in_folder, "train.steps=2", "scheduler.steps=4")).succeeds()
    (path,) = (in_folder / "runs/toy/.hydra").glob("*/config.yaml")
    config = yaml.safe_load(path.read_text())
    config["adversary"] = config.pop("objective_d")
    config["precision"]["calm"] = config["precision"].pop("good_windows")
    del config["callbacks"]
    config["data"]["train"]["_target_"] = "data.pictures.PictureSet"
    config["data"]["val"]["main"]["_target_"] = "data.pictures.PictureSet"
    config["data"]["stream"]["_target_"] = "data.loader.TrainStream"
    path.write_text(yaml.safe_dump(config))
    command("train", "resume=runs/toy", "train.steps=4", "adversary=[]").fails_with("adversary")
    command("train", "resume=runs/toy", "train.steps=4", "objective_d=[]").succeeds()
    assert state_of(in_folder / "runs/toy", 4)["step"] == 4
