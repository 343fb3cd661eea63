"""What a `_target_` may name: nothing but listed classes, by the module that defines them."""

import sys

import pytest
import torch
from torch import nn

from archs.compact import SRVGGNetCompact
from losses.pixel import L1Loss
from sr_train.api.errors import ConfigError
from sr_train.config import packages
from sr_train.config.build import build, node_problems
from sr_train.config.targets import KINDS, kind_of, plugin_problems, resolve_target
from sr_train.metrics import PSNR
from tests.toys import ROOT

PLACE = "tests.sr_train.config.test_targets"


class Net(nn.Module):
    """A network of a user's own, with a network inside."""

    def __init__(self, inner: nn.Module | None = None, rest: object = None, width: int = 3) -> None:
        super().__init__()
        self.inner, self.rest, self.width = inner, rest, width

    @classmethod
    def from_file(cls, path: str) -> "Net":
        raise AssertionError("was called")


class Part:
    """A part of a user's own, no network."""


def make() -> Net:
    raise AssertionError("was called")


INSTANCE = Net()


@pytest.mark.parametrize(
    ("target", "kind", "expected"),
    [
        ("archs.compact.SRVGGNetCompact", "network", SRVGGNetCompact),
        ("losses.pixel.L1Loss", "loss", L1Loss),
        ("torch.nn.Conv2d", "network", nn.Conv2d),
        ("torch.optim.AdamW", "optimizer", torch.optim.AdamW),
        ("sr_train.metrics.PSNR", "metric", PSNR),
        ("sr_train.metrics.psnr.PSNR", "metric", PSNR),
    ],
)
def test_what_is_shipped_is_found(target, kind, expected):
    assert resolve_target(target, "x", kind=kind) is expected
    assert resolve_target(target, "x") is expected


WALKS = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "torch.load",
    "torch.hub.load",
    "torch.nn.functional.torch.load",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.Sequential",
    "torch.nn.Module",
    "torch.nn.Conv2d.__init__",
    "torch.optim.Optimizer",
    "torch.optim.LBFGS",
    "torch.optim.lr_scheduler.StepLR",
    "torch.package.PackageImporter",
    "sr_train.cli.entry.os.system",
    "sr_train.cli.entry.main",
    "sr_train.cli.sweeping.shutil.copyfile",
    "sr_train.__main__.x",
    "sr_train.engine.weights.Path",
    "sr_train.engine.checkpoint.read_state",
    "sr_train.metrics.lpips.Path",
    "sr_train.metrics.base.np.load",
    "sr_train.engine.schedule.math.sqrt",
    "sr_train.monitoring.tensorboard.SummaryWriter",
    "archs.compact.torch.load",
    "archs.compact.nn",
    "archs.compact.SRVGGNetCompact.forward",
    "archs.compact.SRVGGNetCompact.__init__.__globals__",
    "archs.common.checkpoint",
    "losses.pixel.__doc__",
    "losses.features.read_weights",
    "data.loading.stream.threading.Thread",
    "data.cache.sharing.SharedBytes",
    "data.loading.workers.Workers",
    "data.images.read_image",
    "configs.x",
    "hydra.utils.instantiate",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "functools.partial",
    "pytorch_optimizer.load_optimizer",
    "pytorch_optimizer.torch.load",
    "importlib.import_module",
    "",
    ".",
    "..",
    "archs",
    "archs.",
    "archs..compact",
    "archs.compact.",
    ".archs.compact.SRVGGNetCompact",
    "archs/compact",
    "archs.compact:SRVGGNetCompact",
    "archs.compact.SRVGGNetCompact ",
    "archs.a\0b.C",
    "archs." + "a" * 5000 + ".C",
    "${oc.env:HOME}",
    None,
    5,
    True,
    ["os.system"],
    {"a": 1},
]


