"""Readers of the file formats that data sets come in.

Each raises `ValueError` for a file that is not what it should be, naming the file and
what is wrong with it.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import itertools
import math
import pathlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Images = tuple[np.ndarray, np.ndarray]
Read = Callable[[], Iterator[str]]

_BLOCK = 2**20


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads a file, decompressing it if its name ends in `.gz`."""
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    with refusing(path, "gzip file"):
        return gzip.decompress(content)


def read_text(path: pathlib.Path) -> str:
    """Reads UTF-8 text, plain or `.gz`, with its line ends as they are."""
    content = read_bytes(path)
    with refusing(path, "UTF-8 text"):
        return content.decode("utf-8")


def text_blocks(path: pathlib.Path) -> Iterator[str]:
    """Reads what `read_text` does in blocks, so that its size does not matter."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    with opened as file:
        while True:
            with refusing(path, "gzip file" if path.suffix == ".gz" else "text"):
                content = file.read(_BLOCK)
            with refusing(path, "UTF-8 text"):
                text = decoder.decode(content, final=not content)
            if text:
                yield text
            if not content:
                return


def reader(paths: Iterable[pathlib.Path]) -> Read:
    """What reads the texts of files one after another, as often as it is called."""
    return lambda: itertools.chain.from_iterable(map(text_blocks, paths))


def read_npz(path: pathlib.Path) -> Images:
    """Reads the arrays `x` (images) and `y` (labels) of a NumPy archive.

    Returns:
      Images, uint8 of shape (rows, height, width, channels), and int32 labels (rows,).
    """
    content = io.BytesIO(read_bytes(path))
    with refusing(path, ".npz image set"):
        arrays = np.load(content, allow_pickle=False)
        return _images(arrays["x"], arrays["y"])


def read_idx(image_path: pathlib.Path, label_path: pathlib.Path) -> Images:
    """Reads a pair of IDX files, the format of MNIST, plain or `.gz`.

    Returns:
      Images, uint8 of shape (rows, height, width, 1), and int32 labels (rows,).
    """
    image, label = (_read_idx_array(path) for path in (image_path, label_path))
    with refusing(image_path, f"match for {label_path.name}"):
        return _images(image, label)


def read_cifar(path: pathlib.Path) -> Images:
    """Reads one batch of CIFAR-10 in its "python version".

    The format is a pickle. Only what rebuilds NumPy arrays of numbers is unpickled:
    a file that asks for anything else is refused and nothing of it is called.

    Returns:
      Images, uint8 of shape (rows, 32, 32, 3), and int32 labels (rows,).
    """
    content = read_bytes(path)
    with refusing(path, "CIFAR-10 batch"):
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        image = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _images(image, np.array(batch[b"labels"]))


def _read_idx_array(path: pathlib.Path) -> np.ndarray:
    content = read_bytes(path)
    with refusing(path, "IDX file of unsigned bytes"):
        if len(content) < 4 or content[:3] != b"\0\0\x08":
            raise ValueError(f"it starts with {content[:4]!r}")
        header = 4 + 4 * content[3]
        shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
        if len(content) != header + math.prod(shape):
            raise ValueError(
                f"its header promises shape {shape}, {math.prod(shape)} bytes; "
                f"{len(content) - header} follow"
            )
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _images(image: np.ndarray, label: np.ndarray) -> Images:
    if image.dtype != np.uint8 or image.ndim not in (3, 4):
        raise ValueError(
            "images must be uint8 of shape (rows, height, width) or (rows, height, "
            f"width, channels), got {image.dtype} of shape {image.shape}"
        )
    if label.shape != image.shape[:1] or label.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape {image.shape[:1]}, one for each image, "
            f"got {label.dtype} of shape {label.shape}"
        )
    image = image if image.ndim == 4 else image[..., None]
    return np.ascontiguousarray(image), label.astype(np.int32)


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes in the protocols of Python 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused to encode in {encoding!r}")
    return text.encode(encoding)


_from_parts = np.empty(0).__reduce__()[0]
_from_buffer = np.empty(0).__reduce_ex__(5)[0]
_ALLOWED = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _from_parts,
    ("numpy._core.multiarray", "_reconstruct"): _from_parts,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused to load {module_name}.{global_name}: only NumPy arrays are "
                "allowed"
            ) from None


@contextlib.contextmanager
def refusing(path: pathlib.Path, what: str) -> Iterator[None]:
    """Names the file in whatever its content makes a parser raise."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise ValueError(
            f"{path} is not a valid {what}: {type(error).__name__}: {error}"
        ) from error
