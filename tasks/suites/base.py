"""What a suite is: tasks, and for each the optimizers and the number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.base import Task
from tasks.optimizers import OptimizerLike

DEFAULT_STEPS = 1000


@dataclasses.dataclass(frozen=True)
class Entry:
    """One task of a suite.

    Attributes:
      task: a name that `tasks.get` knows, or a task.
      optimizers: what is run on it, such as `"optax:adamw(learning_rate=1e-3)"`.
      steps: the number of training steps.
      eval_every: steps between evaluations; by default a twenty-fifth of the steps.
      overrides: keyword arguments of `tasks.get`.
      target: the validation loss that "steps to target" means; by default what the
        baseline reaches at three quarters of its run.
    """

    task: str | Task
    optimizers: tuple[OptimizerLike, ...] = ()
    steps: int = DEFAULT_STEPS
    eval_every: int | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target: float | None = None

    @property
    def task_name(self) -> str:
        """The task's name with overrides, without building it.

        Example:
          >>> Entry("digits-mlp", overrides={"width": 32}).task_name
          'digits-mlp(width=32)'
        """
        if isinstance(self.task, Task):
            return self.task.name
        if not self.overrides:
            return self.task
        given = ", ".join(f"{k}={v!r}" for k, v in sorted(self.overrides.items()))
        return f"{self.task}({given})"


@dataclasses.dataclass(frozen=True)
class Suite:
    """A named list of tasks with optimizers.

    Attributes:
      name: the name that `get_suite` knows.
      description: one line for `python -m tasks list` and the head of the report.
      entries: the tasks, in the order of the report.
      baseline: the display name of the optimizer that others are compared with.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    baseline: str = "adamw"

    def only(self, task_names: Sequence[str]) -> Suite:
        """The suite restricted to some tasks; unknown ones come without optimizers.

        Args:
          task_names: names as `Entry.task_name` gives them, or without overrides, which
            means all entries of that task.
        """
        chosen = []
        for name in task_names:
            found = [e for e in self.entries if name in (e.task_name, e.task)]
            chosen += found or [Entry(task=name)]
        return dataclasses.replace(self, entries=tuple(chosen))
