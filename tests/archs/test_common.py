import pytest
import torch

from archs.common import at_least_fp32, check_choice, check_count, colour_of, run_block
from sr_train.api.errors import ConfigError


def test_a_choice_names_network_argument_found_and_valid():
    check_choice("Net", "scale", 2, (2, 4))
    with pytest.raises(ConfigError, match=r"Net: scale must be one of 2, 4; got 3"):
        check_choice("Net", "scale", 3, (2, 4))


@pytest.mark.parametrize("found", [2.0, "2", True, None])
def test_a_choice_of_the_wrong_type_is_refused(found):
    with pytest.raises(ConfigError):
        check_choice("Net", "scale", found, (1, 2))


@pytest.mark.parametrize("found", [0, -3, 2.0, "2", True])
def test_a_count_must_be_an_integer_of_at_least_the_least(found):
    with pytest.raises(ConfigError, match="Net: num_feat must be an integer of at least 1"):
        check_count("Net", "num_feat", found)


def test_a_count_may_have_another_least():
    check_count("Net", "m", 0, least=0)
    with pytest.raises(ConfigError, match="at least 16"):
        check_count("Net", "num_feat", 8, least=16)


def test_one_channel_is_luma():
    assert colour_of(1, 1) == "y"
    assert colour_of(3, 3) == "rgb"
    assert colour_of(1, 3) == "rgb"


def test_only_narrow_types_are_widened():
    assert at_least_fp32(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
    assert at_least_fp32(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(("recompute", "runs"), [(False, 1), (True, 2)])
def test_a_block_runs_again_in_the_backward_pass_only_if_asked(recompute, runs):
    calls = []

    def block(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return x.sin()

    x = torch.ones(3, requires_grad=True)
    run_block(block, x, recompute=recompute).sum().backward()
    assert len(calls) == runs


def test_no_recomputation_without_gradients():
    with torch.no_grad():
        result = run_block(torch.sin, torch.ones(3, requires_grad=True), recompute=True)
    assert not result.requires_grad
