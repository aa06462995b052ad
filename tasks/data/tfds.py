"""Data sets that `tensorflow_datasets` has prepared, read without TensorFlow.

They are read by random access (`data_source`), which needs files in the ArrayRecord
format: `tfds build --file_format=array_record`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tasks.data.optional import require
from tasks.data.readers import Images, refusing

# In the folder of a data set there is one for each version, the newest last.
TFDS_FILES = ("*/dataset_info.json",)
_ROWS = 1024


def read_images(folder: pathlib.Path, split: str) -> Images:
    """Reads a whole split of labelled images.

    Args:
      folder: that of a version, such as `cifar10/3.0.2`.
      split: such as `train`.

    Returns:
      Images, uint8 of shape (rows, height, width, channels), and int32 labels (rows,).

    Raises:
      ValueError: the folder has no such split, or it is not of labelled images.
      ModuleNotFoundError: tensorflow_datasets is not installed.
    """
    images, labels = zip(*image_blocks(folder, split), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def image_blocks(folder: pathlib.Path, split: str) -> Iterator[Images]:
    """Reads a split of labelled images in blocks of rows; see `read_images`."""
    for rows in _blocks(folder, split):
        with refusing(folder, "TFDS set of labelled images"):
            image = np.stack([row["image"] for row in rows])
            label = np.array([row["label"] for row in rows], np.int32)
        yield image, label


def texts(folder: pathlib.Path, split: str) -> Iterator[str]:
    """Reads the texts of a split, each with a line end after it."""
    for rows in _blocks(folder, split):
        with refusing(folder, "TFDS set of UTF-8 texts"):
            found = [row["text"].decode() for row in rows]
        yield from (text.replace("\n", " ") + "\n" for text in found)


def _blocks(folder: pathlib.Path, split: str) -> Iterator[Sequence[Any]]:
    tfds = require("tensorflow_datasets", "tfds")
    with refusing(folder, f"TFDS folder with a split {split!r}"):
        source = tfds.builder_from_directory(str(folder)).as_data_source(split)
        if not len(source):
            raise ValueError("it is empty")
    for start in range(0, len(source), _ROWS):
        with refusing(folder, "TFDS folder"):
            rows = [source[i] for i in range(start, min(start + _ROWS, len(source)))]
        yield rows
