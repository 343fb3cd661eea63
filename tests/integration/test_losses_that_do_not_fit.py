"""Loss terms that a network or a machine cannot serve are told before the first step."""

from pathlib import Path

import pytest

from tests.toys import no_validation, toy_words

RUN = Path("runs/toy")


@pytest.fixture
def train_luma(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    words = [word for word in words if not word.startswith("arch")]
    return lambda *more: command("train", *words, "arch=fsrcnn", *more)


@pytest.mark.parametrize(("term", "name"), [("colour", "ColourLoss"), ("luma", "LumaLoss")])
def test_a_loss_of_colours_and_a_network_of_luma(train_luma, in_folder, term, name):
    outcome = train_luma(f"objective=[mse,{term}]")
    outcome.fails_with(f"objective.{term}: {name} compares images of 3 planes", "have 1")
    assert not list((in_folder / RUN / "checkpoints").glob("*"))


def test_a_loss_of_colours_on_luma_alone(train):
    train("objective=[l1,colour]", "objective.colour.colour=y").fails_with("objective.colour")


def test_an_extractor_on_chroma(train):
    outcome = train(
        "objective=[l1,lpips]",
        "objective.lpips.loss.net=alex",
        "objective.lpips.loss.random_init=true",
        "objective.lpips.colour=cbcr",
    )
    outcome.fails_with("objective.lpips: LPIPSLoss compares images of 1 or 3 planes", "have 2")


def test_an_extractor_on_luma_learns(train_luma):
    train_luma(
        "objective=[mse,lpips]",
        "objective.lpips.loss.net=alex",
        "objective.lpips.loss.random_init=true",
    ).succeeds()


def test_an_extractor_without_its_weights(train, in_folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(in_folder / "empty"))
    train("objective=[l1,perceptual]").fails_with(
        "objective.perceptual.loss: vgg19: no weights at",
        str(in_folder / "empty" / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"),
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    )
