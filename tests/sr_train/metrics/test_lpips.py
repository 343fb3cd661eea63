"""LPIPS: the weights are the ones asked for, or there is an error."""

import logging

import numpy as np
import pytest
import torch

from sr_train.api.errors import CheckpointError, ConfigError, DataError
from sr_train.metrics import LPIPS
from sr_train.metrics.lpips import _build


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    """Return a file with the keys of torchvision's AlexNet and made-up values."""
    shapes = {}
    for name, parameter in _build("alex").get_submodule("net").named_parameters():
        shapes[f"features.{name.split('.', 1)[1]}"] = parameter.shape
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}
    path = tmp_path_factory.mktemp("weights") / "alexnet-owt-7be5be79.pth"
    torch.save(state | {"classifier.1.weight": torch.zeros(2)}, path)
    return path


def image(seed, dtype=np.uint8, shape=(40, 48, 3)):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, shape).astype(dtype)


def test_distance(backbone_file):
    metric = LPIPS("alex", backbone_file)
    pred, gt = image(0), image(1)
    assert metric.higher_is_better is False
    assert metric(gt, gt, 1) == 0.0
    assert metric(pred, gt, 1) > 0.0
    half = (pred // 2 + gt // 2).astype(np.uint8)
    assert metric(half, gt, 1) < metric(pred, gt, 1)
    assert LPIPS("alex", backbone_file)(pred, gt, 1) == metric(pred, gt, 1)


def test_value_is_that_of_the_package(backbone_file):
    metric = LPIPS("alex", backbone_file)
    pred, gt = image(0), image(1)
    inputs = [torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1 for x in (pred, gt)]
    assert metric(pred, gt, 1) == pytest.approx(metric._distance(*inputs).item(), rel=1e-5)


def test_sixteen_bits_and_grey(backbone_file):
    metric = LPIPS("alex", backbone_file)
    pred, gt = image(0), image(1)
    deep = [x.astype(np.uint16) * 257 for x in (pred, gt)]
    assert metric(*deep, 1) == pytest.approx(metric(pred, gt, 1), rel=1e-4)
    grey = [x[..., :1] for x in (pred, gt)]
    rgb = [np.repeat(x, 3, axis=2) for x in grey]
    assert metric(*grey, 1) == pytest.approx(metric(*rgb, 1), rel=1e-5)


def test_default_place_is_the_hub_cache(backbone_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    with pytest.raises(CheckpointError, match=r"alexnet-owt-7be5be79.pth.*weights=PATH") as caught:
        LPIPS("alex")
    assert str(checkpoints) in str(caught.value)
    checkpoints.mkdir(parents=True)
    (checkpoints / backbone_file.name).write_bytes(backbone_file.read_bytes())
    assert LPIPS("alex")(image(0), image(1), 1) > 0


def test_missing_file_names_the_path(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.pth"):
        LPIPS("vgg", tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [b"", b"no weights here"])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        LPIPS("alex", path)


def test_weights_of_another_network(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"features.0.weight should have shape"):
        LPIPS("alex", path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="not a state dict"):
        LPIPS("alex", path)


def test_random_weights_are_announced(caplog):
    with caplog.at_level(logging.WARNING):
        metric = LPIPS("alex", random_init=True)
    assert "RANDOM" in caplog.text
    with pytest.raises(DataError, match="31x31"):
        metric(image(0, shape=(30, 40, 3)), image(1, shape=(30, 40, 3)), 1)


def test_unknown_backbone():
    with pytest.raises(ConfigError, match="alex, vgg, got 'squeeze'"):
        LPIPS("squeeze")
