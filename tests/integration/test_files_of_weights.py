"""Files of weights as people have them, through whole commands: used, or told what they are."""

import shutil

import pytest
import safetensors
import safetensors.torch
import torch

from archs.compact import SRVGGNetCompact
from archs.rrdb import RRDBNet
from sr_train.engine.weights import read_weights
from sr_train.io.images import read_image
from tests.archs.test_rrdb import SCHEMES, under
from tests.toys import differing, no_validation, state_of, toy_words

LAST = "runs/toy/checkpoints/last.safetensors"
STATE = "runs/toy/checkpoints/step_00000004.pt"
ON_VAL = ("+dataset=main", "data.val.main.gt=val")
IN_OUT = ("input=gt", "output=up")


@pytest.fixture
def trained(finished, in_folder):
    """Return the folder in which `runs/toy` is a finished run."""
    finished("train", *no_validation(*toy_words(in_folder)))
    return in_folder


def rewritten(path, to, **change):
    """Write a file of ours as of before checksums, with other metadata; None: without."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **change}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    old = {"layout": None, "sr_train_checksum": None, **change}
    metadata = {k: v for k, v in metadata.items() if old.get(k, v) is not None}
    to.write_bytes(safetensors.torch.save(tensors, metadata=metadata))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_esrgan_under_an_older_scheme_upscales(command, in_folder, scheme):
    toy_words(in_folder)
    torch.manual_seed(0)
    net = RRDBNet(4, num_feat=4, num_block=2, num_grow=4)
    torch.save(under(SCHEMES[scheme](2), net.state_dict()), in_folder / "old.pth")
    sizes = ("arch=rrdbnet", "scale=4", "arch.num_feat=4", "arch.num_grow=4")
    words = ("infer", "checkpoint=old.pth", "device=cpu", *IN_OUT, *sizes)
    done = command(*words)
    done.fails_with(
        "old.pth: not weights of this RRDBNet", "num_block 2 (here 23)", "for that: arch."
    )
    command(*words, "arch.num_block=2").succeeds()
    assert read_image(in_folder / "up/p0.png").pixels.shape == (256, 288, 3)
    command("export", words[1], *sizes, "arch.num_block=2", "output=new.safetensors").succeeds()
    assert differing(read_weights(in_folder / "new.safetensors").tensors, net.state_dict()) == []


PAGE = b"<!doctype html><title>Sign in</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1234\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [(PAGE, "web page (HTML)"), (POINTER, "Git LFS pointer to a file of 1,234")],
)
def test_a_download_that_was_none(command, train, in_folder, content, told):
    toy_words(in_folder)
    (in_folder / "x.pth").write_bytes(content)
    net = ("arch=compact", "scale=2")
    command("infer", "checkpoint=x.pth", *IN_OUT, *net).fails_with("x.pth: is a ", told)
    command("export", "checkpoint=x.pth", "output=o.safetensors", *net).fails_with(told)
    command("validate", "checkpoint=x.pth", *ON_VAL, *net).fails_with(told)
    train("net_g.pretrained=x.pth").fails_with(told)
    train("resume=x.pth").fails_with(told)


def test_files_that_are_none(command, in_folder):
    toy_words(in_folder)
    for name in ("/etc/passwd", "/dev/zero", "x" * 300):
        command("infer", f"checkpoint={name}", *IN_OUT).fails_with(f"{name}: ")


def test_a_suffix_does_not_matter(trained, command):
    shutil.copy(LAST, "a.pth")
    shutil.copy(STATE, "b.safetensors")
    for name in ("a.pth", "b.safetensors"):
        command("infer", f"checkpoint={name}", *IN_OUT).succeeds()
        command("export", f"checkpoint={name}", "output=o.safetensors", "overwrite=true").succeeds()
        assert differing(read_weights(trained / "o.safetensors").tensors, last(trained)) == []


def last(folder):
    return read_weights(folder / LAST).tensors


def flip(path, what):
    data = bytearray(path.read_bytes())
    data[data.index(what)] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_damage_to_every_command(trained, command, train):
    weight = next(iter(last(trained).values())).numpy().tobytes()
    for content in (weight, b"prelu"):
        shutil.copy(LAST, "a.safetensors")
        flip(trained / "a.safetensors", content)
        if content == b"prelu":
            assert b"prelu" not in (trained / "a.safetensors").read_bytes()
        command("infer", "checkpoint=a.safetensors", *IN_OUT).fails_with("a.safetensors: damaged")
    command("validate", "checkpoint=a.safetensors", *ON_VAL).fails_with("damaged")
    command("export", "checkpoint=a.safetensors", "output=o.safetensors").fails_with("damaged")
    train("name=b", "net_g.pretrained=a.safetensors").fails_with("damaged")


def test_a_state_copied_without_the_file_beside_it_is_verified(trained, command, train):
    shutil.copy(STATE, "a.pt")
    command("infer", "checkpoint=a.pt", *IN_OUT).succeeds()
    weight = next(iter(state_of(trained / "runs/toy", 4)["net_g"].values()))
    flip(trained / "a.pt", weight.numpy().tobytes())
    command("infer", "checkpoint=a.pt", *IN_OUT).fails_with("a.pt: damaged")
    train("name=b", "resume=a.pt").fails_with("a.pt: damaged")


def test_files_from_before_are_used_and_called_unverified(trained, command):
    rewritten(LAST, trained / "a.safetensors")
    done = command("infer", "checkpoint=a.safetensors", *IN_OUT).succeeds()
    assert "a.safetensors: unverified" in done.out


def test_a_file_without_its_scale_is_used_where_its_network_tells(trained, command):
    rewritten(LAST, trained / "a.safetensors", scale=None, metrics="[", step=None)
    done = command("infer", "checkpoint=a.safetensors", *IN_OUT).succeeds()
    assert "metadata left unread: scale is missing; step is missing; metrics=" in done.out
    command("validate", "checkpoint=a.safetensors", *ON_VAL).fails_with(
        "names no scale; add scale="
    )
    command("validate", "checkpoint=a.safetensors", *ON_VAL, "scale=2", "output=s").succeeds()


def test_a_file_without_its_arguments_asks_for_the_network(trained, command):
    rewritten(LAST, trained / "a.safetensors", arguments="{")
    words = ("infer", "checkpoint=a.safetensors", *IN_OUT)
    command(*words).fails_with("names no architecture; add arch=... and scale=...")
    command(*words, "arch=compact", "arch.num_feat=8", "arch.num_conv=1").succeeds()


def test_weights_that_are_not_finite_start_no_run(in_folder, train, command):
    net = SRVGGNetCompact(2, num_feat=8, num_conv=1)
    net.body[0].bias.data[3] = float("inf")
    torch.save(net.state_dict(), in_folder / "a.pth")
    train("net_g.pretrained=a.pth").fails_with("a.pth", "1 NaN or infinite: body.0.bias")
    assert not (in_folder / "runs/toy/checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s["generator"]["optimizer"]["moments"]["body.0.bias"].pop("exp_avg"), "exp_avg"),
        (lambda s: s["generator"].pop("scaler"), "generator.scaler: missing"),
        (lambda s: s.update(random=5), "random: found 5"),
        (lambda s: s["net_g"].pop("body.0.bias"), "net_g: 1 missing in the file: body.0.bias"),
        (lambda s: s.update(net_g={k: v > 0 for k, v in s["net_g"].items()}), "bool instead of"),
        (
            lambda s: s.update(callbacks={"precision.adaptive": {}}),
            "callbacks.precision.adaptive.levels: missing",
        ),
        (lambda s: s["card"].update(scale="x"), "card.scale: found 'x'"),
    ],
)
def test_an_odd_state_is_no_start(trained, train, change, told):
    state = {**state_of(trained / "runs/toy", 4), "format": 2}
    del state["checksum"]
    change(state)
    torch.save(state, trained / "odd.pt")
    train("name=b", "resume=odd.pt", "train.steps=6").fails_with(told)
    assert not list((trained / "runs/b").glob("checkpoints/*"))


def test_published_networks_that_we_do_not_have(command, in_folder):
    toy_words(in_folder)
    torch.save({"params": {"to_feat.weight": torch.zeros(36, 3, 3, 3)}}, in_folder / "safmn.pth")
    command("infer", "checkpoint=safmn.pth", *IN_OUT).fails_with(
        "safmn.pth: names no architecture", "a network of your own", "1 tensors: to_feat.weight"
    )
    command("infer", "checkpoint=safmn.pth", *IN_OUT, "arch=span", "scale=4").fails_with(
        "safmn.pth: not weights of this SPAN", "1 unknown to the network: to_feat.weight"
    )
