"""Checks of arguments, made before anything is compiled."""

from __future__ import annotations

import math
from typing import Any


def check_counts(minimum: int = 1, **counts: Any) -> None:
    """Raises `ValueError` unless every keyword argument is an integer >= `minimum`.

    Example:
      >>> check_counts(num_particles=8, truncation_length=0)
      Traceback (most recent call last):
      ...
      ValueError: truncation_length must be an integer >= 1, got 0
    """
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}")


def check_positive(**numbers: Any) -> None:
    """Raises `ValueError` unless every keyword argument is a finite number > 0.

    Example:
      >>> check_positive(std=-0.1)
      Traceback (most recent call last):
      ...
      ValueError: std must be a finite number > 0, got -0.1
    """
    for name, value in numbers.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


def check_option(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises `ValueError` unless `value` is one of `allowed`.

    Example:
      >>> check_option("per", "layer", ("task", "tensor"))
      Traceback (most recent call last):
      ...
      ValueError: per must be one of 'task', 'tensor', got 'layer'
    """
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
