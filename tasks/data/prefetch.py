"""The next chunk of data is gathered while the current one trains."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """Yields the items of an iterable, made one ahead in a thread.

    At most two items are in memory: the one that was yielded last and the one after
    it. What making an item raises is raised in its turn. Leaving the loop early, by
    `break`, an exception or Ctrl-C, waits for the item that is being made, and makes no
    other.

    Args:
      items: what is iterated over in the thread; a generator, to be of any use.

    Example:
      >>> list(prefetch(step**2 for step in range(4)))
      [0, 1, 4, 9]
    """
    iterator = iter(items)
    with concurrent.futures.ThreadPoolExecutor(1, "prefetch") as thread:
        ahead = thread.submit(next, iterator, _END)
        while (item := ahead.result()) is not _END:
            ahead = thread.submit(next, iterator, _END)
            yield item  # pyrefly: ignore[invalid-yield]
