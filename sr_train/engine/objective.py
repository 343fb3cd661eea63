"""The weighted loss terms of a learner, summed in fp32."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sr_train.api.errors import ConfigError, PluginError
from sr_train.api.loss_inputs import GENERATOR, IMAGES, TARGETS, resolve_inputs
from sr_train.config.settings import ObjectiveTermConfig, check
from sr_train.engine.context import LossInputs
from sr_train.engine.distributed import fault_of_ranks
from sr_train.inference.calling import kind_of
from sr_train.utils.failures import naming


@dataclass(frozen=True)
class LossOutput:
    """A total that carries a graph, and the terms it is the sum of."""

    total: Tensor
    terms: dict[str, Tensor]
    """Unweighted value of each term that counts at this step, with its graph."""
    weights: dict[str, float]
    """Weight of each of them at this step."""

    def scalars(self, group: str) -> dict[str, Tensor]:
        """Return the detached values for the log: `group/total` and `group/TERM`."""
        named = {"total": self.total, **self.terms}
        return {f"{group}/{name}": value.detach() for name, value in named.items()}


class Term(nn.Module):
    """One loss with its weight, its target, its colour space and when it sets in.

    Args:
        name: key in the log.
        loss: a module whose forward names what it needs (see sr_train.api.loss_inputs).
        settings: its weight, target, colour, start and ramp.
        group: name of the config group, for messages.
        available_inputs: names the loss may ask for.
    """

    def __init__(
        self,
        name: str,
        loss: nn.Module,
        settings: ObjectiveTermConfig | None = None,
        *,
        group: str = "objective",
        available_inputs: Collection[str] = GENERATOR,
    ) -> None:
        super().__init__()
        where = f"{group}.{name}"
        settings = ObjectiveTermConfig() if settings is None else settings
        check(settings, where)
        self.name = name
        self.where = where
        self.loss = loss
        self.weight = settings.weight
        self.target = settings.target
        self.colour = settings.colour
        self.start = settings.start
        self.ramp = settings.ramp
        self.required_inputs = resolve_inputs(loss.forward, where, available_inputs)

    def forward(self, inputs: LossInputs) -> Tensor:
        given = {name: self._value(inputs, name) for name in self.required_inputs}

        def in_words() -> str:
            return ", ".join(f"{name}: {kind_of(value)}" for name, value in given.items())

        tensors = {name: each for name, each in given.items() if isinstance(each, Tensor)}
        versions = {name: each._version for name, each in tensors.items()}
        with naming(f"{self.where}.loss", self.loss, in_words, _goes_through):
            try:
                value = self.loss(**given)
            except ValueError as err:  # images that do not fit the loss
                raise ConfigError(f"{self.where}: {err}") from err
        for name, version in versions.items():
            if tensors[name]._version != version:
                raise PluginError(
                    f"{self.where}.loss: {type(self.loss).__name__} changed {name!r} in place, "
                    "which other terms use too; let it work on a copy: x = x * 2, not x.mul_(2)"
                )
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise PluginError(
                f"{self.where}.loss: {type(self.loss).__name__} returned {kind_of(value)}; "
                "expected a tensor of one number"
            )
        return value.reshape(()).float()

    def weight_at(self, step: int) -> float:
        """Return the weight at a step (1 for the first); 0.0 before the term's start."""
        if step <= self.start:
            return 0.0
        return self.weight * min(1.0, (step - self.start) / (self.ramp + 1))

    def _value(self, inputs: LossInputs, name: str) -> object:
        if name not in IMAGES:
            return getattr(inputs, name)
        source = TARGETS[self.target] if name == "target" else name
        return inputs.image(source, self.colour)


def _goes_through(err: Exception) -> bool:
    return fault_of_ranks(err) is not None


class Objective(nn.Module):
    """Sum weighted terms in fp32 with autocast off.

    Args:
        terms: at least one, and at least one that counts from the first step.
        group: name of the config group, for messages.
    """

    def __init__(self, terms: Mapping[str, Term], group: str = "objective") -> None:
        super().__init__()
        if not terms:
            raise ConfigError(f"{group}: no term; expected at least one")
        if all(term.start > 0 for term in terms.values()):
            raise ConfigError(f"{group}: no term counts from the first step; set one's start=0")
        self.group = group
        self.terms: dict[str, Term] = dict(terms)
        self._modules.update(terms)

    @property
    def required_inputs(self) -> set[str]:
        """Every name that some term asks for."""
        return {name for term in self.terms.values() for name in term.required_inputs}

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Return the sum of the terms that count at the step of the inputs."""
        values: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        weighted = []
        with torch.autocast(inputs.device.type, enabled=False):
            for name, term in self.terms.items():
                weight = term.weight_at(inputs.step)
                if weight != 0.0:
                    values[name], weights[name] = term(inputs), weight
                    weighted.append(values[name] * weight)
            total = weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()
        if torch.is_grad_enabled() and not total.requires_grad:
            raise PluginError(
                f"{self.group}: no gradient leads from its terms ({', '.join(values)}) to the "
                "weights; is the prediction detached, or made under torch.no_grad()?"
            )
        return LossOutput(total, values, weights)
