"""Text becomes token files, in memory that does not grow with the text."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tasks.checks import check_counts, check_fractions, check_known
from tasks.data import embedded, lm1b, text
from tasks.data.readers import Read, reader
from tasks.data.token_files import DTYPES, FILES, META
from tasks.data.tokenizers import (
    TOKENIZERS,
    Tokenizer,
    code_points,
    encode_rows,
    encode_text,
    lines,
    make_tokenizer,
    rows_vocab_size,
)

NAMED = (*text.TEXT_SETS, "lm1b")
_ENDINGS = ("*.txt", "*.txt.gz")


def prepare(
    source: str,
    out: str | os.PathLike[str],
    tokenizer: str,
    *,
    sentencepiece_model: str | os.PathLike[str] | None = None,
    valid: str | os.PathLike[str] | None = None,
    valid_fraction: float = 0.1,
    row_length: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes `train.bin`, `val.bin` and `meta.json`, which `load_token_files` reads.

    The text is read twice, block by block: for its size and characters, and to encode
    it. The files appear when all are complete, or not at all.

    Args:
      source: `tiny_shakespeare`, `wikitext2`, `python_docs` or `lm1b`; or a file of
        UTF-8 text, plain or `.gz`; or a folder of such files, `*.txt` and `*.txt.gz`,
        which are read in the order of their names.
      out: the folder to write to.
      tokenizer: `byte`, `character`, `gpt2` or `sentencepiece`.
      sentencepiece_model: for `sentencepiece`, the file of the model.
      valid: a file or a folder of text to validate on.
      valid_fraction: how much of the end of a text is for validation if there is no
        other, in characters, or in lines if `row_length` is given.
      row_length: makes every line that is not blank a row of so many tokens, cropped or
        padded with 0, as LM1B is used. By default tokens follow one another.
      data_dir: the folder of data sets, for a `source` that is a name.
      overwrite: whether files that are in `out` may be replaced.

    Returns:
      What `meta.json` holds: tokenizer, vocabulary size, dtype, and by split the number
      of tokens, the bytes of the text and the SHA-256 of the file. Tokens are uint16,
      or uint32 if there are more than 65,536 different ones.

    Raises:
      ValueError: an option is not allowed, a file is not UTF-8, or a split is empty.
      FileNotFoundError: the source is not there.
      FileExistsError: `out` holds such files already.
      ModuleNotFoundError: the library of the tokenizer is not installed.
    """
    check_known("tokenizer", tokenizer, TOKENIZERS)
    check_fractions(valid_fraction=valid_fraction)
    if row_length is not None:
        check_counts(minimum=2, row_length=row_length)
    out = pathlib.Path(out)
    written = [out / name for name in (META, *FILES.values())]
    existing = [str(path) for path in written if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{', '.join(existing)} would be replaced: choose another folder, or "
            "overwrite=True (--overwrite)"
        )
    # Before anything is read: it may not be installed.
    if tokenizer != "character":
        make_tokenizer(tokenizer, sentencepiece_model=sentencepiece_model)
    texts = _texts(source, valid, data_dir)
    by_line = row_length is not None
    surveys = {split: _survey(source, split, read) for split, read in texts.items()}
    if len(texts) == 1:
        texts = _hold_out(texts["train"], surveys["train"], valid_fraction, by_line)
    characters = set().union(*(survey.characters for survey in surveys.values()))
    made = make_tokenizer(
        tokenizer,
        characters="".join(sorted(characters)),
        sentencepiece_model=sentencepiece_model,
    )
    out.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=out, prefix=".prepare-"))
    try:
        meta = _write(folder, source, texts, made, row_length)
        # Without the last of the files, the others are not found.
        written[-1].unlink(missing_ok=True)
        for path in written:
            (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return meta


class _Survey(NamedTuple):
    length: int
    num_lines: int
    characters: frozenset[str]


def _texts(
    source: str,
    valid: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
) -> dict[str, Read]:
    """What reads each split that there is, in blocks."""
    if valid is not None:
        return {"train": reader(_paths(source)), "valid": reader(_paths(valid))}
    if source == "python_docs":
        return {"train": lambda: iter([embedded.python_docs()])}
    if source == "lm1b":
        return lm1b.texts_of(lm1b.TEXT_SOURCE.find(data_dir))
    if source in text.SOURCES:
        paths = text.SOURCES[source].find(data_dir).paths
        splits = zip(FILES, paths, strict=False)
        return {split: reader([path]) for split, path in splits}
    return {"train": reader(_paths(source))}


def _paths(source: str | os.PathLike[str]) -> list[pathlib.Path]:
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        found = [file for ending in _ENDINGS for file in path.glob(ending)]
        if found:
            return sorted(found)
        raise FileNotFoundError(f"{path} has no file {' or '.join(_ENDINGS)}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(source)!r} is no file, no folder and none of {', '.join(NAMED)}"
        )
    return [path]


def _survey(source: str, split: str, read: Read) -> _Survey:
    length, num_lines, points, block = 0, 0, np.empty(0, np.uint32), "\n"
    for block in tqdm(read(), desc=f"reading {split}", unit=" blocks"):
        length += len(block)
        num_lines += block.count("\n")
        points = np.union1d(points, code_points(block))
    num_lines += not block.endswith("\n")
    characters = frozenset(map(chr, points.tolist()))
    if not "".join(characters).strip():
        raise ValueError(f"{source}: the split {split!r} is empty")
    return _Survey(length, num_lines, characters)


def _hold_out(
    read: Read, survey: _Survey, fraction: float, by_line: bool
) -> dict[str, Read]:
    """Cuts off the end of a text: so many characters of it, or lines."""
    span = functools.partial(_span, read, by_line)
    cut = int((survey.num_lines if by_line else survey.length) * (1 - fraction))
    return {"train": lambda: span(0, cut), "valid": lambda: span(cut, None)}


def _span(read: Read, by_line: bool, start: int, stop: int | None) -> Iterator[str]:
    if by_line:
        yield from itertools.islice(lines(read()), start, stop)
        return
    place = 0
    for block in read():
        end = len(block) if stop is None else max(0, stop - place)
        if found := block[max(0, start - place) : end]:
            yield found
        place += len(block)


def _write(
    folder: pathlib.Path,
    source: str,
    texts: dict[str, Read],
    tokenizer: Tokenizer,
    row_length: int | None,
) -> dict[str, Any]:
    """Writes the files and returns what describes them."""
    vocab_size = rows_vocab_size(tokenizer) if row_length else tokenizer.vocab_size
    dtype = next(d for d in DTYPES if vocab_size - 1 <= np.iinfo(d).max)
    meta: dict[str, Any] = {
        "source": pathlib.Path(source).name,
        "tokenizer": tokenizer.name,
        **tokenizer.metadata,
        "vocab_size": vocab_size,
        "dtype": dtype,
        "row_length": row_length,
        "tokens": {},
        "bytes": {},
        "sha256": {},
    }
    for split, read in texts.items():
        progress = tqdm(desc=f"writing {split}", unit="B", unit_scale=True)
        with (folder / FILES[split]).open("wb") as file, progress:
            blocks = _counted(read(), progress)
            encoded = (
                encode_rows(tokenizer, lines(blocks), row_length)
                if row_length
                else encode_text(tokenizer, blocks)
            )
            digest, num_tokens = hashlib.sha256(), 0
            for ids in encoded:
                content = ids.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
                digest.update(content)
                file.write(content)
                num_tokens += len(ids)
            num_bytes = int(progress.n)
        if not num_tokens:
            raise ValueError(f"{source}: the split {split!r} is empty")
        meta["tokens"][split] = num_tokens
        meta["bytes"][split] = num_bytes
        meta["sha256"][split] = digest.hexdigest()
    description = json.dumps(meta, indent=1, ensure_ascii=False)
    (folder / META).write_text(description + "\n", encoding="utf-8")
    return meta


def _counted(blocks: Iterable[str], progress: tqdm) -> Iterator[str]:
    for block in blocks:
        progress.update(len(block.encode()))
        yield block
