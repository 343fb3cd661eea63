import math
from pathlib import Path

import pytest
import torch
from torch import nn

from losses.gan import (
    KINDS,
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    GradientPenalty,
    R1Penalty,
    RelativisticDiscriminatorLoss,
    RelativisticGeneratorLoss,
)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)


class Plane(nn.Module):
    """D(x) = slope . x, whose gradient is known: `slope` for every image."""

    def __init__(self, *slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image):
        return (image.flatten(1) * self.slope).sum(1, keepdim=True)


def ln_sigmoid(x):
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize(
    ("kind", "generator", "discriminator"),
    [
        # fake logits 0.5, real logits 2 and -1
        ("vanilla", -ln_sigmoid(0.5), -(ln_sigmoid(2) + ln_sigmoid(-1)) / 2 - ln_sigmoid(-0.5)),
        ("softplus", -ln_sigmoid(0.5), -(ln_sigmoid(2) + ln_sigmoid(-1)) / 2 - ln_sigmoid(-0.5)),
        ("lsgan", 0.25, (1 + 4) / 2 + 0.25),
        ("wgan", -0.5, -0.5 + 0.5),
        ("hinge", -0.5, (0 + 2) / 2 + 1.5),
    ],
)
def test_value_by_hand(kind, generator, discriminator):
    fake, real = column(0.5), column(2.0, -1.0)
    assert float(GeneratorLoss(kind)(fake)) == pytest.approx(generator)
    assert float(DiscriminatorLoss(kind)(fake, real)) == pytest.approx(discriminator / 2)


@pytest.mark.parametrize(
    ("kind", "generator"),
    [
        # fake 1, 3; real 0, 2: fake - mean(real) = 0, 2 and real - mean(fake) = -2, 0
        ("vanilla", -(ln_sigmoid(0) + ln_sigmoid(2) + ln_sigmoid(2) + ln_sigmoid(0)) / 4),
        ("softplus", -(ln_sigmoid(0) + ln_sigmoid(2) + ln_sigmoid(2) + ln_sigmoid(0)) / 4),
        ("lsgan", (1 + 1 + 1 + 1) / 4),
        ("wgan", (0 - 2 - 2 + 0) / 4),
        ("hinge", (1 + 0 + 0 + 1) / 4),
    ],
)
def test_relativistic_value_by_hand(kind, generator):
    fake, real = column(1.0, 3.0), column(0.0, 2.0)
    assert float(RelativisticGeneratorLoss(kind)(fake, real)) == pytest.approx(generator)
    mirrored = RelativisticDiscriminatorLoss(kind)(fake_logits=real, real_logits=fake)
    assert float(mirrored) == pytest.approx(generator)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_have_the_right_sign(kind):
    fake = torch.zeros(2, 1, 3, 3, requires_grad=True)
    real = torch.zeros(2, 1, 3, 3, requires_grad=True)
    GeneratorLoss(kind)(fake).backward()
    assert (fake.grad < 0).all(), "minimising raises the logits of generated images"
    for loss in (DiscriminatorLoss(kind), RelativisticDiscriminatorLoss(kind)):
        fake.grad = real.grad = None
        loss(fake + 0.1, real + 0.2).backward()
        assert (fake.grad > 0).all()
        assert (real.grad < 0).all()
    fake.grad = None
    RelativisticGeneratorLoss(kind)(fake, torch.zeros_like(real)).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("kind", ["vanilla", "softplus"])
def test_the_undecided_score_ln_2(kind):
    zero = torch.zeros(3, 1)
    assert float(GeneratorLoss(kind)(zero)) == pytest.approx(math.log(2))
    assert float(DiscriminatorLoss(kind)(zero, zero)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", [0.0, 1e-7, 1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extremes_are_finite(kind, fill, dtype):
    fake = torch.full((2, 1), fill, dtype=dtype, requires_grad=True)
    real = torch.full((2, 1), -fill, dtype=dtype, requires_grad=True)
    values = [
        GeneratorLoss(kind)(fake),
        DiscriminatorLoss(kind)(fake, real),
        RelativisticGeneratorLoss(kind)(fake, real),
        RelativisticDiscriminatorLoss(kind)(fake, real),
    ]
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in values)
    torch.stack(values).sum().backward()
    assert torch.isfinite(fake.grad).all()
    assert torch.isfinite(real.grad).all()


