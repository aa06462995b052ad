"""Libraries that some readers need and most users do not."""

from __future__ import annotations

import importlib
import types


def require(module: str, extra: str) -> types.ModuleType:
    """Imports a library of an optional extra.

    Raises:
      ModuleNotFoundError: it is not installed; the message says how to install it.

    Example:
      >>> require("no_such_library", "tokenizers")
      Traceback (most recent call last):
      ...
      ModuleNotFoundError: no_such_library is not installed: \
pip install 'mada-optax[tokenizers]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"{module} is not installed: pip install 'mada-optax[{extra}]'", name=module
        ) from error
