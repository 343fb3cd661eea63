"""The discriminator's side of the step: what it learns, and how often."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sr_train.config.settings import PaceConfig, check
from sr_train.engine.context import AdversaryContext, Logits, ModelLike, StepContext
from sr_train.engine.learner import Learner
from sr_train.engine.objective import Objective


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Keep gradients from the weights of a network, and let them pass through it."""
    trainable = [p for p in net.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class Pace:
    """At which steps the discriminator learns.

    Where it is adaptive, a discriminator that wins too clearly learns less often: at each log
    interval the number of steps between two of its own doubles while its accuracy is above
    `strong`, up to `slowest`, and halves once it is below `weak`, down to `every`. It is never
    starved: it learns at least every `slowest` steps.

    Args:
        settings: every how many steps, from which on, and whether that adapts.
        interval: steps between two updates to begin with; None: as set.
    """

    def __init__(self, settings: PaceConfig | None = None, interval: int | None = None) -> None:
        self.settings = PaceConfig() if settings is None else settings
        check(self.settings, "discriminator")
        self.interval = self.settings.every if interval is None else interval
        """Steps between two updates as of now."""

    def due(self, step: int) -> bool:
        """Return whether the discriminator learns at a step (1 for the first)."""
        start = self.settings.start
        return step > start and (step - start - 1) % self.interval == 0

    def adapt(self, accuracy: float) -> str | None:
        """Take the mean accuracy of a log interval; return what changed, for the log."""
        settings, before = self.settings, self.interval
        if not settings.adaptive:
            return None
        if accuracy > settings.strong:
            self.interval = min(settings.slowest, 2 * before)
        elif accuracy < settings.weak:
            self.interval = max(settings.every, before // 2)
        if self.interval == before:
            return None
        return (
            f"discriminator accuracy {accuracy:.3f}: it learns every {self.interval} steps now "
            f"(before: {before})"
        )


class Adversary:
    """A discriminator with its objective and pace.

    Args:
        learner: the discriminator as a network that learns.
        objective: its loss terms.
        pace: when it learns.
        frames: of each clip that it sees, drawn anew for each micro-batch; None: all.
    """

    def __init__(
        self, learner: Learner, objective: Objective, pace: Pace, frames: int | None = None
    ) -> None:
        self.frames = frames
        self.learner = learner
        self.objective = objective.to(learner.parameters[0].device)
        self.pace = pace

    def accumulate(
        self, ctx: StepContext, model: ModelLike, fraction: float, last: bool
    ) -> dict[str, Tensor]:
        """Run forward and backward on a micro-batch.

        Args:
            ctx: the micro-batch; `pred` was made by the generator and is detached here.
            model: where autocast and memory format come from.
            fraction: of the step's samples that it holds.
            last: whether it is the step's last.

        Returns:
            Scalars for the log: the terms (`loss_d/...`), and how well the two kinds of images
            are distinguished (`gan/...`).
        """
        inputs = AdversaryContext(ctx, self.learner, model)
        with self.learner.synchronised(last):
            losses_d = self.objective(inputs)
            self.learner.accumulate(losses_d.total, fraction)
        return {
            **losses_d.scalars("loss_d"),
            **discriminator_stats(inputs.real_logits, inputs.fake_logits),
        }

    def state_dict(self) -> dict[str, object]:
        return {
            "net": self.learner.net.state_dict(),
            "learner": self.learner.state_dict(),
            "interval": self.pace.interval,
        }

    def load_state_dict(self, state: Mapping[str, object]) -> list[str]:
        """Take up stored state, written in any precision; say what was kept and dropped.

        Raises:
            RuntimeError: if the weights do not fit the network.
        """
        weights, learner, interval = state["net"], state["learner"], state["interval"]
        assert isinstance(weights, dict)
        assert isinstance(learner, dict)
        assert isinstance(interval, int)
        self.learner.net.load_state_dict(weights)
        settings = self.pace.settings
        if settings.adaptive:
            self.pace.interval = min(max(interval, settings.every), settings.slowest)
        return [f"discriminator: {note}" for note in self.learner.load_state_dict(learner)]


@torch.no_grad()
def discriminator_stats(real_logits: Logits, fake_logits: Logits) -> dict[str, Tensor]:
    """Return the means of both logits and the accuracy, as tensors on the device.

    The accuracy is the fraction of real logits above the mean of the fake ones and of fake logits
    below the mean of the real ones, averaged: 0.5 where the two cannot be distinguished, 1 where
    they are apart, for every kind of GAN loss, relativistic and Wasserstein ones included. Where a
    logit is not finite there is none: it is NaN.
    """
    real, fake = _flat(real_logits), _flat(fake_logits)
    real_mean, fake_mean = real.mean(), fake.mean()
    right = (real > fake_mean).float().mean() + (fake < real_mean).float().mean()
    right += (real_mean + fake_mean) * 0.0
    return {
        "gan/real_logits": real_mean,
        "gan/fake_logits": fake_mean,
        "gan/d_accuracy": right / 2,
    }


def _flat(logits: Logits) -> Tensor:
    parts = [logits] if isinstance(logits, Tensor) else logits
    return torch.cat([part.detach().flatten() for part in parts])
