import gc
import logging
import weakref

import pytest
import torch
from torch import nn

from losses.gan import DiscriminatorLoss, GeneratorLoss
from losses.pixel import L1Loss
from sr_train.api import loss_inputs
from sr_train.api.errors import PluginError, SRTrainError
from sr_train.engine.adversary import Adversary, Pace
from sr_train.engine.distributed import World
from sr_train.engine.learner import Learner
from sr_train.engine.micro_batches import InsufficientMemoryError, MicroBatcher
from sr_train.engine.objective import Objective, Term
from sr_train.engine.precision import LossScaler
from sr_train.engine.schedule import Constant
from sr_train.utils.memory import is_out_of_memory

CPU = torch.device("cpu")


class Batches:
    """Endless batches, as a stream gives them; counts how many were taken."""

    def __init__(self, make_batch, count):
        self.make_batch, self.count, self.taken = make_batch, count, 0

    def __next__(self):
        self.taken += 1
        return self.make_batch(seed=self.taken, count=self.count)


def short():
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def limit(net, most, make_error=short):
    """Let a network's forward fail with more than `most` samples; return the sizes it saw."""
    sizes = []

    def check(module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise make_error()

    net.register_forward_pre_hook(check)
    return sizes


def micro_batcher_of(model, accum=1, world=None):
    return MicroBatcher(model, accum, World() if world is None else world)


def assert_same(a, b):
    for one, other in zip(a.generator.parameters, b.generator.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "accum", "most", "parts"),
    [(8, 1, 4, 2), (8, 1, 1, 8), (6, 1, 2, 3), (5, 1, 3, 5), (4, 2, 2, 2), (6, 3, 4, 2)],
)
def test_a_split_step_equals_the_whole_one(make_model, make_batch, count, accum, most, parts):
    whole = make_model(accum=accum, optimizer=torch.optim.SGD)
    split = make_model(accum=accum, optimizer=torch.optim.SGD)
    limit(split.generator.net, most)
    one, other = Batches(make_batch, count), Batches(make_batch, count)
    taking, splitting = micro_batcher_of(whole, accum), micro_batcher_of(split, accum)
    for _ in range(3):
        last = taking.step(one)
        same = splitting.step(other)
        assert all(torch.equal(last[name], same[name]) for name in last)
    assert (splitting.num_splits, splitting.micro_batches) == (parts, accum * parts)
    assert one.taken == other.taken == 3 * accum
    assert split.generator.steps == 3
    assert_same(whole, split)
    assert split.averages["ema"] is not None
    assert float(split.averages["ema"].num_updates) == 3


def test_the_split_is_found_once_and_stays(make_model, make_batch, caplog):
    model = make_model()
    sizes = limit(model.generator.net, 2)
    micro_batcher, batches = micro_batcher_of(model), Batches(make_batch, 8)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            micro_batcher.step(batches)
    assert sizes == [8, 4, 2, 2, 2, 2, *[2] * 8]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "step 1: out of memory" in said[1]
    assert "4 micro-batches, each of 2 sample(s)" in said[1]
    assert "train.accum=4" in said[1]


def test_the_window_of_the_meter_holds_the_step_once(make_model, make_batch):
    whole, split = make_model(accum=2), make_model(accum=2)
    limit(split.generator.net, 2)
    micro_batcher_of(whole, 2).step(Batches(make_batch, 4))
    micro_batcher_of(split, 2).step(Batches(make_batch, 4))
    expected, found = whole.meter.read(), split.meter.read()
    assert found.counts == expected.counts
    assert found.means == pytest.approx(expected.means, rel=1e-4)


def test_a_window_keeps_the_steps_before_the_one_that_broke_off(make_model, make_batch):
    model = make_model()
    micro_batcher, batches = micro_batcher_of(model), Batches(make_batch, 4)
    micro_batcher.step(batches)
    limit(model.generator.net, 2)
    micro_batcher.step(batches)
    window = model.meter.read()
    assert window.counts["loss/total"] == window.counts["grad_norm/g"] == 2


def test_running_out_in_the_second_micro_batch_takes_the_first_again(make_model, make_batch):
    whole = make_model(accum=2, optimizer=torch.optim.SGD)
    split = make_model(accum=2, optimizer=torch.optim.SGD)
    calls = []

    def check(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 2:
            raise short()

    split.generator.net.register_forward_pre_hook(check)
    micro_batcher_of(whole, 2).step(Batches(make_batch, 4))
    micro_batcher_of(split, 2).step(Batches(make_batch, 4))
    assert calls == [4, 4, 2, 2, 2, 2]
    assert_same(whole, split)
    assert split.meter.read().means == pytest.approx(whole.meter.read().means, rel=1e-4)


def test_running_out_in_backward_counts_no_gradient_twice(make_model, make_batch):
    whole, split = make_model(optimizer=torch.optim.SGD), make_model(optimizer=torch.optim.SGD)

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            ctx.samples = len(value)
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            if ctx.samples > 2:
                raise short()
            return gradient

    # The last layer has its gradient already when the first one's turn comes.
    split.generator.net.first.register_forward_hook(lambda net, given, out: Fails.apply(out))
    micro_batcher_of(whole).step(Batches(make_batch, 4))
    micro_batcher_of(split).step(Batches(make_batch, 4))
    assert_same(whole, split)


class TinyDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 1, 3)

    def forward(self, image):
        return self.body(image)


