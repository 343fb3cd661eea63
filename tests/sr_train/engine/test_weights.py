import pytest
import torch

from sr_train.engine.weights import read_weights


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net_g.module."],
)
def test_wrappers_leave_no_prefix_in_whatever_order(tmp_path, prefix):
    path = tmp_path / "other.pth"
    torch.save({"params": {f"{prefix}{name}": torch.ones(1) for name in ("a.w", "b.w")}}, path)
    assert list(read_weights(path).tensors) == ["a.w", "b.w"]


def test_a_prefix_that_only_some_names_have_is_part_of_them(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"module.w": torch.ones(1), "w": torch.ones(1)}, path)
    assert list(read_weights(path).tensors) == ["module.w", "w"]
