from collections.abc import Callable

import pytest
import torch
from torch import nn

from losses.pixel import L1Loss
from sr_train.api.network import NetSpec
from sr_train.config.settings import LossScaleConfig
from sr_train.engine.averages import Ema
from sr_train.engine.learner import Learner
from sr_train.engine.model import SRModel
from sr_train.engine.objective import Objective, Term
from sr_train.engine.precision import LossScaler, resolve_precision
from sr_train.engine.schedule import Constant, Schedule

CPU = torch.device("cpu")


class TinyNet(nn.Module):
    """Two convolutions and a pixel shuffle, x2."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = NetSpec(scale=2, receptive_field=2)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.last(torch.relu(self.first(lq))), 2)


def pieces(batch: dict[str, torch.Tensor], count: int) -> list[dict[str, torch.Tensor]]:
    """Return a batch in equal micro-batches."""
    return [
        {name: value.chunk(count)[number] for name, value in batch.items()}
        for number in range(count)
    ]


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    def make(seed: int = 0, size: int = 8, count: int = 4) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def pixels(side: int) -> torch.Tensor:
            shape = (count, 3, side, side)
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

        return {"lq": pixels(size), "gt": pixels(2 * size)}

    return make


@pytest.fixture
def make_model() -> Callable[..., SRModel]:
    def make(
        precision: str = "fp32",
        *,
        terms: dict[str, Term] | None = None,
        accum: int = 1,
        max_norm: float | None = None,
        lr: float = 1e-2,
        schedule: Schedule | None = None,
        ema: bool = True,
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
        fused: bool = True,
        growth_interval: int = 2000,
        net: nn.Module | None = None,
        device: torch.device = CPU,
    ) -> SRModel:
        torch.manual_seed(0)
        net = (TinyNet() if net is None else net).to(device)
        resolved = resolve_precision(precision, device)
        learner = Learner(
            net,
            optimizer(net.parameters(), lr=lr, fused=fused),
            schedule=schedule or Constant(),
            scaler=LossScaler(
                device,
                dynamic=resolved.scales_loss,
                settings=LossScaleConfig(growth_interval=growth_interval),
            ),
            max_norm=max_norm,
        )
        objective = Objective(terms or {"l1": Term("l1", L1Loss())})
        averages = {"ema": Ema(net)} if ema else {}
        model = SRModel(learner, net.spec, objective, resolved, averages)
        model.micro_batches = accum
        return model

    return make