def with_judge(model):
    torch.manual_seed(1)
    discriminator = TinyDiscriminator()
    learner = Learner(
        discriminator,
        torch.optim.SGD(discriminator.parameters(), lr=1e-2, fused=True),
        schedule=Constant(),
        scaler=LossScaler(CPU, dynamic=False),
    )
    term = Term(
        "gan", DiscriminatorLoss(), group="objective_d", available_inputs=loss_inputs.ADVERSARY
    )
    model.adversary = Adversary(learner, Objective({"gan": term}, "objective_d"), Pace())
    return model


def test_running_out_in_the_discriminators_part_counts_the_generator_once(make_model, make_batch):
    available_inputs = loss_inputs.GENERATOR + loss_inputs.DISCRIMINATOR_INPUTS
    terms = {
        "l1": Term("l1", L1Loss()),
        "gan": Term("gan", GeneratorLoss(), available_inputs=available_inputs),
    }
    whole, split = (
        with_judge(make_model(terms=terms, optimizer=torch.optim.SGD)) for _ in range(2)
    )
    discriminator = split.adversary.learner.net

    def check(module, inputs):
        learns = discriminator.body.weight.requires_grad  # frozen while it judges for the generator
        if learns and len(inputs[0]) > 2:
            raise short()

    discriminator.register_forward_pre_hook(check)
    one, other = Batches(make_batch, 4), Batches(make_batch, 4)
    taking, splitting = micro_batcher_of(whole), micro_batcher_of(split)
    for _ in range(2):
        taking.step(one)
        splitting.step(other)
    assert splitting.num_splits == 2
    assert_same(whole, split)
    for a, b in zip(whole.discriminator.parameters, split.discriminator.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert all(p.requires_grad for p in discriminator.parameters())


def test_the_broken_off_graph_is_freed_before_the_next_attempt(make_model, make_batch):
    """Without the collector too: an error that is kept keeps its frames, and they the graph."""
    model = make_model()
    kept, alive = [], []

    def check(module, inputs, output):
        alive.append([ref() is not None for ref in kept])
        kept.append(weakref.ref(output))
        if len(output) > 2:
            raise short()

    model.generator.net.first.register_forward_hook(check)
    micro_batcher = micro_batcher_of(model)
    micro_batcher._free = lambda: None
    gc.disable()
    try:
        micro_batcher.step(Batches(make_batch, 4))
    finally:
        gc.enable()
    assert alive[1] == [False]


def test_a_single_sample_that_does_not_fit_is_an_error(make_model, make_batch):
    model = make_model()
    limit(model.generator.net, 0)
    before = [p.clone() for p in model.generator.parameters]
    with pytest.raises(
        InsufficientMemoryError, match=r"step 1: out of memory with 4 micro-batch.*accum"
    ):
        micro_batcher_of(model).step(Batches(make_batch, 4))
    assert all(map(torch.equal, before, model.generator.parameters))


def test_running_out_while_weights_change_is_an_error(make_model, make_batch, monkeypatch):
    model = make_model()

    def fail():
        raise short()

    monkeypatch.setattr(model.generator.optimizer, "step", fail)
    with pytest.raises(SRTrainError, match="while the weights were being changed") as caught:
        micro_batcher_of(model).step(Batches(make_batch, 4))
    assert not isinstance(caught.value, InsufficientMemoryError)


def test_running_out_in_the_averages_after_the_step_is_an_error(
    make_model, make_batch, monkeypatch
):
    model = make_model()

    def fail(applied, step):
        raise short()

    monkeypatch.setattr(model.averages["ema"], "update", fail)
    with pytest.raises(SRTrainError, match="while the weights were being changed"):
        micro_batcher_of(model).step(Batches(make_batch, 4))
    assert model.generator.steps == 1


def test_several_ranks_do_not_split(make_model, make_batch):
    model = make_model()
    limit(model.generator.net, 2)
    with pytest.raises(InsufficientMemoryError, match=r"larger train\.accum"):
        micro_batcher_of(model, world=World(rank=0, size=2)).step(Batches(make_batch, 4))


def test_another_error_is_not_taken_for_want_of_memory(make_model, make_batch):
    model = make_model()
    limit(model.generator.net, 2, lambda: RuntimeError("mat1 and mat2 cannot be multiplied"))
    with pytest.raises(PluginError, match=r"arch: TinyNet failed on .*mat1"):
        micro_batcher_of(model).step(Batches(make_batch, 4))


def test_an_error_of_the_stream_passes(make_model):
    class Broken:
        def __next__(self):
            raise RuntimeError("pin memory thread: CUDA error: out of memory")

    with pytest.raises(RuntimeError, match="pin memory"):
        micro_batcher_of(make_model()).step(Broken())


@pytest.mark.parametrize(
    "err",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: "
            "can't allocate memory: you tried to allocate 80000000000000 bytes."
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_allocators_are_understood(err):
    assert is_out_of_memory(err)


def test_the_cpu_says_what_is_expected():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.gpu
def test_a_gpu_that_is_too_small_splits_and_goes_on(make_model, make_batch):
    """A true allocation fails on the device; what it held is free for the next attempt."""
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(device).total_memory

    def step(count):
        """Return the micro-batcher of a step of so many samples and the bytes that it reserved."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        micro_batcher = micro_batcher_of(make_model(device=device, ema=False))
        micro_batcher.step(iter([make_batch(size=256, count=count)]))
        return micro_batcher, torch.cuda.max_memory_reserved(device)

    (_, whole), (_, half) = step(64), step(32)
    assert half < 0.75 * whole, "nearly all of it is by sample"
    limit = (half + whole) // 2  # a half fits, the whole does not
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        micro_batcher, peak = step(64)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert micro_batcher.num_splits > 1
    assert peak <= limit
    assert micro_batcher._model.generator.steps == 1
