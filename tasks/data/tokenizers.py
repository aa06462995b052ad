"""From text to the numbers of tokens, and what a model must have for them."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tasks.checks import check_known
from tasks.data.dataset import Dataset
from tasks.data.optional import require

TOKENIZERS = ("byte", "character", "gpt2", "sentencepiece")
PAD_TOKEN = 0

# GPT-2 never joins a blank that a word follows to what is before it.
_LAST_CUT = re.compile(r"(?s).*(?=[ \n]\S)")


class Tokenizer(NamedTuple):
    """A way to number the tokens of a text.

    Attributes:
      name: one of `TOKENIZERS`.
      vocab_size: how many tokens there are.
      encode: `text -> token numbers`, an array of integers.
      pieces: cuts blocks of text where encoding piece by piece gives what encoding the
        whole would.
      pad_token: the token that fills up rows, if the vocabulary has one at 0.
      metadata: what identifies it.
    """

    name: str
    vocab_size: int
    encode: Callable[[str], np.ndarray]
    pieces: Callable[[Iterable[str]], Iterable[str]]
    pad_token: int | None
    metadata: dict[str, Any]


def make_tokenizer(
    name: str,
    *,
    characters: str = "",
    sentencepiece_model: str | os.PathLike[str] | None = None,
) -> Tokenizer:
    """Makes a tokenizer.

    Args:
      name: `byte`, of UTF-8; `character`, numbered in their order; `gpt2`, the byte
        pairs of GPT-2, by tiktoken; or `sentencepiece`, which encodes line by line and
        ends each with the model's end token, if it has one.
      characters: for `character`: all that there are, in order.
      sentencepiece_model: for `sentencepiece`: the file of the model.

    Raises:
      ValueError: the name is unknown, or the model is missing or not one; later, a text
        has a character that is none of `characters`.
      ModuleNotFoundError: tiktoken or sentencepiece is not installed.
      FileNotFoundError: the file of the model, or the vocabulary of GPT-2, is missing.

    Example:
      >>> make_tokenizer("byte").encode("né").tolist()
      [110, 195, 169]
      >>> make_tokenizer("character", characters="abn").encode("ban").tolist()
      [1, 0, 2]
    """
    check_known("tokenizer", name, TOKENIZERS)
    if (sentencepiece_model is None) == (name == "sentencepiece"):
        raise ValueError(
            "sentencepiece_model, the file of a trained model, is for the tokenizer "
            f"'sentencepiece' and needed there; got {sentencepiece_model!r} for "
            f"{name!r}"
        )
    if name == "byte":
        return Tokenizer(name, 256, _bytes, iter, PAD_TOKEN, {})
    if name == "character":
        return _character(characters)
    if sentencepiece_model is None:
        return _gpt2()
    return _sentencepiece(pathlib.Path(sentencepiece_model))


def encode_text(tokenizer: Tokenizer, blocks: Iterable[str]) -> Iterator[np.ndarray]:
    """The tokens of a text that comes in blocks, piece by piece.

    Example:
      >>> [ids.tolist() for ids in encode_text(make_tokenizer("byte"), ["a", "bc"])]
      [[97], [98, 99]]
    """
    return map(tokenizer.encode, tokenizer.pieces(blocks))


def encode_rows(
    tokenizer: Tokenizer, lines: Iterable[str], length: int
) -> Iterator[np.ndarray]:
    r"""The tokens of each line that is not blank, cropped or padded to `length`.

    The padding is `PAD_TOKEN`; the numbers of tokenizers that use that one for a token
    are greater by one, see `rows_vocab_size`.

    Example:
      >>> tokenizer = make_tokenizer("character", characters="ab")
      >>> [row.tolist() for row in encode_rows(tokenizer, ["ab\n", "bbbb\n"], 3)]
      [[1, 2, 0], [2, 2, 2]]
    """
    shift = tokenizer.pad_token is None
    for line in lines:
        if stripped := line.strip():
            row = np.full(length, PAD_TOKEN, np.int64)
            ids = tokenizer.encode(stripped)[:length]
            row[: len(ids)] = np.asarray(ids, np.int64) + shift
            yield row


def rows_vocab_size(tokenizer: Tokenizer) -> int:
    """How many tokens the rows of `encode_rows` can have."""
    return tokenizer.vocab_size + (tokenizer.pad_token is None)


def check_vocabulary(dataset: Dataset, vocab_size: int) -> None:
    """Raises `ValueError` unless a model of `vocab_size` tokens has all of the data's.

    Example:
      >>> data = Dataset("wikitext2", {}, 50257, "train.bin, val.bin", {})
      >>> check_vocabulary(data, 256)
      Traceback (most recent call last):
      ...
      ValueError: wikitext2 (train.bin, val.bin) has 50257 tokens, more than the \
