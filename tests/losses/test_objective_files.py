"""The files of `configs/objective` and `configs/objective_d` build terms that run."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sr_train.api.loss_inputs import ADVERSARY, DISCRIMINATOR_INPUTS, GENERATOR, resolve_inputs
from tests.losses.test_every_loss import noise, value_of
from tests.losses.zoo import extractor

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted((CONFIGS / "objective").glob("*.yaml")) + sorted(
    (CONFIGS / "objective_d").glob("*.yaml")
)
TERM = {"loss", "weight", "target", "colour", "start", "ramp"}
RGB_ALONE = {"ColourLoss", "LumaLoss"}
PLANES = {"rgb": 3, "y": 1, "cbcr": 2}

each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)


@pytest.fixture(scope="module", autouse=True)
def kept():
    return [extractor(backbone) for backbone in ("vgg16", "vgg19")]


def term_of(path):
    """Return the one term of a file as plain Python, a generator's kind being the default."""
    root = OmegaConf.create({"objective": OmegaConf.load(CONFIGS / "objective" / "gan.yaml")})
    root.file = OmegaConf.load(path)
    (term,) = OmegaConf.to_container(root, resolve=True)["file"].values()
    return term


def target_of(dotted):
    module, name = dotted.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def built(term):
    """Return the loss, untrained where the file wants a trained network."""
    arguments = dict(term["loss"])
    made = target_of(arguments.pop("_target_"))
    if "random_init" in inspect.signature(made).parameters:
        assert arguments["random_init"] is False, "never by default"
        arguments["random_init"] = True
    return made(**arguments)


@each_file
def test_file_holds_one_term_that_runs(path):
    term = term_of(path)
    assert set(term) <= TERM
    assert term["weight"] != 0
    loss = built(term)
    available_inputs = (
        ADVERSARY if path.parent.name == "objective_d" else GENERATOR + DISCRIMINATOR_INPUTS
    )
    required_inputs = resolve_inputs(loss.forward, path.stem, available_inputs)
    channels = PLANES[term.get("colour", "rgb")]
    pred, target = noise((2, channels, 24, 20)), noise((2, channels, 24, 20), 1)
    given_to = {name: value_of(name, pred, target) for name in required_inputs}
    assert torch.isfinite(loss(**given_to))


@each_file
def test_luma_networks_are_served_or_told(path):
    """One plane, as a network of colour space y has; a loss of colours names what it wants."""
    loss = built(term_of(path))
    pred, target = noise((2, 1, 24, 20)), noise((2, 1, 24, 20), 1)
    names = inspect.signature(loss.forward).parameters
    given_to = {name: value_of(name, pred, target) for name in names}
    if type(loss).__name__ in RGB_ALONE:
        with pytest.raises(ValueError, match=r"must be RGB, \(B, 3, H, W\), got \(2, 1, 24, 20\)"):
            loss(**given_to)
    else:
        assert torch.isfinite(loss(**given_to))


def is_variant(path):
    """Return whether the file is named after another one with the same loss, as `gan_hinge` is."""
    target = term_of(path)["loss"]["_target_"]
    return any(
        path.stem.startswith(f"{other.stem}_") and term_of(other)["loss"]["_target_"] == target
        for other in FILES
        if other.parent == path.parent
    )


def test_numbers_are_the_defaults_of_the_code():
    """Whoever writes a term by hand gets what the file gives."""
    plain = [path for path in FILES if not is_variant(path)]
    assert len(plain) > 25
    for path in plain:
        arguments = dict(term_of(path)["loss"])
        made = target_of(arguments.pop("_target_"))
        for name, value in arguments.items():
            default = inspect.signature(made).parameters[name].default
            if name == "layers":
                default = made(random_init=True).layers
                default = default if isinstance(value, dict) else list(default)
            near = pytest.approx(default, rel=0.01) if isinstance(value, float) else default
            assert value == near, (path.stem, name)
