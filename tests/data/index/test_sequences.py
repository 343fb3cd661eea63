"""Sequences: what is found, paired, cut at gaps and left out, and what errors say."""

import os
import shutil

import numpy as np
import pytest
import torch

from data.index.layouts import find_sequences
from data.index.requirements import Requirements
from data.index.selecting import make_selection
from data.index.sequences import index_sequences
from sr_train.api.errors import DataError
from tests.data.conftest import write_frames, write_nested, write_tensor

MODALITIES = {"lq": "blur", "gt": "sharp", "spikes": "spike_vox"}


def index_of(scale=2, requirements=None, **places):
    names = ("gt", "lq", "extras", "root", "split", "modalities")
    _, found = find_sequences(*(places.get(name) for name in names))
    requirements = dict(requirements or {})
    patterns = [requirements.pop(name, None) for name in ("include", "exclude", "list_file")]
    return index_sequences(
        found, Requirements(scale=scale, selection=make_selection(*patterns), **requirements)
    )


def nested(root, split="train", modalities=MODALITIES, **requirements):
    return index_of(root=str(root), split=split, modalities=modalities, requirements=requirements)


def one_fault(index):
    assert len(index.left_out) == 1, index.left_out
    return index.left_out[0]


# Layouts.


def test_sequences_are_folders_of_frames(frames_dir):
    index = index_of(gt=str(frames_dir))
    assert [(segment.name, len(segment)) for segment in index.segments] == [("a", 9), ("b/c", 7)]
    assert index.segments[0].frame_names[:2] == ("00000000", "00000001")
    assert (index.segments[0].lq_height, index.segments[0].lq_width) == (20, 24)
    assert index.left_out == index.gaps == index.too_short == []


def test_a_root_of_frames_is_a_sequence_itself(frames_dir):
    assert [segment.name for segment in index_of(gt=str(frames_dir / "a")).segments] == ["a"]
    other = write_frames(frames_dir.parent / "small", 9, (20, 24), 2)
    index = index_of(gt=str(frames_dir / "a"), lq=str(other))
    assert [(segment.name, sorted(segment.tracks)) for segment in index.segments] == [
        ("a", ["gt", "lq"])
    ]


def test_parallel_roots_and_several_of_them(frames_dir, tmp_path):
    for name, count in (("a", 9), ("b/c", 7)):
        write_frames(tmp_path / "lq" / name, count, (20, 24), 2)
    index = index_of(gt=[str(frames_dir)], lq=[str(tmp_path / "lq")])
    frame = index.segments[1].tracks["lq"].frames[3]
    assert frame.file.path == str(tmp_path / "lq" / "b" / "c" / "00000003.png")
    second = tmp_path / "more"
    write_frames(second / "z", 3)
    names = [segment.name for segment in index_of(gt=[str(frames_dir), str(second)]).segments]
    assert names == ["gt/a", "gt/b/c", "more/z"]
    with pytest.raises(DataError, match="2 gt folders but 1 lq"):
        index_of(gt=[str(frames_dir), str(second)], lq=str(tmp_path / "lq"))
    with pytest.raises(DataError, match="given as gt and as lq"):
        index_of(gt=str(frames_dir), lq=str(frames_dir))


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_nested_folders_with_tensors(tmp_path, suffix):
    index = nested(write_nested(tmp_path, {"one": 3, "two": 2}, suffix=suffix))
    assert [(segment.name, len(segment)) for segment in index.segments] == [("one", 3), ("two", 2)]
    header = index.segments[0].tracks["spikes"].header
    assert (header.channels, header.height, header.width) == (5, 20, 24)
    assert header.dtype == "float32"


def test_arguments_that_do_not_go_together(frames_dir):
    for wrong in (
        {},
        {"gt": str(frames_dir), "root": str(frames_dir)},
        {"gt": str(frames_dir), "split": "train"},
        {"root": str(frames_dir), "lq": str(frames_dir)},
        {"root": str(frames_dir), "modalities": {"lq": "blur"}},
        {"root": str(frames_dir), "modalities": {"gt": "a", "lq": "a"}},
        {"gt": []},
    ):
        with pytest.raises(DataError):
            index_of(**wrong)


# Near misses.


def test_a_wrong_split_names_the_near_one(nested_dir):
    with pytest.raises(DataError, match=r"looked for 'Train' in .*spikes; did you mean 'train'"):
        nested(nested_dir, split="Train")
    with pytest.raises(DataError, match=r"valid: train"):
        nested(nested_dir, split="nothing_alike")


