"""The model and its one training step."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sr_train.api.errors import CheckpointError
from sr_train.api.network import NetSpec
from sr_train.engine.adversary import Adversary, frozen
from sr_train.engine.context import StepContext
from sr_train.engine.ema import AveragedWeights, Ema
from sr_train.engine.health import HealthProbe
from sr_train.engine.learner import Learner, StepOutcome
from sr_train.engine.objective import LossOutput, Objective
from sr_train.engine.own_average import OptimizerAverage
from sr_train.engine.precision import Precision
from sr_train.engine.sharding import fill_full_net, split_weights
from sr_train.engine.state_fit import check_fits
from sr_train.engine.swa import Swa
from sr_train.monitoring.meter import Meter
from sr_train.ops.colour import YCbCr


class SRModel:
    """A generator with its objective and averaged copy, perhaps a discriminator, and their step.

    Args:
        generator: the network that learns.
        spec: what the network says about itself.
        objective: the generator's loss terms.
        precision: autocast of every forward.
        ema: the averaged generator, an EMA or what the optimizer averages by itself, or None.
        swa: the mean of the generator along the end of a run, or None.
        adversary: the discriminator, or None.
        channels_last: hand 4-D inputs to the networks in that memory format.
        micro_batches: that make one step, of equal size.
        full_net: a whole copy of a generator that is split over ranks, for use; None: it is whole.
    """

    def __init__(
        self,
        generator: Learner,
        spec: NetSpec,
        objective: Objective,
        precision: Precision,
        ema: Ema | OptimizerAverage | None = None,
        swa: Swa | None = None,
        adversary: Adversary | None = None,
        channels_last: bool = False,
        micro_batches: int = 1,
        full_net: nn.Module | None = None,
    ) -> None:
        self.generator = generator
        self.spec = spec
        self.precision = precision
        self.device = precision.device
        self.objective = objective.to(self.device)
        self.ema = ema
        self.swa = swa
        self.adversary = adversary
        self.micro_batches = micro_batches
        self.wants_features = bool(objective.required_inputs & {"fake_features", "real_features"})
        self.discriminator_frames = None if adversary is None else adversary.frames
        self.ycbcr = YCbCr().to(self.device)
        self.meter = Meter()
        self.probe = HealthProbe(self.meter, self.ycbcr)
        self._channels_last = channels_last
        self._full_net = full_net

    def optimize_parameters(self, batch: Mapping[str, Tensor], *, last_micro_batch: bool) -> None:
        """Learn from one micro-batch; on the last of a step, move weights and averages.

        Nothing here waits for the device.

        Args:
            batch: `lq` (B, C, H, W) and `gt` (B, C, H*scale, W*scale), or clips with T behind B,
                uint8, uint16 or float in [0, 1], on any device; and the generator's extra inputs
                by name, on the grid of `lq`, whose values are taken as they are.
            last_micro_batch: False keeps the gradient for the next micro-batch.
        """
        ctx = StepContext(self, batch)
        share = 1.0 / self.micro_batches
        with self.generator.synchronised(last_micro_batch), self._frozen_discriminator():
            losses = self.objective(ctx)
            self.probe.look(ctx, losses, self.generator.scaler.scale)
            self.generator.accumulate(losses.total, share)
        self._note("loss", losses)
        adversary = self.adversary
        if adversary is not None and not adversary.pace.due(ctx.step):
            adversary = None
        if adversary is not None:
            losses_d, stats_d = adversary.accumulate(ctx, self, share, last_micro_batch)
            self._note("loss_d", losses_d)
            for name, value in stats_d.items():
                self.meter.add(name, value)
        if last_micro_batch:
            outcome = self._note_step("g", self.generator.step())
            if adversary is not None:
                self._note_step("d", adversary.learner.step())
            if self.ema is not None:
                self.ema.update(outcome.applied)
            if self.swa is not None:
                self.swa.update(outcome.applied, self.generator.steps)

    def _frozen_discriminator(self) -> AbstractContextManager[None]:
        return nullcontext() if self.discriminator is None else frozen(self.discriminator.net)

    def _note(self, group: str, losses: LossOutput) -> None:
        self.meter.add(f"{group}/total", losses.total.detach())
        for name, value in losses.terms.items():
            self.meter.add(f"{group}/{name}", value.detach())

    def _note_step(self, learner: str, outcome: StepOutcome) -> StepOutcome:
        self.meter.add(f"grad_norm/{learner}", outcome.grad_norm)
        self.meter.add(f"clip_fraction/{learner}", outcome.clipped)
        return outcome

    @property
    def discriminator(self) -> Learner | None:
        """The discriminator as a network that learns."""
        return None if self.adversary is None else self.adversary.learner

    @property
    def learners(self) -> dict[str, Learner]:
        """Every network that learns, by its name in the log: `g`, and `d` where there is one."""
        found = {"g": self.generator}
        if self.discriminator is not None:
            found["d"] = self.discriminator
        return found

    @property
    def kind_for_use(self) -> str:
        """Which weights to validate and to ship: `ema` where there are, `swa`, or `live`."""
        if self.ema is not None:
            return "ema"
        return "swa" if self.swa is not None and self.swa.started else "live"

    def net_for_use(self, kind: str | None = None) -> nn.Module:
        """Return the whole network of some weights; a collective where the generator is split.

        Args:
            kind: `ema`, `swa` or `live`; None: `kind_for_use`.
        """
        nets = {"ema": self.ema, "swa": self.swa, "live": self.generator}
        chosen = nets[kind or self.kind_for_use]
        assert chosen is not None
        return chosen.net if self._full_net is None else fill_full_net(self._full_net, chosen.net)

    def use_precision(self, precision: Precision) -> None:
        """Go on in another precision; loss scales start anew where it needs them."""
        self.precision = precision
        for learner in self.learners.values():
            learner.scaler.switch(precision.scales_loss)

    def layout(self, image: Tensor) -> Tensor:
        """Bring a 4-D input into the memory format of the networks' weights; clips stay."""
        return to_layout(image, self._channels_last)

    @property
    def updating(self) -> bool:
        """Whether an optimizer was at work when the last step broke off."""
        return any(learner.updating for learner in self.learners.values())

    def discard_gradients(self) -> None:
        """Drop the gradients of a step that was begun."""
        for learner in self.learners.values():
            learner.discard_gradients()

    def state_dict(self) -> dict[str, object]:
        """Return tensors and plain Python: all that a resume needs of the model."""
        return {
            "net_g": self.generator.net.state_dict(),
            "generator": self.generator.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "swa": None if self.swa is None else self.swa.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> list[str]:
        """Take up stored state, written in any precision.

        Returns:
            What was kept and what was dropped, one phrase each.

        Raises:
            CheckpointError: if the weights do not fit the networks.
        """
        check_fits(state, self)
        weights, learner = state["net_g"], state["generator"]
        assert isinstance(weights, dict)
        assert isinstance(learner, dict)
        try:
            net = self.generator.net
            net.load_state_dict(split_weights(weights, net))
            notes = self.generator.load_state_dict(learner)
            notes += self._load_adversary(state["adversary"])
        except RuntimeError as err:
            raise CheckpointError(f"the stored weights do not fit the network: {err}") from err
        notes += _load_average("averaged weights", self.ema, state["ema"], weights)
        return notes + _load_average("SWA weights", self.swa, state["swa"], weights)

    def _load_adversary(self, stored: object) -> list[str]:
        if self.adversary is None:
            return [] if stored is None else ["stored discriminator dropped"]
        if isinstance(stored, dict):
            return self.adversary.load_state_dict(stored)
        return ["no discriminator stored, it starts as configured"]


def to_layout(image: Tensor, channels_last: bool) -> Tensor:
    """Return a 4-D input in NHWC where that is wanted; anything else as it is."""
    if channels_last and image.ndim == 4:
        return image.contiguous(memory_format=torch.channels_last)
    return image


def _load_average(
    label: str, average: AveragedWeights | None, stored: object, weights: Mapping[str, Tensor]
) -> list[str]:
    if average is None:
        return [] if stored is None else [f"stored {label} dropped"]
    if isinstance(stored, dict):
        average.load_state_dict(stored)
        return [f"{label} kept"]
    average.net.load_state_dict(split_weights(dict(weights), average.net))
    return [f"no {label} stored, starting from the live ones"]
