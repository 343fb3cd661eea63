"""A training state with a part missing or of another kind is refused before it is used."""

import copy

import pytest
import torch

from sr_train.api.errors import CheckpointError
from sr_train.engine.checkpoint import newest_state, read_state, save_state
from sr_train.engine.state_checks import check_state
from tests.states import toy_learner, toy_state

FULL = {
    **toy_state(3),
    "step": 3,
    "ema": {"net": {"w": torch.ones(2)}, "num_updates": torch.tensor(3.0)},
    "swa": {"net": {"w": torch.ones(2)}, "num_updates": torch.tensor(0.0)},
    "adversary": {"net": {"d": torch.ones(2)}, "learner": toy_learner(3), "interval": 1},
    "callbacks": {
        "precision.adaptive": {
            "levels": ["bf16", "fp32"],
            "level": 0,
            "bad_windows": 0,
            "good_windows": 0,
            "good_windows_needed": 20,
            "changes": [],
        },
        "callbacks.mine": {},
    },
}


def places(value, path=()):
    """Yield the path of every value that a name leads to."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from places(item, (*path, key))


FREE = {("best", "psnr_y"), ("net_g", "w"), ("ema", "net", "w"), ("swa", "net", "w")}
FREE |= {("adversary", "net", "d")}
FREE |= {("callbacks", "callbacks.mine"), ("callbacks", "precision.adaptive")}
"""What may be left out: a metric, a weight (a model tells), a callback."""

TEXT = {"class", "architecture"}

NEEDED = [path for path in places(FULL) if path not in FREE and path[0] != "config"]
NEEDED += [("config",)]

BAD = (KeyError, "\x1b[31mx", object(), 1.5, [5], {1: 2}, torch.eye(2).to_sparse())


def put(state, path, value):
    *outer, last = path
    for key in outer:
        state = state[key]
    if value is KeyError:
        del state[last]
    else:
        state[last] = value


def test_a_whole_state_passes(tmp_path):
    check_state(toy_state(3, step=3), tmp_path)
    check_state(FULL, tmp_path)


@pytest.mark.parametrize("path", NEEDED, ids=".".join)
def test_each_part_must_be_there_and_of_its_kind(tmp_path, path):
    for bad in BAD:
        if isinstance(bad, str) and path[-1] in TEXT:
            continue
        state = copy.deepcopy(FULL)
        put(state, path, bad)
        with pytest.raises(CheckpointError) as caught:
            check_state(state, tmp_path / "s.pt")
        told = str(caught.value)
        assert f"s.pt: no whole training state: {path[0]}" in told
        assert path[-1] in told or path[0] == "random"
        assert "\x1b" not in told


@pytest.mark.parametrize(
    ("path", "bad", "told"),
    [
        (("step",), 4, "generator.steps: found 3, step 4"),
        (("step",), True, "step: found True, expected a whole number"),
        (("step",), 10**12, "step: found 1000000000000, expected a whole number"),
        (("generator", "applied_steps"), torch.tensor([-1]), "found -1, expected 0 to 3"),
        (("generator", "applied_steps"), torch.tensor([4]), "found 4, expected 0 to 3"),
        (("generator", "skipped_in_row"), torch.tensor(float("nan")), "one number in a tensor"),
        (("adversary", "interval"), 0, "from 1 up"),
        (("net_g",), {}, "net_g: found a dict, expected tensors by their names"),
        (("precision",), "fp8", "precision: found 'fp8', expected one of fp32"),
        (("card", "scale"), "2", "card.scale: found '2'"),
        (("config", "discriminator"), {}, "a config with its discriminator"),
        (("config", "a"), {"b": {3: 4}}, "config: found a dict"),
        (("config", "a"), [torch.zeros(1)], "config: found a dict"),
        (("config", "a"), 10**5000, "config: found a dict"),
        (("card", "scale"), -(10**5000), "card.scale: found -0x"),
        (("generator", "optimizer", "counters"), [], "one dict of numbers for each group"),
        (("generator", "optimizer", "moments"), {"w": 5}, "dicts by the names of parameters"),
        (("random",), [], "states of random generators"),
        (("random",), [{"python": (3, (1, 2), None)}], "states of random generators"),
        (("card", "arguments"), {"a": {1, 2}}, "card.arguments: found a dict, expected plain"),
        (("card", "arguments"), {"a": [torch.zeros(1)]}, "expected plain values by their names"),
        (("healthy",), "x", "healthy: found 'x'"),
        (("awaiting",), -1, "awaiting: found -1"),
        (("validated",), torch.ones(2), "validated: found a torch.float32 tensor"),
        (("window",), {"values": {"loss/total": [1]}, "weights": {}}, "window: found"),
        (("window",), {"values": {}, "weights": {"g": [1.0]}}, "window: found"),
        (("window",), {"values": {}}, "window: found"),
        (("best",), {"psnr_y": "x"}, "numbers by the names of metrics"),
    ],
    ids=lambda value: "" if isinstance(value, int) else str(value)[:40],
)
def test_values_that_would_fail_later(tmp_path, path, bad, told):
    state = copy.deepcopy(FULL)
    put(state, path, bad)
    with pytest.raises(CheckpointError, match="no whole training state") as caught:
        check_state(state, tmp_path)
    assert told in str(caught.value)


def test_many_faults_are_few_words(tmp_path):
    with pytest.raises(CheckpointError, match=r"; \.\.\. and \d more$"):
        check_state({}, tmp_path)


def test_a_state_without_its_parts_falls_back(tmp_path):
    save_state(tmp_path, 1, toy_state(1), 9)
    save_state(tmp_path, 2, {**toy_state(2), "random": None}, 9)
    assert newest_state(tmp_path)[1]["step"] == 1
    with pytest.raises(CheckpointError, match="random: found None"):
        read_state(tmp_path / "step_00000002.pt")
