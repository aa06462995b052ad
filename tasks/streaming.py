"""What of a data set goes to the device, and what is streamed there batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tasks.base import Data
from tasks.data import streams

Splits = Mapping[str, Mapping[str, np.ndarray]]
Stream = Callable[[int, int, int], Data]

# Files that are mapped and larger stay where they are.
_MOST_BYTES = 2**28
# Of training data that is streamed, what the device has for meta-updates and checks.
_SAMPLE_ROWS = 8192
_SAMPLE_TOKENS = 2**20


def row_splits(splits: Splits, batch_size: int) -> tuple[Splits, Stream | None]:
    """Splits for the device, and the stream of training batches where one is needed.

    Args:
      splits: arrays with a row for each example. The training split is streamed if it
        is memory-mapped and larger than 256 MiB; of it stay 8192 rows.
      batch_size: rows in a batch.

    Example:
      >>> splits = {"train": {"x": np.arange(9)}}
      >>> row_splits(splits, batch_size=2) == (splits, None)
      True
    """
    train = splits["train"]
    if not any(map(_is_large, train.values())):
        return splits, None
    sample = streams.spread_rows(train, _SAMPLE_ROWS)
    return {**splits, "train": sample}, streams.row_stream(train, batch_size)


def token_splits(
    splits: Splits,
    batch_size: int,
    *,
    context: int,
    vocab_size: int,
    max_valid_windows: int | None = None,
) -> tuple[Splits, Stream | None]:
    """The same for texts, whose windows have `context + 1` tokens.

    Args:
      splits: `tokens` of shape (tokens,) or (rows, context + 1), and scalars.
      batch_size: windows in a batch.
      context: tokens that a model reads.
      vocab_size: what tokens that are streamed are checked to be less than.
      max_valid_windows: evaluate on at most as many windows of each split, evenly
        spaced; by default on all.

    Example:
      >>> splits = {k: {"tokens": np.arange(99)} for k in ("train", "valid")}
      >>> few, _ = token_splits(
      ...     splits, 2, context=8, vocab_size=99, max_valid_windows=5
      ... )
      >>> few["valid"]["tokens"].shape, few["train"]["tokens"].shape
      ((5, 9), (99,))
    """

    def spread(split: str, count: int) -> dict[str, np.ndarray]:
        tokens = splits[split]["tokens"]
        if tokens.ndim == 2:
            return {**splits[split], **streams.spread_rows({"tokens": tokens}, count)}
        windows = streams.spread_windows(
            tokens, count=count, length=context + 1, vocab_size=vocab_size
        )
        return {**splits[split], "tokens": windows}

    kept = dict(splits)
    if max_valid_windows is not None:
        held_out = [split for split in splits if split != "train"]
        kept.update({split: spread(split, max_valid_windows) for split in held_out})
    tokens = splits["train"]["tokens"]
    if not _is_large(tokens):
        return kept, None
    kept["train"] = spread("train", max(1, _SAMPLE_TOKENS // (context + 1)))
    if tokens.ndim == 2:
        rows = streams.row_stream({"tokens": tokens}, batch_size)
        return kept, lambda seed, start, stop: rows(seed, start, stop)["tokens"]
    return kept, streams.window_stream(
        tokens, batch_size=batch_size, length=context + 1, vocab_size=vocab_size
    )


def _is_large(array: np.ndarray) -> bool:
    return isinstance(array, np.memmap) and array.nbytes > _MOST_BYTES
