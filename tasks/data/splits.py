"""Other divisions of a data set than the one that its loader gives."""

from __future__ import annotations

import dataclasses

import numpy as np

from tasks.checks import check_fractions, check_known
from tasks.data.dataset import Dataset


def revalidate(dataset: Dataset, validate_on: str) -> Dataset:
    """Chooses what validation is on.

    Args:
      dataset: one with an official test set.
      validate_on: `"held_out"` leaves the data set as it is, with a part of the
        official training set for validation; `"test"` trains on all of that and
        validates on the test set, as many papers do, early stopping included.

    Returns:
      The data set; `sha256` stays that of what was read.

    Raises:
      ValueError: `validate_on` is neither, or there is no test set.
    """
    check_known("validate_on", validate_on, ("held_out", "test"))
    if validate_on == "held_out":
        return dataset
    if "test" not in dataset.splits:
        raise ValueError(f"{dataset.name} has no test set to validate on")
    train, valid, test = (dataset.splits[name] for name in ("train", "valid", "test"))
    joined = {name: np.concatenate([train[name], valid[name]]) for name in train}
    return dataclasses.replace(dataset, splits={"train": joined, "valid": test})


def hold_out(dataset: Dataset, meta_fraction: float) -> Dataset:
    """Moves a fraction of the training rows, evenly spaced, to the split `"meta"`.

    It is for what learns while training and must not see the validation data. Where
    rows have labels, it is the same fraction of each. With 0 nothing changes.

    Raises:
      ValueError: the fraction is not at least 0 and less than 1, or not a single row.

    Example:
      >>> from tasks.data import load_images
      >>> hold_out(load_images("digits"), 0.1).metadata["sizes"]
      {'train': 1295, 'valid': 359, 'meta': 143}
    """
    check_fractions(meta_fraction=meta_fraction)
    if not meta_fraction:
        return dataset
    train = dataset.splits["train"]
    (num_rows,) = {len(array) for array in train.values()}
    held_out = spread(train.get("label", np.zeros(num_rows, int)), meta_fraction)
    if not held_out.any():
        raise ValueError(
            f"meta_fraction={meta_fraction} of {num_rows} rows is not a single one"
        )
    splits = {
        **dataset.splits,
        "train": {name: array[~held_out] for name, array in train.items()},
        "meta": {name: array[held_out] for name, array in train.items()},
    }
    return dataclasses.replace(dataset, splits=splits)


def spread(label: np.ndarray, fraction: float) -> np.ndarray:
    """Marks a fraction of the rows, evenly spaced among those of each label.

    Example:
      >>> spread(np.array([0, 1, 0, 1, 0, 1, 0, 1]), 0.5)
      array([False, False,  True,  True, False, False,  True,  True])
    """
    marks = np.empty(len(label), bool)
    steps = np.floor(np.arange(len(label) + 1) * fraction)
    marks[np.argsort(label, kind="stable")] = np.diff(steps) > 0
    return marks
