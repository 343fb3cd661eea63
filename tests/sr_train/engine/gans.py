"""A toy GAN, and what the tests of its step share."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from archs.unet_discriminator import UNetDiscriminatorSN
from losses.gan import DiscriminatorLoss, GeneratorLoss
from losses.pixel import L1Loss
from sr_train.api import loss_inputs
from sr_train.config.settings import LossScaleConfig, ObjectiveTermConfig
from sr_train.engine.adversary import Adversary, Pace
from sr_train.engine.averages import Ema
from sr_train.engine.learner import Learner
from sr_train.engine.model import SRModel
from sr_train.engine.objective import Objective, Term
from sr_train.engine.precision import LossScaler, Precision, resolve_precision
from sr_train.engine.schedule import Constant, Schedule

from .conftest import CPU, TinyNet

PRECISIONS = ("fp32", "bf16", "fp16")


def generator_term(name: str, loss: nn.Module, weight: float = 1.0) -> Term:
    """Return a term of the generator that may ask for the discriminator."""
    return Term(
        name,
        loss,
        ObjectiveTermConfig(weight=weight),
        available_inputs=loss_inputs.GENERATOR + loss_inputs.DISCRIMINATOR_INPUTS,
    )


def discriminator_term(name: str, loss: nn.Module, weight: float = 1.0, start: int = 0) -> Term:
    """Return a term of the discriminator."""
    return Term(
        name,
        loss,
        ObjectiveTermConfig(weight=weight, start=start),
        group="objective_d",
        available_inputs=loss_inputs.ADVERSARY,
    )


def make_gan(
    precision: str = "fp32",
    *,
    net: nn.Module | None = None,
    critic: nn.Module | None = None,
    frames: int | None = None,
    terms: dict[str, Term] | None = None,
    terms_d: dict[str, Term] | None = None,
    pace: Pace | None = None,
    accum: int = 1,
    max_norm: float | None = None,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 1e-2,
    schedule: Schedule | None = None,
    init_scale: float = 65536.0,
    growth_interval: int = 2000,
    device: torch.device = CPU,
) -> SRModel:
    """Return a model with a tiny generator and the U-Net discriminator, always the same."""
    torch.manual_seed(0)
    net = (TinyNet() if net is None else net).to(device)
    critic = (UNetDiscriminatorSN(num_feat=4) if critic is None else critic).to(device)
    resolved = resolve_precision(precision, device)

    def learner(module: nn.Module, limit: float | None) -> Learner:
        return Learner(
            module,
            optimizer(module.parameters(), lr=lr, fused=True),
            schedule=schedule or Constant(),
            scaler=_scaler(resolved, init_scale, growth_interval),
            max_norm=limit,
        )

    usual = {
        "l1": generator_term("l1", L1Loss()),
        "gan": generator_term("gan", GeneratorLoss(), 0.1),
    }
    objective_d = Objective(
        terms_d or {"gan": discriminator_term("gan", DiscriminatorLoss())}, "objective_d"
    )
    model = SRModel(
        learner(net, None),
        net.spec,
        Objective(terms or usual),
        resolved,
        {"ema": Ema(net)},
        adversary=Adversary(learner(critic, max_norm), objective_d, pace or Pace(), frames),
    )
    model.micro_batches = accum
    return model


def _scaler(precision: Precision, init_scale: float, growth_interval: int) -> LossScaler:
    return LossScaler(
        precision.device,
        dynamic=precision.scales_loss,
        settings=LossScaleConfig(init_scale=init_scale, growth_interval=growth_interval),
    )


def run(
    model: SRModel, batches: Sequence[Mapping[str, Tensor]], last: Sequence[bool] | None = None
) -> None:
    """Take micro-batches, each of them a step unless `last` says otherwise."""
    for number, batch in enumerate(batches):
        model.optimize_parameters(batch, last_micro_batch=last[number] if last else True)


def state_of(model: SRModel, learner: str) -> dict[str, Any]:
    """Return a copy of all that a step of a learner may move, but for its counters."""
    each = model.learners[learner]
    state = {
        "weights": dict(each.net.named_parameters()),
        "moments": each.optimizer.state_dict()["state"],
        "lr": [group["lr"] for group in each.optimizer.param_groups],
    }
    if learner == "g":
        state["ema"] = model.averages["ema"].state_dict()
    return copy.deepcopy(state)


def gradients(learner: Learner) -> list[Tensor]:
    """Return copies of the gradients of every parameter."""
    return [p.grad.clone() for p in learner.parameters if p.grad is not None]
