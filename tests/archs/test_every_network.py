"""What holds for every network, whatever its kind."""

import copy

import pytest
import torch

from tests.archs.networks import CHECKPOINTED, SMALL, build, image

every_network = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())
with_checkpointing = pytest.mark.parametrize("make", CHECKPOINTED.values(), ids=CHECKPOINTED.keys())
bounded = pytest.mark.parametrize(
    "make",
    [make for make in SMALL.values() if make().spec.receptive_field is not None],
    ids=[name for name, make in SMALL.items() if make().spec.receptive_field is not None],
)


@every_network
@pytest.mark.parametrize("size", [(16, 16), (13, 9), (1, 1), (1, 7), (7, 1), (3, 18)])
def test_an_image_of_any_size_is_enlarged_by_the_scale(make, size):
    net = build(make).eval()
    lq = image(net, *size)
    with torch.no_grad():
        pred = net(lq)
    height, width = size
    assert pred.shape == (
        *lq.shape[:-3],
        net.spec.out_channels,
        height * net.spec.scale,
        width * net.spec.scale,
    )
    assert torch.isfinite(pred).all()


@every_network
def test_every_parameter_gets_a_finite_gradient(make):
    net = build(make).train()
    net(image(net, 9, 8, batch=2)).square().mean().backward()
    for name, weights in net.named_parameters():
        assert weights.grad is not None, name
        assert torch.isfinite(weights.grad).all(), name
        assert weights.grad.abs().max() > 0, name


@every_network
def test_flat_and_black_images_give_finite_gradients(make):
    net = build(make).train()
    net(torch.zeros_like(image(net, 5, 5))).square().mean().backward()
    net(torch.ones_like(image(net, 1, 1))).square().mean().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in net.parameters())


@every_network
def test_weights_survive_a_strict_round_trip(make):
    net, other = build(make).eval(), make().eval()
    lq = image(net, 9, 8)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net(lq), other(lq))


@every_network
def test_a_deep_copy_is_independent_and_equal(make):
    net = build(make).eval()
    lq = image(net, 9, 8)
    with torch.no_grad():
        before = net(lq)
        average = copy.deepcopy(net)
        for weights in net.parameters():
            weights.mul_(1.5)
        assert torch.equal(average(lq), before)
        assert not torch.equal(net(lq), before)
        net.load_state_dict(average.state_dict())
        assert torch.equal(net(lq), before)


@every_network
def test_bfloat16_autocast_trains_and_stays_near_float32(make):
    net = build(make).train()
    lq = image(net, 9, 8, batch=2)
    exact = net.eval()(lq).detach()
    net.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pred = net(lq)
    pred.float().square().mean().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in net.parameters())
    net.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        pred = net(lq).float()
    assert (pred - exact).abs().mean() < 0.05 * exact.abs().mean()


@every_network
def test_names_and_shapes_can_be_read_on_the_meta_device(make):
    with torch.device("meta"):
        planned = make().state_dict()
    real = make().state_dict()
    assert {name: value.shape for name, value in planned.items()} == {
        name: value.shape for name, value in real.items()
    }


@with_checkpointing
def test_checkpointing_changes_neither_result_nor_gradient(make):
    plain, saving = build(lambda: make(False)).train(), build(lambda: make(True)).train()
    saving.load_state_dict(plain.state_dict())
    preds = []
    for net in (plain, saving):
        torch.manual_seed(5)
        preds.append(net(image(net, 9, 8, batch=3)))
        preds[-1].square().mean().backward()
    assert torch.equal(*preds)
    for (name, expected), got in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(expected.grad, got.grad), name


@with_checkpointing
def test_checkpointing_stores_less_and_only_in_training(make):
    net = build(lambda: make(True))

    def stored() -> int:
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            net(image(net, 16, 16))
        return total

    net.train()
    training = stored()
    net.eval()
    assert training < 0.7 * stored()


@bounded
def test_the_receptive_field_is_as_far_as_gradients_reach(make):
    net = build(make).double().eval()
    radius, grid, scale = net.spec.receptive_field, net.spec.size_multiple, net.spec.scale
    centre = -(-radius // grid) * grid + grid
    lq = image(net, 2 * centre + grid, 2 * centre + grid).double().requires_grad_()
    pred = net(lq)
    reach = 0
    for at in range(centre * scale, (centre + grid) * scale):
        (gradient,) = torch.autograd.grad(pred[..., at, at].flatten()[0], lq, retain_graph=True)
        for axis in (-2, -1):
            touched = gradient.abs().flatten(0, -3).amax(0).amax(-3 - axis).nonzero().flatten()
            pixel = at // scale
            reach = max(reach, pixel - int(touched.min()), int(touched.max()) - pixel)
    assert reach == radius


@bounded
def test_a_tile_with_its_context_equals_the_whole(make):
    net = build(make).double().eval()
    radius, grid, scale = net.spec.receptive_field, net.spec.size_multiple, net.spec.scale
    context = -(-radius // grid) * grid
    start, size = grid, 3
    lq = image(net, start + 2 * context + size + 5, start + 2 * context + size + 7).double()
    tile = lq[..., start : start + 2 * context + size, start : start + 2 * context + size]
    with torch.no_grad():
        whole, part = net(lq), net(tile)
    inner = slice(context * scale, (context + size) * scale)
    there = slice((start + context) * scale, (start + context + size) * scale)
    torch.testing.assert_close(part[..., inner, inner], whole[..., there, there])


@pytest.mark.slow
@pytest.mark.parametrize("make", CHECKPOINTED.values(), ids=CHECKPOINTED.keys())
@pytest.mark.parametrize("half", [False, True])
def test_compiles_as_one_graph_with_checkpointing(make, half):
    torch.compiler.reset()
    net = build(lambda: make(True)).train()
    compiled = copy.deepcopy(net)
    compiled.compile(backend="aot_eager", fullgraph=True)
    lq = image(net, 9, 8, batch=2, num_frames=2)
    preds = []
    for each in (net, compiled):
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            preds.append(each(lq))
        preds[-1].float().square().mean().backward()
    torch.testing.assert_close(*preds)
    assert list(compiled.state_dict()) == list(net.state_dict())
    tolerance = 0.1 if half else 1e-5
    for expected, got in zip(net.parameters(), compiled.parameters(), strict=True):
        limit = tolerance * expected.grad.abs().max()
        assert (expected.grad - got.grad).abs().max() <= limit


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["fsrcnn_x2", "compact_x2", "rrdb_x2", "imdn_x2", "span_merged", "swinir_real_x4"]
)
def test_compiles_as_one_graph(name):
    torch.compiler.reset()
    net = build(SMALL[name]).eval()
    compiled = copy.deepcopy(net)
    compiled.compile(backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for size in ((9, 8), (12, 5)):
            lq = image(net, *size)
            torch.testing.assert_close(compiled(lq), net(lq))


@pytest.mark.gpu
@every_network
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_gpu_trains(make, dtype):
    net = build(make).cuda().train()
    with torch.autocast("cuda", dtype=dtype):
        pred = net(image(net, 9, 8, batch=2).cuda())
    pred.float().square().mean().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in net.parameters())
