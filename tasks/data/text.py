"""The catalogue of texts, and how they become tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from tasks.checks import check_known
from tasks.data import embedded
from tasks.data.dataset import Dataset, sha256
from tasks.data.files import Source
from tasks.data.readers import read_text
from tasks.data.tokenizers import encode_text, make_tokenizer

LEVELS = ("byte", "character", "word", "gpt2", "sentencepiece")
END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"


# Each layout has one file, or those of train, valid and test in this order.
SOURCES = {
    "tiny_shakespeare": Source(
        "tiny_shakespeare",
        {"text": ("input.txt",), "gzip": ("input.txt.gz",)},
        folders=("tiny_shakespeare", "tinyshakespeare"),
        homepage="https://github.com/karpathy/char-rnn",
    ),
    "wikitext2": Source(
        "wikitext2",
        {
            "text": ("train.txt", "valid.txt", "test.txt"),
            "gzip": ("train.txt.gz", "valid.txt.gz", "test.txt.gz"),
            "original": ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        },
        folders=("wikitext2", "wikitext-2"),
        homepage="https://huggingface.co/datasets/Salesforce/wikitext",
    ),
}
TEXT_SETS = ("python_docs", *SOURCES)


def load_text(
    name: str,
    level: str = "byte",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    sentencepiece_model: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a text as tokens.

    `python_docs` comes with Python; its last twentieth is for validation. The last
    tenth of `tiny_shakespeare` is for validation; `wikitext2` has official splits.

    Args:
      name: `python_docs`, `tiny_shakespeare` or `wikitext2`.
      level: what a token is: a `byte` of UTF-8 (256 of them); a `character`, numbered
        in the order of code points; a `word` between blanks, with `<eos>` at each end
        of line and `<unk>` for what the training split does not contain; or a piece of
        `gpt2` or `sentencepiece`, see `tasks.data.tokenizers`.
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      sentencepiece_model: for `sentencepiece`, the file of the model.

    Raises:
      ValueError: the name or the level is unknown, or a file is corrupt.
      FileNotFoundError: files are missing; the message says how to get them.
      ModuleNotFoundError: the library of the level is not installed.

    Example:
      >>> docs = load_text("python_docs")
      >>> docs.num_classes, docs.splits["train"]["tokens"].dtype
      (256, dtype('uint8'))
    """
    check_known("text", name, TEXT_SETS)
    check_known("level", level, LEVELS)
    if name == "python_docs":
        texts = _hold_out_end(embedded.python_docs(), 1 / 20)
        source = embedded.PYTHON_DOCS_SOURCE
    else:
        texts, source = read_splits(name, data_dir)
    tokens, num_classes = tokenize(
        texts, level, sentencepiece_model=sentencepiece_model
    )
    encoded = {split: text.encode() for split, text in texts.items()}
    return Dataset(
        name=name,
        splits={
            split: {
                "tokens": tokens[split],
                "bytes_per_token": np.asarray(
                    len(encoded[split]) / len(tokens[split]), np.float32
                ),
            }
            for split in texts
        },
        num_classes=num_classes,
        source=source,
        sha256={split: sha256(content) for split, content in encoded.items()},
    )


def tokenize(
    texts: Mapping[str, str],
    level: str,
    *,
    sentencepiece_model: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, np.ndarray], int]:
    """Turns the texts of the splits into token ids; `load_text` describes the levels.

    Returns:
      The ids of each split, in the smallest unsigned dtype, and the vocabulary size.

    Example:
      >>> ids, vocabulary_size = tokenize({"train": "abca"}, "character")
      >>> ids, vocabulary_size
      ({'train': array([0, 1, 2, 0], dtype=uint8)}, 3)
    """
    if level == "word":
        words = {k: _words(text) for k, text in texts.items()}
        vocabulary = sorted({*words["train"], UNKNOWN})
        id_of = {word: i for i, word in enumerate(vocabulary)}
        ids = {
            k: np.array([id_of.get(word, id_of[UNKNOWN]) for word in v])
            for k, v in words.items()
        }
        vocab_size = len(vocabulary)
    else:
        tokenizer = make_tokenizer(
            level,
            characters="".join(sorted(set().union(*texts.values()))),
            sentencepiece_model=sentencepiece_model,
        )
        pieces = {k: encode_text(tokenizer, [text]) for k, text in texts.items()}
        ids = {k: np.concatenate(list(v)) for k, v in pieces.items()}
        vocab_size = tokenizer.vocab_size
    dtype = np.min_scalar_type(vocab_size - 1)
    return {k: v.astype(dtype) for k, v in ids.items()}, vocab_size


def _words(text: str) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    return [word for line in lines for word in (*line.split(), END_OF_LINE)]


def _hold_out_end(text: str, fraction: float) -> dict[str, str]:
    cut = round(len(text) * (1 - fraction))
    return {"train": text[:cut], "valid": text[cut:]}


def read_splits(
    name: str, data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, str], str]:
    """The texts of the splits of a set that is read from files, and those files."""
    paths = SOURCES[name].find(data_dir).paths
    texts = [read_text(path) for path in paths]
    for path, text in zip(paths, texts, strict=True):
        if not text.strip():
            raise ValueError(f"{path} is empty")
    if len(texts) == 1:
        splits = _hold_out_end(texts[0], 1 / 10)
    else:
        splits = dict(zip(("train", "valid", "test"), texts, strict=True))
    return splits, ", ".join(path.name for path in paths)