def test_a_modality_that_no_sequence_has(nested_dir):
    wrong = {**MODALITIES, "spikes": "spikevox"}
    with pytest.raises(DataError, match=r"no sequence has a folder 'spikevox'.*'spike_vox'"):
        nested(nested_dir, modalities=wrong)


def test_a_modality_missing_in_one_sequence(nested_dir):
    folder = nested_dir / "train" / "two"
    (folder / "spike_vox").rename(folder / "spikevox")
    index = nested(nested_dir)
    assert [segment.name for segment in index.segments] == ["one"]
    path, why = one_fault(index)
    assert path == str(folder)
    assert "no folder 'spike_vox'" in why
    assert "did you mean 'spikevox'" in why
    (folder / "spike_vox").mkdir()
    assert "holds no frames" in one_fault(nested(nested_dir))[1]


def test_a_partner_missing_below_a_parallel_root(frames_dir, tmp_path):
    write_frames(tmp_path / "lq" / "A", 9, (20, 24), 2)
    with pytest.raises(DataError, match="no sequence here belongs to one in"):
        index_of(gt=str(frames_dir), lq=str(tmp_path / "lq"))
    write_frames(tmp_path / "lq" / "b" / "c", 7, (20, 24), 2)
    index = index_of(gt=str(frames_dir), lq=str(tmp_path / "lq"))
    assert [segment.name for segment in index.segments] == ["b/c"]
    (_, lq_lacks), (_, gt_lacks) = sorted(index.left_out, key=lambda item: item[0], reverse=True)
    assert "no gt of this name" in lq_lacks
    assert "did you mean 'A'?" in gt_lacks


def test_nothing_found_says_where_and_what(tmp_path):
    (tmp_path / "gt" / "a").mkdir(parents=True)
    (tmp_path / "gt" / "a" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"gt: no frames found .*it holds 1 \.txt, 1 folder"):
        index_of(gt=str(tmp_path / "gt"))
    with pytest.raises(DataError, match="did you mean 'gt'"):
        index_of(gt=str(tmp_path / "GT"))


# Pairing.


@pytest.mark.parametrize("names", ["{:08}x2", "{:08}_x2", "v{}", "{:03}"])
def test_names_that_agree_by_number_or_published_ending(frames_dir, tmp_path, names):
    write_frames(tmp_path / "lq" / "a", 9, (20, 24), 2, names=names)
    (segment,) = index_of(
        gt=str(frames_dir), lq=str(tmp_path / "lq"), requirements={"include": ["a"]}
    ).segments
    for t, frame in enumerate(segment.tracks["lq"].frames):
        assert os.path.basename(frame.file.path) == f"{names.format(t)}.png"


def test_frame_counts_that_differ(nested_dir):
    (nested_dir / "train" / "two" / "blur" / "00000003.png").unlink()
    path, why = one_fault(nested(nested_dir))
    assert path == str(nested_dir / "train" / "two")
    assert why == "lq has 5 frames, gt has 6: lq lacks 00000003"
    (nested_dir / "train" / "two" / "sharp" / "00000004.png").unlink()
    assert one_fault(nested(nested_dir))[1].endswith("lq lacks 00000003; gt lacks 00000004")


def test_place_alone_pairs_nothing(frames_dir, tmp_path):
    folder = tmp_path / "lq" / "a"
    write_frames(folder, 9, (20, 24), 2)
    for t in reversed(range(9)):
        (folder / f"{t:08}.png").rename(folder / f"{t + 100}.png")
    index = index_of(gt=str(frames_dir / "a"), lq=str(folder))
    assert (
        "neither names nor numbers agree: lq has 100, 101, 102, ..., gt has 0"
        in (one_fault(index)[1])
    )


def test_a_number_that_two_frames_have_pairs_nothing(frames_dir, tmp_path):
    folder = write_frames(tmp_path / "lq" / "a", 9, (20, 24), 2, names="v{}")
    shutil.copy(folder / "v8.png", folder / "w8.png")
    index = index_of(gt=str(frames_dir / "a"), lq=str(folder))
    assert "lq has 10 frames, gt has 9" in one_fault(index)[1]


