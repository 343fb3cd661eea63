"""Whatever a config gives a data set is used, or ends in an error that people can read."""

import inspect

import pytest

from data.clips import ClipDataset
from data.images import ImageDataset
from sr_train.api.errors import DataError, SRTrainError
from sr_train.config.build import build
from tests.data.conftest import fill, write_frames, write_nested
from tests.data.test_clips import MODALITIES

ODD = [
    True, 0, -1, 10**30, 2.5, float("nan"), float("inf"), "", "x", "~", "a\0b", "\udcff", "x" * 999,
    [], [1], [""], [["a"]], ["gt", "gt"], {}, {"a": 1}, {"a": [0, "b"]}, {"gt": ["sharp"]}, b"x",
]  # fmt: skip


@pytest.fixture
def bases(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "gt", ["a", "b"])
    fill(tmp_path / "lq", ["a", "b"], (20, 28))
    write_frames(tmp_path / "clips" / "a", 3)
    write_nested(tmp_path / "nested", {"one": 3})
    return [
        (ImageDataset, {"gt": "gt", "lq": "lq", "scale": 2, "lq_size": 8}),
        (ClipDataset, {"gt": "clips", "scale": 2, "lq_size": 8, "frames": 2}),
        (
            ClipDataset,
            {"root": "nested", "split": "train", "modalities": MODALITIES, "scale": 2, "frames": 2},
        ),
    ]


def test_no_argument_ends_in_a_traceback(bases):
    used = refused = 0
    for kind, base in bases:
        for name in inspect.signature(kind).parameters:
            for value in ODD:
                node = {"_target_": f"{kind.__module__}.{kind.__name__}", **base, name: value}
                try:
                    dataset = build(node, "data.train")
                    str(dataset.report())
                    dataset.sample(0, 0) if dataset.lq_size else dataset.whole(0)
                    used += 1
                except SRTrainError:
                    refused += 1
    assert used > 50
    assert refused > 500


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"stride": [1, 0]}, "stride: expected a whole number above 0, or several, got"),
        ({"stride": "2"}, "stride: expected a whole number"),
        ({"ranges": [0, 3]}, r"ranges: expected names with their values, \{NAME: \[0, 80\]\}, got"),
        ({"ranges": {"a": [0, "end"]}}, r"ranges: 'a': expected \[first, end\]"),
        ({"extras": ["spikes"]}, r"extras: expected names with their values, \{spikes: FOLDER\}"),
        ({"time_bins": [3]}, "time_bins: expected text, got 3"),
        ({"every": 0}, "every must be at least 1"),
    ],
)
def test_clips_name_the_argument(bases, argument, words):
    with pytest.raises(DataError, match=words):
        ClipDataset(**{**bases[1][1], **argument})
