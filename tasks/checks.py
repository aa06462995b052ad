"""Checks of arguments, made before anything is read or compiled."""

from __future__ import annotations

import difflib
import math
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


def check_fractions(**fractions: float) -> None:
    """Raises `ValueError` unless every keyword argument is at least 0 and less than 1.

    Example:
      >>> check_fractions(dropout=1.0)
      Traceback (most recent call last):
      ...
      ValueError: dropout must be at least 0 and less than 1, got 1.0
    """
    for name, value in fractions.items():
        if isinstance(value, str) or not 0 <= value < 1:
            raise ValueError(
                f"{name} must be at least 0 and less than 1, got {value!r}"
            )


def check_numbers(*, above: float = -math.inf, **numbers: float) -> None:
    """Raises `ValueError` unless every keyword argument is a finite number > `above`.

    Example:
      >>> check_numbers(above=0, tolerance=-0.1)
      Traceback (most recent call last):
      ...
      ValueError: tolerance must be a finite number > 0, got -0.1
    """
    least = "" if above == -math.inf else f" > {above:g}"
    for name, value in numbers.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and above < value < math.inf):
            raise ValueError(f"{name} must be a finite number{least}, got {value!r}")


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
