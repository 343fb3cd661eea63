import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from archs.span import SPAN, BranchedConv
from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.engine.fitting import fit_of
from sr_train.engine.weights import Weights, load_into
from tests.archs.networks import build, image


def shapes(net):
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def through_the_branches(conv, x):
    """Compute the four convolutions one after the other, as the paper draws them."""
    return conv.conv(functional.pad(x, (1, 1, 1, 1))) + conv.sk(x)


def branched():
    return build(lambda: SPAN(2, num_feat=8))


@pytest.mark.parametrize(("scale", "last"), [(2, 12), (4, 48)])
def test_names_and_shapes_are_the_published_ones(scale, last):
    state = shapes(SPAN(scale))
    assert len(state) == 204
    assert state["conv_1.sk.weight"] == (48, 3, 1, 1)
    assert state["conv_1.conv.0.weight"] == (6, 3, 1, 1)
    assert state["conv_1.conv.1.weight"] == (96, 6, 3, 3)
    assert state["conv_1.conv.2.weight"] == (48, 96, 1, 1)
    assert state["conv_1.eval_conv.weight"] == (48, 3, 3, 3)
    assert state["block_6.c3_r.conv.1.weight"] == (96, 96, 3, 3)
    assert state["block_6.c3_r.eval_conv.bias"] == (48,)
    assert state["conv_cat.weight"] == (48, 192, 1, 1)
    assert state["conv_2.eval_conv.weight"] == (48, 48, 3, 3)
    assert state["upsampler.0.weight"] == (last, 48, 3, 3)


@pytest.mark.parametrize(
    ("num_feat", "scale", "count"), [(48, 4, 426_288), (48, 2, 410_700), (52, 4, 498_208)]
)
def test_the_merged_form_has_the_published_count(num_feat, scale, count):
    state = shapes(SPAN(scale, num_feat=num_feat, reparameterised=True))
    assert len(state) == 44
    assert set(state) <= set(shapes(SPAN(scale, num_feat=num_feat)))
    assert sum(math.prod(shape) for shape in state.values()) == count


def test_only_the_branches_are_trained():
    names = {name for name, _ in SPAN(2, num_feat=8).named_parameters()}
    assert not any("eval_conv" in name for name in names)


@pytest.mark.parametrize("size", [(6, 5), (1, 1), (1, 4)])
def test_folding_equals_the_branches_up_to_the_border(size):
    torch.manual_seed(0)
    conv = BranchedConv(5, 7).double()
    x = torch.rand(2, 5, *size, dtype=torch.float64)
    torch.testing.assert_close(conv(x), through_the_branches(conv, x))


