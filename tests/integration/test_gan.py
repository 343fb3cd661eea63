"""Runs with a discriminator, as a person starts them."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.toys import differing, metrics_rows, no_validation, state_of, toy_words

PRECISIONS = ("fp32", "bf16", "fp16")

GAN = (
    "objective=[l1,perceptual,ldl,gan]",
    "discriminator=unet_sn",
    "objective_d=[gan]",
    "discriminator.arch.num_feat=4",
)

ONE_LAYER = (
    "objective.perceptual.loss.random_init=true",
    *(f"~objective.perceptual.loss.layers.conv{name}" for name in ("2_2", "3_4", "4_4", "5_4")),
)


def gan_words(folder: Path, *more: str) -> list[str]:
    """Return the words of a toy run without validation: pixel, perceptual, LDL and GAN terms."""
    return ["train", *no_validation(*toy_words(folder)), "data.lq_size=8", *GAN, *ONE_LAYER, *more]


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """Return by step every scalar that TensorBoard shows of a run."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


@pytest.mark.parametrize(
    ("precision", "steps"),
    [("bf16", 30), *(pytest.param(name, 200, marks=pytest.mark.slow) for name in PRECISIONS)],
)
def test_a_gan_stays_finite_and_lowers_the_perceptual_term(command, in_folder, precision, steps):
    words = [f"precision={precision}", "precision.init_scale=4096", "optimizer.lr=4e-3"]
    words += ["train.max_norm=1", f"train.steps={steps}", f"train.log_every={steps // 10}"]
    done = command(*gan_words(in_folder, *words)).succeeds()
    assert "vgg19 runs with RANDOM weights" in done.out + done.err
    run = in_folder / "runs/toy"
    for learner in "gd":
        assert metrics_rows(run, f"skipped_steps/{learner}")[-1] == (steps, 0.0)
        assert len(metrics_rows(run, f"grad_norm/{learner}")) == 10
    accuracy = [value for _, value in metrics_rows(run, "gan/d_accuracy")]
    assert len(accuracy) == 10
    assert all(0.0 <= value <= 1.0 for value in accuracy)
    perceptual = [value for _, value in metrics_rows(run, "loss/perceptual")]
    assert perceptual[-1] < (0.95 if steps == 200 else 1.0) * perceptual[0]
    state = state_of(run, steps)
    weights = [*state["net_g"].values(), *state["adversary"]["net"].values()]
    assert all(torch.isfinite(value).all() for value in weights)


HEALTH = {
    *("gan/real_logits", "gan/fake_logits", "gan/d_accuracy", "gan/grad_ratio", "gan/d_interval"),
    *(f"grad_ratio/{name}" for name in ("l1", "perceptual", "ldl", "gan")),
    *(f"loss/{name}" for name in ("l1", "perceptual", "ldl", "gan", "total")),
    *("loss_d/gan", "loss_d/total", "health/colour_drift"),
    *(
        f"{name}/{learner}"
        for learner in "gd"
        for name in (
            *("grad_norm", "clip_fraction", "lr", "param_drift", "skipped_steps"),
            *("loss_scale", "loss_scale_growths", "loss_scale_backoffs"),
        )
    ),
}


def test_tensorboard_shows_the_health_of_a_gan(command, in_folder):
    words = ["logger=tensorboard", "precision=fp16", "train.log_every=2", "discriminator.lr=1e-4"]
    words += ["discriminator.max_norm=1e-3", "precision.init_scale=1024"]
    command(*gan_words(in_folder, *words)).succeeds()
    shown = scalars(in_folder / "runs/toy")
    assert set(shown) >= HEALTH
    assert all(set(shown[tag]) == {2, 4} for tag in HEALTH)
    last = {tag: values[4] for tag, values in shown.items()}
    ratios = [last[tag] for tag in HEALTH if tag.startswith("grad_ratio/")]
    assert sum(ratios) == pytest.approx(1.0, abs=1e-5)
    assert min(ratios) > 0
    assert last["clip_fraction/d"] == 1.0
    assert last["clip_fraction/g"] == 0.0
    assert last["loss_scale/d"] == last["loss_scale/g"] == 1024.0
    assert last["gan/grad_ratio"] == pytest.approx(last["grad_norm/g"] / last["grad_norm/d"])
    assert last["lr/d"] == pytest.approx(last["lr/g"] / 10)
    assert 0.0 <= last["health/colour_drift"] < 255.0
    assert last["gan/fake_logits"] != last["gan/real_logits"]
    written = metrics_rows(in_folder / "runs/toy", "gan/d_accuracy")
    assert written == [(step, pytest.approx(v)) for step, v in shown["gan/d_accuracy"].items()]


