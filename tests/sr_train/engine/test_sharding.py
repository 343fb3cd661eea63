"""Validation shared by ranks shows and scores what one process would."""

from dataclasses import dataclass

import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.api.logger import Logger
from sr_train.engine.distributed import World
from sr_train.engine.live_validation import LiveValidation
from sr_train.engine.validator import Scores, Validator
from sr_train.inference.clips import frame_by_frame
from tests.ranks import on_ranks
from tests.toys import stripes


@dataclass
class Pair:
    name: str
    lq: np.ndarray
    gt: np.ndarray


class Toys:
    """Striped pairs, of which one may be broken."""

    def __init__(self, count, seed, broken=None):
        self.count = count
        self.seed = seed
        self.broken = broken

    def __len__(self):
        return self.count

    def whole(self, index):
        if index == self.broken:
            raise DataError(f"p{index}: damaged")
        gt = stripes(16, 20, self.seed + index)
        return Pair(f"p{index}", gt[::2, ::2].copy(), gt)


class Images(Logger):
    """A logger that keeps the names and sums of what it is shown."""

    def __init__(self):
        self.seen = []

    def scalars(self, values, step):
        raise AssertionError("no scalars are logged here")

    def image(self, name, pixels, step):
        self.seen.append((name, int(pixels.sum()), step))


def difference(pred, gt, scale):
    return float(np.abs(pred.astype(float) - gt).mean())


def validate(world, folder, count=5, broken=None):
    sets = {"b": Toys(count, 0), "a": Toys(2, 50, broken)}
    validator = Validator(sets, {"difference": difference}, 2, world)
    logger, calls = Images(), []

    def upscale(lq, name):
        calls.append(name)
        return validator.bicubic(lq)

    live = LiveValidation(
        validator, lambda: frame_by_frame(upscale), folder / str(world.rank), logger, 3
    )
    scores = live(7)
    sheets = sorted(path.name for path in folder.glob(f"{world.rank}/*"))
    order = [(name, list(rows)) for name, rows in scores.images.items()]
    return scores, order, logger.seen, sheets, calls, live.baseline()


@pytest.mark.dist
@pytest.mark.parametrize("count", [5, 4])
def test_two_ranks_score_and_show_what_one_does(tmp_path, count):
    alone, order, seen, sheets, calls, _ = validate(World(), tmp_path / "alone", count)
    main, other = on_ranks(validate, tmp_path / "two", count)
    assert main[0] == other[0] == main[5] == other[5] == alone
    assert (
        main[1]
        == other[1]
        == order
        == [("b", [f"p{i}" for i in range(count)]), ("a", ["p0", "p1"])]
    )
    assert (main[2], main[3]) == (seen, sheets) == (seen, ["step_00000007.png"])
    assert [name for name, _, _ in seen] == ["b/p0", "b/p1", "b/p2", "a/p0", "a/p1"]
    assert (other[2], other[3]) == ([], [])
    assert sorted(main[4] + other[4]) == sorted(calls)
    assert abs(len(main[4]) - len(other[4])) <= 1
    same = [(tmp_path / place / "0/step_00000007.png").read_bytes() for place in ("alone", "two")]
    assert same[0] == same[1]


@pytest.mark.dist
def test_a_damaged_image_of_one_rank_ends_both(tmp_path):
    for told in on_ranks(validate, tmp_path, 5, 0):
        assert told == "SharedError: rank 1: p0: damaged"


@pytest.mark.dist
def test_more_ranks_than_images(tmp_path):
    first, *others = on_ranks(few, size=3)
    assert all(scores == first for scores in others)
    assert len(first.images["x"]) == 1


def few(world):
    validator = Validator({"x": Toys(1, 0)}, {"difference": difference}, 2, world)
    return validator.run(frame_by_frame(validator.bicubic))


def test_a_damaged_image_alone_is_told_as_it_is(tmp_path):
    with pytest.raises(DataError, match=r"^p0: damaged$"):
        validate(World(), tmp_path, 5, 0)


def test_means_are_over_images():
    scores = Scores({"a": {"x": {"m": 1.0}}, "b": {"y": {"m": 2.0}, "z": {"m": 6.0}}})
    assert scores.mean() == {"m": 3.0}
    assert scores.mean("b") == {"m": 4.0}
