"""Arrays in npz, safetensors and flax msgpack; told apart by content, never executed.

What a header says is compared with the length of the file before memory is allocated.
"""

import io
import json
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np
import safetensors.numpy
from flax import serialization

# More than any file is read of; the largest that is published has 9 MB.
MOST_BYTES = 2**28
_HEADER = "header"
_PICKLES = "it holds pickles, which run code when they are read, so lopt never does"


class Container(NamedTuple):
    """What a file holds.

    Attributes:
      format: "npz", "safetensors" or "msgpack".
      arrays: by name; levels of a tree are joined by "/", without the level "~".
      header: what `lopt.save_pretrained` wrote with them, or `None`.
      wrapper: of google's checkpoints, `gen_id` and `step`.
    """

    format: str
    arrays: dict[str, np.ndarray]
    header: dict[str, Any] | None = None
    wrapper: Mapping[str, Any] = {}


class _UnfitError(ValueError):
    """A file is whole, but holds something else."""


def read(data: bytes, name: str) -> Container:
    """Reads a file.

    Args:
      data: its bytes.
      name: for errors.

    Raises:
      ValueError: it is damaged, of another format, or holds pickles.
    """
    reader = _reader(data, name)
    try:
        return reader(data)
    except _UnfitError as error:
        raise ValueError(f"{name!r} is refused: {error}.") from error
    except Exception as error:  # Damaged data lets libraries raise about anything.
        ours = ", or not a file of lopt.save_pretrained" if reader is _npz else ""
        detail = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name!r} is damaged{ours}: {detail}.") from error


def pack_npz(arrays: Mapping[str, np.ndarray], header: str) -> bytes:
    """The bytes of an npz file that `read` reads."""
    file = io.BytesIO()
    entries: dict[str, Any] = {_HEADER: np.array(header), **arrays}
    np.savez(file, **entries)
    return file.getvalue()


def pack_safetensors(
    arrays: Mapping[str, np.ndarray], header: str | None = None
) -> bytes:
    """The bytes of a safetensors file that `read`, and PyTorch, read."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(contiguous, {"lopt": header} if header else None)


def pack_msgpack(tree: Mapping[str, Any], wrapper: Mapping[str, Any] = {}) -> bytes:
    """The bytes of a tree as flax writes it, in google's wrapper unless that is empty.

    Args:
      tree: nested dicts of NumPy arrays.
      wrapper: `gen_id` and `step`, or nothing.
    """
    content = {"params": tree, **wrapper} if wrapper else dict(tree)
    # In place, as copies have sorted keys.
    return serialization.msgpack_serialize(content, in_place=True)


def _reader(data: bytes, name: str) -> Callable[[bytes], Container]:
    if data[:2] == b"PK":
        if b"data.pkl" in data:
            raise ValueError(f"{name!r} is refused: {_PICKLES}.")
        return _npz
    if data[4:9] == b"\0\0\0\0{":
        return _safetensors
    if _is_pickle(data):
        raise ValueError(f"{name!r} is refused: {_PICKLES}.")
    if data[:1] and (0x80 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        return _msgpack
    if data.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{name!r} is a pointer of Git LFS in place of the file: get that with "
            "'git lfs pull'."
        )
    raise ValueError(
        f"{name!r} is damaged, or no file of meta-parameters: its {len(data)} bytes "
        f"begin with {data[:8]!r}, unlike npz, safetensors and msgpack."
    )


def _is_pickle(data: bytes) -> bool:
    if data[:1] == b"\x80" and data[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return True
    if not data.endswith(b"."):
        return False
    try:
        for _ in pickletools.genops(data):  # Takes it apart without running it.
            pass
    except Exception:
        return False
    return True


def _npz(data: bytes) -> Container:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
        arrays = {
            entry.filename.removesuffix(".npy"): _npy(archive.read(entry))
            for entry in entries
        }
    if _HEADER not in arrays:
        raise ValueError(f"it has no entry {_HEADER!r}")
    return Container("npz", arrays, json.loads(str(arrays.pop(_HEADER))))


def _npy(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    if (version := np.lib.format.read_magic(file)) != (1, 0):
        raise ValueError(f"it has an array in version {version} of npy, not (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise _UnfitError(_PICKLES)
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"an array of shape {shape} has {len(data)} bytes")
    return np.load(io.BytesIO(data), allow_pickle=False)


def _safetensors(data: bytes) -> Container:
    for name, entry in safetensors.deserialize(data):
        if entry["dtype"] != "F32":
            raise _UnfitError(f"{name!r} has dtype {entry['dtype']}, expected F32")
    arrays = safetensors.numpy.load(data)
    end = 8 + int.from_bytes(data[:8], "little")
    said = json.loads(data[8:end]).get("__metadata__") or {}
    header = json.loads(said["lopt"]) if "lopt" in said else None
    return Container("safetensors", arrays, header)


def _msgpack(data: bytes) -> Container:
    limits = {"max_array_len": 64, "max_map_len": 4096, "strict_map_key": False}

    def refuse_long(code, payload):
        msgpack.unpackb(payload, raw=True, **limits)

    # Lists are allocated at the length that they claim, at every depth.
    msgpack.unpackb(data, ext_hook=refuse_long, **limits)
    tree = serialization.msgpack_restore(data)
    wrapper = {}
    if set(tree) == {"params", "gen_id", "step"}:
        wrapper = {"gen_id": str(tree["gen_id"]), "step": int(tree["step"])}
        tree = tree["params"]
    arrays: dict[str, np.ndarray] = {}
    _flatten(tree, "", arrays)
    return Container("msgpack", arrays, None, wrapper)


def _flatten(tree: Any, prefix: str, arrays: dict[str, np.ndarray]) -> None:
    for key, value in tree.items():
        if not isinstance(key, str):
            raise _UnfitError(
                f"the key {key!r} is a {type(key).__name__}, not a string"
            )
        name = prefix if key == "~" else f"{prefix}/{key}".lstrip("/")
        if isinstance(value, dict):
            _flatten(value, name, arrays)
        elif not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise _UnfitError(f"{name!r} is a {kind}, expected an array")
        elif name in arrays:
            raise _UnfitError(f"{name!r} is there twice")
        else:
            arrays[name] = value
