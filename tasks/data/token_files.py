"""Files of token numbers and nothing else, `train.bin` and `val.bin`, as nanoGPT has.

`python -m tasks data prepare` writes them from text, with a `meta.json` that says what
is in them. Without it they are taken for uint16, as nanoGPT writes them; its `meta.pkl`
is not read, because to read a pickle is to run a program.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tasks.checks import check_counts, check_known
from tasks.data.dataset import Dataset
from tasks.data.files import Source
from tasks.data.readers import refusing

META = "meta.json"
FILES = {"train": "train.bin", "valid": "val.bin"}
DTYPES = ("uint16", "uint32")

_NANOGPT = "https://github.com/karpathy/nanoGPT (data/{}/prepare.py)"
_PREPARE = "`python -m tasks data prepare SOURCE --out FOLDER`, or nanoGPT's prepare.py"
_HOMEPAGES = {
    "openwebtext": _NANOGPT.format("openwebtext"),
    "shakespeare": _NANOGPT.format("shakespeare"),
    "shakespeare_char": _NANOGPT.format("shakespeare_char"),
}
_EVALUATED = {
    "wikitext": "https://huggingface.co/datasets/Salesforce/wikitext (raw text of "
    "WikiText-2), as GPT-2 tokens by `python -m tasks data prepare`",
    "lambada": "https://zenodo.org/records/2630551, as GPT-2 tokens by `python -m "
    "tasks data prepare`",
}
_BLOCK = 2**20
_READ_WHOLE = 256


def source(name: str, splits: Sequence[str] = tuple(FILES)) -> Source:
    """Where the token files of that name are looked for."""
    return Source(
        name,
        {"token files": tuple(FILES[split] for split in splits)},
        folders=(name,),
        homepage={**_HOMEPAGES, **_EVALUATED}.get(name, _PREPARE),
    )


SOURCES = {
    **{name: source(name) for name in _HOMEPAGES},
    **{name: source(name, ("valid",)) for name in _EVALUATED},
}


def load_token_files(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    vocab_size: int | None = None,
    splits: Sequence[str] = tuple(FILES),
) -> Dataset:
    """Opens token files; the tokens stay on the disk.

    Args:
      name: the folder that has the files: `openwebtext`, `shakespeare`,
        `shakespeare_char`, or any other.
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      vocab_size: how many tokens there are, 50257 for GPT-2. By default that of
        `meta.json`, from which it must not differ, or else one more than the largest
        token that occurs, which takes a pass over the files.
      splits: `train` and `valid`, or one of them: sets to evaluate on have no `train`.

    Returns:
      The splits, memory-mapped: `tokens`, uint16 or uint32 of shape (tokens,), or of
      shape (rows, length) if `meta.json` gives a `row_length`; and `bytes_per_token`,
      float32, if it gives the bytes of the text. `sha256` is that of a file, or of its
      length and 256 MiB spread over it where it is larger and without `meta.json`.

    Raises:
      ValueError: a file is empty or corrupt, or has a token that is too large: of files
        over 256 MiB, the ones that are read here are checked, and `window_stream`
        checks what it reads.
      FileNotFoundError: files are missing; the message says how to get them.
    """
    for split in splits:
        check_known("split", split, FILES)
    if vocab_size is not None:
        check_counts(vocab_size=vocab_size)
    folder = source(name, splits).find(data_dir).folder
    meta = read_meta(folder / META) if (folder / META).is_file() else {}
    tokens = {split: _open(folder / FILES[split], split, meta) for split in splits}
    allowed = meta.get("vocab_size", vocab_size)
    if vocab_size not in (None, allowed):
        raise ValueError(
            f"{folder / META} says that there are {allowed} tokens, and vocab_size is "
            f"{vocab_size}: the files are of another tokenizer"
        )
    scanned = {k: _scan(v, whole=allowed is None) for k, v in tokens.items()}
    num_classes = allowed or 1 + max(largest for largest, _ in scanned.values())
    for split, (largest, _) in scanned.items():
        if largest >= num_classes:
            raise ValueError(
                f"{folder / FILES[split]} holds token {largest}, and vocab_size is "
                f"{num_classes}: the file is of another tokenizer"
            )
    return Dataset(
        name=name,
        splits={k: {"tokens": v, **_size(meta, k)} for k, v in tokens.items()},
        num_classes=num_classes,
        source=", ".join(FILES[split] for split in splits),
        sha256={k: _known(meta, k, "sha256", found[1]) for k, found in scanned.items()},
    )


def read_meta(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `prepare` wrote about its files.

    Raises:
      ValueError: it is not such a file.
    """
    with refusing(path, "description of token files"):
        meta = json.loads(path.read_text(encoding="utf-8"))
        check_known("dtype", meta["dtype"], DTYPES)
        check_counts(vocab_size=meta["vocab_size"])
        if meta.get("row_length") is not None:
            check_counts(row_length=meta["row_length"])
        return meta


def _open(path: pathlib.Path, split: str, meta: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(meta.get("dtype", DTYPES[0])).newbyteorder("<")
    size = path.stat().st_size
    row_length = meta.get("row_length")
    unit = dtype.itemsize * (row_length or 1)
    if not size:
        raise ValueError(f"{path} is empty")
    expected = _known(meta, split, "tokens", size // dtype.itemsize) * dtype.itemsize
    if size % unit or size != expected:
        problem = f"{expected}" if size != expected else f"a multiple of {unit}"
        raise ValueError(
            f"{path} has {size} bytes, expected {problem}: it is cut off, or {META} is "
            "of another file"
        )
    tokens = np.memmap(path, dtype, mode="r")
    return tokens.reshape(-1, row_length) if row_length else tokens


def _known(meta: Mapping[str, Any], split: str, key: str, otherwise: Any) -> Any:
    return meta.get(key, {}).get(split, otherwise)


def _size(meta: Mapping[str, Any], split: str) -> dict[str, np.ndarray]:
    if not meta.get("bytes") or meta.get("row_length"):
        return {}
    ratio = meta["bytes"][split] / meta["tokens"][split]
    return {"bytes_per_token": np.asarray(ratio, np.float32)}


def _scan(tokens: np.ndarray, whole: bool) -> tuple[int, str]:
    """The largest token and a hash, of all tokens or of blocks spread over them."""
    digest, largest = hashlib.sha256(), 0
    flat = tokens.reshape(-1)
    if flat.nbytes > _READ_WHOLE * _BLOCK:
        digest.update(str(flat.nbytes).encode())
    chosen = set(_spread_blocks(flat))
    per_block = _BLOCK // flat.itemsize
    for start in range(0, len(flat), per_block):
        if whole or start in chosen:
            block = flat[start : start + per_block]
            largest = max(largest, int(block.max()))
            if start in chosen:
                digest.update(block.tobytes())
    return largest, digest.hexdigest()


def _spread_blocks(flat: np.ndarray) -> Iterator[int]:
    starts = range(0, len(flat), _BLOCK // flat.itemsize)
    count = min(_READ_WHOLE, len(starts))
    return (starts[i] for i in np.linspace(0, len(starts) - 1, count).astype(int))
