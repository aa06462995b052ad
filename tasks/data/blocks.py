"""Texts cut into blocks of words, none of which spans two lines."""

from __future__ import annotations

import itertools
import os

import numpy as np

from tasks.checks import check_counts, check_known
from tasks.data.dataset import Dataset, sha256
from tasks.data.text import read_splits
from tasks.data.vocabulary import PAD, UNKNOWN, most_frequent, numbered

BLOCK_SETS = ("wikitext2",)


def load_blocks(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    length: int = 128,
    vocab_size: int = 10_000,
) -> Dataset:
    """Loads a text as blocks of consecutive words of one line.

    Words stand between blanks. Each line, which is a paragraph in WikiText, is cut into
    blocks from its start; what is left at its end, and so every shorter line, is left
    out.

    Args:
      name: `wikitext2`.
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      length: words in a block.
      vocab_size: how many tokens are told apart: padding, which no block has, the
        unknown word, and the most frequent words of the training split.

    Returns:
      Splits of `tokens`, unsigned integers of shape (blocks, length).

    Raises:
      ValueError: the name is unknown, a file is corrupt, or a split has no line that is
        long enough.
      FileNotFoundError: files are missing; the message says how to get them.
    """
    check_known("text in lines", name, BLOCK_SETS)
    check_counts(minimum=2, length=length, vocab_size=vocab_size)
    texts, source = read_splits(name, data_dir)
    lines = {k: [line.split() for line in v.split("\n")] for k, v in texts.items()}
    vocabulary = most_frequent(
        itertools.chain(*lines["train"]), size=vocab_size, specials=(PAD, UNKNOWN)
    )
    dtype = np.min_scalar_type(len(vocabulary) - 1)
    splits = {}
    for split, of_split in lines.items():
        found = [
            numbered(line[start : start + length], vocabulary)
            for line in of_split
            for start in range(0, len(line) - length + 1, length)
        ]
        if not found:
            raise ValueError(f"{name}: no line of {split} has length={length} words")
        splits[split] = {"tokens": np.array(found, dtype)}
    return Dataset(
        name=name,
        splits=splits,
        num_classes=len(vocabulary),
        source=source,
        sha256={split: sha256(text.encode()) for split, text in texts.items()},
    )
