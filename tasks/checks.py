"""Checks of arguments, made before anything is read or compiled."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np


def check_counts(minimum: int = 1, **counts: int) -> None:
    """Raises `ValueError` unless every keyword argument is an integer >= `minimum`.

    Example:
      >>> check_counts(width=64, depth=0)
      Traceback (most recent call last):
      ...
      ValueError: depth must be an integer >= 1, got 0
    """
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}")


def check_known(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raises `ValueError` unless `name` is one of `allowed`; suggests the nearest.

    Example:
      >>> check_known("task", "digit-mlp", ["digits-mlp", "mnist-mlp"])
      Traceback (most recent call last):
      ...
      ValueError: unknown task 'digit-mlp', did you mean 'digits-mlp'? \
Allowed: digits-mlp, mnist-mlp
    """
    allowed = list(allowed)
    if name in allowed:
        return
    near = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    choices = ", ".join(allowed) or "none"
    raise ValueError(f"unknown {kind} {name!r}{hint} Allowed: {choices}")


def check_dtype(name: str) -> np.dtype:
    """Returns the floating-point dtype of that name, for activations.

    Example:
      >>> check_dtype("bfloat16")
      dtype(bfloat16)
    """
    check_known("dtype", name, ("bfloat16", "float16", "float32"))
    return jnp.dtype(name)
