"""Variants of a task along one axis at a time: out of distribution, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tasks.checks import check_numbers
from tasks.optimizers import OptimizerLike
from tasks.problems import variant_name
from tasks.specs import parse_call
from tasks.suites.base import Entry

LEARNING_RATES = (0.1, 1.0, 10.0)


def along(entry: Entry, **axes: Sequence[Any]) -> tuple[Entry, ...]:
    """The entry and its variants, each of which differs in one thing.

    Args:
      entry: what the variants have in common.
      **axes: values by axis: `steps` of the entry; `learning_rate` as multiples of each
        optimizer's own, which become optimizers of the entry; any override of the task
        otherwise, such as `width`, `depth` or `batch_size`.

    Returns:
      The entry first, in which all axes cross. The report draws an axis that has three
      values, that of the entry itself included.

    Raises:
      ValueError: for a learning rate that is not positive, or optimizers that are not
        given by specs.

    Example:
      >>> entry = Entry("digits-mlp", ("optax:adamw(0.001)",), steps=100)
      >>> found = along(entry, width=(16,), steps=(400,), learning_rate=(0.1, 10))
      >>> [(e.task_name, e.steps) for e in found[1:]]
      [('digits-mlp(width=16)', 100), ('digits-mlp', 400)]
      >>> found[0].optimizers[1]
      ('adamw [lr ×0.1]', 'optax:adamw(0.0001)')
    """
    factors = axes.pop("learning_rate", ())
    lengths = axes.pop("steps", ())
    rates = [(o, f) for o in entry.optimizers for f in dict.fromkeys([1.0, *factors])]
    varied = (_at_rate(o, factor) for o, factor in rates)
    base = dataclasses.replace(
        entry, optimizers=tuple(o for o in varied if o is not None)
    )
    found = [base]
    for axis, values in axes.items():
        for value in values:
            overrides = {**entry.overrides, axis: value}
            found.append(dataclasses.replace(entry, overrides=overrides))
    for steps in lengths:
        every = entry.eval_every and max(1, entry.eval_every * steps // entry.steps)
        found.append(dataclasses.replace(entry, steps=steps, eval_every=every))
    seen: dict[tuple[Any, int], Entry] = {}
    for e in found:
        # The name tells what is a default, and to find it imports all tasks.
        seen.setdefault((e.task_name if axes else e.task, e.steps), e)
    return tuple(seen.values())


def _at_rate(optimizer: OptimizerLike, factor: float) -> OptimizerLike | None:
    """The optimizer at a multiple of its learning rate; `None` if it has none."""
    if factor == 1:
        return optimizer
    check_numbers(above=0, learning_rate=factor)
    name, spec = optimizer if isinstance(optimizer, tuple) else (None, optimizer)
    if not (isinstance(spec, str) and isinstance(name, str | None)):
        raise ValueError(
            f"learning_rate: {optimizer!r} is not given by a spec, whose learning rate "
            "could be varied"
        )
    call = parse_call("optimizer", spec)
    args, kwargs = list(call.args), dict(call.kwargs)
    if "learning_rate" in kwargs:
        kwargs["learning_rate"] = _times(kwargs["learning_rate"], factor)
    elif args and isinstance(args[0], float):
        args[0] = _times(args[0], factor)
    else:
        return None
    given = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
    name = name or call.target.rpartition(":")[2].rpartition(".")[2]
    return variant_name(name, factor), f"{call.target}({', '.join(given)})"


def _times(rate: float, factor: float) -> float:
    return float(f"{rate * factor:.12g}")  # 0.001 * 0.1 is not quite 0.0001
