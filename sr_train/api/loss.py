"""What a loss is: a module that asks by parameter names for what it compares."""

from typing import ClassVar

from torch import nn


class Loss(nn.Module):
    """The base class of losses. Any `torch.nn.Module` is one whose `forward` is as follows.

    The names of `forward`'s parameters say what it gets: `pred`, `target`, `gt`, `lq`, `lq_up`,
    `ema_pred`, `step`, `num_frames`, and where there is a discriminator `fake_logits` and so on;
    `sr_train.api.loss_inputs` lists them. What no loss asks for is never computed. Images are
    (B, C, H, W), float32, in [0, 1] (a prediction may leave it), the frames of clips one behind the
    other; only what comes of `pred` carries a gradient. `forward` returns a tensor of one number,
    and leaves what it got as it is. Arguments of the constructor come from the config; weight,
    target, colour space, start and ramp are the term's.

    Example:
        >>> class Squared(Loss):
        ...     def forward(self, pred, target):
        ...         return (pred - target).square().mean()
    """

    planes: ClassVar[tuple[int, ...] | None] = None
    """Numbers of channels it takes, such as (1, 3); None: any."""
