"""What kinds of optimizers there are."""


def averages_itself(optimizer: object) -> bool:
    """Tell an optimizer, or its class, that trains in one point and averages into another.

    Such an optimizer has `eval()`, which moves the weights to the average, and `train()`, which
    moves them back.
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def is_fused(optimizer: object) -> bool:
    """Tell an optimizer that takes the decision on its gradients, and its rates, on the device.

    So do torch's own with `fused=True`, which say it by this attribute to torch.amp.GradScaler.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
