"""No `+` that a person has to know about, and text where a class says that it is."""

import pytest
from torch import nn

from sr_train.api.errors import ConfigError
from sr_train.config.loader import Loader
from sr_train.config.prepare import Preparation


def given(*words: str, command: str = "train", many: bool = False) -> list[str]:
    """Return words as Hydra is given them."""
    preparation = Preparation(command, command, Loader(), list(words), many)
    prepared = preparation.prepared()
    assert [word.typed for word in prepared] == list(words)
    return [word.given for word in prepared]


@pytest.mark.parametrize(
    ("command", "typed", "expected"),
    [
        ("train", "experiment=quickstart", "+experiment=quickstart"),
        ("train", "+experiment=quickstart", "+experiment=quickstart"),
        ("train", "search=lr", "+search=lr"),
        ("train", "cluster=slurm", "+cluster=slurm"),
        ("train", "arch=imdn", "arch=imdn"),
        ("train", "+arch=imdn", "arch=imdn"),
        ("train", "+optimizer=sgd", "optimizer=sgd"),
        ("train", "objective=[l1]", "objective=[l1]"),
        ("train", "+objective=ldl", "+objective=ldl"),
        ("train", "dataset=[folder]", "dataset=[folder]"),
        ("validate", "dataset=set5", "+dataset=set5"),
        ("validate", "arch=imdn", "arch=imdn"),
        ("train", "hydra/launcher=submitit_local", "hydra/launcher=submitit_local"),
        ("train", "~logger", "~logger"),
    ],
)
def test_a_group_needs_no_plus_and_bears_one(command, typed, expected):
    assert given(typed, command=command) == [expected]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.train.exclude=[a]"], "+data.train.exclude=[a]"),
        (["data.train.include=[a]"], "+data.train.include=[a]"),
        (["dataset=[clips]", "data.train.modalities={lq: blur}"], None),
        (["dataset=[clips]", "data.train.modalities.lq=blur"], None),
        (["optimizer.weight_decay=0.1"], "+optimizer.weight_decay=0.1"),
        (["+optimizer.weight_decay=0.1"], "+optimizer.weight_decay=0.1"),
        (["optimizer.lr=0.1"], "optimizer.lr=0.1"),
        (["+optimizer.lr=0.1"], "optimizer.lr=0.1"),
        (["metrics=[lpips]", "metrics.lpips.weights=FILE"], "+metrics.lpips.weights=FILE"),
        (["arch=compact", "arch.in_channels=1"], "+arch.in_channels=1"),
        (["data.train.gt=FOLDER"], "data.train.gt=FOLDER"),
        (["train.stepz=3"], "train.stepz=3"),
        (["objective.gan.weight=3"], "objective.gan.weight=3"),
        (["+objective.mine.loss._target_=a.B"], "++objective.mine.loss._target_=a.B"),
        (["+objective.mine={loss: {}}", "objective.mine.weight=3"], "++objective.mine.weight=3"),
        (["+train.steps=3"], "train.steps=3"),
    ],
)
def test_an_argument_that_no_file_lists_needs_no_plus(words, expected):
    assert given(*words)[-1] == (f"+{words[-1]}" if expected is None else expected)


@pytest.mark.parametrize(
    "words",
    [("objective=[charbonnier]", "+objective=ldl"), ("+objective=[ldl]", "objective=charbonnier")],
)
def test_a_choice_that_would_be_dropped_is_refused(words):
    with pytest.raises(
        ConfigError, match=r"\+objective=\S+: .* write objective=\[charbonnier,ldl\]"
    ):
        given(*words)


def test_an_open_mapping_needs_no_plus():
    assert given("extra.spikes=DIR", command="infer") == ["+extra.spikes=DIR"]


def test_what_a_word_before_has_added_is_there():
    words = ["data.val.more={_target_: data.images.ImageDataset}", "data.val.more.gt=x"]
    assert given(*words) == [f"+{words[0]}", f"+{words[1]}"]
    words = ["data.train.exclude=[a]", "data.train.exclude=[b]"]
    assert given(*words) == [f"+{words[0]}", words[1]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["name=2024_01_15"], "name='2024_01_15'"),
        (["name=007"], "name=007"),
        (["data.root=1e3"], "data.root='1e3'"),
        (["data.train.gt=2024_01_15"], "data.train.gt='2024_01_15'"),
        (["data.train.gt=[2024_01_15,b]"], "data.train.gt=['2024_01_15',b]"),
        (["net_g.freeze=[1e3]"], "net_g.freeze=['1e3']"),
        (["arch=basicvsr", "arch.spynet=1_0"], "arch.spynet='1_0'"),
        (["objective=[lpips]", "objective.lpips.loss.weights=1_0"], None),
        (["train.steps=1_0"], "train.steps=1_0"),
        (["arch=compact", "arch.num_feat=1_0"], "arch.num_feat=1_0"),
        (["data.train.lq_size=1_0"], "data.train.lq_size=1_0"),
        (["data.train.cache_gib=1e3"], "data.train.cache_gib=1e3"),
        (["train.max_norm=1e3"], "train.max_norm=1e3"),
    ],
)
def test_text_is_text_where_the_schema_or_a_class_says_so(words, expected):
    text = "objective.lpips.loss.weights='1_0'"
    assert given(*words)[-1] == (text if expected is None else expected)


def test_text_of_a_mapping_is_text_too():
    assert given("extra.spikes=1_0", command="infer") == ["+extra.spikes='1_0'"]


def test_text_of_a_users_own_class_is_text_too():
    node = "arch={_target_: tests.sr_train.config.test_prepare.Net}"
    assert given("plugins=[tests]", node, "arch.path=1_0")[-1] == "+arch.path='1_0'"


class Net(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


@pytest.mark.parametrize(
    ("words", "many"),
    [
        ([], False),
        (["search=lr", "experiment=quickstart"], True),
        (["cluster=slurm"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["search=lr", "hydra.mode=RUN"], False),
    ],
)
def test_whether_there_will_be_several_runs(words, many):
    assert Preparation("train", "train", Loader(), words, False).many is many


def test_a_choice_that_there_is_none_of_leaves_the_rest_prepared():
    words = ["arch=nope", "experiment=quickstart", "data.train.exclude=[a]"]
    assert given(*words) == ["arch=nope", "+experiment=quickstart", "+data.train.exclude=[a]"]


def test_a_sweep_is_seen_with_its_first_choice():
    words = ["arch=basicvsr,compact", "arch.spynet=1_0,2_0"]
    assert given(*words, many=True)[-1] == "arch.spynet='1_0','2_0'"