STATE = ("net_g", "ema", "generator", "adversary", "random", "step", "precision")


@pytest.mark.parametrize(
    "words",
    [
        ("precision=fp32", "train.accum=2"),
        pytest.param(
            ("precision=bf16", "discriminator.every=3", "discriminator.start=2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("precision=fp16", "precision.growth_interval=3", "objective_d=[gan,r1]"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("discriminator.adaptive=true", "discriminator.strong=0.51", "train.log_every=3"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_two_halves_of_a_gan_equal_the_whole(command, in_folder, words):
    words = ("train.checkpoint_every=6", "discriminator.weak=0.5", *words)
    every = gan_words(in_folder, "train.steps=12", *words)
    command(*every).succeeds()
    command(*every, "name=halves", "train.steps=6", "scheduler.steps=12").succeeds()
    done = command(*every, "name=halves", "resume=auto").succeeds()
    assert "discriminator: optimizer state kept" in done.out
    whole, halves = (state_of(in_folder / "runs" / name, 12) for name in ("toy", "halves"))
    for key in STATE:
        assert differing(whole[key], halves[key]) == [], key
    assert halves["adversary"]["learner"]["optimizer"], "D's optimizer has a state to compare"
    assert "conv1.weight_u" in halves["adversary"]["net"]
    before = state_of(in_folder / "runs/halves", 6)["adversary"]["net"]
    moved = {each.split()[0] for each in differing(before, halves["adversary"]["net"])}
    assert {"/conv1.weight_u", "/conv1.weight_orig"} <= moved
    if "discriminator.adaptive=true" in words:
        assert halves["adversary"]["interval"] > 1


def test_both_learners_resume_in_another_precision(command, in_folder):
    for steps, precision in ((2, "bf16"), (4, "fp16"), (6, "fp32")):
        words = [f"precision={precision}", f"train.steps={steps}", "precision.init_scale=1024"]
        done = command(*gan_words(in_folder, *words, "resume=auto")).succeeds()
        assert state_of(in_folder / "runs/toy", steps)["precision"] == precision
        if steps > 2:
            assert done.out.count("optimizer state kept") == 2
    rows = [metrics_rows(in_folder / "runs/toy", f"loss_scale/{name}") for name in "gd"]
    assert rows == [[(2, 1.0), (4, 1024.0), (6, 1.0)]] * 2


OVERFLOW = '''
"""Terms that are inf at each seventh step and nothing at the others."""
from torch import nn

class OfGenerator(nn.Module):
    def forward(self, pred, step):
        return pred.mean() * (float("inf") if step % 7 == 0 else 0.0)

class OfDiscriminator(nn.Module):
    def forward(self, fake_logits, step):
        return fake_logits.mean() * (float("inf") if step % 7 == 0 else 0.0)
'''


@pytest.mark.parametrize(
    ("broken", "group", "kind"),
    [("g", "objective", "OfGenerator"), ("d", "objective_d", "OfDiscriminator")],
)
def test_overflows_of_fp16_are_counted_in_every_log(command, in_folder, broken, group, kind):
    (in_folder / "seventh.py").write_text(OVERFLOW)
    (in_folder / "my" / group).mkdir(parents=True)
    term = f"overflow: {{loss: {{_target_: seventh.{kind}}}}}"
    (in_folder / f"my/{group}/overflow.yaml").write_text(term)
    terms = next(word for word in GAN if word.startswith(group)).replace("gan]", "gan,overflow]")
    words = ["--config-dir", "my", "plugins=[seventh]", terms, "train.steps=30"]
    words += ["precision=fp16", "precision.init_scale=256", "precision.growth_interval=5"]
    words += ["logger=tensorboard", "train.log_every=10"]
    done = command(*gan_words(in_folder, *words)).succeeds()
    run, sound = in_folder / "runs/toy", "d" if broken == "g" else "g"
    shown = scalars(run)
    for scalar, expected in {
        f"skipped_steps/{broken}": {10: 1, 20: 2, 30: 4},
        f"skipped_steps/{sound}": {10: 0, 20: 0, 30: 0},
        f"loss_scale_backoffs/{broken}": {10: 1, 20: 2, 30: 4},
        f"loss_scale_backoffs/{sound}": {10: 0, 20: 0, 30: 0},
        f"loss_scale_growths/{broken}": {10: 1, 20: 3, 30: 4},
        f"loss_scale/{broken}": {10: 256, 20: 512, 30: 256},
        f"loss_scale/{sound}": {10: 1024, 20: 4096, 30: 16384},
    }.items():
        assert shown[scalar] == expected, scalar
        assert dict(metrics_rows(run, scalar)) == expected, scalar
    assert f"net_{broken}" in done.out
    rate = [dict(metrics_rows(run, f"lr/{name}"))[30] for name in (broken, sound)]
    assert rate[0] > rate[1] > 0, "the cosine of the one lags by the steps that were skipped"


def test_a_discriminator_of_another_size_is_told_before_the_run(command, in_folder):
    words = gan_words(in_folder, "discriminator=vgg", "discriminator.arch.num_feat=4")
    for name in ("train", "check"):
        command(name, *words[1:]).fails_with(
            "VGGStyleDiscriminator",
            "expected images of (channels, height, width) (3, 128, 128), found (3, 16, 16)",
            "make data.lq_size x scale one of 32, 64, 128, 256, 512 and input_size the same",
        )
    command("check", *words[1:], "data.lq_size=16").fails_with(
        "set discriminator.arch.input_size=32"
    )
    fit = ["data.lq_size=16", "discriminator.arch.input_size=32"]
    command("check", *words[1:], *fit).succeeds()
    assert not (in_folder / "runs/toy/checkpoints").exists()


PLAIN_CRITIC = '''
"""A user's discriminator, which knows nothing of features."""
from torch import nn

class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 1, 3)

    def forward(self, image):
        return self.body(image)
'''


def test_a_users_discriminator_works_and_one_without_features_is_told_of(command, in_folder):
    (in_folder / "my_critic.py").write_text(PLAIN_CRITIC)
    words = gan_words(in_folder, "plugins=[my_critic]", "discriminator=none")
    words = [word for word in words if word != "discriminator.arch.num_feat=4"]
    words += ["discriminator.arch={_target_: my_critic.Critic}"]
    command(*words, "objective=[l1,perceptual,gan,feature_matching]").fails_with(
        "objective.feature_matching", "my_critic.Critic takes no with_features", "-> logits, or"
    )
    command(*words).succeeds()
    assert set(state_of(in_folder / "runs/toy", 4)["adversary"]["net"]) == {
        "body.weight",
        "body.bias",
    }


def test_a_discriminator_that_waits_its_turn_is_not_called_silent(command, in_folder):
    words = ["discriminator.start=3", "objective.gan.start=3", "train.log_every=1"]
    done = command(*gan_words(in_folder, *words)).succeeds()
    assert "no gradient reaches" not in done.out
    assert [step for step, _ in metrics_rows(in_folder / "runs/toy", "gan/d_accuracy")] == [4]
    assert [step for step, _ in metrics_rows(in_folder / "runs/toy", "loss/gan")] == [4]


def test_a_gan_starts_from_a_psnr_run(command, in_folder):
    words = no_validation(*toy_words(in_folder))
    command("train", *words, "name=psnr").succeeds()
    warm = ["net_g.pretrained=runs/psnr", "optimizer.lr=0"]
    command(*gan_words(in_folder, *warm)).succeeds()
    before, after = (state_of(in_folder / "runs" / name, 4) for name in ("psnr", "toy"))
    assert differing(before["ema"]["net"], after["net_g"]) == []
    assert before["adversary"] is None
    assert after["adversary"] is not None
