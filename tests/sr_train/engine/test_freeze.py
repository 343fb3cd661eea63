"""Freezing by pattern, and groups of parameters by pattern: a whole command each."""

import pytest
import torch

from tests.toys import metrics_rows, no_validation, state_of, toy_words

GAN = (
    "discriminator=patchgan",
    "discriminator.arch.num_feat=8",
    "discriminator.arch.num_layers=1",
    "objective=[l1,gan]",
    "objective_d=[gan]",
)


def words(folder, *more):
    return ["train", *no_validation(*toy_words(folder)), "train.checkpoint_every=1", *more]


def changed(run, part, first=1, last=4):
    """Return the names of weights that differ between two steps."""

    def weights(step):
        state = state_of(run, step)
        return state["net_g"] if part == "net_g" else state["adversary"]["net"]

    before, after = weights(first), weights(last)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_weights_of_the_generator_stay_and_have_no_moments(command, in_folder):
    done = command(*words(in_folder, "train.keep_last=9", "net_g.freeze=[body.0.*]")).succeeds()
    run = in_folder / "runs/toy"
    frozen = {name for name in state_of(run, 4)["net_g"] if name.startswith("body.0.")}
    moved = changed(run, "net_g")
    assert frozen
    assert moved
    assert not moved & frozen
    assert f"net_g.freeze: {len(frozen)} of" in done.out
    moments = state_of(run, 4)["generator"]["optimizer"]["moments"]
    assert moments.keys() == state_of(run, 4)["net_g"].keys() - frozen
    average = state_of(run, 4)["ema"]["net"]
    for name in frozen:
        assert torch.equal(average[name], state_of(run, 4)["net_g"][name])


def test_frozen_weights_of_the_discriminator_stay_too(command, in_folder):
    more = (*GAN, "train.keep_last=9", "discriminator.freeze=[*bias*]")
    command(*words(in_folder, *more)).succeeds()
    run = in_folder / "runs/toy"
    moved = changed(run, "net_d")
    assert any(name.endswith("weight_orig") for name in moved)
    assert not any(name.endswith("bias") for name in moved)
    moments = state_of(run, 4)["adversary"]["learner"]["optimizer"]["moments"]
    assert not any("bias" in name for name in moments)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("net_g.freeze=[body.0.wieght]", "net_g.freeze[0]=body.0.wieght: matches no parameter"),
        ("param_groups=[{match: 'tial.*'}]", "param_groups[0].match=tial.*: matches no parameter"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(command, in_folder, word, found):
    command(*words(in_folder, word)).fails_with(found)


def test_a_near_miss_is_told(command, in_folder):
    command(*words(in_folder, "net_g.freeze=[body.0.wieght]")).fails_with("body.0.weight")


def test_a_discriminator_pattern_that_matches_nothing_is_an_error(command, in_folder):
    command(*words(in_folder, *GAN, "discriminator.freeze=[nothing.*]")).fails_with(
        "discriminator.freeze[0]=nothing.*: matches no parameter"
    )


def test_freezing_everything_is_an_error(command, in_folder):
    command(*words(in_folder, "net_g.freeze=['*']")).fails_with("nothing is left to learn")


def test_weights_set_free_on_a_resume_begin_to_learn(command, in_folder):
    every = words(in_folder, "train.keep_last=9", "scheduler=constant")
    command(*every, "train.steps=2", "net_g.freeze=[body.0.*]").succeeds()
    done = command(*every, "resume=auto").succeeds()
    assert "parameters start without" in done.out
    assert "body.0.weight" in changed(in_folder / "runs/toy", "net_g", first=2)


def test_groups_by_pattern_have_their_own_rates(command, in_folder):
    groups = "param_groups=[{match: 'body.0.*', lr_factor: 0.1}, {match: '*.bias', lr_factor: 0}]"
    more = (groups, "train.log_every=2", "train.keep_last=9", "optimizer.lr=1e-3")
    command(*words(in_folder, *more)).succeeds()
    run = in_folder / "runs/toy"
    rates = [metrics_rows(run, f"lr/{name}")[0][1] for name in ("g", "g1", "g2")]
    assert rates[1] == pytest.approx(0.1 * rates[0])
    assert rates[2] == 0.0
    moved = changed(run, "net_g")
    assert "body.0.bias" in moved  # the first pattern that matches counts
    assert not any(n.endswith(".bias") for n in moved if not n.startswith("body.0."))
