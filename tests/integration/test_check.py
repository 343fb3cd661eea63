"""What `check` passes, `train` runs through its first validation and save; the rest it names."""

import shutil

import numpy as np
import pytest
import torch

from sr_train.engine.weights import read_weights
from sr_train.io.images import write_image
from tests.toys import clip_words, fill, fill_clips, state_of, stripes, toy_words

PARTS = """
import threading
import numpy as np
import torch
from torch import nn
from sr_train.api.dataset import TrainDataset, WholeImage
from sr_train.api.logger import Logger
from sr_train.api.network import NetSpec

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tail = nn.Conv2d(3, 12, 3, padding=1)
    def forward(self, lq):
        return nn.functional.pixel_shuffle(self.tail(lq), 2)

class Tuple(Net):
    def forward(self, lq):
        return super().forward(lq), 3
class Nothing(Net):
    def forward(self, lq):
        return None
class Number(Net):
    def forward(self, lq):
        return 0.5
class Map(Net):
    def forward(self, lq):
        return {"pred": super().forward(lq)}
class Small(Net):
    def forward(self, lq):
        return self.tail(lq)
class Bytes(Net):
    def forward(self, lq):
        return (super().forward(lq) * 255).to(torch.uint8)
class Nan(Net):
    def forward(self, lq):
        return super().forward(lq) * float("nan")
class Detached(Net):
    def forward(self, lq):
        return super().forward(lq).detach()
class OfFour(Net):
    def forward(self, lq):
        b, c, h, w = lq.shape
        return super().forward(lq.view(b, c, h // 4, 4, w // 4, 4).reshape(b, c, h, w))
class Boastful(OfFour):
    def __init__(self):
        super().__init__()
        self.spec = NetSpec(scale=2)
class InPlace(Net):
    def forward(self, lq):
        return super().forward(lq.mul_(255)) / 255
class TrainsOnly(Net):
    def forward(self, lq):
        if not self.training:
            raise KeyError("eval")
        return super().forward(lq)
class Unmade(nn.Module):
    def __init__(self):
        self.tail = 3
class Still(nn.Module):
    def forward(self, lq):
        return nn.functional.interpolate(lq, scale_factor=2)
class Locked(Net):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
class OfTwoSamples(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
    def forward(self, lq):
        return super().forward(lq * self.norm(lq.mean(dim=(2, 3), keepdim=True)))
class Tied(Net):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
    def forward(self, lq):
        return super().forward(self.second(self.first(lq)))
class Exits(Net):
    def forward(self, lq):
        raise SystemExit(0)
class Wordy(Net):
    def state_dict(self, *args, **more):
        return {**super().state_dict(*args, **more), "words": lambda: 3}

class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 1, 3)
    def forward(self, images):
        assert float(images.detach().mean()) < 1e9
        return self.head(images)

class Metric:
    higher_is_better = True
    def __call__(self, pred, gt, scale):
        return 1.0
class Undirected(Metric):
    higher_is_better = None
class OfTwo(Metric):
    def __call__(self, pred, gt):
        return 1.0
class Silent(Metric):
    def __call__(self, pred, gt, scale):
        return None
class Raising(Metric):
    def __call__(self, pred, gt, scale):
        raise ValueError("no luck")
class WordyMetric(Metric):
    def __call__(self, pred, gt, scale):
        return "3.5"
class Map255(Metric):
    def __call__(self, pred, gt, scale):
        return pred / 255
class Several(Metric):
    def __call__(self, pred, gt, scale):
        return torch.zeros(2)
class NotANumber(Metric):
    def __call__(self, pred, gt, scale):
        return float("nan")

class OwnLogger(Logger):
    def scalars(self, values, step):
        (self.run_dir / "own.txt").write_text(str(values))
class Unclosed(OwnLogger):
    close = None
class Unwritten(Logger):
    def __init__(self, run_dir): ...
class OfPictures(OwnLogger):
    def image(self, name, picture): ...
class Offline(OwnLogger):
    def image(self, name, pixels, step):
        raise ConnectionError("offline")
class Wordless(OwnLogger):
    def text(self, name, text):
        raise ValueError("no words")
class Flat(OwnLogger):
    def histogram(self, name, values, step):
        raise ValueError("no bins")
class Choosy(OwnLogger):
    def scalars(self, values, step):
        values["val/main/psnr_y"]
class Sure(OwnLogger):
    def __init__(self, dry_run):
        assert not dry_run
class Duck:
    def scalars(self, values, step): ...
    def close(self): ...

class Optimizer(torch.optim.SGD):
    def step(self, closure=None):
        raise KeyError("step")
class Storing(torch.optim.SGD):
    def state_dict(self):
        return {**super().state_dict(), "state": {0: {"object": object()}}}

class Set(TrainDataset):
    def __init__(self, lq=16, gt=32, keys="lq gt", fill=0):
        self.sides = {"lq": lq, "gt": gt}
        self.keys, self.value = keys.split(), fill
    def __len__(self):
        return 4
    def sample(self, epoch, index):
        return {k: torch.full((3, self.sides[k], self.sides[k]), self.value) for k in self.keys}
class Bare:
    def __len__(self):
        return 4
    def sample(self, epoch, index): ...
class Sampleless(TrainDataset):
    def __len__(self):
        return 4
class Alike:
    def __len__(self):
        return 4
    def sample(self, epoch, index):
        return {"lq": torch.zeros(3, 16, 16), "gt": torch.zeros(3, 32, 32)}
class Least(TrainDataset):
    __len__, sample = Alike.__len__, Alike.sample
class Mute(Least):
    def fingerprint(self):
        return 3
class Unreported(Least):
    def report(self):
        raise KeyError("x")
class Scaled(Alike):
    def sample(self, epoch, index):
        return {k: v + 255 for k, v in super().sample(epoch, index).items()}
class Whole(TrainDataset):
    def __init__(self, dtype="uint8", given=None):
        self.dtype, self.given = dtype, given
    def __len__(self):
        return 2
    def whole(self, index):
        if self.given == "pair":
            return (1, 2)
        if self.given == "error":
            raise KeyError(index)
        lq, gt = np.zeros((20, 24, 3), self.dtype), np.zeros((40, 48, 3), self.dtype)
        return WholeImage(f"p{index}", lq, gt)
class Constant(nn.Module):
    def forward(self, pred, target):
        return (pred.detach() - target).abs().mean()
class Vector(nn.Module):
    def forward(self, pred, target):
        return (pred - target).abs().mean(dim=(1, 2, 3))
class Infinite(nn.Module):
    def forward(self, pred, target):
        return pred.mean() / 0
class Empty(nn.Module):
    pass
class Greedy(nn.Module):
    def forward(self, pred, label):
        return pred.mean()
class Stream:
    wait_seconds = 0.0
    def __init__(self, dataset, batch_size, seed, pin_memory, rank, world_size, num_workers=0,
                 fill_cache=True):
        self.dataset, self.batch_size = dataset, batch_size
    def __next__(self):
        return self.dataset.batch([(0, 0)] * self.batch_size)
    def seek(self, position): ...
    def close(self): ...
class Unseekable(Stream):
    seek = None
class Short(Stream):
    def __next__(self):
        return self.dataset.batch([(0, 0)])
"""


