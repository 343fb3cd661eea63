"""The model and its one training step."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sr_train.engine.context import StepContext
from sr_train.engine.ema import Ema
from sr_train.engine.learner import Learner
from sr_train.engine.objective import Objective
from sr_train.engine.precision import Precision
from sr_train.monitoring.meter import Meter
from sr_train.ops.colour import YCbCr
from sr_train.ops.errors import CheckpointError
from sr_train.ops.spec import NetSpec


class SRModel:
    """A generator with its objective and averaged copy, and the step that trains it.

    Args:
        generator: the network that learns.
        spec: what the network says about itself.
        objective: the loss terms.
        precision: autocast of every forward.
        ema: the averaged generator, or None.
        channels_last: hand 4-D inputs to the network in that memory format.
    """

    def __init__(
        self,
        generator: Learner,
        spec: NetSpec,
        objective: Objective,
        precision: Precision,
        ema: Ema | None = None,
        channels_last: bool = False,
    ) -> None:
        self.generator = generator
        self.spec = spec
        self.precision = precision
        self.device = precision.device
        self.objective = objective.to(self.device)
        self.ema = ema
        self.ycbcr = YCbCr().to(self.device)
        self.meter = Meter()
        self._channels_last = channels_last

    def optimize_parameters(self, batch: Mapping[str, Tensor], *, last_micro_batch: bool) -> None:
        """Learn from one micro-batch; on the last of a step, move weights and averages.

        Nothing here waits for the device.

        Args:
            batch: `lq` (B, C, H, W) and `gt` (B, C, H*scale, W*scale), uint8, uint16 or float
                in [0, 1], on any device.
            last_micro_batch: False keeps the gradient for the next micro-batch.
        """
        ctx = StepContext(self, batch)
        verdict = self.objective(ctx)
        self.generator.accumulate(verdict.total)
        self.meter.add("loss/total", verdict.total.detach())
        for name, value in verdict.terms.items():
            self.meter.add(f"loss/{name}", value)
        if last_micro_batch:
            outcome = self.generator.step()
            if self.ema is not None:
                self.ema.update(outcome.applied)
            self.meter.add("grad_norm/g", outcome.grad_norm)
            self.meter.add("clip_fraction/g", outcome.clipped)

    @property
    def net_for_use(self) -> nn.Module:
        """The network to validate and to ship: the averaged one where there is one."""
        return self.generator.net if self.ema is None else self.ema.net

    def layout(self, picture: Tensor) -> Tensor:
        """Bring a 4-D input into the memory format of the network's weights."""
        if self._channels_last and picture.ndim == 4:
            return picture.contiguous(memory_format=torch.channels_last)
        return picture

    def state_dict(self) -> dict[str, object]:
        """Return tensors and plain Python: all that a resume needs of the model."""
        return {
            "net_g": self.generator.net.state_dict(),
            "generator": self.generator.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> list[str]:
        """Take up stored state, written in any precision.

        Returns:
            What was kept and what was dropped, one phrase each.

        Raises:
            CheckpointError: if the weights do not fit the network.
        """
        weights, learner, ema = state["net_g"], state["generator"], state["ema"]
        assert isinstance(weights, dict)
        assert isinstance(learner, dict)
        try:
            self.generator.net.load_state_dict(weights)
        except RuntimeError as err:
            raise CheckpointError(f"the stored weights do not fit the network: {err}") from err
        notes = self.generator.load_state_dict(learner)
        if self.ema is not None and isinstance(ema, dict):
            self.ema.load_state_dict(ema)
            notes.append("averaged weights kept")
        elif self.ema is not None:
            self.ema.net.load_state_dict(weights)
            notes.append("no averaged weights stored, starting from the live ones")
        elif ema is not None:
            notes.append("stored averaged weights dropped")
        return notes
