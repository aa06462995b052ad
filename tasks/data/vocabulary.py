"""Vocabularies of the most frequent words."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

PAD, UNKNOWN = "<pad>", "<unk>"


def most_frequent(
    words: Iterable[str], *, size: int, specials: Sequence[str], min_count: int = 1
) -> dict[str, int]:
    """Numbers the most frequent words, after tokens that come first in any case.

    Args:
      words: a text, word by word.
      size: of the vocabulary, specials included.
      specials: tokens that get the numbers from 0 on, whether the text has them or not.
      min_count: what occurs less often is left out.

    Returns:
      `{word: number}`; words of equal frequency are in alphabetical order.

    Example:
      >>> most_frequent("b a c a b".split(), size=3, specials=["<unk>"])
      {'<unk>': 0, 'a': 1, 'b': 2}
    """
    counts = collections.Counter(words)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    frequent = [w for w, n in ranked if n >= min_count and w not in specials]
    tokens = [*specials, *frequent[: max(0, size - len(specials))]]
    return {token: number for number, token in enumerate(tokens)}


def numbered(words: Iterable[str], vocabulary: Mapping[str, int]) -> list[int]:
    """The numbers of words, that of `<unk>` for those that have none.

    Example:
      >>> numbered(["a", "x"], {"<unk>": 0, "a": 1})
      [1, 0]
    """
    unknown = vocabulary[UNKNOWN]
    return [vocabulary.get(word, unknown) for word in words]