@pytest.fixture
def check(command, in_folder):
    """Return a function that checks the toy with parts of a package `own_parts`."""
    (in_folder / "own_parts").mkdir()
    (in_folder / "own_parts/__init__.py").write_text(PARTS)

    def run(*more, arch=None, words=None):
        given = toy_words(in_folder) if words is None else words
        if arch is not None:
            given = [word for word in given if not word.startswith("arch")]
            more = (f"+arch={{_target_: own_parts.{arch}}}", *more)
        return command("check", *given, "plugins=[own_parts]", *more)

    yield run
    left = [path.name for path in in_folder.iterdir() if path.name.startswith(".sr_check")]
    assert left == []
    assert not (in_folder / "runs").exists()


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("Tuple", "arch: Tuple returned a tuple of 2 for (2, 3, 16, 16) float32; expected one"),
        ("Nothing", "arch: Nothing returned nothing (None)"),
        ("Number", "arch: Number returned float 0.5"),
        ("Map", "arch: Map returned a dict with the keys pred"),
        ("Small", "arch: Small made (2, 12, 16, 16) float32 of (2, 3, 16, 16)"),
        ("Bytes", "arch: Bytes made (2, 3, 32, 32) uint8"),
        ("Nan", "arch: gives nan on a training crop"),
        ("Detached", "arch: no gradient leads from the prediction to the weights"),
        (
            "TrainsOnly",
            "arch: main/p0: TrainsOnly failed on an input of (1, 3, 20, 24) float32: KeyErr",
        ),
        ("Unmade", "arch: Unmade is not set up; its __init__ must call super().__init__() first"),
        ("Still", "arch: Still has no parameter that could learn"),
        (
            "Locked",
            "arch: Locked failed on a copy of it, for its average (ema.enabled, swa.enabled)",
        ),
        ("Exits", "some code called sys.exit(0) ("),
        ("Wordy", "arch: the state_dict of Wordy holds 'words', function"),
    ],
)
def test_a_network_that_is_none_is_named_with_what_it_was_given(check, arch, words):
    check(arch=arch).fails_with("1 problem:", words)


