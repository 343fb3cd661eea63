"""The model and its one training step."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sr_train.api.errors import CheckpointError
from sr_train.api.network import NetSpec
from sr_train.engine.adversary import Adversary, frozen
from sr_train.engine.averages import KINDS, AveragedWeights
from sr_train.engine.context import StepContext
from sr_train.engine.health import HealthProbe
from sr_train.engine.learner import Learner
from sr_train.engine.objective import Objective
from sr_train.engine.precision import Precision
from sr_train.engine.sharding import fill_full_net, split_weights
from sr_train.engine.state_fit import check_fits
from sr_train.monitoring.meter import Meter
from sr_train.ops.colour import YCbCr


class SRModel:
    """A generator with its objective and averages, perhaps a discriminator, and their step.

    Args:
        generator: the network that learns.
        spec: what the network says about itself.
        objective: the generator's loss terms.
        precision: autocast of every forward.
        averages: of the generator's weights by kind, `ema` (an EMA, or what the optimizer averages
            by itself) and `swa`; the first that holds something is used and shipped.
        adversary: the discriminator, or None.
        channels_last: hand 4-D inputs to the networks in that memory format.
        full_net: a whole copy of a generator that is split over ranks, for use; None: it is whole.
    """

    def __init__(
        self,
        generator: Learner,
        spec: NetSpec,
        objective: Objective,
        precision: Precision,
        averages: Mapping[str, AveragedWeights] | None = None,
        adversary: Adversary | None = None,
        channels_last: bool = False,
        full_net: nn.Module | None = None,
    ) -> None:
        self.generator = generator
        self.spec = spec
        self.precision = precision
        self.device = precision.device
        self.objective = objective.to(self.device)
        self.averages = dict(averages or {})
        self.adversary = adversary
        self.micro_batches = 1
        """That make the step under way, of equal size; see `sr_train.engine.micro_batches`."""
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
            batch: `lq` (B, C, H, W) and `gt` (B, C, H*scale, W*scale), or clips with T after B,
                uint8, uint16 or float in [0, 1], on any device; and the generator's extra inputs
                by name, on the grid of `lq`, whose values are taken as they are.
            last_micro_batch: False keeps the gradient for the next micro-batch.
        """
        ctx = StepContext(self, batch)
        fraction = 1.0 / self.micro_batches
        with self.generator.synchronised(last_micro_batch), self._frozen_discriminator():
            losses = self.objective(ctx)
            self.probe.look(ctx, losses, self.generator.scaler.scale)
            self.generator.accumulate(losses.total, fraction)
        self.meter.add_all(losses.scalars("loss"))
        adversary = self._due_adversary(ctx.step)
        if adversary is not None:
            self.meter.add_all(adversary.accumulate(ctx, self, fraction, last_micro_batch))
        if last_micro_batch:
            outcome = self.generator.step()
            self.meter.add_all(outcome.scalars("g"))
            if adversary is not None:
                self.meter.add_all(adversary.learner.step().scalars("d"))
            for average in self.averages.values():
                average.update(outcome.applied, self.generator.steps)

    def _frozen_discriminator(self) -> AbstractContextManager[None]:
        return nullcontext() if self.discriminator is None else frozen(self.discriminator.net)

    def _due_adversary(self, step: int) -> Adversary | None:
        """Return the adversary where it learns at a step (1 for the first)."""
        if self.adversary is None or not self.adversary.pace.due(step):
            return None
        return self.adversary

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
        """Which weights to validate and to ship: the first average that holds some, or `live`."""
        return next(iter(self.started_averages), "live")

    @property
    def started_averages(self) -> list[str]:
        """The kinds of averages that hold weights by now; may read the device."""
        return [kind for kind, average in self.averages.items() if average.started]

    @property
    def kinds_with_own_file(self) -> list[str]:
        """The kinds whose weights are written beside those to use."""
        return [kind for kind in self.started_averages if self.averages[kind].has_own_file]

    def net_for_use(self, kind: str | None = None) -> nn.Module:
        """Return the whole network of some weights; a collective where the generator is split.

        Args:
            kind: one of `averages`, or `live`; None: `kind_for_use`.
        """
        kind = kind or self.kind_for_use
        net = self.generator.net if kind == "live" else self.averages[kind].net
        return net if self._full_net is None else fill_full_net(self._full_net, net)

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
            **{kind: self._average_state(kind) for kind in KINDS},
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
        for kind in KINDS:
            notes += self._load_average(kind, state[kind], weights)
        return notes

    def _average_state(self, kind: str) -> dict[str, object] | None:
        average = self.averages.get(kind)
        return None if average is None else average.state_dict()

    def _load_average(self, kind: str, stored: object, weights: Mapping[str, Tensor]) -> list[str]:
        average, words = self.averages.get(kind), KINDS[kind]
        if average is None:
            return [] if stored is None else [f"stored {words} dropped"]
        if isinstance(stored, dict):
            average.load_state_dict(stored)
            return [f"{words} kept"]
        average.net.load_state_dict(split_weights(dict(weights), average.net))
        return [f"no {words} stored, starting from the live ones"]

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
