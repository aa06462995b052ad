"""The Large Movie Review data set (IMDB): reviews, and whether they are positive."""

from __future__ import annotations

import csv
import io
import itertools
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from tasks.data.dataset import Dataset, sha256
from tasks.data.files import Source
from tasks.data.readers import read_text
from tasks.data.splits import spread
from tasks.data.vocabulary import PAD, UNKNOWN, most_frequent, numbered

HOMEPAGE = "https://ai.stanford.edu/~amaas/data/sentiment"

_FOLDERS = ("neg", "pos")
SOURCE = Source(
    "imdb",
    {
        "csv": ("train.csv", "test.csv"),
        "csv gz": ("train.csv.gz", "test.csv.gz"),
        "original folders": ("train/neg", "train/pos", "test/neg", "test/pos"),
    },
    folders=("imdb", "aclImdb"),
    homepage=HOMEPAGE,
)
_WORD = re.compile(r"[.,()!?']|[^\s.,()!?';:]+")


class Reviews(NamedTuple):
    """Texts, and int32 labels: 1 for positive ones, 0 for negative ones."""

    texts: list[str]
    label: np.ndarray

    def where(self, rows: np.ndarray) -> Reviews:
        """The reviews where the boolean array `rows` is true."""
        return Reviews([self.texts[i] for i in rows.nonzero()[0]], self.label[rows])


def load_imdb(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    max_words: int = 25_000,
    min_count: int = 5,
    length: int = 256,
) -> tuple[Dataset, tuple[str, ...]]:
    """Loads the reviews as the numbers of their words.

    A tenth of the official training set, of either label, is held out for validation;
    `test` is the official one. The words are those of the official training set.

    Args:
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      max_words: how many words are told apart, padding and the unknown one included.
      min_count: how often a word must occur to be one of them.
      length: number of words that a review is cut to, or padded to at its end.

    Returns:
      Splits of `tokens`, uint16 of shape (reviews, length), and `label`, 1 for positive
      ones; and the words by number: padding, the unknown one, the others by how often
      they occur.

    Raises:
      ValueError: a file is corrupt.
      FileNotFoundError: files are missing; the message says how to get them.
    """
    layout, folder, paths = SOURCE.find(data_dir)
    if layout == "original folders":
        train, test = (_read_folders(folder / split) for split in ("train", "test"))
    else:
        train, test = map(_read_csv, paths)
    held_out = spread(train.label, 0.1)
    splits = {
        "train": train.where(~held_out),
        "valid": train.where(held_out),
        "test": test,
    }
    words = {k: [split_words(text) for text in v.texts] for k, v in splits.items()}
    vocabulary = most_frequent(
        itertools.chain(*words["train"], *words["valid"]),
        size=max_words,
        specials=(PAD, UNKNOWN),
        min_count=min_count,
    )

    def encode(reviews: list[list[str]]) -> np.ndarray:
        tokens = np.full((len(reviews), length), vocabulary[PAD], np.uint16)
        for row, review in zip(tokens, reviews, strict=True):
            row[: len(review)] = numbered(review[:length], vocabulary)
        return tokens

    dataset = Dataset(
        name="imdb",
        splits={
            split: {"tokens": encode(words[split]), "label": reviews.label}
            for split, reviews in splits.items()
        },
        num_classes=2,
        source=", ".join(SOURCE.layouts[layout]),
        sha256={
            split: sha256("\n".join(texts).encode(), label.astype("<i4").tobytes())
            for split, (texts, label) in splits.items()
        },
    )
    return dataset, tuple(vocabulary)


def split_words(text: str) -> list[str]:
    r"""Splits English text into lower-case words and marks, as basic tokenizers do.

    Apostrophes stand alone, colons and semicolons separate, quotation marks and HTML
    line breaks are left out.

    Example:
      >>> split_words('It\'s "so-so";<br />really.')
      ['it', "'", 's', 'so-so', 'really', '.']
    """
    return _WORD.findall(text.lower().replace("<br />", " ").replace('"', ""))


def _read_csv(path: pathlib.Path) -> Reviews:
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    try:
        texts = [row["text"] for row in rows]
        return _checked(texts, [{"0": 0, "1": 1}[row["label"]] for row in rows], path)
    except (KeyError, csv.Error) as error:
        raise ValueError(
            f"{path} must be a table with the columns text and label, which is 0 or 1: "
            f"{type(error).__name__}: {error}"
        ) from error


def _read_folders(folder: pathlib.Path) -> Reviews:
    paths = [sorted((folder / name).glob("*.txt")) for name in _FOLDERS]
    texts = [read_text(path) for of_label in paths for path in of_label]
    return _checked(texts, np.repeat([0, 1], [len(found) for found in paths]), folder)


def _checked(texts: list[str], label, path: pathlib.Path) -> Reviews:
    label = np.asarray(label, np.int32)
    if set(label.tolist()) != {0, 1}:
        raise ValueError(f"{path} must hold positive and negative reviews")
    return Reviews(texts, label)