@pytest.mark.parametrize("target", WALKS, ids=lambda target: repr(target)[:60])
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_everything_else_is_refused(target, kind):
    with pytest.raises(ConfigError, match=r"^x\._target_"):
        resolve_target(target, "x", kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_one_seam_does_not_in_another(kind):
    shipped = {
        "network": "archs.compact.SRVGGNetCompact",
        "loss": "losses.pixel.L1Loss",
        "optimizer": "torch.optim.Adam",
        "schedule": "sr_train.engine.schedule.Cosine",
        "data set": "data.images.ImageDataset",
        "stream": "data.loading.stream.TrainLoader",
        "metric": "sr_train.metrics.PSNR",
        "logger": "sr_train.monitoring.tensorboard.TensorBoardLogger",
        "callback": "sr_train.callbacks.early_stopping.EarlyStopping",
    }
    assert set(shipped) == set(KINDS) - {"part"}
    for other, target in shipped.items():
        if kind == other or (kind == "part" and other in {"network", "loss"}):
            resolve_target(target, "x", kind=kind)
        else:
            with pytest.raises(ConfigError, match=r"x\._target_="):
                resolve_target(target, "x", kind=kind)


def test_every_torch_name_exists():
    for kind in KINDS.values():
        for name in kind.torch:
            resolve_target(name, "x", kind=kind.name)


def test_seams_are_known_by_their_path():
    kinds = {
        "arch": "network",
        "discriminator.arch": "network",
        "objective.l1.loss": "loss",
        "objective_d.gan.loss": "loss",
        "data.val.set5": "data set",
        "metrics.psnr_y": "metric",
    }
    assert {path: kind_of(path) for path in kinds} == kinds
    assert kind_of("checkpoint") is None


def test_a_plug_in_is_allowed_by_name_alone():
    with pytest.raises(ConfigError, match=r"add your own package by plugins=\[tests\]"):
        resolve_target(f"{PLACE}.Net", "arch")
    assert resolve_target(f"{PLACE}.Net", "arch", ["tests"]) is Net
    assert resolve_target(f"{PLACE}.Net", "arch", [PLACE]) is Net


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("make", "expected a class, found a function"),
        ("INSTANCE", "expected a class, found a function"),
        ("Net.from_file", "cannot be imported"),
        ("nn.Conv2d", "cannot be imported"),
        ("os.system", "cannot be imported"),
        ("SRVGGNetCompact", "is archs.compact.SRVGGNetCompact"),
        ("PSNR", "is sr_train.metrics.psnr.PSNR, which lies outside the allowed packages"),
        ("ConfigError", "is sr_train.api.errors.ConfigError, which lies outside"),
        ("Part", "is no network; expected a subclass of torch.nn.Module"),
        ("Nett", "has no 'Nett'; did you mean 'Net'?"),
    ],
)
def test_a_plug_in_opens_nothing_but_its_own_classes(name, says):
    if name == "SRVGGNetCompact":
        assert resolve_target(f"{PLACE}.{name}", "arch", ["tests"]) is SRVGGNetCompact
        return
    with pytest.raises(ConfigError, match="x") as err:
        resolve_target(f"{PLACE}.{name}", "x", ["tests"], kind="network")
    assert says in str(err.value)


@pytest.mark.parametrize(
    "name",
    [
        *("os", "sys", "subprocess", "builtins", "site", "__main__", "torch", "torch.hub"),
        *("archs", "losses", "data", "configs", "sr_train", "sr_train.cli", "hydra", "omegaconf"),
        *("yaml", "pip", "setuptools", "", ".", "..", ".mine", "mine.", "a/b", "a b", "a-b", "*"),
        *("os:system", "${name}", None, 1, ["mine"]),
    ],
)
def test_what_no_plug_in_may_be(name):
    (problem,) = plugin_problems([name])
    assert problem.startswith("plugins: ")
    with pytest.raises(ConfigError, match="plugins: "):
        resolve_target("os.system", "x", [name])


def test_what_a_plug_in_may_be():
    assert plugin_problems(["mine", "mine.nets", "timm", "tests"]) == []


def test_a_component_may_be_an_argument_where_the_class_says_so():
    conv = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
    node = {"_target_": f"{PLACE}.Net", "inner": conv}
    assert isinstance(build(node, "arch", ["tests"]).inner, nn.Conv2d)
    inner = {"_target_": "archs.compact.SRVGGNetCompact", "scale": 2, "num_feat": 4, "num_conv": 0}
    window = {"_target_": "archs.temporal.TemporalWindow", "frames": 1, "net": inner}
    assert build(window, "arch").spec.scale == 2


def test_a_users_class_takes_parts_of_their_own_where_it_says_nothing():
    node = {"_target_": f"{PLACE}.Net", "rest": [{"a": {"_target_": f"{PLACE}.Part"}}, 3]}
    made = build(node, "arch", ["tests"])
    assert isinstance(made.rest[0]["a"], Part)
    assert made.rest[1] == 3


HIDDEN = {"_target_": "os.system", "command": "true"}


@pytest.mark.parametrize(
    ("path", "node", "place"),
    [
        ("data.train", {"include": [HIDDEN]}, "data.train.include[0]"),
        ("data.train", {"include": [[{"a": [HIDDEN]}]]}, "data.train.include[0][0].a[0]"),
        ("data.train", {"gt": HIDDEN}, "data.train.gt"),
        ("data.train", {"gt": {"deep": HIDDEN}}, "data.train.gt.deep"),
    ],
)
def test_a_component_among_plain_values_is_refused_at_any_depth(path, node, place):
    base = {"_target_": "data.images.ImageDataset", "gt": "x", "scale": 2}
    problems = node_problems({**base, **node}, path)
    assert any(f"{place}: found a component" in problem for problem in problems)
    with pytest.raises(ConfigError, match="found a component"):
        build({**base, **node}, path)


