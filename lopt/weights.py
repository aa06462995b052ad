"""Meta-parameters in files: an npz of theta, with a JSON header that can be trusted."""

import dataclasses
import hashlib
import importlib.resources
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

FORMAT = 1
_HEADER = "header"


class Pretrained(NamedTuple):
    """What a file of meta-parameters holds.

    Attributes:
      theta: a nested dict of float32 NumPy arrays.
      metadata: what was saved with it.
    """

    theta: Any
    metadata: dict[str, Any]


def save_pretrained(
    path: str | os.PathLike, theta: Any, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes meta-parameters to a file that `load_pretrained` and `mulo` read.

    Args:
      path: of the file, ending in ".npz"; one that exists is replaced at once or not.
      theta: a nested dict of finite arrays; saved as float32.
      metadata: what JSON can hold, and dataclasses: where theta comes from. `mulo`
        reads the entry "architecture", a `SmallFC`.

    Raises:
      ValueError: `path`, `theta` or `metadata` cannot be saved.

    Examples:
      >>> import jax, lopt, tempfile
      >>> architecture = lopt.small_fc(hidden_size=4)
      >>> theta = architecture.init(jax.random.key(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = f"{folder}/mine.npz"
      ...     lopt.save_pretrained(path, theta, {"architecture": architecture})
      ...     lopt.load_pretrained(path).metadata["architecture"]["hidden_size"]
      4
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path is {str(path)!r}; it must end in '.npz'.")
    arrays = _flattened(theta)
    header = {"format": FORMAT, "sha256": _digest(arrays), "metadata": metadata or {}}
    try:
        text = json.dumps(header, default=_plain)
    except TypeError as error:
        raise ValueError(f"metadata is not for JSON: {error}.") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            entries: dict[str, Any] = {_HEADER: np.array(text), **arrays}
            np.savez(file, **entries)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_pretrained(path_or_name: str | os.PathLike) -> Pretrained:
    """Reads meta-parameters, and checks that they are what was saved.

    Args:
      path_or_name: path of a file ending in ".npz", or the name of weights that come
        with this package.

    Raises:
      ValueError: there is no such file or name, or the file is damaged, of another
        format, or changed.
    """
    path = _path(path_or_name)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        version, digest = header["format"], header["sha256"]
        metadata = header["metadata"]
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {str(path)!r}.") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{str(path)!r} is damaged, or not a file of lopt.save_pretrained: "
            f"{type(error).__name__}: {error}."
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {version!r}, but this version of lopt reads "
            f"format {FORMAT}: install a version that is as new as the file."
        )
    if _digest(arrays) != digest:
        raise ValueError(
            f"{str(path)!r} was changed after it was saved: its hash is not {digest}."
        )
    return Pretrained(_nested(arrays), metadata)


def _path(path_or_name) -> pathlib.Path:
    text = os.fspath(path_or_name)
    if text.endswith(".npz") or not isinstance(path_or_name, str):
        return pathlib.Path(text)
    folder = pathlib.Path(str(importlib.resources.files("lopt"))) / "pretrained"
    names = sorted(path.stem for path in folder.glob("*.npz"))
    if text not in names:
        raise ValueError(
            f"pretrained is {text!r}, which does not exist; allowed are "
            f"{', '.join(map(repr, names)) or 'no names yet'}, and paths of files "
            "ending in '.npz'."
        )
    return folder / f"{text}.npz"


def _flattened(theta: Any) -> dict[str, np.ndarray]:
    """Arrays by path, such as "nn/w0"."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        if not all(isinstance(key, jax.tree_util.DictKey) for key in path):
            raise ValueError("theta must be a nested dict of arrays.")
        name = "/".join(str(key.key) for key in path)
        arrays[name] = np.asarray(leaf, np.float32)
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"theta[{name!r}] has entries that are not finite.")
    return arrays


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    theta: dict[str, Any] = {}
    for name, array in arrays.items():
        *groups, last = name.split("/")
        inner = theta
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = array
    return theta


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and little-endian bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON can hold in place of a dataclass, a path, or a number of NumPy."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}")
