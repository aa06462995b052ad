"""Finding the files of a data set."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

ENVIRONMENT_VARIABLE = "MADA_DATA_DIR"


def find_files(
    dataset: str,
    layouts: Mapping[str, Sequence[str]],
    *,
    folders: Sequence[str],
    homepage: str,
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[str, pathlib.Path]:
    """Finds the folder that holds all files of one of the layouts of a data set.

    Args:
      dataset: its name, for the errors.
      layouts: by name, the files that it can consist of; the first complete one wins.
      folders: what the data set's folder inside `data_dir` can be called. `data_dir`
        may also be that folder itself.
      homepage: where a user gets the files.
      data_dir: the folder of data sets; `MADA_DATA_DIR` by default.

    Returns:
      The name of the layout and the folder.

    Raises:
      FileNotFoundError: no folder is given or no layout is complete; the message says
        which files are missing, where they were looked for and how to get them.
    """
    remedy = f"Get them from {homepage}."
    given = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not given:
        raise FileNotFoundError(
            f"{dataset} is read from files, and no folder is given: pass data_dir=... "
            f"or set {ENVIRONMENT_VARIABLE}. {_describe(layouts)}. {remedy}"
        )
    root = pathlib.Path(given).expanduser()
    candidates = [root / folder for folder in folders]
    if root.name in folders:
        candidates.insert(0, root)

    most_complete: tuple[int, str] = (0, "")
    for folder in candidates:
        for name, files in layouts.items():
            missing = [file for file in files if not (folder / file).exists()]
            if not missing:
                return name, folder
            found = len(files) - len(missing)
            if found > most_complete[0]:
                most_complete = found, f"{folder} lacks {', '.join(missing)}"
    origin = "data_dir" if data_dir else ENVIRONMENT_VARIABLE
    looked = f"looked in {', '.join(map(str, candidates))} (from {origin})"
    problem = most_complete[1] or f"no files found, {looked}. {_describe(layouts)}"
    raise FileNotFoundError(f"{dataset}: {problem}. {remedy}")


def _describe(layouts: Mapping[str, Sequence[str]]) -> str:
    options = (f"{', '.join(files)} ({name})" for name, files in layouts.items())
    return f"Expected: {'; or '.join(options)}"