@pytest.mark.parametrize("key", ["_args_", "_convert_", "_recursive_", "_other_"])
def test_keys_that_steer_hydra_are_refused(key):
    node = {"_target_": "losses.pixel.L1Loss", key: [1]}
    assert any(f"x.{key}: no such key" in problem for problem in node_problems(node, "x"))


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("network", True, "_partial_=true: expected false here"),
        ("optimizer", False, "_partial_=false: expected true here"),
        ("optimizer", "x", "_partial_=x: expected true"),
    ],
)
def test_only_optimizers_are_made_later(kind, value, says):
    target = {"network": "torch.nn.Identity", "optimizer": "torch.optim.SGD"}[kind]
    node = {"_target_": target, "_partial_": value}
    assert any(says in problem for problem in node_problems(node, "x", kind=kind))


def test_an_optimizer_needs_no_word_about_it():
    make = build({"_target_": "torch.optim.SGD", "lr": 0.5}, "optimizer")
    assert make([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("number", [10**9, 10**7, 2**63, 10**400, -(10**9)])
def test_sizes_beyond_all_sense_are_told_before_anything_is_made(number):
    node = {"_target_": "archs.compact.SRVGGNetCompact", "scale": 2, "num_conv": number}
    assert any("arch.num_conv" in problem for problem in node_problems(node, "arch"))


def test_a_network_that_memory_cannot_hold_is_told():
    node = {"_target_": "archs.compact.SRVGGNetCompact", "scale": 2, "num_feat": 500_000}
    with pytest.raises(ConfigError, match=r"^arch: .*does not fit into memory: a tensor of"):
        build(node, "arch")


@pytest.fixture
def foreign(in_folder):
    """Return a folder that Python looks into first, with packages of the project's names."""
    for name in packages.PLUG_INS:
        (in_folder / name).mkdir()
        (in_folder / name / "__init__.py").write_text("raise SystemExit('a foreign package')\n")
        (in_folder / name / "evil.py").write_text("raise SystemExit('a foreign module')\n")
    return in_folder


@pytest.mark.parametrize("dotted", ["archs.evil.Net", "losses.evil.Loss", "data.evil.Set"])
def test_a_foreign_package_of_the_same_name_is_never_imported(dotted, foreign):
    name = dotted.split(".")[0]
    with pytest.raises(ConfigError, match="cannot be imported") as err:
        resolve_target(dotted, "x")
    assert f"yours in {foreign / name} has the name of" in str(err.value)
    assert f"{ROOT / name}: rename yours" in str(err.value)
    assert str(err.value).count(str(foreign)) == 1
    assert str(ROOT) in sys.modules[name].__file__


def test_a_class_that_only_a_foreign_module_has_names_both_folders(foreign):
    (foreign / "archs/compact.py").write_text("raise SystemExit('a foreign module')\n")
    with pytest.raises(ConfigError, match="has no 'Mine'") as err:
        resolve_target("archs.compact.Mine", "x")
    assert f"yours in {foreign / 'archs'} has the name of sr_train's own {ROOT / 'archs'}" in str(
        err.value
    )


def test_a_plug_in_that_imports_a_foreign_package_names_both_folders(foreign):
    for number, line in enumerate(["from data.evil import x", "from data import evil"]):
        (foreign / f"mine{number}.py").write_text(f"{line}\n")
        with pytest.raises(ConfigError, match="cannot be imported") as err:
            resolve_target(f"mine{number}.Net", "arch", [f"mine{number}"])
        assert f"yours in {foreign / 'data'} has the name of" in str(err.value)


@pytest.mark.parametrize("kind", ["package", "folder of modules", "module"])
def test_a_foreign_package_as_a_plug_in_is_told_to_be_renamed(kind, in_folder):
    place = in_folder / ("archs.py" if kind == "module" else "archs")
    if kind == "module":
        place.write_text("")
    else:
        place.mkdir()
        (place / ("__init__.py" if kind == "package" else "mine.py")).write_text("")
    (problem,) = plugin_problems(["archs"])
    assert problem.endswith(
        f"yours in {place} has the name of sr_train's own {ROOT / 'archs'}: rename yours"
    )


def test_a_foreign_folder_without_modules_is_not_told(in_folder):
    (in_folder / "archs").mkdir()
    (in_folder / "archs/photo.png").write_bytes(b"")
    (problem,) = plugin_problems(["archs"])
    assert str(in_folder) not in problem


def test_the_choices_of_a_module_are_its_own_classes():
    with pytest.raises(ConfigError, match=r"has no 'Renamed'; valid: SRVGGNetCompact$"):
        resolve_target("archs.compact.Renamed", "arch")


def test_a_module_that_fails_says_why(in_folder):
    (in_folder / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="importing broken_module fails: ZeroDivisionError"):
        resolve_target("broken_module.Net", "arch", ["broken_module"])
