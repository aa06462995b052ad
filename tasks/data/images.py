"""The catalogue of labelled image sets."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tasks.checks import check_known
from tasks.data import embedded
from tasks.data.dataset import Dataset, sha256
from tasks.data.files import find_files
from tasks.data.readers import Images, read_cifar, read_idx, read_npz


class _Layout(NamedTuple):
    """How to read one part of a split, and the files of each part."""

    read: Callable[..., Images]
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]

    @property
    def files(self) -> list[str]:
        return [file for part in self.train + self.test for file in part]


def _idx(suffix: str) -> _Layout:
    names = f"{{}}-images-idx3-ubyte{suffix}", f"{{}}-labels-idx1-ubyte{suffix}"
    train, test = (tuple(n.format(split) for n in names) for split in ("train", "t10k"))
    return _Layout(read_idx, (train,), (test,))


_NPZ = _Layout(read_npz, (("train.npz",),), (("test.npz",),))
_NPZ_SHARDS = _NPZ._replace(train=tuple((f"train_{i}.npz",) for i in range(5)))
_CIFAR_BATCHES = _Layout(
    read_cifar, tuple((f"data_batch_{i}",) for i in range(1, 6)), (("test_batch",),)
)


class _ImageSet(NamedTuple):
    shape: tuple[int, int, int]
    folders: tuple[str, ...]
    homepage: str
    layouts: dict[str, _Layout]


_MNIST_LAYOUTS = {"npz": _NPZ, "IDX gz": _idx(".gz"), "IDX": _idx("")}
_SETS = {
    "cifar10": _ImageSet(
        (32, 32, 3),
        ("cifar10", "cifar-10-batches-py"),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        {"npz": _NPZ, "npz shards": _NPZ_SHARDS, "python version": _CIFAR_BATCHES},
    ),
    "fashion_mnist": _ImageSet(
        (28, 28, 1),
        ("fashion_mnist", "fashion-mnist"),
        "https://github.com/zalandoresearch/fashion-mnist",
        _MNIST_LAYOUTS,
    ),
    "mnist": _ImageSet(
        (28, 28, 1),
        ("mnist",),
        "https://yann.lecun.com/exdb/mnist",
        _MNIST_LAYOUTS,
    ),
}
IMAGE_SETS = ("digits", *_SETS)
_NUM_CLASSES = 10


def load_images(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a labelled image set.

    `digits` comes with scikit-learn: 8x8 pixels of 0 to 16, every fifth row held out
    for validation. The others are read from files; every tenth row of the official
    training set is held out for validation, `test` is the official one.

    Args:
      name: `digits`, `cifar10`, `fashion_mnist` or `mnist`.
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.

    Raises:
      ValueError: the name is unknown, or a file is corrupt.
      FileNotFoundError: files are missing; the message says how to get them.

    Example:
      >>> digits = load_images("digits")
      >>> digits.splits["train"]["image"].shape, digits.splits["valid"]["label"].shape
      ((1438, 8, 8, 1), (359,))
    """
    check_known("image set", name, IMAGE_SETS)
    if name == "digits":
        splits, source = _hold_out(*embedded.digits(), every=5), embedded.DIGITS_SOURCE
    else:
        splits, source = _read_splits(name, data_dir)
    return Dataset(
        name=name,
        splits={k: {"image": x, "label": y} for k, (x, y) in splits.items()},
        num_classes=_NUM_CLASSES,
        source=source,
        sha256={
            k: sha256(x.tobytes(), y.astype("<i4").tobytes())
            for k, (x, y) in splits.items()
        },
    )


def resize(dataset: Dataset, size: int) -> Dataset:
    """Shrinks square images by the mean over blocks of pixels.

    Where `size` does not divide the height, zeros are padded around the image up to the
    next multiple, which is how 28x28 becomes 32x32 and then 8x8.

    Args:
      dataset: images, see `load_images`.
      size: the new height and width.

    Returns:
      The data set with uint8 images (rows, size, size, channels), rounded; `sha256`
      stays that of what was read.

    Raises:
      ValueError: `size` is larger than the images.

    Example:
      >>> small = resize(load_images("digits"), 4)
      >>> small.splits["train"]["image"].shape
      (1438, 4, 4, 1)
    """
    height = dataset.splits["train"]["image"].shape[1]
    if size > height:
        raise ValueError(
            f"size={size} is larger than the {height} pixels of {dataset.name}"
        )

    def pooled(image: np.ndarray) -> np.ndarray:
        missing = -height % size
        around = (missing // 2, missing - missing // 2)
        padded = np.pad(image, ((0, 0), around, around, (0, 0)))
        block = padded.shape[1] // size
        blocks = padded.reshape(len(image), size, block, size, block, image.shape[-1])
        return np.rint(blocks.mean((2, 4))).astype(np.uint8)

    splits = {
        name: {**arrays, "image": pooled(arrays["image"])}
        for name, arrays in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def _read_splits(
    name: str, data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, Images], str]:
    image_set = _SETS[name]
    chosen, folder = find_files(
        name,
        {layout: files.files for layout, files in image_set.layouts.items()},
        folders=image_set.folders,
        homepage=image_set.homepage,
        data_dir=data_dir,
    )
    layout = image_set.layouts[chosen]

    def read(parts: tuple[tuple[str, ...], ...]) -> Images:
        pieces = []
        for files in parts:
            paths = [folder / file for file in files]
            pieces.append(_checked(*layout.read(*paths), paths[0], image_set.shape))
        images, labels = zip(*pieces, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    splits = {**_hold_out(*read(layout.train), every=10), "test": read(layout.test)}
    return splits, ", ".join(layout.files)


def _hold_out(image: np.ndarray, label: np.ndarray, every: int) -> dict[str, Images]:
    valid = np.arange(len(label)) % every == every - 1
    return {
        "train": (image[~valid], label[~valid]),
        "valid": (image[valid], label[valid]),
    }


def _checked(
    image: np.ndarray, label: np.ndarray, path: pathlib.Path, shape: tuple[int, ...]
) -> Images:
    if image.shape[1:] != shape or not len(image):
        raise ValueError(
            f"{path} holds images of shape {image.shape}, expected (rows, "
            f"{', '.join(map(str, shape))})"
        )
    if label.min() < 0 or label.max() >= _NUM_CLASSES:
        raise ValueError(
            f"{path}: labels must be 0 to {_NUM_CLASSES - 1}, got {label.min()} to "
            f"{label.max()}"
        )
    return image, label
