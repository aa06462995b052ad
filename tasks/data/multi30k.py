"""Multi30k: descriptions of images in German and English, sentence by sentence."""

from __future__ import annotations

import itertools
import os
import pathlib
import re

import numpy as np

from tasks.checks import check_counts, check_known
from tasks.data.dataset import Dataset, sha256
from tasks.data.files import Source
from tasks.data.readers import read_text
from tasks.data.vocabulary import PAD, UNKNOWN, most_frequent, numbered

HOMEPAGE = "https://github.com/multi30k/dataset (data/task1/raw)"
BEGIN, END = "<bos>", "<eos>"
SPECIALS = (PAD, UNKNOWN, BEGIN, END)
PAD_TOKEN = SPECIALS.index(PAD)
VOCABULARIES = ("both", "german")

_FILES = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
SOURCE = Source(
    "multi30k",
    {
        kind: tuple(f"{file}.{language}{suffix}" for file in _FILES.values()
                    for language in ("de", "en"))
        for kind, suffix in (("gzip", ".gz"), ("text", ""))
    },
    folders=("multi30k", "multi30k-dataset"),
    homepage=HOMEPAGE,
)  # fmt: skip
_WORD = re.compile(r"\w+|[^\w\s]")

Pairs = list[tuple[list[str], list[str]]]


def load_multi30k(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    vocabulary: str = "both",
    max_words: int = 10_000,
    min_count: int = 2,
    max_length: int = 64,
) -> Dataset:
    """Loads pairs of a German sentence and its English translation.

    Both languages share one numbering of words, and so can share an embedding. A word
    is a lower-case word or a punctuation mark.

    Args:
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      vocabulary: where the words come from: `"both"` sides of the training split, or
        its `"german"` side alone, so that half of the English words are unknown and
        predicting the unknown word is often right. The latter is what the paper of
        MetaAdamW does; its perplexities compare with no others.
      max_words: how many tokens are told apart, the four special ones included.
      min_count: how often a word must occur to be one of them.
      max_length: tokens of a sentence, beginning and end included; pairs with a longer
        one are left out. The longest sentences have 47.

    Returns:
      Splits of `source`, the German sentence and `<eos>`, and `target`, `<bos>`, the
      English sentence and `<eos>`: uint16 of shape (pairs, time), padded with
      `PAD_TOKEN` at the end to the longest sentence of all splits.

    Raises:
      ValueError: an option is not allowed, a file is corrupt, or two files do not have
        the same number of sentences.
      FileNotFoundError: files are missing; the message says how to get them.
    """
    check_known("vocabulary", vocabulary, VOCABULARIES)
    check_counts(minimum=len(SPECIALS) + 1, max_words=max_words)
    check_counts(minimum=3, max_length=max_length)
    check_counts(min_count=min_count)
    layout, folder, _ = SOURCE.find(data_dir)
    suffix = ".gz" if layout == "gzip" else ""
    texts = {k: _read(folder, file, suffix) for k, file in _FILES.items()}
    pairs = {k: _pairs(*text) for k, text in texts.items()}
    sides = slice(None) if vocabulary == "both" else slice(1)
    number = most_frequent(
        itertools.chain.from_iterable(s for p in pairs["train"] for s in p[sides]),
        size=max_words,
        specials=SPECIALS,
        min_count=min_count,
    )
    kept = {k: _short(v, max_length) for k, v in pairs.items()}
    for split, found in kept.items():
        if not found:
            raise ValueError(f"multi30k: max_length={max_length} leaves {split} empty")
    longest = max(len(s) for found in kept.values() for pair in found for s in pair)

    def encode(words: list[list[str]], time: int) -> np.ndarray:
        tokens = np.full((len(words), time), number[PAD], np.uint16)
        for row, sentence in zip(tokens, words, strict=True):
            row[: len(sentence)] = numbered(sentence, number)
        return tokens

    return Dataset(
        name="multi30k",
        splits={
            split: {
                "source": encode([[*de, END] for de, _ in found], longest + 1),
                "target": encode([[BEGIN, *en, END] for _, en in found], longest + 2),
            }
            for split, found in kept.items()
        },
        num_classes=len(number),
        source=", ".join(SOURCE.layouts[layout]),
        sha256={k: sha256(*(side.encode() for side in v)) for k, v in texts.items()},
    )


def split_words(sentence: str) -> list[str]:
    """Splits a sentence into lower-case words and single punctuation marks.

    Example:
      >>> split_words("Zwei Männer, draußen.")
      ['zwei', 'männer', ',', 'draußen', '.']
    """
    return _WORD.findall(sentence.lower())


def _read(folder: pathlib.Path, file: str, suffix: str) -> tuple[str, str]:
    german, english = (
        read_text(folder / f"{file}.{language}{suffix}") for language in ("de", "en")
    )
    lengths = [len(_sentences(side)) for side in (german, english)]
    if len(set(lengths)) > 1 or not german.strip():
        raise ValueError(
            f"{folder / file}.de{suffix} and .en{suffix} must have one sentence a "
            f"line, the same ones; they have {lengths[0]} and {lengths[1]} lines"
        )
    return german, english


def _pairs(german: str, english: str) -> Pairs:
    sides = (map(split_words, _sentences(side)) for side in (german, english))
    return list(zip(*sides, strict=True))


def _sentences(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


def _short(pairs: Pairs, max_length: int) -> Pairs:
    return [p for p in pairs if all(len(sentence) + 2 <= max_length for sentence in p)]
