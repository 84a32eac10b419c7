import threading
import time
from collections.abc import Iterator

import pytest

from kbdenoise.ahead import ahead


def counted(made: list[int], *, stop: int = 10**6, broken: int = -1) -> Iterator[int]:
    for number in range(stop):
        if number == broken:
            raise ValueError(f"item {number}")
        made.append(number)
        yield number


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("depth", [1, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_items_come_in_order_and_the_thread_ends(depth: int, count: int) -> None:
    assert list(ahead(counted([], stop=count), depth=depth)) == list(range(count))
    assert not threads()


def test_the_next_item_is_made_while_one_is_used_and_no_more() -> None:
    made: list[int] = []
    items = ahead(counted(made), depth=2)

    assert next(items) == 0
    time.sleep(0.05)
    assert made == [0, 1, 2]
    items.close()


def test_an_error_is_raised_at_its_item() -> None:
    items = ahead(counted([], broken=2))

    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(items)
    assert not threads()


def test_closing_early_ends_the_thread() -> None:
    items = ahead(counted([]))
    next(items)

    items.close()

    assert not threads()
