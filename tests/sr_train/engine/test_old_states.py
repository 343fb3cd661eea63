"""States of earlier layouts: read in the words of today, to the same callbacks."""

import io
from pathlib import Path

import pytest
import torch

from sr_train.api.errors import CheckpointError
from sr_train.config.schema import PrecisionConfig
from sr_train.engine.adaptive import ADAPTIVE_PRECISION, AdaptivePace, AdaptivePrecision
from sr_train.engine.callbacks import restore_callbacks
from sr_train.engine.checkpoint import checked_state
from sr_train.engine.checksum import checksum
from sr_train.engine.old_states import in_new_words
from tests.states import toy_state

OLD = {
    "precision": {
        "ladder": ["fp16", "fp16 (scale grows 1/2 as often)", "bf16", "fp32"],
        "level": 2,
        "troubled": 1,
        "calm": 3,
        "needed": 40,
        "changes": ["step 7: the loss scale of net_g fell to 0.5: precision fp16 -> bf16"],
    },
    "pace": {},
}
"""As layout 3 stored what adapts."""


def old_state(policies):
    """Return a state of layout 3 as a file holds it."""
    state = {**toy_state(), "step": 1, "format": 3, "policies": policies}
    del state["callbacks"]
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    return {**state, "checksum": checksum(state)}


def test_an_old_state_restores_the_level_and_every_count(make_model):
    model = make_model("fp16")
    adaptive = AdaptivePrecision(model, PrecisionConfig())
    parts = {ADAPTIVE_PRECISION: adaptive, "discriminator.adaptive": AdaptivePace()}
    state = checked_state(old_state(OLD), Path("s.pt"))
    assert restore_callbacks(parts, state["callbacks"]) == []
    assert (model.precision.name, model.generator.scaler.dynamic) == ("bf16", False)
    kept, old = adaptive.state, OLD["precision"]
    assert (kept.level, kept.bad_windows, kept.good_windows) == (2, 1, 3)
    assert (kept.good_windows_needed, kept.changes) == (40, old["changes"])


def test_the_config_of_an_old_state_has_the_names_of_today():
    old = old_state({})
    old["config"] = {"discriminator": {"arch": None}, "adversary": {}, "precision": {"calm": 3}}
    assert in_new_words(old)["config"] == {
        "discriminator": {"arch": None},
        "objective_d": {},
        "precision": {"good_windows": 3},
        "callbacks": {},
    }


def test_an_old_state_is_checked_in_the_words_of_today():
    broken = {"precision": {**OLD["precision"], "troubled": "twice"}}
    with pytest.raises(CheckpointError, match=r"callbacks\.precision\.adaptive\.bad_windows"):
        checked_state(old_state(broken), Path("s.pt"))
    with pytest.raises(CheckpointError, match="callbacks: found"):
        checked_state(old_state(5), Path("s.pt"))


def test_a_state_of_today_stays_as_it_is():
    state = toy_state()
    assert in_new_words(state) is state
