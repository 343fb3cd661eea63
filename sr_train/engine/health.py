"""What is looked at only on a logged step, because it costs an extra backward or reduction."""

import torch
from torch import Tensor

from sr_train.engine.context import StepContext
from sr_train.engine.objective import LossOutput
from sr_train.monitoring.meter import Meter
from sr_train.ops.colour import YCbCr


class HealthProbe:
    """Measure, when armed, each term's part of the gradient and the drift of colours.

    Args:
        meter: where the values go.
        ycbcr: the conversion between colour spaces.
    """

    def __init__(self, meter: Meter, ycbcr: YCbCr) -> None:
        self._meter = meter
        self._ycbcr = ycbcr
        self._armed = False

    def arm(self) -> None:
        """Look at the micro-batches of the next step."""
        self._armed = True

    def disarm(self) -> None:
        self._armed = False

    def look(self, ctx: StepContext, losses: LossOutput, seed: Tensor) -> None:
        """Measure a micro-batch before its backward; nothing where the probe is not armed.

        Args:
            ctx: the micro-batch.
            losses: the generator's terms, with their graph.
            seed: gradient of the loss from which a backward starts, which keeps small gradients
                from vanishing in half precision.
        """
        if not self._armed:
            return
        for name, ratio in gradient_ratios(losses, ctx.pred, seed).items():
            self._meter.add(f"grad_ratio/{name}", ratio)
        if ctx.pred.shape[1] == ctx.lq.shape[1] == 3:
            self._meter.add("health/colour_drift", colour_drift(ctx.pred, ctx.lq, self._ycbcr))


def gradient_ratios(losses: LossOutput, pred: Tensor, seed: Tensor) -> dict[str, Tensor]:
    """Return each weighted term's part of the gradient with respect to `pred`.

    The part is the L2 norm of its gradient over the sum of all terms' norms, so the parts add up
    to 1. Terms that do not depend on `pred` have none.
    """
    norms = {}
    for name, value in losses.terms.items():
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(
                value, pred, losses.weights[name] * seed, retain_graph=True, allow_unused=True
            )
            if gradient is not None:
                norms[name] = torch.linalg.vector_norm(gradient.float())
    total = sum(norms.values(), start=torch.zeros_like(seed)).clamp_min(1e-30)
    return {name: norm / total for name, norm in norms.items()}


@torch.no_grad()
def colour_drift(pred: Tensor, lq: Tensor, ycbcr: YCbCr) -> Tensor:
    """Return how far an image's mean colour moved from its input's, in 8-bit steps.

    It is the distance between the mean CbCr of `pred` and of `lq` (B, 3, h, w), averaged over
    the batch: near 0 in a healthy run, since upscaling keeps the mean colour.
    """
    means = [ycbcr.to_ycbcr(image)[:, 1:].mean((-2, -1)) for image in (pred.detach(), lq)]
    return 255 * torch.linalg.vector_norm(means[0] - means[1], dim=1).mean()
