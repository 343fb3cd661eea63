"""Names of frames: scenes, order, gaps, partners."""

import random
import re

import pytest

from sr_train.io.numbering import difference, find_runs, match_frames, usual_step


def runs(names):
    """Return the names of each run."""
    return [[names[position] for position in run.positions] for run in find_runs(names)]


def numbered(pattern, *numbers):
    return [pattern.format(number) for number in numbers]


def test_scenes_in_one_folder():
    """3 scenes of 5 frames: 9 clips of 3, and not 13 of which 4 mix scenes."""
    names = [f"{scene}_{frame:04}" for scene in ("city", "walk", "zoo") for frame in range(1, 6)]
    found = find_runs(names)
    assert runs(names) == [names[:5], names[5:10], names[10:]]
    assert [run.scene for run in found] == ["city", "walk", "zoo"]
    assert [run.numbers for run in found] == [(1, 2, 3, 4, 5)] * 3
    assert not any(run.after_gap for run in found)
    assert sum(len(run.positions) - 2 for run in found) == 9


ONE_SCENE = {
    "padded": numbered("{:08}", *range(12)),
    "unpadded": numbered("frame{}", *range(1, 13)),
    "microseconds": numbered("{}", *(round(n * 1e6 / 30) for n in range(1, 13))),
    "milliseconds": numbered("t{:05}", *(round(n * 1e3 / 24) for n in range(24))),
    "seconds": [f"{1305031102.175304 + n / 30:.6f}" for n in range(60)],
    "even steps": numbered("im{}", *range(1, 60, 4)),
    "jitter": numbered("{}", 0, 33210, 66622, 100012, 133420, 166700, 200190),
    "the scale behind": numbered("{:04}x4", *range(1, 9)),
    "words behind": numbered("shot_{:04}_1080p_v2", *range(1, 9)),
    "index and time": [f"frame{n:04}_t{n * 33333}" for n in range(1, 9)],
    "index and hash": ["0001_ab3f", "0002_9c1d", "0003_1234", "0004_77e0", "0005_5678"],
    "a year before": numbered("2024-05-17_{:03}", *range(5)),
    "a single frame": ["00000001"],
    "words alone": ["alpha", "beta", "gamma"],
}


@pytest.mark.parametrize("kind", ONE_SCENE)
def test_one_scene_without_a_gap(kind):
    names = ONE_SCENE[kind]
    shuffled = random.Random(1).sample(names, len(names))
    assert runs(shuffled) == [names]
    [run] = find_runs(names)
    assert run.scene == ""
    assert (run.numbers is None) == (kind == "words alone")


SCENES = {
    "scene and frame": [numbered("s01_f{:04}", *range(4)), numbered("s02_f{:04}", *range(4))],
    "two numbers": [["00001_1", "00001_2", "00001_3"], ["00002_1", "00002_2"], ["00003_1"]],
    "frames that count on": [numbered("a_{}", 1, 2, 3), numbered("b_{}", 4, 5)],
    "words behind": [["9_left", "10_left", "11_left"], ["9_right", "10_right"]],
    "a label behind": [["0001_day", "0002_day"], ["0003_night", "0004_night"]],
    "a number behind": [["0001_5", "0002_5"], ["0003_6", "0004_6"]],
    "names of scenes with digits": [numbered("a3f9_{}", 1, 2), numbered("b7c_{}", 1, 2)],
    "scene, index and time": [["s1_0001_333", "s1_0002_667"], ["s2_0001_333", "s2_0002_667"]],
    "one frame each": [["city_1"], ["walk_1"], ["zoo_1"]],
    "a stray one": [numbered("{:04}", 1, 2, 3), ["0002_copy"]],
    "a cover": [numbered("{:04}", 1, 2, 3), ["cover"]],
    "three numbers": [["1_1_1", "1_1_2"], ["1_2_1", "1_2_2"], ["2_1_1", "2_1_2"]],
    "minutes": [["10-33-58", "10-33-59"], ["10-34-00", "10-34-01"]],
}