def test_a_confident_mistake_keeps_its_gradient():
    """A sigmoid followed by a logarithm would be flat, or infinite, here."""
    fake = torch.tensor([-1e4], requires_grad=True)
    GeneratorLoss("vanilla")(fake).backward()
    assert float(fake.grad) == -1.0


@pytest.mark.parametrize("kind", KINDS)
def test_scales_count_alike_whatever_their_size(kind):
    torch.manual_seed(0)
    fake = [torch.randn(2, 1, 8, 8), torch.randn(2, 1, 2, 2)]
    real = [torch.randn(2, 1, 8, 8), torch.randn(2, 1, 2, 2)]
    one = GeneratorLoss(kind)
    torch.testing.assert_close(one(fake), (one(fake[0]) + one(fake[1])) / 2)
    for two in (
        DiscriminatorLoss(kind),
        RelativisticGeneratorLoss(kind),
        RelativisticDiscriminatorLoss(kind),
    ):
        torch.testing.assert_close(
            two(fake, real), (two(fake[0], real[0]) + two(fake[1], real[1])) / 2
        )


def test_scales_must_agree():
    with pytest.raises(ValueError, match="2 scales, real logits 1"):
        DiscriminatorLoss()([column(0.0), column(0.0)], column(0.0))
    with pytest.raises(ValueError, match="empty"):
        GeneratorLoss()([])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "loss",
    [DiscriminatorLoss, RelativisticGeneratorLoss, RelativisticDiscriminatorLoss],
)
def test_gradcheck(kind, loss):
    fake = column(0.3, -0.7).requires_grad_()
    real = column(-0.2, 0.4)
    if loss is not RelativisticGeneratorLoss:
        real.requires_grad_()
    assert torch.autograd.gradcheck(loss(kind), (fake, real))
    assert torch.autograd.gradcheck(GeneratorLoss(kind), fake)


def test_smoothed_labels_move_the_optimum():
    fake, real = torch.zeros(1), torch.tensor([math.log(9.0)], requires_grad=True)
    DiscriminatorLoss("vanilla", real_label=0.9)(fake, real).backward()
    assert float(real.grad) == pytest.approx(0.0, abs=1e-6), "sigmoid(ln 9) = 0.9"
    assert float(DiscriminatorLoss("lsgan", 0.9, 0.1)(column(0.1), column(0.9))) == 0.0


@pytest.mark.parametrize("discriminator", [DiscriminatorLoss, RelativisticDiscriminatorLoss])
def test_arguments_are_checked(discriminator):
    for kind in ("wgan", "hinge", "softplus"):
        with pytest.raises(ValueError, match="no labels"):
            discriminator(kind, real_label=0.9)
        with pytest.raises(ValueError, match="no labels"):
            discriminator(kind, fake_label=0.1)
    with pytest.raises(ValueError, match="probabilities"):
        discriminator("vanilla", real_label=1.1)
    for loss in (discriminator, GeneratorLoss, RelativisticGeneratorLoss):
        with pytest.raises(ValueError, match="vanilla, lsgan, wgan, hinge, softplus"):
            loss("gan")
    with pytest.raises(ValueError, match="every"):
        R1Penalty(every=0)
    with pytest.raises(ValueError, match="eps"):
        GradientPenalty(eps=0.0)


def test_r1_by_hand_and_only_on_its_steps():
    net_d, real = Plane(3.0, 4.0), torch.rand(2, 1, 1, 2)
    penalty = R1Penalty(every=4)
    assert [penalty(real, net_d, step).item() for step in range(1, 9)] == [
        *[0.0, 0.0, 0.0, 4 * 25 / 2] * 2
    ]
    penalty(real, net_d, 4).backward()
    assert net_d.slope.grad.tolist() == [4 * 3.0, 4 * 4.0]
    assert not penalty(real, net_d, 1).requires_grad


def test_gradient_penalty_by_hand():
    net_d = Plane(3.0, 4.0)
    value = GradientPenalty()(torch.rand(2, 1, 1, 2), torch.rand(2, 1, 1, 2), net_d)
    value.backward()
    assert value.item() == pytest.approx((5 - 1) ** 2)
    # 2 (|w| - 1) w / |w|
    assert net_d.slope.grad.tolist() == pytest.approx([2 * 4 * 0.6, 2 * 4 * 0.8])


