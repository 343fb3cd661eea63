"""A part that is not what its place needs is told before it is used, with what is expected."""

import pytest
from torch import nn, optim

from sr_train.api.dataset import TrainDataset
from sr_train.api.errors import ConfigError, PluginError, Problems
from sr_train.api.logger import Logger
from sr_train.config.schema import RunConfig, TrainConfig
from sr_train.factory.components import (
    attempt_all,
    logger_makers,
    make_all,
    make_metrics,
    make_sets,
)
from sr_train.factory.contracts import (
    LOGGER,
    METRIC,
    SCHEDULE,
    STREAM,
    TRAINING_SET,
    VALIDATION_SET,
    check_kind,
    checked_set,
    contract_problems,
)
from sr_train.factory.optimizers import called, make_schedule

HERE = __name__


class Metric:
    higher_is_better = False

    def __call__(self, pred, gt, scale):
        return 0.0


class WithoutDirection(Metric):
    higher_is_better = None


class WithWords(Metric):
    higher_is_better = "yes"


class OfTwo(Metric):
    def __call__(self, pred, gt):
        return 0.0


class OfAnything(Metric):
    def __call__(self, *args, **options):
        return 0.0


class OwnLogger(Logger):
    def scalars(self, values, step): ...


class WithoutClose(OwnLogger):
    close = None


class OneLogger(OwnLogger):
    def scalars(self, values): ...


class ElsewhereLogger(OwnLogger):
    def __init__(self, url, dry_run):
        self.url, self.dry_run = url, dry_run


class Set:
    def __init__(self, count=3):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, epoch, index): ...

    def whole(self, index): ...

    def report(self):
        return "a set"

    def fingerprint(self):
        return "0"


class Telling(Set):
    def warnings(self, num_samples):
        return []


class TellingAll(Set):
    def warnings(self): ...


class WithoutSample(TrainDataset):
    def __len__(self):
        return 3


class OfOneSample(WithoutSample):
    def sample(self, epoch, index): ...

    def batch(self, positions): ...


class Broken(Set):
    def report(self):
        raise KeyError("x")


class Stream:
    wait_seconds = 0

    def __next__(self): ...

    def seek(self, position): ...

    def close(self): ...


def without(kind, *names):
    return type(f"Less{kind.__name__}", (kind,), dict.fromkeys(names))


@pytest.mark.parametrize(
    ("part", "contract"),
    [
        (Metric(), METRIC),
        (OfAnything(), METRIC),
        (OwnLogger(None), LOGGER),
        (Set(), TRAINING_SET),
        (Telling(), TRAINING_SET),
        (Set(), VALIDATION_SET),
        (Stream(), STREAM),
        (lambda step: 1.0, SCHEDULE),
    ],
)
def test_what_fits_passes(part, contract):
    assert contract_problems(part, contract, "x") == []


@pytest.mark.parametrize(
    ("part", "contract", "words"),
    [
        (WithoutDirection(), METRIC, "has no higher_is_better, expected True or False"),
        (WithWords(), METRIC, "its higher_is_better is 'yes', expected True or False"),
        (OfTwo(), METRIC, "is called as __call__(pred, gt, scale): too many positional"),
        (WithoutClose(None), LOGGER, "has no close()"),
        (OneLogger(None), LOGGER, "its scalars(values) is called as scalars(values, step)"),
        (WithoutSample(), TRAINING_SET, "has no sample(epoch, index)"),
        (WithoutSample(), VALIDATION_SET, "has no whole(index)"),
        (OfOneSample(), TRAINING_SET, "its batch(positions) is called as batch(positions, pool)"),
        (without(Set, "sample")(), TRAINING_SET, "has no sample(epoch, index)"),
        (TellingAll(), TRAINING_SET, "its warnings() is called as warnings(num_samples)"),
        (without(Set, "whole")(), VALIDATION_SET, "has no whole(index)"),
        (without(Stream, "seek")(), STREAM, "has no seek(position)"),
        (without(Stream, "wait_seconds")(), STREAM, "has no wait_seconds, expected a number"),
        (lambda: 1.0, SCHEDULE, "called as __call__(step)"),
        (3.0, SCHEDULE, "has no __call__(step)"),
    ],
)
def test_what_is_lacking_is_told_with_what_is_expected(part, contract, words):
    (problem,) = contract_problems(part, contract, "some.path")
    assert problem.startswith(f"some.path: {type(part).__name__}: ")
    assert words in problem
    assert problem.endswith(f"({contract})")


