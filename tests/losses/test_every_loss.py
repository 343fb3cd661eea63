"""Every loss with every kind of image, in every precision."""

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sr_train.ops.resize import resize_tensor
from tests.losses.zoo import LOSSES, Critic, Row

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALE = 2
SIZES = [(1, 1), (1, 5), (7, 4)]
FILLS = (0.0, 1.0, 0.4, 1e-7, 1e4, -3.0)
VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, 1e-7, 1 / 255, 1e4, -1e4, 2.0, -0.1]),
    st.floats(-1.5, 2.5, width=16),
)

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).split(".")[1])
each_half = pytest.mark.parametrize("dtype", DTYPES[1:], ids=("bf16", "fp16"))


def those(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


each_loss = those(LOSSES)


def noise(shape: tuple[int, ...], number: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.rand(shape, generator=generator, dtype=dtype)


def asked(loss: nn.Module) -> list[str]:
    return list(inspect.signature(loss.forward).parameters)


def half_size(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return resize_tensor(image, (max(1, height // SCALE), max(1, width // SCALE)))


def logits(image: Tensor) -> Tensor:
    """Return (B, 1, H, W) made of the image, equal for equal images."""
    return 4 * image.mean(dim=1, keepdim=True) - 2


def features(image: Tensor) -> list[Tensor]:
    return [image, nn.functional.avg_pool2d(image, 2, ceil_mode=True)]


def value_of(name: str, pred: Tensor, target: Tensor) -> object:
    """Return what the step would hand a loss that asks for `name`."""
    make = {
        "pred": lambda: pred.clone(),
        "target": lambda: target.clone(),
        "gt": lambda: target.clone(),
        "ema_pred": lambda: pred * 0.5 + target * 0.5,
        "lq": lambda: half_size(target),
        "lq_up": lambda: resize_tensor(half_size(target), target.shape[-2:]),
        "step": lambda: 1,
        "num_frames": lambda: 2,
        "fake": lambda: pred.clone(),
        "real": lambda: target.clone(),
        "fake_logits": lambda: logits(pred),
        "real_logits": lambda: logits(target),
        "fake_features": lambda: features(pred),
        "real_features": lambda: features(target),
        "net_d": lambda: Critic(pred.shape[1]),
    }
    return make[name]()


def tensors(value: object) -> list[Tensor]:
    return [x for x in (value if isinstance(value, list) else [value]) if isinstance(x, Tensor)]


def arguments(
    row: Row, loss: nn.Module, pred: Tensor, target: Tensor, all_live: bool = False
) -> dict[str, object]:
    """Return all that the loss asks for; what is live requires a gradient."""
    if "num_frames" in asked(loss):
        pred, target = two_frames(pred), two_frames(target)
    given_to = {name: value_of(name, pred, target) for name in asked(loss)}
    for name, value in given_to.items():
        for tensor in tensors(value):
            tensor.requires_grad_(all_live or name in row.live)
    return given_to


def two_frames(images: Tensor) -> Tensor:
    """Return clips of each image and its mirror image."""
    return torch.stack([images, images.flip(-1)], dim=1).flatten(0, 1)


def valued(loss: nn.Module, given_to: dict[str, object]) -> Tensor:
    """Return the loss; what it draws is the same each time."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed costs more than most losses
    return loss(**given_to)


def live_tensors(row: Row, given_to: dict[str, object]) -> Iterator[Tensor]:
    for name in row.live:
        value = given_to[name]
        yield from value.parameters() if isinstance(value, nn.Module) else tensors(value)


def check(row: Row, pred: Tensor, target: Tensor, dtype: torch.dtype) -> None:
    """Run forward and backward with images rounded to a precision; all must be finite.

    As in the step, the loss gets them in fp32; half precisions have autocast on, too.
    """
    loss = row.make()
    given_to = arguments(row, loss, pred.to(dtype).float(), target.to(dtype).float())
    half = dtype is not torch.float32
    with torch.autocast("cpu", dtype) if half else nullcontext():
        value = valued(loss, given_to)
    assert value.dtype is torch.float32
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    for tensor in live_tensors(row, given_to):
        assert tensor.grad is None or torch.isfinite(tensor.grad).all()


@those([row for row in LOSSES if row.zero])
def test_zero_at_identity(row):
    for channels in row.channels:
        for height, width in [*SIZES, (12, 9) if row.large else (24, 33)]:
            image = noise((2, channels, height, width))
            loss = row.make()
            given_to = arguments(row, loss, image, image)
            value = valued(loss, given_to)
            assert float(value.detach()) == pytest.approx(0.0, abs=row.zero_within)
            value.backward()
            for tensor in live_tensors(row, given_to):
                assert tensor.grad is None or torch.isfinite(tensor.grad).all()


@each_loss
def test_above_zero_elsewhere_and_felt(row):
    channels = row.channels[-1]
    loss = row.make()
    given_to = arguments(row, loss, noise((2, channels, 40, 33)), noise((2, channels, 40, 33), 1))
    value = valued(loss, given_to)
    value.backward()
    if row.zero:
        assert float(value.detach()) > 1e-6
    for tensor in live_tensors(row, given_to):
        assert tensor.grad is not None
        assert float(tensor.grad.abs().max()) > 0


@each_loss
def test_no_gradient_but_into_what_is_live(row):
    channels = row.channels[-1]
    loss = row.make()
    pred, target = noise((2, channels, 24, 24)), noise((2, channels, 24, 24), 1)
    given_to = arguments(row, loss, pred, target, all_live=True)
    valued(loss, given_to).backward()
    for name, value in given_to.items():
        if name not in row.live:
            assert all(tensor.grad is None for tensor in tensors(value)), name
    assert all(weights.grad is None for weights in loss.parameters())


@each_loss
@each_dtype
def test_flat_images(row, dtype):
    cases = list(product(row.channels, SIZES, FILLS))
    if row.large or dtype is not torch.float32:
        # Six that have each number of channels, each size and each fill.
        cases = [cases[7 * i % len(cases)] for i in range(6)]
    for channels, (height, width), fill in cases:
        flat = torch.full((1, channels, height, width), fill)
        others = [torch.zeros_like(flat), torch.ones_like(flat), noise(flat.shape), 3 * flat]
        checks = [
            (flat, flat),
            (flat.expand(5, -1, -1, -1), torch.cat([flat, *others])),
            (noise((2, *flat.shape[1:])), flat.expand(2, -1, -1, -1)),
        ]
        if row.large:
            checks = [(torch.cat([x for x, _ in checks]), torch.cat([y for _, y in checks]))]
        for pred, target in checks:
            check(row, pred, target, dtype)


@each_loss
@each_dtype
def test_drawn_images(row, dtype):
    channels = st.sampled_from(row.channels)
    size = st.tuples(st.integers(1, 2), channels, st.integers(1, 14), st.integers(1, 14))
    kinds = st.sampled_from(["noise", "flat", "one pixel off", "saturated", "identical"])

    @seed(0)
    @settings(
        max_examples=3 if row.large else 10,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(shape=size, kind=kinds, level=VALUES, height=VALUES, number=st.integers(0, 99))
    def drawn(shape, kind, level, height, number):
        target = noise(shape, number) * height + level
        pred = noise(shape, number + 1) * level + height
        if kind == "flat":
            pred = torch.full(shape, level)
        elif kind == "one pixel off":
            pred = target.clone()
            pred[..., number % shape[-2], number % shape[-1]] = level
        elif kind == "saturated":
            pred, target = (pred > 0.5).float(), (target > 0.5).float()
        elif kind == "identical":
            pred = target
        check(row, pred, target, dtype)

    drawn()


@each_loss
@each_half
def test_autocast_changes_nothing(row, dtype):
    """Inside an autocast region fp32 images are still compared in fp32."""
    shape = (2, row.channels[-1], 24, 20)
    pred, target = noise(shape), noise(shape, 1)
    loss = row.make()
    plain = valued(loss, arguments(row, loss, pred, target))
    with torch.autocast("cpu", dtype):
        inside = valued(loss, arguments(row, loss, pred, target))
    assert inside.dtype is torch.float32
    torch.testing.assert_close(inside, plain, rtol=1e-6, atol=1e-7)


@each_loss
@each_half
def test_images_in_half_precision_are_widened(row, dtype):
    shape = (2, row.channels[-1], 24, 20)
    loss = row.make()
    given_to = arguments(row, loss, noise(shape), noise(shape, 1))

    def narrowed(value):
        if isinstance(value, list):
            return [narrowed(x) for x in value]
        return value.detach().to(dtype) if isinstance(value, Tensor) else value

    def widened(value):
        if isinstance(value, list):
            return [widened(x) for x in value]
        return value.float() if isinstance(value, Tensor) else value

    half = {name: narrowed(value) for name, value in given_to.items()}
    value = valued(loss, half)
    assert value.dtype is torch.float32
    wide = valued(loss, {name: widened(x) for name, x in half.items()})
    torch.testing.assert_close(value, wide, rtol=1e-6, atol=1e-7)


@those([row for row in LOSSES if row.gradcheck])
def test_gradcheck(row):
    for channels in row.channels:
        shape = (2, channels, 6, 5)
        pred = noise(shape, 2, torch.float64)
        target = noise(shape, 3, torch.float64)
        loss = row.make()
        fixed = {name: value_of(name, pred, target) for name in asked(loss) if name not in row.live}
        live = [pred.clone().requires_grad_() for _ in row.live]

        def value(*moving, loss=loss, fixed=fixed):
            result = loss(**dict(zip(row.live, moving, strict=True)), **fixed)
            assert result.dtype is torch.float64
            return result

        assert torch.autograd.gradcheck(value, live, atol=1e-6, fast_mode=True)


@each_loss
def test_the_images_are_left_alone(row):
    shape = (2, row.channels[-1], 24, 20)
    loss = row.make()
    given_to = arguments(row, loss, noise(shape), noise(shape, 1))
    before = {name: [x.detach().clone() for x in tensors(v)] for name, v in given_to.items()}
    valued(loss, given_to).backward()
    for name, value in given_to.items():
        for tensor, copy in zip(tensors(value), before[name], strict=True):
            assert torch.equal(tensor.detach(), copy), name


@each_loss
def test_memory_format_changes_nothing(row):
    shape = (2, row.channels[-1], 24, 20)
    pred, target = noise(shape), noise(shape, 1)
    loss = row.make()
    plain = valued(loss, arguments(row, loss, pred, target))
    last = {
        name: value.contiguous(memory_format=torch.channels_last)
        if isinstance(value, Tensor) and value.ndim == 4
        else value
        for name, value in arguments(row, loss, pred, target).items()
    }
    torch.testing.assert_close(valued(loss, last), plain, rtol=row.rounding, atol=1e-6)


def test_names_are_unique():
    names = [row.name for row in LOSSES]
    assert len(names) == len(set(names))
