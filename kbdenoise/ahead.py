"""Do the next thing while the last one is being used."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def ahead(items: Iterable[Item], *, depth: int = 1) -> Generator[Item, None, None]:
    """The same items, made in a thread of their own, at most `depth` before they are asked for.

    An exception is raised at its item. Closing the iterator, or leaving it behind, ends the thread
    after the item that it is at.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    waiting: deque[Future[Item]] = deque()
    try:
        while True:
            while len(waiting) <= depth:
                waiting.append(pool.submit(next, iterator, _END))
            item = waiting.popleft().result()
            if item is _END:
                return
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
