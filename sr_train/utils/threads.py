"""Calling a function for many items with a few threads that can be stopped."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_THREADS = 8


def for_each(
    items: Iterable[Item],
    call: Callable[[Item], bool],
    threads: int,
    stop: threading.Event | None = None,
) -> None:
    """Call a function for each item, in any order; end early when something says so.

    Unlike those of a `ThreadPoolExecutor`, the threads do not hold up a program that ends.

    Args:
        items: what to call it for.
        call: returns whether to continue.
        threads: how many.
        stop: no item is begun any more once it is set.

    Raises:
        Exception: the first that `call` raised; no item is begun after that.
    """
    left = iter(items)
    lock = threading.Lock()
    ended = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        try:
            while not ended.is_set() and not (stop is not None and stop.is_set()):
                with lock:
                    item = next(left)
                if not call(item):
                    return
        except StopIteration:
            return
        except Exception as error:
            errors.append(error)
        finally:
            # Whatever the reason was, it is one for all threads.
            ended.set()

    workers = [
        threading.Thread(target=work, name=f"sr_train-each-{number}", daemon=True)
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    finally:
        ended.set()
        for worker in workers:
            worker.join()
    if errors:
        raise errors[0]


def in_chunks(
    call: Callable[[Item], Result], items: Sequence[Item], threads: int, size: int = 256
) -> list[Result]:
    """Return what a function returns for each item, from threads that take many items at a time.

    Where each call takes microseconds, handing items over one by one would take most of the time.
    """
    chunks = [items[first : first + size] for first in range(0, len(items), size)]
    with ThreadPoolExecutor(threads) as pool:
        return [r for chunk in pool.map(lambda each: list(map(call, each)), chunks) for r in chunk]


def num_threads() -> int:
    """Return how many threads load where nothing else is to be done."""
    return min(_MAX_THREADS, os.cpu_count() or 1)


def num_spare_threads() -> int:
    """Return a quarter of that: the samples of the next steps are decoded on all processors."""
    return min(_MAX_THREADS, max(1, (os.cpu_count() or 1) // 4))
