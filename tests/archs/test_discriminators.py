"""What holds for every discriminator, and the facts of each."""

import copy
import math

import pytest
import torch
from omegaconf import OmegaConf
from torch.autograd import gradcheck, gradgradcheck

from archs.patchgan import MultiScalePatchGANDiscriminator, PatchGANDiscriminator
from archs.unet_discriminator import UNetDiscriminatorSN
from archs.vgg_discriminator import VGGStyleDiscriminator
from sr_train.api.errors import ConfigError
from sr_train.config.build import build as build_node
from tests.archs.discriminators import ANY_SIZE, SMALL, build, image, maps, total
from tests.toys import ROOT

CONFIGS = [
    path for path in sorted((ROOT / "configs/discriminator").glob("*.yaml")) if path.stem != "none"
]

every = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())
of_any_size = pytest.mark.parametrize("make", ANY_SIZE.values(), ids=ANY_SIZE.keys())


def shapes(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def test_names_and_shapes_of_the_unet_are_the_published_ones():
    net = UNetDiscriminatorSN()
    state = shapes(net)
    assert len(state) == 28
    assert state["conv0.weight"] == (64, 3, 3, 3)
    assert state["conv1.weight_orig"] == (128, 64, 4, 4)
    assert state["conv3.weight_orig"] == (512, 256, 4, 4)
    assert state["conv3.weight_u"] == (512,)
    assert state["conv3.weight_v"] == (4096,)
    assert state["conv4.weight_orig"] == (256, 512, 3, 3)
    assert state["conv8.weight_v"] == (576,)
    assert state["conv9.weight"] == (1, 64, 3, 3)
    assert {name for name in state if name.endswith("bias")} == {"conv0.bias", "conv9.bias"}
    assert sum(p.numel() for p in net.parameters()) == 4_376_897


@pytest.mark.parametrize(("size", "count", "entries"), [(128, 14_499_401, 60), (256, 0, 72)])
def test_names_and_shapes_of_the_vgg_are_the_published_ones(size, count, entries):
    with torch.device("meta"):
        net = VGGStyleDiscriminator(input_size=size)
    state = shapes(net)
    last = 4 if size == 128 else 5
    assert len(state) == entries
    assert state["conv0_0.weight"] == (64, 3, 3, 3)
    assert state["conv0_0.bias"] == (64,)
    assert state["conv0_1.weight"] == (64, 64, 4, 4)
    assert state["bn0_1.running_var"] == (64,)
    assert state["conv3_0.weight"] == (512, 256, 3, 3)
    assert state[f"conv{last}_1.weight"] == (512, 512, 4, 4)
    assert state[f"bn{last}_1.weight"] == (512,)
    assert state["linear1.weight"] == (100, 8192)
    assert state["linear2.weight"] == (1, 100)
    assert not {f"conv{last + 1}_0.weight", "bn0_0.weight", "conv0_1.bias"} & set(state)
    if count:
        assert sum(p.numel() for p in net.parameters()) == count


def test_names_and_shapes_of_the_batch_normalised_patchgan_are_the_published_ones():
    with torch.device("meta"):
        net = PatchGANDiscriminator(in_channels=6, norm="batch")
    state = shapes(net)
    assert state["model.0.weight"] == (64, 6, 4, 4)
    assert state["model.0.bias"] == (64,)
    assert state["model.2.weight"] == (128, 64, 4, 4)
    assert state["model.3.running_mean"] == (128,)
    assert state["model.8.weight"] == (512, 256, 4, 4)
    assert state["model.11.weight"] == (1, 512, 4, 4)
    assert state["model.11.bias"] == (1,)
    assert "model.2.bias" not in state
    assert sum(p.numel() for p in net.parameters()) == 2_768_705


@pytest.mark.parametrize(
    ("net", "size", "expected"),
    [
        (UNetDiscriminatorSN(num_feat=4), (24, 32), [(24, 32)]),
        (PatchGANDiscriminator(num_feat=4), (70, 256), [(6, 30)]),
        (
            MultiScalePatchGANDiscriminator(num_feat=4, num_scales=3),
            (128, 192),
            [(14, 22), (6, 10), (2, 4)],
        ),
    ],
    ids=["unet", "patchgan", "multiscale"],
)
def test_maps_have_the_expected_sizes(net, size, expected):
    assert [tuple(logits.shape) for logits in maps(net(image(*size)))] == [
        (2, 1, *here) for here in expected
    ]


def test_the_vgg_gives_one_logit_for_each_image():
    for size in (32, 64, 128):
        net = VGGStyleDiscriminator(num_feat=2, input_size=size)
        assert net(image(size, size)).shape == (2, 1)


@pytest.mark.parametrize(("num_layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch(num_layers, patch):
    net = build(lambda: PatchGANDiscriminator(num_feat=2, num_layers=num_layers, norm="none"))
    seen = image(160, 160, batch=1).requires_grad_()
    logits = net(seen)
    at = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, at, at], seen)
    for axis in (1, 2):
        touched = gradient[0].abs().amax(0).amax(2 - axis).nonzero().flatten()
        assert int(touched.max() - touched.min()) + 1 == patch


@of_any_size
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 2), (13, 21), (37, 24)])
def test_an_image_of_any_size_is_judged(make, size):
    net = build(make)
    seen = image(*size).requires_grad_()
    logits, features = net(seen, with_features=True)
    total(logits).backward()
    assert all(torch.isfinite(each).all() for each in [*maps(logits), *features, seen.grad])
    if isinstance(net, UNetDiscriminatorSN):
        assert logits.shape == (2, 1, *size)


