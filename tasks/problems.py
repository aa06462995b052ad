# ruff: noqa: RUF001 (× is meant)
"""Which records are of one task: those that differ in its parametrization alone.

A model in standard and one in maximal-update parametrization are two ways to do the
same, as two optimizers are, and are compared with each other.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence

from tasks.parametrization import describe
from tasks.records import Record

_PARAMETRIZATION = re.compile(r"parametrization='[^']*'(, )?")


def task_name(record: Record) -> str:
    """The name of the record's task without its parametrization.

    Example:
      >>> without_parametrization("mlp(depth=3, parametrization='mup', width=8)")
      'mlp(depth=3, width=8)'
    """
    return without_parametrization(record.task)


def without_parametrization(task: str) -> str:
    """The name of a task without its parametrization.

    Example:
      >>> without_parametrization("mlp(parametrization='mup(output_multiplier=4.0)')")
      'mlp'
    """
    name = _PARAMETRIZATION.sub("", task)
    return name.replace(", )", ")").replace("()", "")


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """Records by task and by optimizer.

    Optimizers are named with their parametrization where there are several in all, so
    that one name means one thing on every task.
    """
    labels = _labels(map(_key, records))
    cells: dict[str, dict[str, list[Record]]] = {}
    for r in records:
        of_task = cells.setdefault(task_name(r), {})
        of_task.setdefault(labels[_key(r)], []).append(r)
    return cells


def _key(record: Record) -> tuple[str, str]:
    metadata = record.config.get("task_metadata", {})
    return record.optimizer, describe(metadata.get("parametrization"))


def _labels(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    keys = list(dict.fromkeys(keys))
    if len({rules for _, rules in keys}) <= 1:
        return {key: key[0] for key in keys}
    short = {key: f"{key[0]} ({key[1].partition('(')[0]})" for key in keys}
    count = collections.Counter(short.values())
    return {k: s if count[s] == 1 else f"{k[0]} ({k[1]})" for k, s in short.items()}


_VARIANT = re.compile(r"(.+) \[lr ×(\S+)\]")


def variant_name(optimizer: str, factor: float) -> str:
    """The display name of an optimizer at a multiple of its learning rate.

    Example:
      >>> variant_name("adamw", 0.1), variant_name("adamw", 1)
      ('adamw [lr ×0.1]', 'adamw')
    """
    return optimizer if factor == 1 else f"{optimizer} [lr ×{factor:g}]"


def variant_of(name: str) -> tuple[str, float]:
    """The optimizer and the multiple of its learning rate that a name stands for.

    Example:
      >>> variant_of("adamw [lr ×0.1] (mup)")
      ('adamw (mup)', 0.1)
    """
    found = _VARIANT.match(name)
    if found is None:
        return name, 1.0
    return found[1] + name[found.end() :], float(found[2])
