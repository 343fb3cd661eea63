"""The gate: a network learns a few crops, in every precision, or the command fails."""

from pathlib import Path

import pytest

from sr_train.factory import models
from tests.toys import no_validation, toy_words

NETWORKS = {
    "compact": ["arch.num_feat=16", "arch.num_conv=2", "num_steps=150"],
    "imdn": ["arch.num_feat=16", "arch.num_block=1", "num_steps=300"],
    "swinir_light": [
        *("arch.window_size=4", "arch.img_size=16", "arch.embed_dim=16"),
        *("arch.depths=[2]", "arch.num_heads=[2]", "num_steps=150"),
    ],
}
"""Toy forms of three families, and the steps that each needs: a gain of about 6 dB."""

QUICK = ("compact", "fp16")


def overfit_words(folder: Path, arch: str, *more: str) -> list[str]:
    """Return the words of the gate for a toy network on two crops."""
    words = no_validation(*toy_words(folder))
    words = [word for word in words if not word.startswith("arch")]
    words += [f"arch={arch}", *NETWORKS[arch], "num_samples=2", "ema.enabled=false"]
    return ["overfit", *words, "optimizer.lr=5e-3", *more]


@pytest.mark.parametrize(
    ("arch", "precision"),
    [
        pytest.param(arch, name, marks=[] if (arch, name) == QUICK else pytest.mark.slow)
        for arch in NETWORKS
        for name in ("fp32", "bf16", "fp16")
    ],
)
def test_overfit_passes_where_a_network_learns(command, in_folder, arch, precision):
    done = command(*overfit_words(in_folder, arch, f"precision={precision}")).succeeds()
    assert "overfit passed: psnr_y" in done.out
    assert f"threshold +2; 2 samples, {NETWORKS[arch][-1][10:]} steps, {precision}" in done.out
    assert not (in_folder / "runs").exists()


@pytest.mark.parametrize("arch", NETWORKS)
def test_overfit_fails_where_the_learning_rate_is_zero(command, in_folder, arch):
    done = command(*overfit_words(in_folder, arch, "optimizer.lr=0", "num_steps=5"))
    done.fails_with("overfit failed", "psnr_y", "threshold +2")


def test_overfit_fails_where_the_gain_is_too_small(command, in_folder):
    done = command(*overfit_words(in_folder, "compact", "num_steps=5"))
    done.fails_with("overfit failed", "threshold +2; 2 samples, 5 steps")


GAN = [
    *("objective=[l1,gan,feature_matching]", "discriminator=unet_sn", "objective_d=[gan]"),
    *("discriminator.arch.num_feat=4", "num_steps=3", "threshold=-100"),
]


@pytest.fixture
def made_models(monkeypatch):
    """Return the models that commands make, as they make them."""
    made = []
    original = models.make_model

    def noting(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(models, "make_model", noting)
    return made


def test_gan_terms_are_off(command, in_folder, made_models):
    done = command(*overfit_words(in_folder, "compact", *GAN)).succeeds()
    assert "without the GAN terms: gan, feature_matching (gan=true keeps them)" in done.out
    (model,) = made_models
    assert model.adversary is None
    assert list(model.objective.terms) == ["l1"]


def test_gan_terms_are_on_where_asked_for(command, in_folder, made_models):
    done = command(*overfit_words(in_folder, "compact", *GAN, "gan=true")).succeeds()
    assert "without the GAN terms" not in done.out
    (model,) = made_models
    assert list(model.objective.terms) == ["l1", "gan", "feature_matching"]
    assert model.discriminator.steps == 3
    assert model.discriminator.num_skipped == 0


def test_gan_terms_alone_cannot_be_left_out(command, in_folder):
    words = overfit_words(in_folder, "compact", *GAN, "objective=[gan]")
    command(*words).fails_with("objective: has only GAN terms", "gan=true")
