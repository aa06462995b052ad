"""Batches of data that need not fit a device: what a `Task.stream` is made of.

The batch of a step is drawn with replacement by a generator that counts instead of
remembering: Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
with the seed and the step for its key. A run that resumes needs its step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tasks.checks import check_counts

Stream = Callable[[int, int, int], dict[str, np.ndarray]]
TokenStream = Callable[[int, int, int], np.ndarray]


def draw(seed: int, step: int, high: int, size: int) -> np.ndarray:
    """Draws `size` integers from 0 to `high - 1`, the same ones for a seed and a step.

    Example:
      >>> draw(seed=0, step=7, high=100, size=3).tolist()
      [81, 58, 4]
    """
    key = np.array([seed, step], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).integers(high, size=size)


def row_stream(arrays: Mapping[str, np.ndarray], batch_size: int) -> Stream:
    """Batches of rows, the same ones of every array, each row equally likely.

    Args:
      arrays: with a common leading axis; they can be memory-mapped.
      batch_size: rows in a batch.

    Returns:
      `(seed, start, stop) -> {name: (steps, batch_size, ...)}`, arrays in memory.

    Example:
      >>> stream = row_stream({"x": np.arange(100), "y": np.zeros((100, 2))}, 4)
      >>> batches = stream(0, 10, 13)
      >>> batches["x"].shape, batches["y"].shape
      ((3, 4), (3, 4, 2))
      >>> bool((stream(0, 12, 13)["x"][0] == batches["x"][2]).all())
      True
    """
    check_counts(batch_size=batch_size)
    (num_rows,) = {len(array) for array in arrays.values()}

    def stream(seed: int, start: int, stop: int) -> dict[str, np.ndarray]:
        steps = range(start, stop)
        rows = np.stack([draw(seed, t, num_rows, batch_size) for t in steps])
        return {name: np.asarray(array[rows]) for name, array in arrays.items()}

    return stream


def window_stream(
    tokens: np.ndarray,
    *,
    batch_size: int,
    length: int,
    vocab_size: int | None = None,
) -> TokenStream:
    """Batches of windows of consecutive tokens, each start equally likely.

    Args:
      tokens: integers of shape (tokens,); they can be memory-mapped.
      batch_size: windows in a batch.
      length: tokens in a window: the context and the token after it.
      vocab_size: what every token is checked to be less than, where it is read.

    Returns:
      `(seed, start, stop) -> int32 tokens of shape (steps, batch_size, length)`.

    Raises:
      ValueError: there are fewer than `length` tokens; later, a token is too large.

    Example:
      >>> stream = window_stream(np.arange(100), batch_size=2, length=9)
      >>> stream(0, 0, 5).shape
      (5, 2, 9)
    """
    check_counts(batch_size=batch_size, length=length)
    _check_length(tokens, length)

    def stream(seed: int, start: int, stop: int) -> np.ndarray:
        starts = [
            draw(seed, t, len(tokens) - length + 1, batch_size)
            for t in range(start, stop)
        ]
        return _windows(tokens, np.stack(starts), length, vocab_size)

    return stream


def spread_windows(
    tokens: np.ndarray, *, count: int, length: int, vocab_size: int | None = None
) -> np.ndarray:
    """The windows to evaluate on: `count` at most, always the same, evenly spaced.

    Each begins with the token that the one before ends with or a later one, so that no
    token is predicted twice.

    Args:
      tokens: see `window_stream`.
      count: at most as many windows; there are fewer if the tokens end before.
      length: tokens in a window: the context and the token after it.
      vocab_size: what every token is checked to be less than.

    Returns:
      int32 tokens of shape (windows, length).

    Raises:
      ValueError: there are fewer than `length` tokens, or one is too large.

    Example:
      >>> spread_windows(np.arange(9), count=3, length=3).tolist()
      [[0, 1, 2], [2, 3, 4], [6, 7, 8]]
    """
    check_counts(count=count)
    check_counts(minimum=2, length=length)
    _check_length(tokens, length)
    available = (len(tokens) - 1) // (length - 1)
    chosen = np.linspace(0, available - 1, min(count, available)).astype(int)
    return _windows(tokens, chosen * (length - 1), length, vocab_size)


def spread_rows(
    arrays: Mapping[str, np.ndarray], max_rows: int
) -> dict[str, np.ndarray]:
    """At most `max_rows` rows of every array, evenly spaced, always the same.

    Returns:
      Arrays in memory, whether those given are mapped or not.

    Example:
      >>> spread_rows({"x": np.arange(9)}, 3)
      {'x': array([0, 4, 8])}
    """
    check_counts(max_rows=max_rows)
    (num_rows,) = {len(array) for array in arrays.values()}
    rows = np.linspace(0, num_rows - 1, min(max_rows, num_rows)).astype(int)
    return {name: np.asarray(array[rows]) for name, array in arrays.items()}


def _windows(
    tokens: np.ndarray, starts: np.ndarray, length: int, vocab_size: int | None
) -> np.ndarray:
    found = np.empty((*starts.shape, length), np.int32)
    for place in np.ndindex(starts.shape):
        found[place] = tokens[starts[place] : starts[place] + length]
    if vocab_size is not None and found.size and found.max() >= vocab_size:
        raise ValueError(
            f"{name_of(tokens)} holds token {found.max()}, which vocab_size="
            f"{vocab_size} does not allow"
        )
    return found


def _check_length(tokens: np.ndarray, length: int) -> None:
    if len(tokens) < length:
        raise ValueError(
            f"{name_of(tokens)} must have at least length={length} tokens, got "
            f"{len(tokens)}"
        )


def name_of(array: np.ndarray) -> str:
    """The file that an array is mapped from, for the errors."""
    return str(getattr(array, "filename", None) or "the array")
