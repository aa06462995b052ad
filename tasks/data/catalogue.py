"""Every data set that is read from files, and what of it is there."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tasks.data import ett, imagenet, images, imdb, lm1b, multi30k, text, token_files
from tasks.data.files import Found, Source
from tasks.data.readers import refusing

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        *images.SOURCES.values(),
        *imagenet.SOURCES.values(),
        *text.SOURCES.values(),
        *token_files.SOURCES.values(),
        lm1b.SOURCE,
        imdb.SOURCE,
        multi30k.SOURCE,
        *ett.SOURCES.values(),
    )
}


class Status(NamedTuple):
    """What is there of a data set.

    Attributes:
      name: its name.
      found: the layout and the files, or `None`.
      num_bytes: the size of the files.
      num_rows: rows, or tokens, where the files tell without being read; or `None`.
      problem: what is missing, or wrong with a file.
    """

    name: str
    found: Found | None
    num_bytes: int
    num_rows: int | None
    problem: str


def check(data_dir: str | os.PathLike[str] | None = None) -> Iterator[Status]:
    """Looks for every data set, without reading more than the heads of files.

    Args:
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as empty:
      ...     [status.name for status in check(empty) if status.found]
      []
    """
    for name, source in SOURCES.items():
        try:
            found = source.find(data_dir)
        except FileNotFoundError as error:
            yield Status(name, None, 0, None, str(error))
            continue
        files = [f for path in found.paths for f in _files(path)]
        num_bytes = sum(file.stat().st_size for file in files)
        try:
            rows = [num_rows for f in files if (num_rows := _count_rows(f)) is not None]
            yield Status(name, found, num_bytes, sum(rows) if rows else None, "")
        except ValueError as error:
            yield Status(name, found, num_bytes, None, str(error))


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.name == "dataset_info.json":
        path = path.parent
    return [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]


def _count_rows(path: pathlib.Path) -> int | None:
    """The rows that the head of a file promises, if it is of a kind that does."""
    with refusing(path, "file of its kind"):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = {"y.npy", "labels.npy"}.intersection(archive.namelist())
                with archive.open(names.pop()) as file:
                    np.lib.format.read_magic(file)
                    return np.lib.format.read_array_header_1_0(file)[0][0]
        if path.suffix == ".bin":
            meta_path = path.parent / token_files.META
            meta = token_files.read_meta(meta_path) if meta_path.exists() else {}
            dtype = np.dtype(meta.get("dtype", token_files.DTYPES[0]))
            return path.stat().st_size // dtype.itemsize
        if path.name == "index.json":
            index = json.loads(path.read_text(encoding="utf-8"))
            return sum(index["rows"].values())
        if "-labels-idx1-ubyte" in path.name:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                return struct.unpack(">I", file.read(8)[4:])[0]
        return None