def test_an_odd_image_is_judged_as_the_one_mirrored_to_a_multiple_of_8():
    net = build(SMALL["unet"]).eval()
    seen = image(13, 16)
    whole = torch.cat((seen, seen[:, :, 9:12].flip(2)), 2)
    torch.testing.assert_close(net(seen), net(whole)[:, :, :13])


@every
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_every_parameter_gets_a_finite_gradient(make, dtype):
    net = build(make).train()
    seen = image().requires_grad_()
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        logits = net(seen)
    total([each.float() - 1 for each in maps(logits)]).backward()
    assert torch.isfinite(seen.grad).all()
    assert seen.grad.abs().max() > 0
    for name, weights in net.named_parameters():
        assert weights.grad is not None, name
        assert torch.isfinite(weights.grad).all(), name
        # A bias in front of a normalisation has no effect but rounding.
        assert weights.grad.abs().max() > 0, name


@every
def test_half_precision_stays_near_float32(make):
    net = build(make).eval()
    with torch.no_grad():
        exact = maps(net(image()))
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype=dtype):
                rounded = maps(net(image()))
            for a, b in zip(exact, rounded, strict=True):
                assert (a - b.float()).abs().max() < 0.02


@every
def test_features_are_returned_beside_the_same_logits(make):
    net = build(make).eval()
    seen = image()
    logits, features = net(seen, with_features=True)
    for expected, got in zip(maps(net(seen)), maps(logits), strict=True):
        assert torch.equal(expected, got)
    assert len(features) >= 2
    assert all(each.ndim == 4 and each.shape[0] == 2 for each in features)
    sizes = [each.shape[-1] for each in features]
    if not isinstance(net, MultiScalePatchGANDiscriminator):
        assert sizes == sorted(sizes, reverse=True)
    total(features).backward()
    assert any(weights.grad is not None for weights in net.parameters())


