"""What ranks agree on, by two real processes over Gloo."""

import pytest
import torch

from sr_train.api.errors import ConfigError, DataError
from sr_train.engine.distributed import (
    CAPACITY,
    World,
    device_of_rank,
    lost_rank,
    reduce_scalars,
)
from sr_train.engine.randomness import (
    random_states,
    seed_everything,
    seed_rank,
    set_random_states,
)
from sr_train.engine.stop import GracefulStop
from sr_train.monitoring.meter import Meter, RunningSum
from tests.ranks import on_ranks

pytestmark = pytest.mark.dist


def reduce_many(world):
    mine = world.rank + 1
    calls = []
    original = torch.distributed.all_gather

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    torch.distributed.all_gather = counted
    values = {
        "float": 1.0 * mine,
        "int": 2 * mine,
        "half": torch.tensor(3.0 * mine, dtype=torch.bfloat16),
        "vector": torch.full((mine,), float(mine)),
        "weighted": RunningSum(total=10.0 * mine, count=3 - mine),
        "one inf": float("inf") if mine == 1 else 4.0,
        "never": float("nan"),
        "fine": 1e-9 / 3 * mine,
    }
    ordered = dict(reversed(values.items())) if mine == 2 else values
    return reduce_scalars(ordered, world), len(calls), reduce_scalars({}, world)


def test_floats_ints_and_tensors_come_back_averaged_in_one_collective():
    (first, calls, nothing), (second, _, _) = on_ranks(reduce_many)
    assert first == second, "the same to the last bit on both"
    assert first == {
        "float": 1.5,
        "int": 3.0,
        "half": 4.5,
        "vector": 5 / 3,
        "weighted": 10.0,
        "one inf": 4.0,
        "fine": pytest.approx(0.5e-9, rel=1e-15),
    }
    assert calls == 1
    assert nothing == {}


def log_other_names(world):
    values = {"loss/a": 1.0, **({"loss/b": 2.0} if world.rank == 0 else {"loss/c": 3.0})}
    return reduce_scalars(values, world)


def test_names_that_differ_are_told_with_their_rank():
    for told in on_ranks(log_other_names):
        assert told.startswith("SharedError")
        assert "rank 0 did not log loss/c" in told
        assert "rank 1 did not log loss/b" in told
        assert "loss/a" not in told


def log_nothing_on_one(world):
    return reduce_scalars({} if world.rank else {"x": 1.0}, world)


def test_a_rank_without_any_value_is_told_too():
    for told in on_ranks(log_nothing_on_one):
        assert "rank 1 did not log x" in told


def log_too_many(world):
    count = CAPACITY + 1 if world.rank else 1
    return reduce_scalars({str(i): 1.0 for i in range(count)}, world)


def test_too_many_names_are_an_error_on_every_rank():
    for told in on_ranks(log_too_many):
        assert told == f"SharedError: {CAPACITY + 1} scalars in one log window; at most " + (
            f"{CAPACITY} can be kept"
        )


def read_meter(world):
    meter = Meter()
    empty = meter.read(world.combine)
    for value in (1.0, 2.0, 6.0)[: world.rank + 2]:
        meter.add("a", torch.tensor(value))
    meter.add("b", float("nan") if world.rank else 5)
    return empty.means, meter.read(world.combine)


def test_a_window_spans_all_ranks():
    for empty, window in on_ranks(read_meter):
        assert empty == {}
        assert window.means == {"a": 12.0 / 5, "b": 5.0}
        assert window.counts == {"a": 5, "b": 1}
        assert window.non_finite == {"b": 1}


def exchange(world):
    return (
        world.gather(("item", world.rank)),
        world.gather_to_main(world.rank),
        world.broadcast({"from": world.rank}),
    )


def test_objects_travel():
    first, second = on_ranks(exchange)
    assert first == ([("item", 0), ("item", 1)], [0, 1], {"from": 0})
    assert second == ([("item", 0), ("item", 1)], [], {"from": 0})


def fail_on(world, ranks):
    with world.together():
        if world.rank in ranks:
            raise DataError("it is broken")
    return "went on"


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ((), "went on"),
        ((1,), "SharedError: rank 1: it is broken"),
        ((0, 1), "SharedError: it is broken"),
    ],
)
def test_an_error_of_one_ends_all(ranks, told):
    assert on_ranks(fail_on, ranks) == [told, told]


def end_early(world):
    world.gather(0)  # nobody leaves while the other is still connecting
    if world.rank == 1:
        return "gone"
    try:
        world.gather(0)
    except Exception as err:
        return type(lost_rank(err)).__name__, str(lost_rank(err))
    return "not noticed"


def test_a_lost_rank_is_told_from_a_defect():
    left, gone = on_ranks(end_early)
    assert gone == "gone"
    assert left[0] == "LostRankError"
    assert "another rank has ended" in left[1]
    assert "\n" not in left[1]


def defect(world):
    return lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_defect_is_no_lost_rank():
    assert on_ranks(defect) == [None, None]


def stop_from_one(world):
    stop = GracefulStop(world)
    steps = 0
    while stop.agreed() is None and steps < 100_000:
        steps += 1
        world.gather(0)  # a step
        if world.rank == 1 and steps == 5:
            stop.requested = "SIGTERM"
    return steps


def test_a_signal_to_one_stops_all_at_the_same_step():
    first, second = on_ranks(stop_from_one)
    assert first == second
    assert 5 <= first < 100_000


CPU = torch.device("cpu")


def draw(world):
    seed_everything(3)
    weights = torch.rand(2).tolist()
    seed_rank(3, 0, world)
    states = random_states(world, CPU)
    numbers = torch.rand(3).tolist()
    return weights, states, numbers


def draw_again(world, states):
    set_random_states(states, world, CPU, seed=3, step=7)
    return torch.rand(3).tolist()


def test_each_rank_draws_its_own_numbers_and_finds_them_again():
    (weights, states, first), (same_weights, none, second) = on_ranks(draw)
    assert weights == same_weights
    assert first != second
    assert none == []
    assert on_ranks(draw_again, states) == [first, second]


def test_another_number_of_ranks_starts_anew():
    _, states, numbers = on_ranks(draw)[0]
    first, second = on_ranks(draw_again, states[:1])
    assert first != second
    assert numbers not in (first, second)
    assert on_ranks(draw_again, states[:1]) == [first, second], "and the same each time"


def test_one_process_needs_no_group(monkeypatch):
    world = World()
    seed_everything(1)
    before = torch.rand(1)
    seed_everything(1)
    seed_rank(1, 0, world)
    assert torch.rand(1) == before
    assert world.gather(1) == world.gather_to_main(1) == [1]
    assert world.broadcast(1) == 1
    assert reduce_scalars({"a": torch.ones(3), "b": float("inf")}, world) == {"a": 1.0}
    with pytest.raises(DataError), world.together():
        raise DataError("as it is")
    assert lost_rank(RuntimeError("connection closed by peer")) is None


@pytest.mark.parametrize(
    ("device", "told"),
    [("mps", "cannot be shared"), ("cuda:1", "write device=cuda"), ("cuda", "this machine has 0")],
)
def test_devices_that_cannot_be_shared(monkeypatch, device, told):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert device_of_rank(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match=told):
        device_of_rank(torch.device(device))
