"""Tasks by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from tasks.base import Task
from tasks.checks import check_known

_BUILTIN = ("tasks.classification", "tasks.language")
_BUILDERS: dict[str, Callable[..., Task]] = {}


def register(name: str, builder: Callable[..., Task]) -> None:
    """Makes a task available to `get` and to the command line.

    Args:
      name: the name of the task.
      builder: a function of keyword arguments, all with defaults, which are what
        `get` allows to override.

    Raises:
      ValueError: the name is taken.
    """
    if name in _BUILDERS:
        raise ValueError(f"a task named {name!r} is registered already")
    _BUILDERS[name] = builder


def get(name: str, **overrides: Any) -> Task:
    """Builds the task of that name.

    Args:
      name: one of `list_tasks()`.
      **overrides: arguments of the task, such as `width`, `depth`, `batch_size`,
        `context` or `data_dir`; `describe(name)` shows them with their defaults.

    Returns:
      The task. Overrides are part of its name, so that records of different tasks
      cannot be confused; only `data_dir` is not.

    Raises:
      ValueError: the name, an override or its value is not allowed.
      FileNotFoundError: the data are not there; the message says how to get them.

    Example:
      >>> get("digits-mlp", width=32).name
      'digits-mlp(width=32)'
    """
    defaults = _defaults(name)
    for override in overrides:
        check_known(f"{name} override", override, sorted(defaults))
    task = _BUILDERS[name](**overrides)
    changed = {
        override: value
        for override, value in sorted(overrides.items())
        if override != "data_dir" and value != defaults[override]
    }
    return dataclasses.replace(task, name=_call(name, changed) if changed else name)


def list_tasks() -> list[str]:
    """Names of all tasks.

    Example:
      >>> "digits-mlp" in list_tasks()
      True
    """
    for module in _BUILTIN:  # Registers its tasks; loads Flax, hence not earlier.
        importlib.import_module(module)
    return sorted(_BUILDERS)


def describe(name: str) -> str:
    """The task with what can be overridden, and the defaults.

    Example:
      >>> describe("digits-mlp")  # doctest: +ELLIPSIS
      "digits-mlp(width=64, depth=2, batch_size=64, size=None, parametrization=..."
    """
    return _call(name, _defaults(name))


def _defaults(name: str) -> dict[str, Any]:
    check_known("task", name, list_tasks())
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def _call(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