def test_a_contract_in_words():
    assert str(METRIC) == (
        "a metric has higher_is_better (True or False), __call__(pred, gt, scale); see "
        "sr_train.api.metric.Metric"
    )
    assert str(TRAINING_SET) == (
        "a training set has sample(epoch, index), __len__(); see sr_train.api.dataset.TrainDataset"
    )


def test_an_empty_set_is_told():
    with pytest.raises(ConfigError, match=r"^data\.val\.x: Set is empty: its length is 0"):
        checked_set(Set(0), "data.val.x")


def test_kinds():
    check_kind(nn.Identity(), nn.Module, "arch")
    with pytest.raises(ConfigError, match=r"^arch: Metric is no torch\.nn\.Module"):
        check_kind(Metric(), nn.Module, "arch")
    with pytest.raises(ConfigError, match=r"^arch: Identity is no torch\.nn\.Module"):
        check_kind(nn.Identity, nn.Module, "arch")


def node(kind, **arguments):
    return {"_target_": f"{HERE}.{kind.__name__}", **arguments}


def test_all_metrics_are_told_of_at_once():
    nodes = {"a": node(WithoutDirection), "b": node(Metric), "c": node(OfTwo)}
    with pytest.raises(Problems) as err:
        make_metrics(nodes, ["tests"])
    assert [problem.split(":")[0] for problem in err.value.problems] == ["metrics.a", "metrics.c"]


def test_what_is_good_is_made_beside_what_is_not(tmp_path):
    nodes = {"good": node(OwnLogger), "bad": node(OneLogger)}
    attempt = attempt_all(logger_makers(nodes, ["tests"], tmp_path, 7))
    assert list(attempt.made) == ["logger.good"]
    good = attempt.made["logger.good"]
    assert (good.run_dir, good.first_step) == (tmp_path, 7)
    assert len(attempt.problems) == 1


def test_a_logger_is_given_what_its_constructor_names(tmp_path):
    nodes = {"own": node(ElsewhereLogger, url="x")}
    made = make_all(logger_makers(nodes, ["tests"], tmp_path, 7, dry_run=True))["logger.own"]
    assert (made.url, made.dry_run) == ("x", True)


def test_advice_of_a_set_is_passed_on_with_its_path():
    def make():
        raise Problems(["a.png: damaged"], advice="on_bad=skip leaves them out")

    with pytest.raises(Problems, match=r"data\.train\.on_bad=skip leaves them out$"):
        make_all({"data.train": make})


def test_a_report_that_fails_names_its_set():
    with pytest.raises(PluginError, match=r"^data\.train: Broken failed on report\(\): KeyError"):
        make_sets({"data.train": node(Broken)}, ["tests"])


class Giving:
    def __init__(self, value):
        self.value = value

    def __call__(self, step):
        return self.value[step] if isinstance(self.value, dict) else self.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "gives 'x' for step 0"),
        (-1, "gives -1 for step 0"),
        (float("inf"), "gives inf"),
        ({0: 1.0}, "failed on step 9: KeyError"),
        ({**dict.fromkeys(range(10), 1.0), 4: -1.0}, "gives -1.0 for step 4"),
    ],
)
def test_a_schedule_that_gives_no_factor(value, words):
    cfg = RunConfig(plugins=["tests"], train=TrainConfig(steps=10))
    with pytest.raises((ConfigError, PluginError), match=r"^scheduler: ") as err:
        make_schedule(node(Giving, value=value), "scheduler", cfg)
    assert words in str(err.value)


def test_an_optimizer_that_is_none():
    groups = [{"params": [nn.Parameter()]}]
    with pytest.raises(ConfigError, match=r"^optimizer: list is no torch\.optim\.Optimizer"):
        called(list, groups, "optimizer")
    with pytest.raises(ConfigError, match=r"^optimizer: .*add _partial_: true"):
        called(optim.SGD([nn.Parameter()], lr=1), groups, "optimizer")
    assert isinstance(called(optim.SGD, groups, "optimizer"), optim.SGD)
