"""Finding the files of a data set."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ENVIRONMENT_VARIABLES = ("MADA_DATA_DIR", "TFDS_DATA_DIR")


class Found(NamedTuple):
    """The name of a layout, the folder that has it, and the files in their order."""

    layout: str
    folder: pathlib.Path
    paths: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """What a data set looks like on disk.

    Attributes:
      name: its name, for the errors.
      layouts: by name, the files that it can consist of; the first complete one wins. A
        file can be a pattern with `*`, which stands for all that match.
      folders: what the data set's folder inside the folder of data sets can be called.
      homepage: where a user gets the files.
    """

    name: str
    layouts: Mapping[str, Sequence[str]]
    folders: Sequence[str]
    homepage: str

    def find(self, data_dir: str | os.PathLike[str] | None = None) -> Found:
        """Finds the folder that holds all files of one of the layouts.

        Args:
          data_dir: the folder of data sets, or that of this one; by default those that
            the environment variables `MADA_DATA_DIR` and `TFDS_DATA_DIR` name.

        Raises:
          FileNotFoundError: no folder is given or no layout is complete; the message
            says which files are missing, where they were looked for and how to get
            them.
        """
        given = {"data_dir": data_dir}
        if not data_dir:
            given = {name: os.environ.get(name) for name in ENVIRONMENT_VARIABLES}
        roots = {k: pathlib.Path(v).expanduser() for k, v in given.items() if v}
        if not roots:
            raise FileNotFoundError(
                f"{self.name} is read from files, and no folder is given: pass "
                f"data_dir=... or set {ENVIRONMENT_VARIABLES[0]}. {self.wanted}"
            )
        candidates = [
            folder
            for root in roots.values()
            for folder in (
                *([root] if root.name in self.folders else []),
                *(root / name for name in self.folders),
            )
        ]
        most_complete: tuple[int, str] = (0, "")
        for folder in candidates:
            for layout, files in self.layouts.items():
                paths = {file: _matches(folder, file) for file in files}
                missing = [file for file, found in paths.items() if not found]
                if not missing:
                    every = itertools.chain.from_iterable(paths.values())
                    return Found(layout, folder, tuple(every))
                found = len(files) - len(missing)
                if found > most_complete[0]:
                    most_complete = found, f"{folder} lacks {', '.join(missing)}"
        looked = f"looked in {', '.join(map(str, candidates))}"
        looked += f" (from {' and '.join(roots)})"
        if most_complete[0]:
            problem = f"{most_complete[1]}. Get them from {self.homepage}."
        else:
            problem = f"no files found, {looked}. {self.wanted}"
        raise FileNotFoundError(f"{self.name}: {problem}")

    @property
    def wanted(self) -> str:
        """Which files, and where a user gets them."""
        options = (f"{', '.join(v)} ({layout})" for layout, v in self.layouts.items())
        return f"Expected: {'; or '.join(options)}. Get them from {self.homepage}."


def _matches(folder: pathlib.Path, file: str) -> list[pathlib.Path]:
    if "*" in file:
        return sorted(folder.glob(file))
    return [folder / file] if (folder / file).exists() else []