@pytest.mark.parametrize("kind", SCENES)
def test_scenes_are_told_by_what_is_no_frame_number(kind):
    expected = SCENES[kind]
    names = [name for scene in expected for name in scene]
    shuffled = random.Random(2).sample(names, len(names))
    assert runs(shuffled) == expected
    found = find_runs(shuffled)
    assert len({run.scene for run in found}) == len(expected)
    assert "" not in {run.scene for run in found}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3, 5, 6, 7], [[1, 2, 3], [5, 6, 7]]),
        ([1, 3, 5, 9, 11], [[1, 3, 5], [9, 11]]),
        ([33333, 66667, 100000, 166667, 200000], [[33333, 66667, 100000], [166667, 200000]]),
        ([10, 20, 30, 45, 55], [[10, 20, 30], [45, 55]]),  # 1.5 times
        ([10, 20, 30, 44, 54], [[10, 20, 30, 44, 54]]),
        ([1, 2, 11, 12, 21, 22], [[1, 2], [11, 12], [21, 22]]),
        ([0, 1, 2, 3, 5, 7, 10, 12], [[0, 1, 2, 3], [5], [7], [10], [12]]),
        ([1, 100], [[1, 100]]),
    ],
)
def test_gaps(numbers, expected):
    found = find_runs(numbered("f{:07}", *numbers))
    assert [list(run.numbers or ()) for run in found] == expected
    assert [run.after_gap for run in found] == [False] + [True] * (len(expected) - 1)


def test_a_gap_in_one_scene_of_several():
    names = ["a_1", "a_2", "a_3", "a_7", "a_8", "b_1", "b_2"]
    assert runs(names) == [names[:3], names[3:5], names[5:]]
    assert [(run.scene, run.after_gap) for run in find_runs(names)] == [
        ("a", False),
        ("a", True),
        ("b", False),
    ]


def test_numbers_that_do_not_rise_cut_nothing():
    [run] = find_runs(["1", "01", "2", "9"])
    assert (run.positions, run.numbers) == ((1, 0, 2, 3), None)


def test_every_name_is_in_one_run():
    draw = random.Random(3)
    for _ in range(300):
        parts = draw.sample(["a", "b", "_", "-", ".", "1", "02", "0.125", "7", "x"], 5)
        names = list({"".join(draw.choices(parts, k=draw.randint(1, 6))) for _ in range(12)})
        found = sorted(position for run in find_runs(names) for position in run.positions)
        assert found == list(range(len(names))), names


def test_nothing_to_find():
    assert find_runs([]) == []


def test_usual_step_is_the_one_that_most_are_near():
    assert usual_step([33333, 33334, 33333, 66666]) == 33333
    assert usual_step([1, 9, 10, 1, 11, 1]) == 1
    assert usual_step([1, 4]) == 1


X4 = re.compile(r"_?[xX]4$")


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["b", "a"], ["a", "b"], (1, 0)),
        (["0001", "0002"], ["0002x4", "0001x4"], (1, 0)),
        (["f8", "f9", "f10"], ["spk_010", "spk_008", "spk_009"], (1, 2, 0)),
        (["a_1", "a_2", "b_1"], ["b_1", "a_2", "a_1"], (2, 1, 0)),
        (["a_1", "a_2", "b_1", "b_2"], ["a_01", "a_02", "b_02", "b_01"], (0, 1, 3, 2)),
        (["v_1_33", "v_2_66", "v_3_99"], ["99", "66", "33"], (2, 1, 0)),
        (["f8", "f9"], ["f9", "f10"], None),
        (["f8", "f9"], ["0", "1"], None),
        (["a_1", "b_1"], ["c_1", "d_1"], None),
        (["1", "2", "3"], ["1", "2"], None),
        (["1", "2"], ["1", "01"], None),
    ],
)
def test_partners_are_found_by_name_or_number_and_never_by_place(names, others, expected):
    assert match_frames(names, others, X4) == expected


def test_what_lacks_a_partner_is_named():
    names, others = numbered("f{:03}", *range(8)), numbered("{}", *range(1, 8))
    assert difference(names, others, "lq", "spikes") == (
        "spikes has 7 frames, lq has 8: spikes lacks f000"
    )
    shifted = numbered("f{:03}", *range(1, 9))
    assert difference(names, shifted, "lq", "spikes") == (
        "spikes has 8 frames, lq has 8: spikes lacks f000; lq lacks f008"
    )
    apart = difference(["a", "b"], ["c"], "gt", "lq")
    assert apart == (
        "lq has 1 frames, gt has 2, and neither names nor numbers agree: lq has c, gt has a, b"
    )
    assert "the same number twice" in difference(["1", "2"], ["2", "1", "01"], "gt", "lq")