def test_frames_that_are_there_twice(frames_dir):
    shutil.copy(frames_dir / "a" / "00000002.png", frames_dir / "a" / "00000002.bmp")
    assert "frames are there twice, e.g. '00000002'" in one_fault(index_of(gt=str(frames_dir)))[1]


# Numbering, ranges, patterns, length.


def test_a_gap_cuts_a_sequence(frames_dir):
    (frames_dir / "a" / "00000004.png").unlink()
    index = index_of(gt=str(frames_dir))
    assert [(segment.name, len(segment)) for segment in index.segments] == [
        ("a/00000000-00000003", 4),
        ("a/00000005-00000008", 4),
        ("b/c", 7),
    ]
    assert index.gaps == [("a", "after 00000003 comes 00000005")]
    assert index.num_sequences == 2


def test_even_steps_are_no_gaps(tmp_path):
    folder = write_frames(tmp_path / "a", 6)
    for t in reversed(range(6)):
        (folder / f"{t:08}.png").rename(folder / f"f{t * 5 + 3:03}.png")
    index = index_of(gt=str(tmp_path))
    assert (len(index.segments), index.gaps) == (1, [])


def test_ranges(frames_dir):
    index = index_of(gt=str(frames_dir), requirements={"ranges": {"a": (2, 5), "b/*": (4, None)}})
    assert [segment.frame_names for segment in index.segments] == [
        ("00000002", "00000003", "00000004"),
        ("00000004", "00000005", "00000006"),
    ]
    index = index_of(gt=str(frames_dir), requirements={"ranges": {"a": (2, 10)}})
    assert "'a' has the frames [0, 9], got [2, 10]" in one_fault(index)[1]
    with pytest.raises(DataError, match=r"ranges: no sequence matches 'A'; did you mean 'a'"):
        index_of(gt=str(frames_dir), requirements={"ranges": {"A": (2, 5)}})


def test_include_and_exclude(frames_dir):
    def names(**patterns):
        return [
            segment.name for segment in index_of(gt=str(frames_dir), requirements=patterns).segments
        ]

    assert names(include=["b*"]) == ["b/c"]
    assert names(exclude=["b*"]) == ["a"]
    with pytest.raises(DataError, match="include: no sequence matches 'x'"):
        names(include=["x"])
    with pytest.raises(DataError, match="none of 2 sequences is left"):
        names(exclude=["*"])


def test_an_excluded_sequence_is_not_even_a_problem(nested_dir):
    shutil.rmtree(nested_dir / "train" / "two" / "blur")
    assert nested(nested_dir, exclude=["two"]).left_out == []


def test_too_short_is_named(frames_dir):
    index = index_of(gt=str(frames_dir), requirements={"num_frames": 8})
    assert [segment.name for segment in index.segments] == ["a"]
    assert index.too_short == [("b/c", 7)]
    assert index.left_out == []


# Sizes and kinds.


def test_sizes_that_do_not_fit(nested_dir):
    write_frames(nested_dir / "train" / "one" / "blur", 8, (10, 12), 2)
    path, why = one_fault(nested(nested_dir))
    assert path.endswith("one/blur/00000000.png")
    assert "found 12x10 uint8, expected 24x20 for the GT of 48x40 (" in why
    assert why.endswith("one/sharp/00000000.png); these two fit scale 4")


def test_a_frame_of_another_size_than_its_sequence(frames_dir):
    write_frames(frames_dir / "a", 2, (40, 50))
    faults = index_of(gt=str(frames_dir)).left_out
    assert faults[0][0].endswith("00000002.png")
    assert "found 48x40 uint8, expected 50x40" in faults[0][1]


def test_too_small_for_the_crop(frames_dir):
    index = index_of(gt=str(frames_dir), requirements={"lq_size": 21})
    assert (
        "found 48x40 uint8, expected at least 42x42 for an LQ crop of 21x21"
        in (index.left_out[0][1])
    )


def set_voxel(root, sequence, array, count=None):
    folder = root / "train" / sequence / "spike_vox"
    for path in sorted(folder.iterdir())[:count]:
        write_tensor(path, array)


def test_voxels_of_wrong_shape(nested_dir):
    set_voxel(nested_dir, "one", np.zeros((20, 24, 5), np.float32))
    path, why = one_fault(nested(nested_dir))
    assert path.endswith("one/spike_vox/00000000.npy")
    assert "found (20, 24, 5) float32, expected (20, 20, 24)" in why
    assert "looks like (H, W, S)" in why
    set_voxel(nested_dir, "one", np.zeros((20, 24), np.float32))
    assert "has the shape (20, 24), expected (S, H, W)" in nested(nested_dir).left_out[0][1]
    set_voxel(nested_dir, "one", np.zeros((5, 20, 24), np.complex64))
    assert "holds '<c8', not numbers" in nested(nested_dir).left_out[0][1]


