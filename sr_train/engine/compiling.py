"""torch.compile where it can be had, and why not where it cannot."""

import logging

import torch
from torch import Tensor, nn

from sr_train.engine.precision import Precision
from sr_train.engine.untouched import untouched
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)


def compile_or_tell(net: nn.Module, sample: Tensor, precision: Precision, where: str) -> bool:
    """Compile a network in place, and try it before a run depends on it.

    One forward and backward are run, of the shapes of training, so that this is also the
    compilation that training uses. Weights, buffers and random numbers are left as they were. A
    network that cannot be compiled stays as it is, and the log says which and why; one that
    compiles only in several parts is reported with the reason of the break.

    Args:
        net: on its device, as it is trained.
        sample: an input of the shape of a micro-batch.
        precision: of the forward.
        where: config path, for the log.

    Returns:
        Whether it is compiled now.
    """
    name = type(net).__name__
    counters = torch._dynamo.utils.counters
    before = dict(counters["graph_break"])
    net.compile()
    try:
        _try(net, sample, precision)
    except Exception as err:
        if is_out_of_memory(err):
            return True  # a matter of the step, which knows how to continue
        net._compiled_call_impl = None  # what nn.Module.compile sets; there is no public undo
        _try(net, sample, precision)  # an error of the network itself is not one of compiling
        log.warning(
            "warning: %s: %s cannot be compiled, it runs as it is: %s", where, name, _reason(err)
        )
        return False
    breaks = [reason for reason in counters["graph_break"] if reason not in before]
    if breaks:
        log.info("%s: %s is compiled in parts: %s", where, name, breaks[0].split("\n")[0])
    else:
        log.info("%s: %s is compiled as a whole", where, name)
    return True


def _try(net: nn.Module, sample: Tensor, precision: Precision) -> None:
    """Run forward and backward, and leave no trace."""
    with untouched(net):
        with precision.autocast():
            made = net(sample)
        parts = [made] if isinstance(made, Tensor) else list(made)
        torch.stack([part.float().mean() for part in parts]).sum().backward()


def _reason(err: Exception) -> str:
    """Return the lines of a compiler's error that say what it met."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return f"{type(err).__name__}: {' '.join(lines[:2]) or 'no reason given'}"
