"""ImageNet at 32x32 or 64x64 pixels (Chrabaszcz et al. 2017, arXiv 1707.08819).

The published archives hold 1,281,167 training images, up to 16 GB. They are rewritten
once as plain arrays, which can be memory-mapped; memory stays bounded all along.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from tasks.checks import check_counts
from tasks.data import tfds
from tasks.data.dataset import Dataset
from tasks.data.files import Source
from tasks.data.images import check_images
from tasks.data.readers import Images, refusing
from tasks.data.streams import spread_rows

HOMEPAGE = "https://image-net.org/download-images (downsampled, npz format)"
NUM_CLASSES = 1000
CACHE_VARIABLE = "MADA_CACHE_DIR"

_BLOCK = 4096
_ARRAYS = "arrays"
_INDEX = "index.json"
_SPLITS = {"train": "train", "valid": "validation"}
SOURCES = {
    size: Source(
        f"imagenet{size}",
        {
            "npz batches": (
                *(f"train_data_batch_{i}.npz" for i in range(1, 11)),
                "val_data.npz",
            ),
            "arrays": (f"{_ARRAYS}/{_INDEX}",),
            "TFDS": tfds.TFDS_FILES,
        },
        folders=(
            f"imagenet{size}",
            f"imagenet{size}x{size}",
            f"imagenet_resized/{size}x{size}",
        ),
        homepage=HOMEPAGE,
    )
    for size in (32, 64)
}


def load_imagenet(
    data_dir: str | os.PathLike[str] | None = None,
    resolution: int = 32,
    *,
    num_valid: int = 10_000,
) -> Dataset:
    """Opens down-sampled ImageNet; the training images stay on the disk.

    The first call writes the images as `arrays/*.npy` into the folder of the data, or
    into a folder inside that of `MADA_CACHE_DIR`: 4 GB at a resolution of 32, 16 GB at
    64. The archives are not read again and can be deleted.

    Args:
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.
      resolution: 32 or 64.
      num_valid: how many of the 50,000 validation images are read, evenly spaced.

    Returns:
      The splits `train`, memory-mapped, see `tasks.data.streams`, and `valid`, in
      memory: `image`, uint8 of shape (rows, resolution, resolution, 3), and `label`,
      int32 of shape (rows,), 0 to 999. `sha256` is that of all rows of the split.

    Raises:
      ValueError: the resolution is another, or a file is corrupt.
      FileNotFoundError: files are missing; the message says how to get them.
      OSError: the disk has no room for the arrays.
    """
    if resolution not in SOURCES:
        raise ValueError(f"resolution must be 32 or 64, got {resolution!r}")
    check_counts(num_valid=num_valid)
    layout, folder, paths = SOURCES[resolution].find(data_dir)
    arrays = folder / _ARRAYS
    if layout != "arrays":
        cache = os.environ.get(CACHE_VARIABLE)
        if cache:
            arrays = pathlib.Path(cache).expanduser() / folder.name / _ARRAYS
        sizes = {path.name: path.stat().st_size for path in paths}
        if not _is_made_of(arrays, sizes):
            if layout == "TFDS":
                version = paths[-1].parent
                blocks = {k: tfds.image_blocks(version, v) for k, v in _SPLITS.items()}
            else:
                batches = {"train": paths[:-1], "valid": paths[-1:]}
                blocks = {k: _npz_blocks(v, resolution) for k, v in batches.items()}
            _write(arrays, blocks, resolution, sizes)
    index = _read_index(arrays)
    splits = {split: _open(arrays, split, index, resolution) for split in _SPLITS}
    splits["valid"] = spread_rows(splits["valid"], num_valid)
    return Dataset(
        name=SOURCES[resolution].name,
        splits=splits,
        num_classes=NUM_CLASSES,
        source=", ".join(index["files"]),
        sha256=index["sha256"],
    )


def _is_made_of(arrays: pathlib.Path, sizes: dict[str, int]) -> bool:
    index = arrays / _INDEX
    return index.is_file() and _read_index(arrays)["files"] == sizes


def _read_index(arrays: pathlib.Path) -> dict:
    with refusing(arrays / _INDEX, "index of arrays"):
        index = json.loads((arrays / _INDEX).read_text(encoding="utf-8"))
        return {key: index[key] for key in ("files", "rows", "sha256")}


def _open(
    arrays: pathlib.Path, split: str, index: dict, size: int
) -> dict[str, np.ndarray]:
    path = arrays / f"{split}_image.npy"
    with refusing(path, "array of images"):
        image = np.load(path, mmap_mode="r", allow_pickle=False)
        label = np.load(arrays / f"{split}_label.npy", allow_pickle=False)
        shape = (index["rows"][split], size, size, 3)
        if image.shape != shape or label.shape != shape[:1]:
            raise ValueError(f"expected shape {shape}, got {image.shape}")
    return {"image": image, "label": label}


def _write(
    arrays: pathlib.Path,
    blocks: Mapping[str, Iterable[Images]],
    size: int,
    files: dict[str, int],
) -> None:
    """Writes the arrays in a folder of their own, which then takes its place."""
    try:
        arrays.parent.mkdir(parents=True, exist_ok=True)
        made = pathlib.Path(tempfile.mkdtemp(dir=arrays.parent, prefix=".arrays-"))
    except OSError as error:
        raise OSError(
            f"{arrays.parent} must take the arrays of imagenet{size}, and cannot: "
            f"{error}. Set {CACHE_VARIABLE} to a folder that can"
        ) from error
    try:
        written = {k: _write_split(made, k, v, size) for k, v in blocks.items()}
        index = {
            "files": files,
            "rows": {split: rows for split, (rows, _) in written.items()},
            "sha256": {split: digest for split, (_, digest) in written.items()},
        }
        (made / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        if not _is_made_of(arrays, files):  # Another process may have been faster.
            shutil.rmtree(arrays, ignore_errors=True)
            made.chmod(0o755)  # A temporary folder is private.
            made.rename(arrays)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_split(
    folder: pathlib.Path, split: str, blocks: Iterable[Images], size: int
) -> tuple[int, str]:
    """Returns the number of rows and their hash; NumPy leaves room for the former."""
    digest, labels, shape = hashlib.sha256(), [], (size, size, 3)
    path = folder / f"{split}_image.npy"
    with path.open("wb") as file, tqdm(unit=" images", desc=str(path)) as progress:
        _write_header(file, (0, *shape))
        for image, label in blocks:
            check_images(image, label, path, shape, NUM_CLASSES)
            digest.update(image.tobytes())
            file.write(image.tobytes())
            labels.append(label)
            progress.update(len(label))
        label = np.concatenate(labels)
        file.seek(0)
        _write_header(file, (len(label), *shape))
    np.save(folder / f"{split}_label.npy", label)
    digest.update(label.astype("<i4").tobytes())
    return len(label), digest.hexdigest()


def _write_header(file, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _npz_blocks(paths: Sequence[pathlib.Path], size: int) -> Iterator[Images]:
    """Images, their planes brought together, and labels from 0, a few at a time."""
    row = 3 * size * size
    for path in paths:
        with (
            refusing(path, "batch of down-sampled ImageNet"),
            path.open("rb") as content,
            zipfile.ZipFile(content) as archive,
        ):
            with archive.open("labels.npy") as file:
                label = np.lib.format.read_array(file, allow_pickle=False)
            _check_labels(label)
            with archive.open("data.npy") as file:
                _check_header(file, (len(label), row))
                for start in range(0, len(label), _BLOCK):
                    few = label[start : start + _BLOCK]
                    planes = np.frombuffer(file.read(len(few) * row), np.uint8)
                    image = planes.reshape(len(few), 3, size, size)
                    image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
                    yield image, (few - 1).astype(np.int32)


def _check_labels(label: np.ndarray) -> None:
    if label.ndim != 1 or label.dtype.kind not in "iu" or not len(label):
        raise ValueError(f"labels are {label.dtype} of shape {label.shape}")
    if label.min() < 1 or label.max() > NUM_CLASSES:
        raise ValueError(
            f"labels must be 1 to {NUM_CLASSES}, got {label.min()} to {label.max()}"
        )


def _check_header(file, expected: tuple[int, int]) -> None:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"data.npy has version {version} of the format, not (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != expected or fortran_order or dtype != np.uint8:
        raise ValueError(
            f"data must be uint8 of shape {expected} in C order, got {dtype} of shape "
            f"{shape}"
        )
