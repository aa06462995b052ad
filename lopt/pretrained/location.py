"""Where meta-parameters are: our own, a file, a folder, or the Hugging Face Hub."""

import importlib.resources
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lopt.pretrained.catalogue import Published, by_repo, repos_of

SUFFIXES = (".npz", ".safetensors", ".msgpack", ".state")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ("model.safetensors", "theta.state", "*.npz")
# A folder, one with a folder per part, and the cache of the Hub.
_DEPTHS = ("*", "*/*", "snapshots/*/*")


class Location(NamedTuple):
    """Files to read.

    Attributes:
      files: one, or the two of VeLO in PyTorch.
      config: of the config.json beside a single file in a folder.
      published: the entry of the catalogue, where a name of the Hub says it.
      bundled: whether it comes with this package.
    """

    files: tuple[pathlib.Path, ...]
    config: dict[str, Any] | None = None
    published: Published | None = None
    bundled: bool = False


def find(path_or_name: str | os.PathLike) -> Location:
    """The files of a name or path; only a name "org/repo" is looked up elsewhere.

    Raises:
      ValueError: there is nothing, or too much to choose from.
    """
    text = os.fspath(path_or_name)
    path = pathlib.Path(text)
    folder = pathlib.Path(str(importlib.resources.files("lopt"))) / "pretrained"
    names = sorted(path.stem for path in folder.glob("*.npz"))
    if isinstance(path_or_name, str) and text in names:
        return Location((folder / f"{text}.npz",), bundled=True)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return Location((path,))
    if path.suffix in SUFFIXES or not isinstance(path_or_name, str):
        raise ValueError(f"there is no file {text!r}.")
    if _REPO.fullmatch(text):
        return _on_hub(text)
    raise ValueError(
        f"pretrained is {text!r}, which does not exist; allowed are "
        f"{', '.join(map(repr, names)) or 'no names yet'}, paths of files and folders, "
        "and names of the Hugging Face Hub such as 'btherien/mulo'."
    )


def _in_folder(folder: pathlib.Path) -> Location:
    for depth in _DEPTHS:
        found = [
            path
            for path in sorted(folder.glob(depth))
            if path.suffix in SUFFIXES and path.name[0] != "." and path.is_file()
        ]
        if found:
            break
    else:
        raise ValueError(
            f"the folder {str(folder)!r} has no file that ends in "
            f"{', '.join(SUFFIXES)}; give the path of the file itself."
        )
    parts = {path.suffix for path in found} == {".safetensors"} and len(found) == 2
    if len(found) > 1 and not parts:
        listed = ", ".join(str(path.relative_to(folder)) for path in found[:5])
        raise ValueError(
            f"the folder {str(folder)!r} has {len(found)} files of meta-parameters "
            f"({listed}); give the path of one."
        )
    return Location(tuple(found), None if parts else _config(found[0].parent))


def _config(folder: pathlib.Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(path)!r} holds a {type(config).__name__}, not a dict.")
    return config


def _on_hub(name: str) -> Location:
    published = by_repo(name)
    if published is None:
        return _in_folder(_fetch(name, _FILES))
    # VeLO's two halves are in a repository each.
    repos = repos_of(published.variant, published.file)
    files = tuple(_fetch(repo, [published.file]) / published.file for repo in repos)
    config = _config(files[0].parent) if len(files) == 1 else None
    return Location(files, config, published)


def _fetch(repo: str, patterns: Sequence[str]) -> pathlib.Path:
    """The folder with those files of a repository, and its config.json."""
    otherwise = (
        "No file or folder of that name is here either: download the repository where "
        "you can, and give the path of its folder or file."
    )
    try:
        import huggingface_hub  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ValueError(
            f"{repo!r} is a name of the Hugging Face Hub, and huggingface_hub is not "
            f"installed: pip install 'mada-optax[hub]'. {otherwise}"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repo, allow_patterns=[*patterns, "config.json"]
        )
    except Exception as error:  # Of the network, the Hub, or the disk.
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{repo!r} could not be fetched from the Hugging Face Hub, which needs a "
            f"network and a public repository of that name "
            f"({type(error).__name__}: {reason}). {otherwise}"
        ) from error
    return pathlib.Path(folder)
