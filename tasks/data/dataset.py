"""What every loader returns: arrays by split, and what identifies them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.checks import check_counts


@dataclasses.dataclass(frozen=True)
class Dataset:
    """NumPy arrays by split.

    Attributes:
      name: its name in the catalogue.
      splits: arrays by name, by split: `"train"`, `"valid"`, and `"test"` where there
        is an official one. Images have `image`, uint8 of shape (rows, height, width,
        channels), and `label`, int32 of shape (rows,). Text has `tokens`, unsigned
        integers of shape (length,), and `bytes_per_token`, a float32 scalar. In all
        other sets every array has a row for each example.
      num_classes: the number of labels, or of tokens in the vocabulary.
      source: the files or the package that the data were read from.
      sha256: by split, of what was read: the bytes of the images followed by those of
        the labels (int32, little-endian), or the text in UTF-8.
    """

    name: str
    splits: Mapping[str, Mapping[str, np.ndarray]]
    num_classes: int
    source: str
    sha256: Mapping[str, str]

    @property
    def metadata(self) -> dict[str, Any]:
        """What identifies the data in a record, as plain numbers and strings."""
        return {
            "dataset": self.name,
            "source": self.source,
            "num_classes": self.num_classes,
            "sizes": {
                split: len(next(iter(arrays.values())))
                for split, arrays in self.splits.items()
            },
            "sha256": dict(self.sha256),
        }


def first_rows(dataset: Dataset, max_rows: int) -> Dataset:
    """Takes the first rows of each split: `max_rows` of `"train"` at most.

    The other splits keep an eighth as many.

    Example:
      >>> rows = {"x": np.arange(100)}
      >>> dataset = Dataset("own", {"train": rows, "valid": rows}, 2, "", {})
      >>> first_rows(dataset, 40).metadata["sizes"]
      {'train': 40, 'valid': 5}
    """
    check_counts(minimum=8, max_rows=max_rows)
    splits = {
        split: {
            name: array[: max_rows if split == "train" else max_rows // 8]
            for name, array in arrays.items()
        }
        for split, arrays in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def sha256(*parts: bytes) -> str:
    """Hashes the concatenation of `parts`.

    Example:
      >>> sha256(b"a", b"bc") == sha256(b"abc")
      True
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
