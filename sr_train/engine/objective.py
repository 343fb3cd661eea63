"""The weighted loss terms of a learner, summed in fp32."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sr_train.engine.context import ASKABLE, StepContext
from sr_train.ops.errors import ConfigError, did_you_mean

TARGETS = {"gt": "gt", "lq": "lq_up"}
COLOURS = ("native", "y", "cbcr")
_PICTURES = {"pred", "target", "gt", "lq_up", "ema_pred", "lq"}


@dataclass(frozen=True)
class Verdict:
    """A total that carries a graph, and what to log of it."""

    total: Tensor
    terms: dict[str, Tensor]
    """Unweighted value of each term, detached."""


class Term(nn.Module):
    """One loss with its weight, its target and its colour space.

    Args:
        name: key in the log.
        loss: a module whose forward names what it needs (see `ASKABLE`).
        weight: factor in the total; its sign counts; zero is an error.
        target: what `target` means to the loss: `gt`, or `lq` upscaled by bicubic.
        colour: `native` (the network's own), `y`, or `cbcr`.
    """

    def __init__(
        self,
        name: str,
        loss: nn.Module,
        weight: float = 1.0,
        target: str = "gt",
        colour: str = "native",
    ) -> None:
        super().__init__()
        where = f"objective.{name}"
        if weight == 0 or not math.isfinite(weight):
            raise ConfigError(f"{where}.weight={weight}: expected a finite number other than zero")
        if target not in TARGETS:
            raise ConfigError(f"{where}.target={target}: unknown{did_you_mean(target, TARGETS)}")
        if colour not in COLOURS:
            raise ConfigError(f"{where}.colour={colour}: unknown{did_you_mean(colour, COLOURS)}")
        self.name = name
        self.loss = loss
        self.weight = weight
        self.target = target
        self.colour = colour
        self.asks = asked_by(loss, where)

    def forward(self, ctx: StepContext) -> Tensor:
        return self.loss(**{name: self._value(ctx, name) for name in self.asks})

    def _value(self, ctx: StepContext, name: str) -> Tensor | int:
        if name not in _PICTURES:
            return getattr(ctx, name)
        source = TARGETS[self.target] if name == "target" else name
        return ctx.picture(source, self.colour)


def asked_by(loss: nn.Module, where: str) -> list[str]:
    """Return the names a loss asks for by the parameters of its `forward`.

    Raises:
        ConfigError: if it asks for something the context does not have.
    """
    names = []
    for name, parameter in inspect.signature(loss.forward).parameters.items():
        if name in ASKABLE:
            names.append(name)
        elif parameter.default is inspect.Parameter.empty:
            raise ConfigError(
                f"{where}.loss: {type(loss).__name__}.forward asks for {name!r}, which a step "
                f"does not have{did_you_mean(name, ASKABLE)}"
            )
    return names


class Objective(nn.Module):
    """Sum weighted terms in fp32 with autocast off.

    Args:
        terms: at least one.
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise ConfigError("objective: no term; expected at least one, for example [l1]")
        self.terms = nn.ModuleDict(terms)

    def forward(self, ctx: StepContext) -> Verdict:
        ctx_values: dict[str, Tensor] = {}
        weighted = []
        device_type = ctx.pred.device.type
        with torch.autocast(device_type, enabled=False):
            for name, term in self.terms.items():
                value = term(ctx).float()
                ctx_values[name] = value.detach()
                weighted.append(value * term.weight)
            total = weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()
        return Verdict(total, ctx_values)