@pytest.mark.parametrize("arch", ["Net", "OfTwoSamples", "Tied"])
def test_a_network_of_ones_own_passes(check, arch):
    assert "no problem found" in check(arch=arch).succeeds().out


def test_a_discriminator_that_needs_numbers_passes_and_one_that_fails_is_named(check):
    gan = ["+objective=gan", "objective_d=[gan]"]
    check(*gan, "discriminator.arch={_target_: own_parts.Critic}").succeeds()
    done = check(*gan, "discriminator.arch={_target_: own_parts.Nothing}")
    done.fails_with("1 problem:", "discriminator.arch: Nothing returned nothing (None)")


def test_a_network_that_wants_a_multiple_has_its_inputs_padded(check, in_folder):
    words = toy_words(in_folder)
    write_image(in_folder / "val/wide.png", stripes(90, 102))
    done = check(arch="OfFour", words=words).succeeds()
    said = "arch: OfFour needs sizes that are multiples of 4; inputs are padded"
    assert done.out.count(said) == 1


def test_a_network_that_changes_its_input_passes(check):
    done = check(arch="InPlace").succeeds()
    assert "arch: InPlace changes its input in place; it is given a copy" in done.out


def test_a_network_whose_spec_says_too_much_is_told(check, in_folder):
    """The smallest image fits, so that only the sizes tell."""
    words = toy_words(in_folder)
    told = "let its spec say size_multiple=4, pads_inside=False"
    check(arch="Boastful", words=words).fails_with(
        "1 problem:", "arch: a network with a spec", told
    )
    write_image(in_folder / "val/wide.png", stripes(90, 102))
    check(arch="Boastful", words=words).fails_with(
        "1 problem:", "of data.val.main the network will see 51x45", "a multiple of 4 works"
    )


def test_an_image_that_a_metric_cannot_take_is_found(check, in_folder):
    words = toy_words(in_folder)
    write_image(in_folder / "val/small.png", stripes(12, 40))
    check(words=words).fails_with(
        "1 problem:", "metrics.ssim_y: on an image of 40x12: ", "at least 15x15"
    )


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("Undirected", "metrics.own: Undirected: has no higher_is_better, expected True or False"),
        ("OfTwo", "metrics.own: OfTwo: its __call__(pred, gt) is called as __call__(pred, gt, sca"),
        ("Silent", "metrics.own: on an image of 48x40: Silent returned nothing (None)"),
        ("WordyMetric", "metrics.own: on an image of 48x40: WordyMetric returned str '3.5'"),
        (
            "Map255",
            "metrics.own: on an image of 48x40: Map255 returned an array (40, 48, 3)",
        ),
        ("Several", "metrics.own: on an image of 48x40: Several returned a tensor (2,) float32"),
        ("Raising", "metrics.own: on an image of 48x40: ValueError: no luck"),
    ],
)
def test_a_metric_that_is_none_is_named(check, metric, words):
    check(f"+metrics.own._target_=own_parts.{metric}").fails_with("1 problem:", words)


