"""Real data that every installation already has: nothing to download."""

from __future__ import annotations

import importlib.util
import pathlib
import platform

import numpy as np

DIGITS_SOURCE = "scikit-learn: datasets/data/digits.csv.gz"
PYTHON_DOCS_SOURCE = f"pydoc_data.topics of Python {platform.python_version()}"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads scikit-learn's 1797 handwritten digits without importing scikit-learn.

    Returns:
      Images, uint8 of shape (1797, 8, 8, 1) with values 0 to 16, and int32 labels.

    Raises:
      FileNotFoundError: scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    origin = package.origin if package else None
    folder = pathlib.Path(origin or "sklearn/__init__.py").parent
    path = folder / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"digits are read from scikit-learn's own copy, and {path} does not exist: "
            "pip install scikit-learn"
        )
    table = np.loadtxt(path, delimiter=",", dtype=np.int32)
    return table[:, :-1].astype(np.uint8).reshape(-1, 8, 8, 1), table[:, -1]


def python_docs() -> str:
    """Returns the text of the documentation topics behind Python's own `help()`.

    It differs a little between versions of Python: record its hash with any result.

    Raises:
      FileNotFoundError: this Python comes without its documentation topics.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise FileNotFoundError(
            "python_docs are read from pydoc_data.topics, which this Python lacks: "
            "use a complete CPython, or a text set that is read from files"
        ) from error
    return "\n".join(f"{name}\n\n{topics[name]}" for name in sorted(topics))