def test_voxels_that_are_not_those_of_the_set(nested_dir):
    write_nested(nested_dir, {"three": 6, "four": 6})
    set_voxel(nested_dir, "one", np.zeros((4, 20, 24), np.float32))
    path, why = one_fault(nested(nested_dir))
    assert "one" in path
    assert "found (4, 20, 24) float32, expected 5 channels of float32" in why
    set_voxel(nested_dir, "one", np.zeros((5, 20, 24), np.float32), count=3)
    assert "as the frames before it" in nested(nested_dir).left_out[0][1]


class Touch:
    """Would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pt_files_that_are_corrupt_or_hold_code(tmp_path):
    write_nested(tmp_path, {"one": 3, "two": 3}, suffix=".pt")
    voxel = tmp_path / "train" / "one" / "spike_vox" / "00000001.pt"
    whole = voxel.read_bytes()
    voxel.write_bytes(whole[: len(whole) // 2])
    path, why = one_fault(nested(tmp_path))
    assert path == str(voxel)
    assert "damaged" in why
    torch.save({"code": Touch(str(tmp_path / "touched"))}, voxel)
    path, why = one_fault(nested(tmp_path))
    assert path == str(voxel)
    assert "could run code" in why
    assert not (tmp_path / "touched").exists()


# Scenes in one folder, and gaps by the usual step.


def write_scenes(folder, scenes, size=(40, 48), names="{}_{:04}", **more):
    for scene, count in scenes.items():
        write_frames(folder, count, size, names=names.replace("{}", scene, 1), **more)
    return folder


def test_scenes_of_one_folder_are_sequences(tmp_path):
    """3 scenes of 5 frames are 9 clips of 3; as one sequence they were 13, 4 of them mixed."""
    write_scenes(tmp_path / "gt", {"city": 5, "walk": 5, "zoo": 5})
    write_scenes(tmp_path / "gt" / "more", {"a": 2, "b": 3})
    index = index_of(gt=str(tmp_path / "gt"))
    lengths = {segment.name: len(segment) for segment in index.segments}
    assert lengths == {"gt/city": 5, "gt/walk": 5, "gt/zoo": 5, "more/a": 2, "more/b": 3}
    assert (index.num_sequences, index.gaps) == (5, [])
    assert index.scenes == {
        "gt": ["gt/city", "gt/walk", "gt/zoo"],
        "more": ["more/a", "more/b"],
    }
    assert index.segments[1].frame_names == tuple(f"walk_{t:04}" for t in range(5))


@pytest.mark.parametrize("names", ["{}_{:04}", "{}_{:04}x2", "{}_{:02}", "{}_{:04}_x2"])
def test_all_modalities_are_split_as_the_gt_is(tmp_path, names):
    write_scenes(tmp_path / "gt", {"city": 3, "walk": 4})
    write_scenes(tmp_path / "lq", {"city": 3, "walk": 4}, (20, 24), names, factor=2)
    for name in ("city", "walk"):
        for t in range(4):
            write_tensor(tmp_path / "spikes" / f"{name}_{t:04}.npy", np.zeros((5, 20, 24), "f4"))
    (tmp_path / "spikes" / "city_0003.npy").unlink()
    places = {name: str(tmp_path / name) for name in ("gt", "lq")}
    index = index_of(**places, extras={"spikes": str(tmp_path / "spikes")})
    assert [(segment.name, len(segment), sorted(segment.tracks)) for segment in index.segments] == [
        ("gt/city", 3, ["gt", "lq", "spikes"]),
        ("gt/walk", 4, ["gt", "lq", "spikes"]),
    ]
    for segment in index.segments:
        for modality in ("lq", "spikes"):
            stems = [frame.file.stem for frame in segment.tracks[modality].frames]
            scenes = {stem.split("_")[0] for stem in stems}
            assert scenes == {segment.name[3:]}
            assert [int(stem.split("_")[1].split("x")[0]) for stem in stems] == [
                *range(len(segment))
            ]


def test_one_scene_without_its_partners_leaves_the_others(tmp_path):
    write_scenes(tmp_path / "gt", {"city": 3, "walk": 4, "zoo": 2})
    write_scenes(tmp_path / "lq", {"city": 3, "walk": 3}, (20, 24), factor=2)
    index = index_of(gt=str(tmp_path / "gt"), lq=str(tmp_path / "lq"))
    assert [segment.name for segment in index.segments] == ["gt/city"]
    assert sorted(why for _, why in index.left_out) == [
        "lq has 3 frames, gt has 4: lq lacks walk_0003",
        "lq has no frame of the scene 'zoo'",
    ]


def test_a_modality_that_tells_no_scene_of_the_gt(tmp_path):
    write_scenes(tmp_path / "gt", {"city": 3, "walk": 4})
    write_frames(tmp_path / "lq", 7, (20, 24), 2)
    index = index_of(gt=str(tmp_path / "gt"), lq=str(tmp_path / "lq"))
    path, why = one_fault(index)
    assert path == str(tmp_path / "gt")
    assert "lq has 7 frames, gt has 7" in why


def test_patterns_and_ranges_know_scenes_and_their_folders(tmp_path):
    write_scenes(tmp_path / "gt" / "x", {"a": 4, "b": 3})
    write_frames(tmp_path / "gt" / "y", 3)

    def names(**patterns):
        return [
            segment.name
            for segment in index_of(gt=str(tmp_path / "gt"), requirements=patterns).segments
        ]

    assert names() == ["x/a", "x/b", "y"]
    assert names(include=["x"]) == names(exclude=["y"]) == ["x/a", "x/b"]
    assert names(include=["x/b", "y"]) == ["x/b", "y"]
    index = index_of(gt=str(tmp_path / "gt"), requirements={"ranges": {"x/a": (1, 3)}})
    assert [len(segment) for segment in index.segments] == [2, 3, 3]
    with pytest.raises(DataError, match=r"'x': its frames are of several scenes, 'x/a', 'x/b'"):
        index_of(gt=str(tmp_path / "gt"), requirements={"ranges": {"x": (1, 3)}})


def test_scenes_in_nested_folders(tmp_path):
    for folder, size, factor in (("sharp", (40, 48), 1), ("blur", (20, 24), 2)):
        write_scenes(tmp_path / "day" / folder, {"a": 3, "b": 2}, size, factor=factor)
    index = index_of(root=str(tmp_path), modalities={"lq": "blur", "gt": "sharp"})
    assert [(segment.name, len(segment)) for segment in index.segments] == [
        ("day/a", 3),
        ("day/b", 2),
    ]


def test_frames_named_by_microseconds_have_no_gaps(tmp_path):
    """Steps of 33333 and 33334 alternate; one of 66667 is a gap."""
    folder = write_frames(tmp_path / "a", 12)
    for t in reversed(range(12)):
        (folder / f"{t:08}.png").rename(folder / f"{round((t + 1) * 1e6 / 30)}.png")
    index = index_of(gt=str(tmp_path))
    assert [(segment.name, len(segment)) for segment in index.segments] == [("a", 12)]
    (folder / "200000.png").unlink()
    index = index_of(gt=str(tmp_path))
    assert [len(segment) for segment in index.segments] == [5, 6]
    assert index.gaps == [("a", "after 166667 comes 233333")]


def test_a_range_keeps_the_gaps_of_the_whole(frames_dir):
    (frames_dir / "a" / "00000004.png").unlink()
    index = index_of(gt=str(frames_dir), requirements={"ranges": {"a": (3, 5)}})
    assert [segment.frame_names for segment in index.segments][:2] == [("00000003",), ("00000005",)]


# Lists of names.


def test_a_list_of_sequences(tmp_path):
    for name in ("00001/0001", "00001/0002", "00002/0001"):
        write_frames(tmp_path / "sequences" / name, 3, names="im{}")
    lines = tmp_path / "sep_trainlist.txt"
    lines.write_text("00001/0002\n00002/0001 3 (40,48,3)\n\n")
    places = {"gt": str(tmp_path / "sequences")}
    index = index_of(**places, requirements={"list_file": str(lines)})
    assert [segment.name for segment in index.segments] == ["00001/0002", "00002/0001"]
    lines.write_text("00001/0002\n00009/0001\n")
    index = index_of(**places, requirements={"list_file": str(lines)})
    assert one_fault(index) == (str(lines), "names '00009/0001', which is not there")
