"""Composing several times with one loader."""

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import OmegaConf

from sr_train.config import sources
from sr_train.config.loader import Loader

WORDS = ["+experiment=quickstart", "objective=[l1,mse_y]", "train.steps=5"]


def nodes_of(node, path=""):
    """Return path, metadata and value of a node and of all that lies below it."""
    meta = node._metadata
    kinds = (type(node), meta.ref_type, meta.object_type, meta.optional, meta.flags)
    if not OmegaConf.is_config(node) or node._is_none() or node._is_missing():
        return [(path, *kinds, node._value())]
    names = range(len(node)) if OmegaConf.is_list(node) else list(node)
    return [
        (path, *kinds),
        *(each for name in names for each in nodes_of(node._get_node(name), f"{path}.{name}")),
    ]


def test_composing_again_gives_what_hydra_gives(monkeypatch, tmp_path):
    files = []
    read = sources.read_yaml
    loader = Loader(tmp_path)  # with a folder of ones own, nothing is shared with other tests
    hydra = ConfigLoaderImpl(sources.search_path(tmp_path))
    expected = nodes_of(hydra.load_configuration("train", WORDS, RunMode.RUN))
    monkeypatch.setattr(sources, "read_yaml", lambda path: files.append(path) or read(path))
    for _ in range(3):
        cfg = loader.load_configuration("train", WORDS, RunMode.RUN)
        assert nodes_of(cfg) == expected
        cfg.train.steps, cfg.objective.l1.weight = 7, 2.0
        cfg.hydra.overrides.task.append("seed=1")
        del cfg.hydra.job_logging
    assert len(files) == len(set(files))
    assert len(files) > 10


def test_other_choices_are_composed_anew():
    loader = Loader()
    for name in ("adam", "adamw", "adam"):
        cfg = loader.load_configuration("train", [*WORDS, f"optimizer={name}"], RunMode.RUN)
        assert cfg.optimizer["_target_"].lower().endswith(f".{name}")
