"""What makes one doubt a run, told before it starts."""

import pytest

from sr_train.api.dataset import SetFile, adopt
from sr_train.api.errors import DataError
from sr_train.commands.checks.advice import config_advice, data_advice
from tests.configs import composed

GAN = ("discriminator=unet_sn", "+objective=gan", "objective_d=[gan]")


def advice(*overrides):
    fixed = ["name=x", "scale=2", "arch=compact", "train.steps=100", "data.train.gt=."]
    return list(config_advice(composed(*fixed, "~data.val.main", *overrides)))


@pytest.mark.parametrize(
    "words",
    [
        (),
        GAN,
        (*GAN, "discriminator.start=99", "objective.gan.start=99"),
        (*GAN, "discriminator.every=2", "objective_d.gan.start=49"),
        ("scheduler.warmup=50",),
        ("discriminator.start=500",),
    ],
)
def test_nothing_to_doubt(words):
    assert advice(*words) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            (*GAN, "discriminator.start=100"),
            "discriminator.start=100: beyond train.steps=100, so the discriminator never learns, "
            "and objective.gan follows an untrained one",
        ),
        (
            (*GAN, "objective.gan.start=100"),
            "objective.gan.start=100: beyond train.steps=100, so this term never counts",
        ),
        (
            (*GAN, "discriminator.start=20", "discriminator.every=2", "objective_d.gan.start=40"),
            "objective_d.gan.start=40: the discriminator takes 40 steps (discriminator.start=20, "
            "every=2), so this term never counts",
        ),
        (("optimizer.lr=0",), "optimizer.lr=0: the generator stays as it is"),
        ((*GAN, "discriminator.lr=0"), "discriminator.lr=0: the discriminator stays as it is"),
        (
            ("scheduler=multistep", "scheduler.milestones=[0]", "scheduler.gamma=0"),
            "scheduler: its factor is 0 at every step, so nothing learns",
        ),
        (
            ("param_groups=[{match: 'body.*', start: 100}]",),
            "param_groups[0].start=100: beyond train.steps=100, so what matches body.* never "
            "learns",
        ),
    ],
)
def test_each_thing_to_doubt(words, expected):
    assert advice(*words) == [expected]


class Set:
    def __init__(self, *told, files=()):
        self.told, self.files = told, files
        self.asked = None

    def warnings(self, num_samples=8):
        self.asked = num_samples
        return list(self.told)

    def gt_files(self):
        return list(self.files)


def test_what_sets_tell_is_passed_on_with_their_path():
    train, val = Set("LQ and GT look swapped"), Set()
    assert list(data_advice({"data.train": train, "data.val.a": val})) == [
        "data.train: LQ and GT look swapped"
    ]
    assert train.asked == 8


def test_a_set_of_ones_own_need_not_tell():
    assert list(data_advice({"data.train": adopt([])})) == []


class Damaged(Set):
    def warnings(self, num_samples=8):
        raise DataError("a.png: damaged")


class Failing(Set):
    def warnings(self, num_samples=8):
        raise KeyError("x")


def test_a_damaged_file_is_told_by_who_needs_it():
    assert list(data_advice({"data.train": Damaged()})) == []


def test_a_set_that_fails_to_tell_is_named():
    (text,) = data_advice({"data.train": Failing()})
    assert text.startswith("data.train: Failing failed on warnings(8): KeyError")


def test_validation_on_training_images(tmp_path):
    paths = []
    for name, content in (("a.png", b"one"), ("b.png", b"two"), ("copy.png", b"one")):
        (tmp_path / name).write_bytes(content)
        paths.append(SetFile(str(tmp_path / name), len(content)))
    first, second, copy = paths
    sets = {
        "data.train": Set(files=[first]),
        "data.val.other": Set(files=[second]),
        "data.val.same": Set(files=[first, second]),
        "data.val.copy": Set(files=[copy]),
    }
    told = list(data_advice(sets))
    assert [text.split(":")[0] for text in told] == ["data.val.same", "data.val.copy"]
    assert "1 of 2 files" in told[0]
    assert "the same as" in told[1]
