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
from tasks.data.files import Source
from tasks.data.readers import Images, read_cifar, read_idx, read_npz
from tasks.data.tfds import TFDS_FILES, read_images


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
_MNIST_LAYOUTS = {"npz": _NPZ, "IDX gz": _idx(".gz"), "IDX": _idx("")}


class _ImageSet(NamedTuple):
    source: Source
    layouts: dict[str, _Layout]
    shape: tuple[int, int, int]
    num_classes: int
    has_test: bool


def _image_set(
    name: str,
    layouts: dict[str, _Layout],
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    folders: tuple[str, ...],
    homepage: str,
    has_test: bool = True,
) -> _ImageSet:
    files = {layout: read.files for layout, read in layouts.items()}
    source = Source(name, {**files, "TFDS": TFDS_FILES}, folders, homepage)
    return _ImageSet(source, layouts, shape, num_classes, has_test)


_SETS = {
    "cifar10": _image_set(
        "cifar10",
        {"npz": _NPZ, "npz shards": _NPZ_SHARDS, "python version": _CIFAR_BATCHES},
        (32, 32, 3),
        10,
        folders=("cifar10", "cifar-10-batches-py"),
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "fashion_mnist": _image_set(
        "fashion_mnist",
        _MNIST_LAYOUTS,
        (28, 28, 1),
        10,
        folders=("fashion_mnist", "fashion-mnist"),
        homepage="https://github.com/zalandoresearch/fashion-mnist",
    ),
    "mnist": _image_set(
        "mnist",
        _MNIST_LAYOUTS,
        (28, 28, 1),
        10,
        folders=("mnist",),
        homepage="https://yann.lecun.com/exdb/mnist",
    ),
    "tiny_imagenet32": _image_set(
        "tiny_imagenet32",
        {"npz": _NPZ._replace(test=(("val.npz",),))},
        (32, 32, 3),
        100,
        folders=("tiny_imagenet32",),
        homepage="http://cs231n.stanford.edu/tiny-imagenet-200.zip, halved to 32x32",
        has_test=False,
    ),
}
SOURCES = {name: image_set.source for name, image_set in _SETS.items()}
IMAGE_SETS = ("digits", *_SETS)
_NUM_DIGITS = 10


def load_images(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a labelled image set.

    `digits` comes with scikit-learn: 8x8 pixels of 0 to 16, every fifth row held out
    for validation. The others are read from files. Every tenth row of the official
    training set is held out for validation and `test` is the official one, except that
    `tiny_imagenet32` has the official validation set and no test set.

    Args:
      name: `digits`, `cifar10`, `fashion_mnist`, `mnist` or `tiny_imagenet32`, which
        is Tiny-ImageNet with its pixels averaged by 2x2.
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
        num_classes = _NUM_DIGITS
    else:
        splits, source = _read_splits(name, data_dir)
        num_classes = _SETS[name].num_classes
    return Dataset(
        name=name,
        splits={k: {"image": x, "label": y} for k, (x, y) in splits.items()},
        num_classes=num_classes,
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


def to_grey(dataset: Dataset) -> Dataset:
    """Makes colour images grey, by the luma of ITU-R BT.601.

    Args:
      dataset: images of 1 or 3 channels, see `load_images`.

    Returns:
      The data set with uint8 images (rows, height, width, 1), rounded; `sha256` stays
      that of what was read.
    """

    def luma(image: np.ndarray) -> np.ndarray:
        if image.shape[-1] == 1:
            return image
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.rint(grey)[..., None].astype(np.uint8)

    splits = {
        name: {**arrays, "image": luma(arrays["image"])}
        for name, arrays in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def _read_splits(
    name: str, data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, Images], str]:
    image_set = _SETS[name]
    chosen, folder, paths = image_set.source.find(data_dir)

    def checked(images: Images, path: pathlib.Path) -> Images:
        return check_images(*images, path, image_set.shape, image_set.num_classes)

    if chosen == "TFDS":
        version = paths[-1].parent
        train, test = (
            checked(read_images(version, split), version) for split in ("train", "test")
        )
        source = f"TFDS {name} {version.name}"
        return {**_hold_out(*train, every=10), "test": test}, source
    layout = image_set.layouts[chosen]

    def read(parts: tuple[tuple[str, ...], ...]) -> Images:
        found = [[folder / file for file in files] for files in parts]
        pieces = [checked(layout.read(*part), part[0]) for part in found]
        images, labels = zip(*pieces, strict=True)
        return np.concatenate(images), np.concatenate(labels)

    train, test = read(layout.train), read(layout.test)
    splits = (
        {**_hold_out(*train, every=10), "test": test}
        if image_set.has_test
        else {"train": train, "valid": test}
    )
    return splits, ", ".join(layout.files)


def check_images(
    image: np.ndarray,
    label: np.ndarray,
    path: pathlib.Path,
    shape: tuple[int, ...],
    num_classes: int,
) -> Images:
    """Returns the images and the labels if they are of that shape and range.

    Raises:
      ValueError: they are not; the message names the file.
    """
    if image.shape[1:] != shape or not len(image):
        raise ValueError(
            f"{path} holds images of shape {image.shape}, expected (rows, "
            f"{', '.join(map(str, shape))})"
        )
    if label.min() < 0 or label.max() >= num_classes:
        raise ValueError(
            f"{path}: labels must be 0 to {num_classes - 1}, got {label.min()} to "
            f"{label.max()}"
        )
    return image, label


def _hold_out(image: np.ndarray, label: np.ndarray, every: int) -> dict[str, Images]:
    valid = np.arange(len(label)) % every == every - 1
    return {
        "train": (image[~valid], label[~valid]),
        "valid": (image[valid], label[valid]),
    }
