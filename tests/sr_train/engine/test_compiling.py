"""A network is compiled, or it is said before the run which one is not and why."""

import logging

import pytest
import torch
from torch import nn

from sr_train.engine.compiling import compile_or_tell
from sr_train.engine.precision import resolve_precision

COMPILE = nn.Module.compile
FP32 = resolve_precision("fp32", torch.device("cpu"))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.body(lq)


class Breaks(Plain):
    """Looks at a value, which no graph can hold."""

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        found = self.body(lq)
        return found * 2 if float(found.mean()) > 100 else found


class Faulty(Plain):
    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.body(lq.flatten(1))


@pytest.fixture(autouse=True)
def graphs_alone(monkeypatch):
    """Compile graphs without making machine code of them, which takes seconds."""
    monkeypatch.setattr(nn.Module, "compile", lambda net: COMPILE(net, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "sr_train")
    return lambda: caplog.records


def sample():
    return torch.rand(2, 3, 8, 8)


def test_a_network_is_compiled_as_a_whole_and_left_as_it_was(told):
    torch.manual_seed(0)
    net = Plain()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert compile_or_tell(net, sample(), FP32, "net_g.compile")
    drawn = torch.get_rng_state()
    torch.set_rng_state(state)
    sample()
    assert torch.equal(drawn, torch.get_rng_state()), "the trial draws nothing"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert "Plain is compiled as a whole" in told()[-1].message
    assert net._compiled_call_impl is not None


def test_parts_are_told_with_the_reason(told):
    assert compile_or_tell(Breaks(), sample(), FP32, "net_g.compile")
    assert "net_g.compile: Breaks is compiled in parts: " in told()[-1].message
    assert "item" in told()[-1].message.lower()


def test_what_cannot_be_compiled_is_named_and_runs_as_it_is(told, monkeypatch):
    def refuse(graph, inputs):
        raise NotImplementedError("no kernel for this")

    monkeypatch.setattr(nn.Module, "compile", lambda net: COMPILE(net, backend=refuse))
    net = Plain()
    assert not compile_or_tell(net, sample(), FP32, "net_g.compile")
    assert told()[-1].levelno == logging.WARNING
    assert "net_g.compile: Plain cannot be compiled" in told()[-1].message
    assert "no kernel for this" in told()[-1].message
    assert net(sample()).shape == (2, 4, 8, 8)


def test_an_error_of_the_network_itself_is_not_hidden():
    with pytest.raises(RuntimeError, match=r"(?i)expected .* input"):
        compile_or_tell(Faulty(), sample(), FP32, "net_g.compile")


def test_memory_that_runs_out_is_a_matter_of_the_step(monkeypatch):
    net = Plain()

    def short(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(net.body, "forward", short)
    assert compile_or_tell(net, sample(), FP32, "net_g.compile")