def test_gradient_penalty_looks_between_the_images():
    seen = []

    class Watch(Plane):
        def forward(self, image):
            seen.append(image.detach())
            return super().forward(image)

    GradientPenalty()(torch.ones(64, 1, 1, 2), torch.zeros(64, 1, 1, 2), Watch(1.0, 1.0))
    assert (seen[0] >= 0).all()
    assert (seen[0] <= 1).all()
    assert (seen[0][..., 0] == seen[0][..., 1]).all(), "one share per image"
    assert seen[0][:, 0, 0, 0].unique().numel() > 32
    with pytest.raises(ValueError, match="one shape"):
        GradientPenalty()(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 2, 1), Plane(1.0, 1.0))


def penalties():
    return [
        lambda net_d, real, fake: R1Penalty(every=1)(real, net_d, 1),
        lambda net_d, real, fake: GradientPenalty()(real, fake, net_d),
    ]


@pytest.mark.parametrize("penalty", penalties())
def test_a_penalty_is_finite_where_the_gradient_is_zero(penalty):
    net_d = Plane(0.0, 0.0)
    value = penalty(net_d, torch.rand(2, 1, 1, 2), torch.rand(2, 1, 1, 2))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(net_d.slope.grad).all()


@pytest.mark.parametrize("penalty", penalties())
def test_a_penalty_runs_in_fp32_under_autocast(penalty):
    torch.manual_seed(0)
    net_d = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3))
    real, fake = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    torch.manual_seed(1)
    plain = penalty(net_d, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = penalty(net_d, real, fake)
    assert cast.dtype == torch.float32
    assert cast.item() == plain.item()
    cast.backward()
    grads = [p.grad for p in net_d.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert float(net_d[0].weight.grad.abs().sum()) > 0
    assert real.grad is None


@pytest.mark.parametrize("penalty", penalties())
def test_a_penalty_does_not_grow_with_the_image(penalty):
    net_d = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(net_d.weight, 3.0)
    small, large = (torch.rand(2, 1, side, side) for side in (2, 16))
    torch.testing.assert_close(penalty(net_d, small, small), penalty(net_d, large, large))


def test_penalties_take_several_scales():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([Plane(3.0, 4.0), Plane(0.0, 2.0)])

        def forward(self, image):
            return [part(image) for part in self.parts]

    image = torch.rand(2, 1, 1, 2)
    assert float(R1Penalty(1)(image, Two(), 1)) == pytest.approx((25 + 4) / 2 / 2)
    assert float(GradientPenalty()(image, image, Two())) == pytest.approx((16 + 1) / 2)


def test_feature_matching():
    fake = [torch.full((1, 2, 4, 4), 0.5, requires_grad=True), torch.zeros(1, 1, 1, 1)]
    real = [torch.zeros(1, 2, 4, 4, requires_grad=True), torch.ones(1, 1, 1, 1)]
    loss = FeatureMatchingLoss()
    value = loss(fake, real)
    assert float(value) == pytest.approx((0.5 + 1.0) / 2)
    value.backward()
    assert (fake[0].grad > 0).all()
    assert real[0].grad is None
    assert float(loss(fake, fake)) == 0.0
    for other in (real[:1], [real[1], real[0]]):
        with pytest.raises(ValueError, match="must match"):
            loss(fake, other)
    with pytest.raises(ValueError, match="must match"):
        loss([], [])


@pytest.mark.parametrize(
    ("objective", "objective_d"),
    [
        *((f"gan{suffix}", "gan") for suffix in ("", "_hinge", "_lsgan", "_wgan", "_softplus")),
        ("gan_relativistic", "gan_relativistic"),
    ],
)
def test_configs_name_one_kind_for_both(objective, objective_d):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    root = OmegaConf.create(
        {
            "objective": OmegaConf.load(CONFIGS / "objective" / f"{objective}.yaml"),
            "objective_d": OmegaConf.load(CONFIGS / "objective_d" / f"{objective_d}.yaml"),
        }
    )
    generator = instantiate(root.objective.gan.loss)
    discriminator = instantiate(root.objective_d.gan.loss)
    assert root.objective.gan.loss.kind == discriminator.kind
    assert objective == "gan" or objective.endswith(("relativistic", discriminator.kind))
    assert discriminator(column(1.0), column(1.0)).isfinite()
    assert generator(*[column(1.0)] * (2 if "relativistic" in objective else 1)).isfinite()


@pytest.mark.parametrize("name", ["r1", "gradient_penalty"])
def test_penalty_configs_build(name):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    node = OmegaConf.load(CONFIGS / "objective_d" / f"{name}.yaml")[name]
    assert isinstance(instantiate(node.loss), R1Penalty | GradientPenalty)
