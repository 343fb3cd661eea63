"""A training state of the least that one consists of, for tests of files that hold it."""

import random
from typing import Any

import numpy as np
import torch


def toy_learner(steps: int) -> dict[str, Any]:
    """Return the state of a learner of one weight after some steps."""
    counts = ("scale", "good_steps", "num_growths", "num_backoffs")
    return {
        "steps": steps,
        "applied_steps": torch.tensor([steps]),
        "optimizer": {"class": "SGD", "moments": {}, "counters": [{}]},
        "scaler": {"dynamic": False, **{name: torch.zeros(()) for name in counts}},
        "skipped_in_row": torch.zeros(()),
    }


def toy_state(steps: int = 1, **more: Any) -> dict[str, Any]:
    """Return what `save_state` takes: a network of one weight after some steps."""
    _, *numbers = np.random.RandomState(0).get_state()
    state = {
        "net_g": {"w": torch.full((2,), float(steps))},
        "generator": toy_learner(steps),
        "ema": None,
        "swa": None,
        "adversary": None,
        "card": {"architecture": "archs.compact.SRVGGNetCompact", "arguments": {}, "scale": 2},
        "config": {"discriminator": {"arch": None}},
        "best": {"psnr_y": None},
        "callbacks": {},
        "precision": "fp32",
        "random": [
            {
                "python": random.Random(0).getstate(),
                "numpy": ("MT19937", numbers[0].tolist(), *numbers[1:]),
                "torch": torch.Generator().manual_seed(0).get_state(),
                "cuda": [],
            }
        ],
    }
    return {**state, **more}
