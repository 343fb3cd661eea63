"""Deterministic algorithms: asked for, tried before they are needed, their limits said."""

import logging
import os

import torch

from sr_train.config.schema import RunConfig

log = logging.getLogger(__name__)

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def use_deterministic(cfg: RunConfig) -> None:
    """Let torch take only deterministic algorithms, or whatever is fastest, as configured."""
    wanted = cfg.train.deterministic
    torch.use_deterministic_algorithms(wanted)
    if not wanted:
        return
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # read by cuBLAS when it starts
    log.info(
        "train.deterministic=true: the same launch gives the same weights on the same machine "
        "with the same versions and the same number of processes and threads; elsewhere they "
        "differ in the last digits. GPUs are slower with it"
    )
