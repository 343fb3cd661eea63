import math

import pytest
import torch

from archs.imdn import IMDN, ContrastAttention
from sr_train.api.errors import ConfigError


@pytest.mark.parametrize(("scale", "count"), [(2, 694_404), (3, 703_059), (4, 715_176)])
def test_names_shapes_and_count_are_the_published_ones(scale, count):
    state = {name: tuple(value.shape) for name, value in IMDN(scale).state_dict().items()}
    assert len(state) == 92
    assert state["fea_conv.weight"] == (64, 3, 3, 3)
    assert state["IMDB1.c2.weight"] == (64, 48, 3, 3)
    assert state["IMDB6.c4.weight"] == (16, 48, 3, 3)
    assert state["IMDB6.cca.conv_du.0.weight"] == (4, 64, 1, 1)
    assert state["IMDB6.cca.conv_du.2.bias"] == (64,)
    assert state["c.0.weight"] == (64, 384, 1, 1)
    assert state["LR_conv.weight"] == (64, 64, 3, 3)
    assert state["upsampler.0.weight"] == (3 * scale**2, 64, 3, 3)
    assert sum(math.prod(shape) for shape in state.values()) == count


def test_attention_weighs_by_mean_plus_population_deviation():
    attention = ContrastAttention(16)
    x = torch.rand(2, 16, 5, 7)
    contrast = x.std((2, 3), correction=0, keepdim=True) + x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(attention(x), x * attention.conv_du(contrast))


def test_attention_keeps_small_contrast_of_half_precision():
    """A variance of 1e-8 is 0 in half precision; the deviation of 1e-4 is not."""
    attention = ContrastAttention(16).half()
    seen = []
    attention.conv_du.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.zeros(1, 16, 2, 2, dtype=torch.float16)
    x[..., 0] = 2e-4
    attention(x)
    torch.testing.assert_close(seen[0].float(), torch.full((1, 16, 1, 1), 2e-4), rtol=0.05, atol=0)


def test_has_no_bounded_receptive_field():
    assert IMDN(2, num_feat=16).spec.receptive_field is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "scale must be one of"),
        ({"num_feat": 8}, "num_feat must be an integer of at least 16"),
        ({"num_feat": 30}, "num_feat must be a multiple of 4; got 30, nearest: 28, 32"),
        ({"num_block": 0}, "num_block must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"IMDN: {message}"):
        IMDN(**{"scale": 2, **arguments})
