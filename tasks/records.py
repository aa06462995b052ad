"""Records of runs: JSON lines, one line per seed, one file per task and optimizer.

A file appears whole or not at all, so that an evaluation can be killed at any moment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import filelock
import jax
import numpy as np

FORMAT = 1
LOCKS = ".locks"
_PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "mada-optax")


@dataclasses.dataclass(frozen=True)
class Record:
    """One run: an optimizer on a task with one seed.

    Attributes:
      task: the task's name.
      optimizer: the optimizer's display name.
      seed: decides the initial parameters, the batches and the noise.
      config: what the curves depend on: task, optimizer, steps, evaluation points.
      context: what they do not depend on: suite, baseline, target, tags, order,
        command.
      environment: versions of packages and the hardware.
      train_loss: the training loss of every step.
      eval_steps: the steps at which the rest was recorded, 0 first.
      valid: metrics on the validation split at `eval_steps`, by name, and on further
        sets as `METRIC/NAME`.
      hyperparams: the optimizer's scalar hyper-parameters at `eval_steps`, by name.
      costs: compile and run seconds, milliseconds of an update, bytes of state.
      diverged_at: the first step with a non-finite loss, or `None`.
    """

    task: str
    optimizer: str
    seed: int
    config: Mapping[str, Any]
    context: Mapping[str, Any]
    environment: Mapping[str, Any]
    train_loss: np.ndarray
    eval_steps: np.ndarray
    valid: Mapping[str, np.ndarray]
    hyperparams: Mapping[str, np.ndarray]
    costs: Mapping[str, float]
    diverged_at: int | None

    @property
    def config_hash(self) -> str:
        """Twelve hexadecimal digits that change when the configuration does."""
        return config_hash(self.config)


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a configuration as sorted JSON."""
    text = json.dumps(as_json(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def first_divergence(
    train_loss: np.ndarray, eval_steps: np.ndarray, valid_loss: np.ndarray
) -> int | None:
    """The first step whose training loss, or whose result, is not finite.

    Example:
      >>> first_divergence(np.array([1.0, np.nan]), np.array([0, 2]), np.ones(2))
      1
    """
    steps = [
        *np.flatnonzero(~np.isfinite(train_loss)),
        *np.asarray(eval_steps)[~np.isfinite(valid_loss)],
    ]
    return int(min(steps)) if steps else None


def path_of(directory: pathlib.Path, task: str, optimizer: str) -> pathlib.Path:
    """The file of a task and an optimizer."""
    return directory / "records" / f"{file_stem(f'{task}.{optimizer}')}.jsonl"


def file_stem(name: str) -> str:
    """A name that every file system takes; a hash keeps those apart that it changes.

    Example:
      >>> file_stem("digits-mlp.adamw"), file_stem("a/b")
      ('digits-mlp.adamw', 'a-b.c14cdd')
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    if readable == name:
        return name
    return f"{readable}.{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def write(directory: pathlib.Path, records: Iterable[Record]) -> None:
    """Writes the records of one task and optimizer as one file, atomically."""
    records = sorted(records, key=lambda r: r.seed)
    path = path_of(directory, records[0].task, records[0].optimizer)
    text = "".join(json.dumps(_to_json(r), allow_nan=False) + "\n" for r in records)
    write_atomically(path, text)


def add(directory: pathlib.Path, records: Sequence[Record]) -> None:
    """Writes records of one task and optimizer beside those of its other seeds.

    Several processes may do so at the same time.
    """
    path = path_of(directory, records[0].task, records[0].optimizer)
    with filelock.FileLock(directory / LOCKS / f"{path.stem}.records.lock"):
        seeds = {record.seed for record in records}
        kept = [record for record in _read_file(path) if record.seed not in seeds]
        write(directory, [*kept, *records])


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file by a whole new one, or leaves it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(directory: pathlib.Path) -> list[Record]:
    """All records under a directory, in the order of their suite.

    A line that is no whole record (a copy that was cut short, say) is left out with a
    warning that names it.
    """
    paths = sorted((directory / "records").glob("*.jsonl"))
    found = [record for path in paths for record in _read_file(path)]
    return sorted(found, key=_order)


def read_one(directory: pathlib.Path, task: str, optimizer: str) -> list[Record]:
    """All records of one task and optimizer."""
    return _read_file(path_of(directory, task, optimizer))


def _read_file(path: pathlib.Path) -> list[Record]:
    found = []
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as e:
            warnings.warn(
                f"{path.name}, line {number}: not a whole record ({e}); left out",
                stacklevel=3,
            )
    return found


def _order(record: Record) -> tuple[Any, ...]:
    position = record.context.get("position", [0, 0])
    return (*position, record.task, record.optimizer, record.seed)


def environment(extra_versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Versions and hardware, without anything that names a machine or a path."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = jax.devices()[0]
    kinds = dict.fromkeys([device.platform, device.device_kind, platform.machine()])
    hardware = f"{' '.join(kinds)}, {os.cpu_count()} CPU cores"
    return {"versions": versions | dict(extra_versions or {}), "hardware": hardware}


def _to_json(record: Record) -> dict[str, Any]:
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {"format": FORMAT, "config_hash": record.config_hash, **as_json(fields)}


def _from_json(line: dict[str, Any]) -> Record:
    if line["format"] != FORMAT:
        raise ValueError(f"format {line['format']}, this version reads {FORMAT}")
    fields = {f.name: line[f.name] for f in dataclasses.fields(Record)}
    for name in ("train_loss", "eval_steps"):
        fields[name] = _decode(fields[name])
    for name in ("valid", "hyperparams"):
        fields[name] = {k: _decode(v) for k, v in fields[name].items()}
    return Record(**fields)


def as_json(value: Any) -> Any:
    """Strict JSON: arrays as lists, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | jax.Array):
        return _encode_array(np.asarray(value))
    if isinstance(value, tuple | list):
        return [as_json(v) for v in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else repr(value)


def _encode_array(array: np.ndarray) -> Any:
    if array.dtype == np.float32:  # the shortest digits that read back as this float32
        return [float(str(x)) if np.isfinite(x) else None for x in array]
    return as_json(array.tolist())


def _decode(values: list[float | None]) -> np.ndarray:
    if values and all(isinstance(v, int) for v in values):
        return np.array(values, np.int64)
    return np.array([np.nan if v is None else v for v in values], np.float32)
