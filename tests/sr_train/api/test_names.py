import copy

import pytest
import torch
from torch import nn

from sr_train.api.names import accept_other_names, to_own_names


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(1))
        accept_other_names(self)

    def own_name(self, name):
        return {"weight": "kernel"}.get(name, name)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.last = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("name", ["inner.weight", "inner.kernel"])
def test_other_names_and_own_ones_load_strictly(name):
    """Also where the module lies inside another one, and in a copy of it."""
    net = copy.deepcopy(Outer())
    state = {name: torch.ones(1), "last": torch.ones(1)}
    net.load_state_dict(state)
    assert net.inner.kernel.item() == 1.0
    assert set(state) == {name, "last"}
    assert set(to_own_names(net, state)) == {"inner.kernel", "last"}


def test_a_name_is_changed_only_where_the_module_is():
    with pytest.raises(RuntimeError, match=r'Missing key.*"inner.kernel"'):
        Outer().load_state_dict({"weight": torch.ones(1), "last": torch.ones(1)})