def test_a_metric_that_gives_nan_is_a_warning(check):
    done = check("+metrics.own._target_=own_parts.NotANumber").succeeds()
    assert "warning: metrics.own: NaN on an image of 48x40" in done.out
    assert "no problem found; 1 warning, see above" in done.out


@pytest.mark.parametrize(
    ("logger", "words"),
    [
        ("Unclosed", "logger.own: Unclosed: has no close()"),
        ("Unwritten", "Can't instantiate abstract class Unwritten"),
        ("OfPictures", "its image(name, picture) is called as image(name, pixels, step)"),
        ("Offline", "logger.own: image(): ConnectionError: offline"),
        ("Wordless", "logger.own: text(): ValueError: no words"),
        ("Flat", "logger.own: histogram(): ValueError: no bins"),
        ("Choosy", "logger.own: scalars(): KeyError: 'val/main/psnr_y'"),
        ("Sure", "logger.own: own_parts.Sure: AssertionError"),
        ("Duck", "is no logger; expected a subclass of sr_train.api.logger.Logger"),
    ],
)
def test_a_logger_that_fails_is_named(check, logger, words):
    check(f"+logger.own._target_=own_parts.{logger}").fails_with("1 problem:", words)


def test_a_logger_leaves_nothing_behind(check, in_folder):
    check("+logger.own._target_=own_parts.OwnLogger").succeeds()
    assert not list(in_folder.rglob("own.txt"))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("Optimizer", "optimizer: Optimizer failed on step 1: KeyError: 'step' ("),
        ("Storing", "optimizer: a training state cannot be read again"),
    ],
)
def test_an_optimizer_that_fails_is_named(check, optimizer, words):
    check("optimizer=sgd", f"optimizer._target_=own_parts.{optimizer}").fails_with(words)


def own_data(in_folder, kind="Set", **arguments):
    words = [word for word in toy_words(in_folder) if not word.startswith(("data.train", "data.v"))]
    given = "".join(f", {key}: {value}" for key, value in arguments.items())
    return [*words, "dataset=[]", f"data.train={{_target_: own_parts.{kind}{given}}}"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gt": 31}, "data.train: its samples have gt of (3, 31, 31), expected (3, 32, 32)"),
        ({"keys": "lq"}, "data.train: its samples have no gt, expected a tensor (3, 32, 32)"),
        ({"fill": "nan"}, "data.train: its samples have values in lq that are not finite"),
        ({"fill": 3}, "data.train: its samples have lq of torch.int64, expected uint8"),
    ],
)
def test_samples_that_are_none_are_told(check, in_folder, arguments, words):
    check(words=own_data(in_folder, **arguments)).fails_with(words)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Sampleless", ("1 problem:", "data.train: Sampleless: has no sample(epoch, index)")),
        ("Mute", ("1 problem:", "data.train: fingerprint() of Mute returned 3, expected text")),
        ("Unreported", ("1 problem:", "data.train: Unreported failed on report(): KeyError: 'x'")),
        ("Bare", ("data.train: its samples are NoneType, expected a mapping with lq and gt",)),
        (
            "Scaled",
            ("2 problems:", "have lq of torch.float32 beyond [0, 1]; return uint8 for 0 to 255"),
        ),
    ],
)
def test_a_data_set_that_is_none_is_told(check, in_folder, kind, words):
    check(words=own_data(in_folder, kind)).fails_with(*words)


