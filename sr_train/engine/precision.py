"""fp32, bf16 and fp16: which autocast a network runs under and how its loss is scaled."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.settings import LossScaleConfig, check

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A resolved precision: one dtype from which autocast and scaling both follow."""

    name: str
    device: torch.device
    reason: str
    """Why this one: `config` or what `auto` saw of the device."""

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.name]

    def autocast(self) -> AbstractContextManager[object]:
        """Return the region a network's forward runs in; neutral for fp32."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    @property
    def scales_loss(self) -> bool:
        """True where gradients would underflow without a loss scale."""
        return self.dtype == torch.float16


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Turn a configured name into a `Precision`; `auto` looks at the device.

    Raises:
        ConfigError: for an unknown name, or a dtype that the device cannot do.
    """
    if name == "auto":
        chosen, reason = _choose(device)
        return Precision(chosen, device, reason)
    if name not in DTYPES:
        raise ConfigError(f"precision.name={name}: unknown{did_you_mean(name, ['auto', *DTYPES])}")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise ConfigError(
            "precision.name=bf16: this GPU has no bfloat16 arithmetic; use precision=fp16 or fp32"
        )
    return Precision(name, device, "config")


def _choose(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(False):
            return "bf16", "the GPU has native bfloat16"
        return "fp16", "the GPU has half precision but no native bfloat16"
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        if features.get("avx512_bf16") or features.get("amx_bf16"):
            return "bf16", "the CPU has native bfloat16"
        return "fp32", "the CPU has no native bfloat16"
    return "fp32", f"half precision is not faster on {device.type} for every network"


class LossScaler:
    """The loss scale of one learner, its growth and back-off, all on the device.

    In fp16 the scale moves as Micikevicius et al. describe; elsewhere it stays at 1 and the
    scaler is only the guard that finds non-finite gradients. Nothing here waits for the device.

    Reference: Micikevicius et al., Mixed Precision Training, ICLR 2018,
        https://arxiv.org/abs/1710.03740

    Args:
        device: where the loss lives.
        dynamic: False keeps the scale at 1.
        settings: of the scale; unchecked ones raise a ConfigError.
    """

    def __init__(
        self, device: torch.device, *, dynamic: bool, settings: LossScaleConfig | None = None
    ) -> None:
        settings = LossScaleConfig() if settings is None else settings
        check(settings, "precision")
        self.dynamic = dynamic
        self.init_scale = settings.init_scale
        self.growth_factor = settings.growth_factor
        self.backoff_factor = settings.backoff_factor
        self.growth_interval = settings.growth_interval
        self.patience = 1
        """Times `growth_interval`: above 1, the scale grows less often than configured."""
        self.scale = torch.tensor(self.init_scale if dynamic else 1.0, device=device)
        self._zero = torch.zeros((), device=device)
        self.good_steps = torch.zeros((), device=device)
        self.num_growths = torch.zeros((), device=device)
        self.num_backoffs = torch.zeros((), device=device)

    def switch(self, dynamic: bool) -> None:
        """Begin or end to scale the loss, anew at the first scale; counts stay."""
        self.dynamic = dynamic
        self.scale.fill_(self.init_scale if dynamic else 1.0)
        self.good_steps.zero_()

    def seed(self, loss: Tensor, fraction: float) -> Tensor:
        """Return the gradient that a backward pass of the loss starts from: scale * fraction.

        It is NaN where the loss is not finite. A NaN in the loss need not reach the gradient by
        itself (the slope of |x| at NaN is 0); seeded like this it does, on this rank and, since
        gradients are averaged, on every other.

        Args:
            loss: fp32 scalar.
            fraction: of the step's samples that this loss is the mean of, in (0, 1].
        """
        scale = self.scale if fraction == 1.0 else self.scale * fraction
        return torch.addcmul(scale, loss.detach(), self._zero)

    @torch.no_grad()
    def unscale_(self, gradients: list[Tensor]) -> None:
        """Divide the gradients by the scale, in place; inf and NaN stay what they are."""
        if self.dynamic:
            torch._foreach_mul_(gradients, self.scale.reciprocal())

    @torch.no_grad()
    def update(self, found_inf: Tensor) -> None:
        """Move the scale after a step; `found_inf` is 1.0 where a gradient was not finite."""
        if not self.dynamic:
            return
        self.good_steps.add_(1.0).mul_(1.0 - found_inf)
        grow = (self.good_steps >= self.growth_interval * self.patience).float()
        self.good_steps.mul_(1.0 - grow)
        self.scale.mul_(1.0 + grow * (self.growth_factor - 1.0))
        self.scale.mul_(1.0 + found_inf * (self.backoff_factor - 1.0))
        self.num_growths.add_(grow)
        self.num_backoffs.add_(found_inf)

    def state_dict(self) -> dict[str, Tensor | bool]:
        """Return what a resume needs, in every precision: counts outlive a change of it."""
        return {"dynamic": self.dynamic, **self._counters()}

    def _counters(self) -> dict[str, Tensor]:
        return {
            "scale": self.scale,
            "good_steps": self.good_steps,
            "num_growths": self.num_growths,
            "num_backoffs": self.num_backoffs,
        }

    def load_state_dict(self, state: Mapping[str, Tensor | bool]) -> str:
        """Take up stored counts, and a stored scale where it is wanted; say what was done."""
        kept = self.dynamic and state["dynamic"]
        for name, value in self._counters().items():
            if kept or name.startswith("num_"):
                value.copy_(state[name])  # type: ignore[arg-type]
        if kept:
            return f"loss scale {float(self.scale):g} kept"
        if self.dynamic:
            return f"no loss scale stored, starting at {float(self.scale):g}"
        return "stored loss scale dropped" if state["dynamic"] else "no loss scale needed"
