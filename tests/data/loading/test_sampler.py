import pytest

from data.loading.sampler import InfiniteSampler


def take(order, count, batch_size=4, first=0):
    return [at for number in range(first, first + count) for at in order.batch(number, batch_size)]


def test_epochs_are_permutations_without_gaps():
    visited = take(InfiniteSampler(10, seed=3), 10)
    for epoch in range(4):
        part = visited[epoch * 10 : epoch * 10 + 10]
        assert {at[0] for at in part} == {epoch}
        assert sorted(at[1] for at in part) == list(range(10))
    assert visited[:10] != [(0, at[1]) for at in visited[10:20]]


def test_known_order():
    # Pins the generator: a change would alter every resumed run.
    assert [at[1] for at in InfiniteSampler(8, seed=0).batch(0, 8)] == KNOWN


KNOWN = [2, 4, 3, 6, 5, 0, 1, 7]


def test_random_access_equals_reading_on():
    visited = take(InfiniteSampler(7, seed=1), 30)
    order = InfiniteSampler(7, seed=1)
    for number in (29, 3, 17, 0):
        assert order.batch(number, 4) == visited[number * 4 : number * 4 + 4]


@pytest.mark.parametrize("size", [23, 8, 2])
def test_ranks_share_without_overlap(size):
    world = 3
    ranks = [take(InfiniteSampler(size, 5, rank, world), 20) for rank in range(world)]
    alone = take(InfiniteSampler(size, 5), 60)
    assert [at for together in zip(*ranks, strict=True) for at in together] == alone
    assert len(set(alone)) == len(alone)


def test_set_smaller_than_a_batch():
    assert [at[0] for at in InfiniteSampler(2, seed=0).batch(0, 5)] == [0, 0, 1, 1, 2]


def test_raises():
    for wrong in ((0, 0, 0, 1), (5, 0, 2, 2), (5, 0, -1, 2)):
        with pytest.raises(ValueError, match="bad size"):
            InfiniteSampler(*wrong)