@pytest.mark.parametrize("kind", ["Least", "Alike"])
def test_a_data_set_needs_two_methods(check, in_folder, kind):
    done = check("decode=true", words=own_data(in_folder, kind)).succeeds()
    assert f"data.train: {kind}: 4 items" in done.out
    assert "no problem found" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("given: nothing", None),
        ("given: pair", "data.val.main: whole(0): tuple without name, lq, gt; expected a WholeIm"),
        ("given: error", "data.val.main: whole(0): KeyError: 0 ("),
        (
            "dtype: float32",
            "data.val.main: whole(0): p0: lq is (20, 24, 3) float32, expected (H,",
        ),
    ],
)
def test_a_validation_set_needs_two_methods(check, in_folder, arguments, words):
    given = [word for word in toy_words(in_folder) if not word.startswith("data.val")]
    node = f"+data.val={{main: {{_target_: own_parts.Whole, {arguments}}}}}"
    done = check(words=[*given, "~data.val.main", node])
    if words is None:
        done.succeeds()
    else:
        done.fails_with("1 problem:", words)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("Constant", "objective.own: no gradient leads from its value to the weights"),
        (
            "Vector",
            "objective.own.loss: Vector returned a tensor (2,) float32; expected a tensor",
        ),
        ("Infinite", "objective.own: gives "),
        ("Empty", "objective.own.loss: has no forward(...), such as"),
        ("Greedy", "objective.own.loss: Greedy.forward asks for 'label'"),
    ],
)
def test_a_loss_that_is_none_is_named(check, loss, words):
    check(f"+objective.own.loss._target_=own_parts.{loss}").fails_with("1 problem:", words)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ("Unseekable", "data.stream: Unseekable: has no seek(position)"),
        ("Short", "data.stream: its batches are not 2 samples by name"),
    ],
)
def test_a_stream_that_is_none_is_told(check, stream, words):
    check(f"data.stream._target_=own_parts.{stream}").fails_with("1 problem:", words)


def test_all_parts_at_fault_are_told_at_once(check, in_folder):
    words = toy_words(in_folder)
    write_image(in_folder / "val/small.png", stripes(12, 40))
    check(
        "+metrics.own._target_=own_parts.Undirected",
        "+metrics.more._target_=own_parts.Raising",
        "+logger.own._target_=own_parts.Offline",
        "data.stream._target_=own_parts.Short",
        arch="Tuple",
        words=words,
    ).fails_with(
        "6 problems:", "arch: Tuple", "metrics.own", "metrics.more", "metrics.ssim_y", "logger.own",
        "data.stream",
    )  # fmt: skip


def test_one_value_of_a_voxel_that_is_not_finite_is_told(check, in_folder):
    words = clip_words(in_folder)
    for name, length in {"c": 3, "d": 2}.items():
        folder = in_folder / "spikes" / name
        folder.mkdir(parents=True)
        for number in range(length):
            voxels = np.zeros((2, 32, 36), np.float32)
            voxels[1, 5, 6] = np.nan if (name, number) == ("d", 1) else 0.0
            np.save(folder / f"p{number}.npy", voxels)
    done = check("+data.val.main.extras={spikes: spikes}", words=words)
    done.fails_with("1 problem:", "data.val.main", "spikes", "finite")


def test_a_metric_of_two_frames_and_a_clip_of_one(check, in_folder):
    words = clip_words(in_folder, "metrics=[y_crop_scale,temporal]")
    fill_clips(in_folder / "clips/val", e=1)
    check(words=words).fails_with("metrics.temporal_difference: compares neighbouring frames")


def test_a_set_whose_folder_is_empty_text_is_told_once(check):
    check("data.train.gt=").fails_with("1 problem:", "data.train.gt: is empty; expected a path")


def test_files_that_are_left_out_are_in_the_closing_words(check, in_folder):
    words = toy_words(in_folder, "data.train.on_bad=skip")
    (in_folder / "gt/notes.png").write_text("not an image")
    done = check(words=words).succeeds()
    assert "no problem found; data.train leaves out 1, see above" in done.out


