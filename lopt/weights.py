"""Meta-parameters from and to files, with what is known about them."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lopt import kinds
from lopt.pretrained import (
    assembly,
    container,
    identity,
    layout,
    location,
    publication,
)
from lopt.pretrained.assembly import Assembled

FORMAT = 1
# What `load_pretrained` says of a file, and will say of the next.
_FOUND_OUT = (
    "kind",
    "format",
    "sizes",
    "num_parameters",
    "decays",
    "decay_offsets",
    "sha256",
    "bytes",
)
Arrays = dict[str, np.ndarray]


class Pretrained(NamedTuple):
    """What a file of meta-parameters holds.

    Attributes:
      theta: a nested dict of float32 NumPy arrays, in the form that optimizers take.
      metadata: what was saved with it, and what was found out, see `load_pretrained`.
    """

    theta: Any
    metadata: dict[str, Any]


def load_pretrained(
    path_or_name: str | os.PathLike, *, variant: str | None = None
) -> Pretrained:
    """Reads meta-parameters of any learned optimizer here, whoever published them.

    Files are recognised by content: npz of `save_pretrained`, safetensors in the
    PyTorch layouts of muLO, ELO, Celo2 and VeLO, and flax msgpack of small_fc, VeLO,
    Celo, Celo-Adam and Celo2. Names, shapes, dtypes and values are checked, and no
    pickle is ever read.

    Args:
      path_or_name: path of a file, or of a folder with one, or with the two of VeLO in
        PyTorch; or the name of weights that come with this package; or, if there is no
        such path, a name "org/repo" of the Hugging Face Hub, for which alone
        huggingface_hub and a network are needed.
      variant: which optimizer it is, where files of several look alike: "mulo", "elo",
        "small_fc", "velo", "celo", "celo-adam", "celo2", "celo2-base", "elo-celo2".

    Returns:
      Theta, and metadata: what was saved with it, and

      - "kind" and "architecture", as `from_pretrained` needs them, and "variant";
      - "sizes", and "num_parameters" in the file;
      - "decays", and "decay_offsets" where they are learned: files of muLO in PyTorch
        do not have these, so they are the documented constants;
      - "format", and "sha256" and "bytes", of two files dicts by name;
      - "licence" and "source", as far as they are known;
      - "assumed": what was filled in because the file does not say it;
      - "undecided": the variants that it may be, if "variant" is assumed.

    Raises:
      ValueError: there is no such file or name; or the file is damaged, changed, of a
        newer or unknown format, holds pickles, or cannot be `variant`.

    Examples:
      >>> theta, metadata = load_pretrained("mulo_s")
      >>> theta["nn"]["w0"].shape, metadata["kind"]
      ((39, 32), 'small_fc')
    """
    place = location.find(path_or_name)
    data = {str(path): _bytes(path) for path in place.files}
    contents = {name: container.read(raw, name) for name, raw in data.items()}
    found = assembly.assemble(contents, place.config)
    sha256 = [hashlib.sha256(raw).hexdigest() for raw in data.values()]
    headers = [content.header or {} for content in contents.values()]
    if found.format == "npz" or any(headers):
        extra, metadata = _opened(found, headers, " and ".join(map(repr, data)))
        metadata = identity.of_ours(found, metadata, variant, bundled=place.bundled)
    else:
        one = sha256[0] if len(sha256) == 1 else None
        extra, metadata = identity.identify(found, place.published, one, variant)
        metadata |= next(iter(contents.values())).wrapper
    arrays = {**found.arrays, **extra}
    names = ["/".join(path.parts[-2:]) for path in place.files]
    metadata |= {
        "format": found.format,
        "sizes": identity.named(found),
        "num_parameters": sum(array.size for array in found.arrays.values()),
        **identity.decays(found.kind, arrays),
        "sha256": _one_or_all(names, sha256),
        "bytes": _one_or_all(names, list(map(len, data.values()))),
    }
    return Pretrained(_nested(arrays), metadata)


def save_pretrained(
    path: str | os.PathLike, theta: Any, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes meta-parameters to a file that `load_pretrained` reads.

    The end of the path decides the format:

    - ".npz": our own, for any theta;
    - ".safetensors": the published PyTorch layout of small_fc or Celo2, with all
      metadata in its header;
    - a folder, without such an end: that of VeLO, in VeLO_RNN/model.safetensors and
      VeLO_MLP/model.safetensors;
    - ".state" or ".msgpack": flax msgpack of google's tree, for any kind. It has no
      place for metadata but "gen_id" and "step", and these only together.

    Args:
      path: of the file, or of VeLO's folder; each file that exists is replaced at once
        or not.
      theta: a nested dict of finite arrays; saved as float32.
      metadata: what JSON can hold, and dataclasses: where theta comes from. The entry
        "architecture", a `LearnedOptimizer` such as `SmallFC`, is what
        `from_pretrained` and `mulo` make of it.

    Raises:
      ValueError: `path`, `theta` or `metadata` cannot be saved; or an architecture has
        options that cannot be guessed from a format without metadata.

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
    arrays = _flattened(theta)
    metadata = {k: v for k, v in (metadata or {}).items() if k not in _FOUND_OUT}
    architecture = metadata.get("architecture")
    if dataclasses.is_dataclass(architecture):
        metadata["architecture"] = kinds.describe(architecture)
    header = {"format": FORMAT, "sha256": _digest(arrays), "metadata": metadata}
    try:
        header = json.loads(json.dumps(header, default=_plain))
    except TypeError as error:
        raise ValueError(f"metadata is not for JSON: {error}.") from error
    if path.suffix == ".npz":
        files = {path: container.pack_npz(arrays, json.dumps(header))}
    else:
        files = publication.pack(path, arrays, header)
    for file, data in files.items():
        if not path.suffix:
            file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, data)


def _replace(path: pathlib.Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _bytes(path: pathlib.Path) -> bytes:
    try:
        if path.stat().st_size > container.MOST_BYTES:
            raise ValueError(
                f"{str(path)!r} has more than {container.MOST_BYTES} bytes: it holds "
                "no learned optimizer that lopt knows."
            )
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} cannot be read: {error.strerror or error}."
        ) from error


def _opened(
    found: Assembled, headers: Sequence[dict[str, Any]], name: str
) -> tuple[Arrays, dict[str, Any]]:
    """What the headers of one save hold besides the arrays, which they vouch for."""
    try:
        versions = {header["format"] for header in headers}
        digests = {header["sha256"] for header in headers}
        metadata = dict(headers[0]["metadata"])
        beside = headers[0].get("theta", {})
        extra = {k: np.array(v, np.float32) for k, v in beside.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{name} is damaged, or not a file of lopt.save_pretrained: "
            f"{type(error).__name__}: {error}."
        ) from error
    if versions != {FORMAT}:
        version = max(versions, key=str)
        raise ValueError(
            f"{name} has format {version!r}, but this version of lopt reads "
            f"format {FORMAT}: install a version that is as new as the file."
        )
    if len(digests) > 1:
        raise ValueError(f"{name} are of two saves, and do not belong together.")
    arrays = {**found.arrays, **extra}
    if _digest(arrays) not in digests:
        raise ValueError(
            f"{name} was changed after it was saved: its hash is not {digests.pop()}."
        )
    if found.kind is not None:
        wrong = layout.problems(arrays, layout.google(found.kind))[1]
        if wrong:
            raise ValueError(f"{name} is no {found.kind}: {layout.first(wrong)}.")
    return extra, metadata


def _one_or_all(names: Sequence[str], values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))


def _flattened(theta: Any) -> Arrays:
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
