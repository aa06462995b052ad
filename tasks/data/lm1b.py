"""The One Billion Word benchmark (Chelba et al. 2013, arXiv 1312.3005): sentences."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from tasks.checks import check_counts, check_known
from tasks.data import tfds
from tasks.data.dataset import Dataset, sha256
from tasks.data.files import Found, Source
from tasks.data.readers import Read, reader
from tasks.data.token_files import FILES, META, load_token_files, read_meta
from tasks.data.tokenizers import (
    TOKENIZERS,
    code_points,
    encode_rows,
    make_tokenizer,
    rows_vocab_size,
)

HOMEPAGE = (
    "https://github.com/ciprian-chelba/1-billion-word-language-modeling-benchmark"
)
_OFFICIAL = "{}-monolingual.tokenized.shuffled/news.en{}-*-of-*"
TEXT_SOURCE = Source(
    "lm1b",
    {
        "text": ("train.txt", "valid.txt"),
        "gzip": ("train.txt.gz", "valid.txt.gz"),
        "original": (
            _OFFICIAL.format("training", ""),
            _OFFICIAL.format("heldout", ".heldout").replace("*", "00000", 1),
        ),
        "sample of held-out sections": (
            "heldout_10-11.txt.gz",
            "heldout_12-13.txt.gz",
        ),
        "TFDS": tfds.TFDS_FILES,
    },
    folders=(
        "lm1b",
        "1-billion-word-language-modeling-benchmark-r13output",
    ),
    homepage=HOMEPAGE,
)
SOURCE = dataclasses.replace(
    TEXT_SOURCE,
    layouts={"token files": (*FILES.values(), META), **TEXT_SOURCE.layouts},
    folders=(*(f"lm1b-{name}" for name in TOKENIZERS), *TEXT_SOURCE.folders),
)
# About five seconds of tokenizing at each start; what is larger is prepared once.
_MAX_BYTES = 2**24
_PREPARE = (
    "python -m tasks data prepare lm1b --out FOLDER/lm1b-{0} --row-length {1} "
    "--tokenizer {0}"
)


def load_lm1b(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    tokenizer: str = "byte",
    sentencepiece_model: str | os.PathLike[str] | None = None,
    length: int = 65,
) -> Dataset:
    """Loads sentences as rows of tokens, cropped or padded at the end to one length.

    The benchmark itself is read from token files, which `python -m tasks data prepare
    lm1b` writes from its text; a small part of it can be read as text.

    Args:
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      tokenizer: `byte`, `character`, `gpt2` or `sentencepiece`.
      sentencepiece_model: for `sentencepiece`, the file of the model; token files do
        not need it.
      length: tokens in a row: the context and the token after it.

    Returns:
      The splits `train` and `valid` of `tokens`, unsigned integers of shape
      (sentences, length), padded with 0; memory-mapped if read from token files. As 0
      is the padding, the numbers of characters and of GPT-2 are greater by one.

    Raises:
      ValueError: an option is not allowed, a file is corrupt, the text is too large to
        be tokenized at each start, or token files were prepared with other options.
      FileNotFoundError: files are missing; the message says how to get them.
      ModuleNotFoundError: the library of the tokenizer is not installed.
    """
    check_known("tokenizer", tokenizer, TOKENIZERS)
    check_counts(minimum=2, length=length)
    folders = (f"lm1b-{tokenizer}", *TEXT_SOURCE.folders)
    found = dataclasses.replace(SOURCE, folders=folders).find(data_dir)
    prepare = _PREPARE.format(tokenizer, length)
    if tokenizer == "sentencepiece":
        prepare += " --sentencepiece-model FILE"
    if found.layout == "token files":
        meta = read_meta(found.folder / META)
        if (meta["tokenizer"], meta.get("row_length")) != (tokenizer, length):
            raise ValueError(
                f"{found.folder / META} is of tokenizer {meta['tokenizer']!r} and rows "
                f"of {meta.get('row_length')}, not {tokenizer!r} and {length}; for "
                f"those run {prepare}"
            )
        dataset = load_token_files(found.folder.name, found.folder)
        return dataclasses.replace(dataset, name=SOURCE.name)
    if sum(path.stat().st_size for path in found.paths) > _MAX_BYTES or (
        found.layout == "TFDS"
    ):
        raise ValueError(
            f"{found.folder} holds more text than can be tokenized at each start; run "
            f"{prepare}"
        )
    texts = {k: "".join(read()) for k, read in texts_of(found).items()}
    for split, text in texts.items():
        if not text.strip():
            files = ", ".join(map(str, _paths(found)[split]))
            raise ValueError(f"{files} is empty")
    points = [np.unique(code_points(text)) for text in texts.values()]
    made = make_tokenizer(
        tokenizer,
        characters="".join(map(chr, np.unique(np.concatenate(points)))),
        sentencepiece_model=sentencepiece_model,
    )
    dtype = np.min_scalar_type(rows_vocab_size(made) - 1)
    rows = {
        split: np.stack(list(encode_rows(made, text.split("\n"), length)))
        for split, text in texts.items()
    }
    return Dataset(
        name="lm1b",
        splits={k: {"tokens": v.astype(dtype)} for k, v in rows.items()},
        num_classes=rows_vocab_size(made),
        source=", ".join(path.name for path in found.paths),
        sha256={split: sha256(text.encode()) for split, text in texts.items()},
    )


def texts_of(found: Found) -> dict[str, Read]:
    """What reads the text of each split in blocks, as often as it is called."""
    if found.layout == "TFDS":
        version = found.paths[-1].parent
        splits = {"train": "train", "valid": "test"}
        return {k: lambda v=v: tfds.texts(version, v) for k, v in splits.items()}
    return {k: reader(v) for k, v in _paths(found).items()}


def _paths(found: Found) -> dict[str, Sequence[pathlib.Path]]:
    return {"train": found.paths[:-1], "valid": found.paths[-1:]}