def test_gradients_are_those_of_the_branches():
    torch.manual_seed(0)
    conv = BranchedConv(4, 6).double()
    x = torch.rand(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    wanted = [x, *conv.parameters()]
    got = torch.autograd.grad(conv(x).square().sum(), wanted)
    expected = torch.autograd.grad(through_the_branches(conv, x).square().sum(), wanted)
    torch.testing.assert_close(got, expected)


def test_folding_is_done_in_full_precision_under_autocast():
    conv = BranchedConv(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight, bias = conv.folded()
    exact_weight, exact_bias = conv.double().folded()
    torch.testing.assert_close(weight.double(), exact_weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bias.double(), exact_bias, rtol=1e-5, atol=1e-6)


def test_training_evaluation_and_merged_forms_agree():
    """In float64, for folding reorders sums, whose rounding is not the question."""
    net = branched().double()
    lq = image(net, 9, 7).double()
    with torch.no_grad():
        training, evaluation, merged = net.train()(lq), net.eval()(lq), net.merged()(lq)
    assert torch.equal(training, evaluation)
    torch.testing.assert_close(merged, evaluation, rtol=1e-9, atol=1e-9)


def test_nothing_is_stale_after_the_weights_have_moved():
    net = branched().double().eval()
    lq = image(net, 9, 7).double()
    net(lq)
    before = net.state_dict()["block_3.c1_r.eval_conv.weight"].clone()
    average = copy.deepcopy(net)
    with torch.no_grad():
        for each, factor in ((net, 1.1), (average, 0.9)):
            for weights in each.parameters():
                weights.mul_(factor)
    for each in (net, average):
        state = each.state_dict()
        assert not torch.equal(state["block_3.c1_r.eval_conv.weight"], before)
        merged = SPAN(2, num_feat=8, reparameterised=True).double()
        merged.load_state_dict({name: state[name] for name in merged.state_dict()})
        torch.testing.assert_close(merged(lq), each(lq), rtol=1e-9, atol=1e-9)


def test_a_saved_kernel_that_is_out_of_date_does_no_harm():
    net = branched().eval()
    state = net.state_dict()
    state["conv_1.eval_conv.weight"] = torch.full_like(state["conv_1.eval_conv.weight"], 9.0)
    other = SPAN(2, num_feat=8).eval()
    other.load_state_dict(state)
    lq = image(net, 9, 7)
    assert torch.equal(other(lq), net(lq))


def test_a_merged_copy_keeps_settings_and_shares_nothing():
    net = build(lambda: SPAN(3, 1, 1, num_feat=4, img_range=2.0, rgb_mean=(0.3,))).double().eval()
    lq = image(net, 5, 6).double()
    merged = net.merged()
    assert not merged.training
    torch.testing.assert_close(merged(lq), net(lq))
    again = merged.merged()
    with torch.no_grad():
        merged.conv_cat.weight.zero_()
    torch.testing.assert_close(again(lq), net(lq))
    assert all(weights.requires_grad for weights in again.parameters())


def test_input_is_centred_and_scaled_as_published():
    net = branched()
    seen = []
    net.conv_1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.tensor([0.4488, 0.4371, 1.4040]).view(1, 3, 1, 1))
    torch.testing.assert_close(
        seen[0].flatten(), torch.tensor([0.0, 0.0, 255.0]), rtol=1e-5, atol=1e-4
    )
    assert "mean" not in net.state_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -2}, "scale must be one of"),
        ({"num_feat": 0}, "num_feat must be"),
        ({"img_range": 0.0}, "img_range must be above 0; got 0.0"),
        ({"rgb_mean": (0.5,)}, r"rgb_mean must have in_channels \(3\) values"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"SPAN: {message}"):
        SPAN(**{"scale": 2, **arguments})


NEUTRAL = {"img_range": 1.0, "rgb_mean": (0.0, 0.0, 0.0)}


def test_weights_for_an_input_as_it_is_load_where_it_is():
    """Most SPANs of the community carry a mark, which is no weight."""
    source = SPAN(2, num_feat=8, **NEUTRAL)
    marked = Weights({**source.state_dict(), "no_norm": torch.zeros(1)}, None, Path("other.pth"))
    net = SPAN(2, num_feat=8, **NEUTRAL)
    load_into(net, marked)
    assert torch.equal(net.conv_cat.weight, source.conv_cat.weight)
    with pytest.raises(CheckpointError) as caught:
        load_into(SPAN(2, num_feat=8), marked)
    assert "1 unknown to the network: no_norm" in str(caught.value)
    assert "for that: arch.img_range=1 'arch.rgb_mean=[0,0,0]'" in str(caught.value)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"num_feat": 12}, "num_feat 12 (here 8); for that: arch.num_feat=12"),
        ({"scale": 4}, "scale 4 (here 2); for that: scale=4"),
        ({"reparameterised": True}, "for that: arch.reparameterised=true"),
    ],
)
def test_other_sizes_are_told_with_the_values_of_the_file(there, told):
    small = {"scale": 2, "num_feat": 8}
    hint = fit_of(SPAN(**small), SPAN(**{**small, **there}).state_dict()).hint
    assert hint is not None
    assert told in hint


def test_of_weights_of_something_else_nothing_is_told():
    assert fit_of(branched(), {"a": torch.zeros(1)}).hint is None
