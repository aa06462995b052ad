"""Tasks by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tasks.base import Task
from tasks.checks import check_known
from tasks.specs import parse_call

_BUILTIN = (
    "tasks.classification",
    "tasks.convolution",
    "tasks.counterexamples",
    "tasks.forecasting",
    "tasks.gpt2",
    "tasks.minigpt",
    "tasks.sentiment",
    "tasks.transformers",
    "tasks.translation",
)
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
    full_name = task_name(name, overrides)
    return dataclasses.replace(_BUILDERS[name](**overrides), name=full_name)


def task_name(name: str, overrides: Mapping[str, Any]) -> str:
    """The name of the task that `get` would build: what differs from the defaults.

    Raises:
      ValueError: the name or an override is not allowed.

    Example:
      >>> task_name("digits-mlp", {"width": 32, "depth": 2})
      'digits-mlp(width=32)'
    """
    defaults = _defaults(name)
    for override in overrides:
        check_known(f"{name} override", override, sorted(defaults))
    changed = {
        override: value
        for override, value in sorted(overrides.items())
        if override != "data_dir" and value != defaults[override]
    }
    return _call(name, changed) if changed else name


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the overrides of a task that is written as a call.

    Raises:
      ValueError: the call cannot be parsed, or an argument is not a keyword.

    Example:
      >>> parse("digits-mlp(width=32)")
      ('digits-mlp', {'width': 32})
    """
    call = parse_call("task", text)
    if call.args:
        raise ValueError(f"task {text!r}: overrides are keyword arguments")
    return call.target, call.kwargs


def list_tasks() -> list[str]:
    """Names of all tasks.

    Example:
      >>> "digits-mlp" in list_tasks()
      True
    """
    for module in _BUILTIN:  # Registers its tasks; loads Flax, hence not earlier.
        importlib.import_module(module)
    return sorted(_BUILDERS)


def takes(name: str, override: str) -> bool:
    """Whether the task has such an argument.

    Example:
      >>> takes("digits-mlp", "width"), takes("digits-mlp", "wings")
      (True, False)
    """
    return override in _defaults(name)


def describe(name: str) -> str:
    """The task with what can be overridden, and the defaults.

    Example:
      >>> describe("digits-mlp")  # doctest: +ELLIPSIS
      "digits-mlp(width=64, depth=2, batch_size=64, size=None, grey=False, ..."
    """
    return _call(name, _defaults(name))


def _defaults(name: str) -> dict[str, Any]:
    check_known("task", name, list_tasks())
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def _call(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
