"""Checkpoints of a meta-training run; the only file that imports Orbax."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from lopt import parallel

FORMAT = 1
_ENTRIES = {"format", "step", "config", "files"}
# What this class and Orbax, while it saves, make in the directory.
_OURS = re.compile(r"\d{8}(\..*)?")


class Checkpoints:
    """The last few checkpoints of one run.

    `directory/00000100/` is what Orbax writes, `directory/00000100.json` its manifest:
    the configuration, and size and hash of every file. The manifest comes last and goes
    first, so a checkpoint that has one was whole once, and the hashes say whether it
    still is. State is saved and restored bit for bit, under any number of devices.

    Attributes:
      directory: where the checkpoints are; shared by all processes.
      config: JSON that a run which goes on must share with the one that was stopped.
      keep: how many checkpoints are kept.
    """

    def __init__(
        self, directory: str | os.PathLike, config: Mapping[str, Any], keep: int = 3
    ):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.directory = pathlib.Path(directory).absolute()
        self.config = json.loads(json.dumps(config))
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps that have a manifest, ascending."""
        manifests = self.directory.glob("*.json")
        return sorted(int(p.stem) for p in manifests if _OURS.fullmatch(p.name))

    def save(self, step: int, state: Any) -> None:
        """Writes a pytree of arrays, and drops what is older than the last few."""
        if parallel.is_first_process():
            self._manifest(step).unlink(missing_ok=True)
        saved = jax.tree.map(_unless_empty, state)
        ocp.save(str(self._path(step)), saved, overwrite=True)
        if parallel.is_first_process():
            manifest = {
                "format": FORMAT,
                "step": step,
                "config": self.config,
                "files": dict(_hashes(self._path(step))),
            }
            _write(self._manifest(step), json.dumps(manifest, indent=1))
            self._prune()
        parallel.wait_for_processes(f"checkpoint {step}")

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The latest checkpoint that is whole, or `None` if none was ever finished.

        Args:
          like: arrays with the shapes, dtypes and shardings that are wanted.

        Returns:
          The step and the state. A damaged checkpoint is left out with a warning.

        Raises:
          ValueError: the checkpoint is of another configuration or another version of
            the format, or there are checkpoints and all of them are damaged.
        """
        damage = {}
        for step in reversed(self.steps()):
            try:
                manifest = self._read(step)
            except _Damaged as e:
                damage[step] = str(e)
                continue
            self._check(manifest)
            for broken, reason in damage.items():
                if parallel.is_first_process():
                    self._manifest(broken).unlink()
                warnings.warn(
                    f"checkpoint {self._path(broken)} is damaged ({reason}); going on "
                    f"from step {step}",
                    stacklevel=2,
                )
            loaded = ocp.load(str(self._path(step)), jax.tree.map(_abstract, like))
            parallel.wait_for_processes(f"restore {step}")
            return step, jax.tree.map(lambda x, y: x if y is None else y, like, loaded)
        if damage:
            reasons = "; ".join(f"step {s}: {reason}" for s, reason in damage.items())
            raise ValueError(
                f"every checkpoint in {self.directory} is damaged ({reasons}); delete "
                "the directory to start again"
            )
        return None

    def _read(self, step: int) -> dict[str, Any]:
        try:
            manifest = json.loads(self._manifest(step).read_text())
            missing = sorted(_ENTRIES - manifest.keys())
        except (OSError, ValueError, AttributeError) as e:
            raise _Damaged(f"{self._manifest(step).name} is not readable") from e
        if missing:
            raise _Damaged(f"{self._manifest(step).name} lacks {', '.join(missing)}")
        found = dict(_hashes(self._path(step)))
        for name, (size, digest) in manifest["files"].items():
            if name not in found:
                raise _Damaged(f"{name} is missing")
            if found[name][0] != size:
                raise _Damaged(f"{name} has {found[name][0]} of {size} bytes")
            if found[name][1] != digest:
                raise _Damaged(f"the contents of {name} have changed")
        return manifest

    def _check(self, manifest: dict[str, Any]) -> None:
        where = f"checkpoint {self._path(manifest['step'])}"
        if manifest["format"] != FORMAT:
            raise ValueError(
                f"{where} has format {manifest['format']}; this version reads {FORMAT}"
            )
        saved, now = _flat(manifest["config"]), _flat(self.config)
        different = [
            f"{name} was {saved.get(name)!r}, is {now.get(name)!r}"
            for name in sorted({*saved, *now})
            if saved.get(name) != now.get(name)
        ]
        if different:
            raise ValueError(
                f"{where} is of another configuration: {'; '.join(different[:4])}. "
                "Go on with that one, or take another directory"
            )

    def _prune(self) -> None:
        """Also clears what saves that were killed have left."""
        kept = {str(self._path(step)) for step in self.steps()[-self.keep :]}
        for path in self.directory.iterdir():
            stem = path.name.split(".")[0]
            if _OURS.fullmatch(path.name) and str(self.directory / stem) not in kept:
                self._manifest(int(stem)).unlink(missing_ok=True)
                if path.is_dir():
                    shutil.rmtree(path)

    def _path(self, step: int) -> pathlib.Path:
        return self.directory / f"{step:08d}"

    def _manifest(self, step: int) -> pathlib.Path:
        return self.directory / f"{step:08d}.json"


class _Damaged(Exception):
    pass


def _unless_empty(x: jax.Array) -> jax.Array | None:
    """Orbax refuses arrays without elements."""
    return x if x.size else None


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct | None:
    if not x.size:
        return None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _hashes(directory: pathlib.Path) -> Iterator[tuple[str, list[Any]]]:
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        yield path.relative_to(directory).as_posix(), [len(content), digest]


def _write(path: pathlib.Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """`{"estimator": {"std": 1}}` as `{"estimator.std": 1}`; lists by position."""
    if isinstance(value, list):
        value = {str(i): v for i, v in enumerate(value)}
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: leaf
        for k, v in value.items()
        for key, leaf in _flat(v, f"{name}.{k}" if name else k).items()
    }
