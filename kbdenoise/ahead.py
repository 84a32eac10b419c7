"""Do the next thing while the last one is being used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_END: Any = object()


def ahead(items: Iterable[Item], *, depth: int = 1) -> Generator[Item, None, None]:
    """The same items, made in a thread of their own, at most `depth` before they are asked for.

    An exception is raised at its item. Closing the iterator, or leaving it behind, ends the thread
    after the item that it is at.
    """
    iterator = iter(items)

    def following(_: None) -> Item:
        return next(iterator, _END)

    with closing(map_ahead(following, repeat(None), depth=depth)) as made:
        for item in made:
            if item is _END:
                return
            yield item


def map_ahead(
    function: Callable[[Item], Made], items: Iterable[Item], *, depth: int, workers: int = 1
) -> Generator[Made, None, None]:
    """`function` of every item, in their order, at most `depth` before it is asked for.

    Several `workers` call it side by side. Exceptions and closing are as for `ahead`.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