def test_what_was_not_looked_at_is_in_the_closing_words(check):
    done = check("step=false").succeeds()
    assert "no network was built and no step taken (step=false)" in done.out


def test_a_check_tells_what_it_rehearsed(check):
    done = check().succeeds()
    assert "first validation, rehearsed on data.val.main: p0 (24x20)" in done.out
    assert "first save, rehearsed: a state of" in done.out


def test_what_a_killed_check_left_behind_is_removed(check, in_folder, monkeypatch):
    left = in_folder / ".sr_check_left"
    left.mkdir()
    monkeypatch.setattr("sr_train.commands.checks.rehearsal._OLD_SEC", -1.0)
    check().succeeds()
    assert not left.exists()


PASSED = [
    (),
    ("discriminator=patchgan", "+objective=gan", "objective_d=[gan]", "discriminator.start=1"),
    ("precision=fp16", "train.accum=2"),
    ("swa.enabled=true", "ema.enabled=false", "train.deterministic=true"),
    ("+metrics.own._target_=own_parts.Metric", "+logger.own._target_=own_parts.OwnLogger"),
    ("optimizer=schedulefree_adamw", "scheduler=constant"),
]


@pytest.mark.parametrize("words", PASSED, ids=lambda words: " ".join(words[:1]) or "plain")
def test_what_check_passes_train_runs(check, command, in_folder, words):
    check(*words).succeeds()
    command("train", *toy_words(in_folder), "plugins=[own_parts]", *words).succeeds()
    assert state_of(in_folder / "runs/toy", 4)["step"] == 4
    shutil.rmtree(in_folder / "runs")


def test_a_batch_beyond_all_memory_is_refused_by_arithmetic(check, command, in_folder):
    words = "data.batch_size=1000000000"
    check(words).fails_with(words, "GiB are free")
    command("train", *toy_words(in_folder), words).fails_with(words, "GiB are free")
    shutil.rmtree(in_folder / "runs")


def test_a_run_that_does_nothing_is_doubted_by_both(check, command, in_folder):
    words = ["optimizer.lr=0", "objective.l1.start=0"]
    assert "warning: optimizer.lr=0: the generator stays as it is" in check(*words).succeeds().out
    done = command("train", *toy_words(in_folder), *words).succeeds()
    assert "warning: optimizer.lr=0: the generator stays as it is" in done.out
    shutil.rmtree(in_folder / "runs")


def test_validation_on_training_images_is_doubted(check, in_folder):
    words = toy_words(in_folder, "data.val.main.gt=gt")
    assert "warning: data.val.main: 3 of 3 files" in check(words=words).succeeds().out


def test_more_images_of_validation_are_no_matter(check, in_folder):
    words = toy_words(in_folder)
    fill(in_folder / "val", 5, (64, 80))
    assert "no problem found" in check(words=words).succeeds().out


def test_a_run_that_is_there_already_is_told_and_one_to_go_on_with_is_taken_up(
    check, command, in_folder
):
    command("train", *toy_words(in_folder)).succeeds()
    assert "warning: " + str(in_folder / "runs/toy") + ": holds a run already" in check().out
    done = check("resume=auto").succeeds()
    assert f"resume: {in_folder / 'runs/toy/checkpoints/step_00000004.pt'}, step 4" in done.out
    check("resume=auto", "arch.num_feat=12").fails_with("1 problem:", "is of another network")
    shutil.rmtree(in_folder / "runs")


def test_tied_weights_are_stored_under_both_names_and_used(check, command, in_folder):
    words = [word for word in toy_words(in_folder) if not word.startswith("arch")]
    arch = "+arch={_target_: own_parts.Tied}"
    command("train", *words, "plugins=[own_parts]", arch).succeeds()
    stored = read_weights(in_folder / "runs/toy").tensors
    assert torch.equal(stored["first.weight"], stored["second.weight"])
    command("infer", "checkpoint=runs/toy", "input=val", "output=up").succeeds()
    shutil.rmtree(in_folder / "runs")
