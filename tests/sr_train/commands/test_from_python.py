"""The Python API: what README's front page shows, and what a mistake says."""

import json
import logging
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import sr_train
from archs.compact import SRVGGNetCompact
from sr_train import SRTrainError, Upscaler, compose, load_network, train
from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.api.network import NetSpec
from tests.toys import ROOT, fill, no_validation, state_of, stripes, toy_words


def readme_lines() -> str:
    """Return the Python block of README's section, with a handful of steps."""
    section = (ROOT / "README.md").read_text().split("## From Python\n")[1]
    (block,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    short = block.replace("train.steps=20000", "train.steps=2")
    assert short != block
    return short


def test_the_lines_of_the_readme_do_what_they_say(in_folder, capfd):
    fill(in_folder / "photos/train", size=(100, 104))
    fill(in_folder / "photos/val", 1, (40, 48))
    names: dict[str, object] = {}
    exec(readme_lines(), names)
    assert (in_folder / "runs/mine/checkpoints/last.safetensors").is_file()
    result = names["result"]
    assert f"{result.best['psnr_y']} {result.weights}" in capfd.readouterr().out
    assert (names["small"].shape, (in_folder / "large.png").is_file()) == ((40, 48, 3), True)
    upscaled = names["upscale"](names["small"])
    assert (upscaled.shape, upscaled.dtype) == ((80, 96, 3), np.uint8)


def test_the_lines_of_the_readme_are_about_ten():
    lines = [line for line in readme_lines().splitlines() if line]
    assert len(lines) <= 13


def test_a_run_from_python_is_the_run_of_the_command(command, in_folder):
    words = no_validation(*toy_words(in_folder), "train.checkpoint_every=2")
    command("train", *words, "name=typed").succeeds()
    result = train(compose(*words, "name=called"))
    assert (result.step, result.best, result.stopped_by) == (4, {}, None)
    assert result.folder.samefile(in_folder / "runs/called")
    typed, called = (state_of(in_folder / "runs" / name, 4) for name in ("typed", "called"))
    assert all(torch.equal(typed["net_g"][key], called["net_g"][key]) for key in typed["net_g"])
    # The command line goes on with it, from the config that its folder holds.
    command("train", "resume=runs/called", "train.steps=5").succeeds()
    launches = sorted(path.name for path in (in_folder / "runs/called/.hydra").iterdir())
    noted = json.loads((in_folder / "runs/called/manifest.json").read_text())
    assert [launch["config"] for launch in noted] == [f".hydra/{name}" for name in launches]


def test_a_run_goes_on_by_its_folder_and_gives_its_best(in_folder):
    first = train(compose(*toy_words(in_folder)))
    result = train(compose(f"resume={first.folder}", "train.steps=6"))
    assert result.step == 6
    assert set(result.best_weights) == set(result.best) == {"psnr_y", "ssim_y"}
    assert all(path.is_file() for path in result.best_weights.values())
    assert result.best["psnr_y"] >= first.best["psnr_y"] > 0


def test_a_signal_ends_a_run_with_a_result(in_folder):
    (in_folder / "stopping.py").write_text(
        "import signal\n"
        "from torch import nn\n"
        "class Loss(nn.Module):\n"
        "    def forward(self, pred):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        return pred.mean()\n"
    )
    words = ["plugins=[stopping]", "objective.l1.loss={_target_: stopping.Loss}"]
    result = train(compose(*no_validation(*toy_words(in_folder)), *words))
    assert (result.step, result.stopped_by) == (1, "SIGINT")
    assert (in_folder / "runs/toy/checkpoints/step_00000001.pt").is_file()


def test_a_config_can_be_changed_before_it_is_used(in_folder):
    config = compose(*no_validation(*toy_words(in_folder)))
    config.train.steps = 1
    with pytest.raises(Exception, match="stepz"):
        config.train.stepz = 1
    assert train(config).step == 1


def test_a_run_leaves_logging_as_it_was(in_folder):
    handler, root = logging.NullHandler(), logging.getLogger()
    before = [*root.handlers]
    root.addHandler(handler)
    train(compose(*no_validation(*toy_words(in_folder)), "train.steps=1"))
    assert root.handlers == [*before, handler]
    root.removeHandler(handler)


def test_weights_of_another_program_are_loaded_by_their_architecture(in_folder):
    net = SRVGGNetCompact(scale=2, num_feat=8, num_conv=1)
    torch.save(net.state_dict(), in_folder / "other's [x2].pth")
    words = ["arch=compact", "arch.num_feat=8", "arch.num_conv=1", "scale=2"]
    loaded = load_network(in_folder / "other's [x2].pth", *words, "device=cpu")
    assert not loaded.training
    pixels = stripes(12, 14)
    assert np.array_equal(Upscaler(loaded)(pixels), Upscaler(net)(pixels))


def test_a_network_without_a_spec_gets_the_one_it_was_loaded_with(in_folder):
    (in_folder / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Upsample):\n"
        "    def __init__(self, scale: int) -> None:\n"
        "        super().__init__(scale_factor=scale)\n"
        "        self.gain = nn.Parameter(__import__('torch').ones(1))\n"
    )
    torch.save({"gain": torch.ones(1)}, in_folder / "x.pth")
    words = ["plugins=[mine]", "+arch={_target_: mine.Net, scale: 2}", "scale=2", "device=cpu"]
    net = load_network("x.pth", *words)
    assert net.spec == NetSpec(scale=2)
    assert Upscaler(net)(stripes(8, 8)).shape == (16, 16, 3)
    del net.spec
    with pytest.raises(ConfigError, match=r"declares no spec; expected spec=NetSpec\(scale="):
        Upscaler(net)


@pytest.mark.parametrize(
    ("words", "more", "says"),
    [
        (["experiment=quickstrat"], {}, "did you mean 'quickstart'"),
        (["experiment=quickstart", "train.stesp=3"], {}, "did you mean 'train.steps'"),
        (["experiment=quickstart", "train.steps=many"], {}, "train.steps=many: expected"),
        (["quickstart"], {}, "quickstart: expected key=value"),
        (["experiment=quickstart", "+search=lr"], {}, "a sweep is no single config"),
        ([], {"command": "trian"}, "no such command; did you mean 'train'"),
        ([], {"config_dir": "nowhere"}, "--config-dir nowhere: no such folder"),
    ],
)
def test_what_does_not_compose_is_an_error_with_the_words_of_the_command(words, more, says):
    with pytest.raises(SRTrainError) as err:
        compose(*words, **more)
    assert says in str(err.value)


def test_what_cannot_be_trained_is_told_before_anything_is_written(in_folder):
    with pytest.raises(SRTrainError, match=r"data\.train\.gt"):
        train(compose("experiment=fsrcnn_x2"))
    with pytest.raises(ConfigError, match="of the command train"):
        train(compose(command="validate"))
    assert not list(in_folder.iterdir())


def test_a_file_that_is_not_there_or_names_no_network(in_folder):
    with pytest.raises(CheckpointError, match="checkpoint=nowhere: no such file"):
        load_network("nowhere")
    torch.save({"w": torch.ones(1)}, in_folder / "x.pth")
    with pytest.raises(ConfigError, match="add arch="):
        load_network("x.pth")


def test_names_that_there_are_not():
    assert set(sr_train.__all__) <= set(dir(sr_train))
    with pytest.raises(AttributeError, match="has no attribute 'Upscalar'"):
        _ = sr_train.Upscalar


def test_importing_the_package_imports_neither_torch_nor_hydra():
    code = "import sys, sr_train; print(*{'torch', 'hydra', 'omegaconf', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