vocab_size=256 of the model
    """
    if dataset.num_classes > vocab_size:
        raise ValueError(
            f"{dataset.name} ({dataset.source}) has {dataset.num_classes} tokens, more "
            f"than the vocab_size={vocab_size} of the model"
        )


def lines(blocks: Iterable[str]) -> Iterator[str]:
    r"""The lines of a text that comes in blocks, with their ends.

    Example:
      >>> list(lines(["a", "b\nc\n\n", "d"]))
      ['ab\n', 'c\n', '\n', 'd']
    """
    rest = ""
    for block in blocks:
        *complete, rest = (rest + block).split("\n")
        yield from (line + "\n" for line in complete)
    if rest:
        yield rest


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def code_points(text: str) -> np.ndarray:
    """The numbers of the characters, uint32."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _character(characters: str) -> Tokenizer:
    vocabulary = code_points(characters)

    def encode(text: str) -> np.ndarray:
        points = code_points(text)
        found = np.minimum(np.searchsorted(vocabulary, points), len(vocabulary) - 1)
        absent = np.flatnonzero(vocabulary[found] != points)
        if absent.size:
            raise ValueError(
                f"the character {text[absent[0]]!r} is not in the vocabulary"
            )
        return found

    metadata = {"characters": characters}
    return Tokenizer("character", len(vocabulary), encode, iter, None, metadata)


def _gpt2() -> Tokenizer:
    tiktoken = require("tiktoken", "tokenizers")
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except Exception as error:
        raise FileNotFoundError(
            "the GPT-2 vocabulary, which tiktoken downloads once, is not there: set "
            f"TIKTOKEN_CACHE_DIR to a folder that has it ({type(error).__name__}: "
            f"{error})"
        ) from error

    def encode(text: str) -> np.ndarray:
        return np.array(encoding.encode_ordinary(text), np.int64)

    return Tokenizer("gpt2", encoding.n_vocab, encode, _at_blanks, None, {})


def _sentencepiece(path: pathlib.Path) -> Tokenizer:
    sentencepiece = require("sentencepiece", "tokenizers")
    content = path.read_bytes()
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except Exception as error:
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from error
    end = [processor.eos_id()] if processor.eos_id() >= 0 else []

    def encode(text: str) -> np.ndarray:
        ids = processor.encode(text.strip(), out_type=int)
        return np.array([*ids, *(end if text.endswith("\n") else [])], np.int64)

    has_pad = processor.pad_id() == PAD_TOKEN
    return Tokenizer(
        "sentencepiece",
        processor.vocab_size(),
        encode,
        _full_lines,
        PAD_TOKEN if has_pad else None,
        {"sentencepiece_sha256": hashlib.sha256(content).hexdigest()},
    )


def _full_lines(blocks: Iterable[str]) -> Iterator[str]:
    return (f"{line.strip()}\n" for line in lines(blocks) if line.strip())


def _at_blanks(blocks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for block in blocks:
        rest += block
        if (found := _LAST_CUT.match(rest)) and found.end():
            yield rest[: found.end()]
            rest = rest[found.end() :]
    if rest:
        yield rest
