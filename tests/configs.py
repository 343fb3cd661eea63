"""Configs composed as the commands compose them."""

from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from sr_train.config.compose import typed
from sr_train.config.loader import Loader
from sr_train.config.schema import RunConfig


def raw(*words: str) -> DictConfig:
    """Return what the words compose to for `train`, nothing resolved."""
    cfg = Loader().load_configuration("train", list(words), RunMode.RUN)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def composed(*words: str) -> RunConfig:
    """Return the config that a training command with these words has."""
    return typed(raw(*words), RunConfig)
