"""Several processes share a list of work through lock files in a directory.

The operating system drops the lock of a process that ends, however it ends: what a
killed process had begun is then free again, and nobody has to guess how long a live one
may take.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import filelock

Item = TypeVar("Item", bound=Hashable)

POLL_SECONDS = 1.0


def claims(
    items: Sequence[Item],
    directory: pathlib.Path,
    *,
    name: Callable[[Item], str],
    is_done: Callable[[Item], bool],
) -> Iterator[Item]:
    """Yields what this process is to do, until all of the items are done by somebody.

    While an item is worked on, its lock is held; whoever holds the lock of an item that
    is done goes on to the next. Where all that is left is being worked on elsewhere,
    this waits: a process may die.

    Args:
      items: the work, in the order in which everybody tries to get it.
      directory: of the lock files, which stay; the same for all processes.
      name: of an item's lock file.
      is_done: asked with the lock held.

    Example:
      >>> import tempfile
      >>> done, directory = set(), pathlib.Path(tempfile.mkdtemp())
      >>> for item in claims("ab", directory, name=str, is_done=done.__contains__):
      ...     done.add(item)
      >>> sorted(done)
      ['a', 'b']
    """
    directory.mkdir(parents=True, exist_ok=True)
    left = list(items)
    while left:
        elsewhere = []
        for item in left:
            lock = filelock.FileLock(directory / f"{name(item)}.lock")
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                elsewhere.append(item)
                continue
            try:
                if not is_done(item):
                    yield item
            finally:
                lock.release()
        if len(elsewhere) == len(left):
            time.sleep(POLL_SECONDS)
        left = elsewhere