def test_features_are_the_activations():
    net = build(SMALL["patchgan_spectral"]).eval()
    seen = image()
    _, features = net(seen, with_features=True)
    torch.testing.assert_close(features[1], net.model[:4](seen))
    net = build(SMALL["multiscale"]).eval()
    _, features = net(seen, with_features=True)
    half = torch.nn.functional.avg_pool2d(seen, 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(features[3], net.scales[1].model[:2](half))


@every
def test_frozen_weights_let_the_gradient_through_to_the_image(make):
    net = build(make).train()
    net.requires_grad_(False)
    seen = image().requires_grad_()
    total(net(seen)).backward()
    assert seen.grad.abs().max() > 0
    assert all(weights.grad is None for weights in net.parameters())
    net.requires_grad_(True)
    total(net(image())).backward()
    assert all(weights.grad is not None for weights in net.parameters())


@every
def test_a_deep_copy_made_in_training_is_independent_and_equal(make):
    net = build(make).train()
    total(net(image())).backward()
    copied = copy.deepcopy(net).eval()
    net.eval()
    before = maps(net(image(seed=1)))
    with torch.no_grad():
        for weights in net.parameters():
            weights.mul_(0.5).add_(0.1)
    for expected, got in zip(before, maps(copied(image(seed=1))), strict=True):
        assert torch.equal(expected, got)


@every
def test_weights_survive_a_strict_round_trip(make):
    net, other = build(make).train(), make()
    net(image())
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        for a, b in zip(maps(net.eval()(image())), maps(other.eval()(image())), strict=True):
            assert torch.equal(a, b)


@every
def test_a_gradient_penalty_reaches_the_weights(make):
    net = build(make).train()
    real = image().requires_grad_()
    (gradient,) = torch.autograd.grad(
        sum(each.sum() for each in maps(net(real))), real, create_graph=True
    )
    gradient.square().sum().backward()
    reached = [w.grad.abs().max() > 0 for w in net.parameters() if w.grad is not None]
    assert any(reached)
    assert all(torch.isfinite(w.grad).all() for w in net.parameters() if w.grad is not None)


@pytest.mark.parametrize(
    "net",
    [
        UNetDiscriminatorSN(num_feat=1),
        PatchGANDiscriminator(num_feat=1, num_layers=1),
        VGGStyleDiscriminator(num_feat=1, input_size=32),
    ],
    ids=["unet", "patchgan", "vgg"],
)
def test_gradients_of_first_and_second_order_are_right(net):
    net = net.double().eval()
    size = 32 if isinstance(net, VGGStyleDiscriminator) else 8
    seen = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    assert gradcheck(net, (seen,), fast_mode=True)
    assert gradgradcheck(net, (seen,), fast_mode=True)


@every
def test_channels_last_changes_nothing(make):
    net = build(make).eval()
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    seen = image()
    with torch.no_grad():
        got = maps(other(seen.contiguous(memory_format=torch.channels_last)))
        for expected, each in zip(maps(net(seen)), got, strict=True):
            torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-6)


@every
def test_names_can_be_read_on_the_meta_device(make):
    with torch.device("meta"):
        planned = make()
    assert shapes(planned) == shapes(make())


@pytest.mark.slow
@every
@pytest.mark.parametrize("half", [False, True])
def test_compiles_as_one_graph(make, half):
    torch.compiler.reset()
    net = build(make).train()
    compiled = copy.deepcopy(net)
    compiled.compile(backend="aot_eager", fullgraph=True)
    results = []
    for each in (net, compiled):
        for seed in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                logits, _ = each(image(seed=seed), with_features=True)
            total(logits).backward()
            with torch.no_grad():
                for weights in each.parameters():
                    weights.sub_(0.01 * weights.grad)
        results.append(maps(logits))
    for expected, got in zip(*results, strict=True):
        limit = {"rtol": 0.05, "atol": 0.02} if half else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(got, expected, **limit)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNetDiscriminatorSN(in_channels=0), "UNetDiscriminatorSN: in_channels must be"),
        (lambda: VGGStyleDiscriminator(input_size=96), "input_size must be one of 32, 64, 128"),
        (lambda: PatchGANDiscriminator(num_layers=0), "num_layers must be an integer of at least"),
        (lambda: PatchGANDiscriminator(norm="layer"), "norm must be one of 'spectral', 'instance'"),
        (lambda: MultiScalePatchGANDiscriminator(num_scales=0), "num_scales must be"),
    ],
)
def test_impossible_arguments_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_image_that_does_not_fit_the_vgg_is_refused_with_a_way_out():
    net = VGGStyleDiscriminator(num_feat=2, input_size=32)
    with pytest.raises(ConfigError, match=r"expected .*\(3, 32, 32\), found \(3, 64, 64\)") as err:
        net(image(64, 64))
    assert "set discriminator.arch.input_size=64" in str(err.value)
    with pytest.raises(ConfigError, match=r"make data\.lq_size x scale one of 32, 64, 128"):
        net(image(32, 33))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_builds(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    with torch.device("meta"):
        net = build_node(node["arch"], "discriminator.arch")
    millions = float(path.read_text().split()[1])
    assert math.isclose(sum(p.numel() for p in net.parameters()) / 1e6, millions, abs_tol=0.05)


def test_every_discriminator_is_shipped():
    assert [path.stem for path in CONFIGS] == ["multiscale_patchgan", "patchgan", "unet_sn", "vgg"]
