"""What a suite is: tasks, and for each the optimizers and the number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import registry
from tasks.base import Task
from tasks.early_stopping import EarlyStopping
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
      early_stopping: what the report stops runs by; by default what the suite says.
    """

    task: str | Task
    optimizers: tuple[OptimizerLike, ...] = ()
    steps: int = DEFAULT_STEPS
    eval_every: int | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target: float | None = None
    early_stopping: EarlyStopping | None = None

    @property
    def task_name(self) -> str:
        """The name that the task gets, without building it.

        Raises:
          ValueError: the name or an override is not allowed.

        Example:
          >>> Entry("digits-mlp", overrides={"width": 32}).task_name
          'digits-mlp(width=32)'
        """
        if isinstance(self.task, Task):
            return self.task.name
        name, given = registry.parse(self.task)
        return registry.task_name(name, {**self.overrides, **given})


@dataclasses.dataclass(frozen=True)
class Suite:
    """A named list of tasks with optimizers.

    Attributes:
      name: the name that `get_suite` knows.
      description: one line for `python -m tasks list` and the head of the report.
      entries: the tasks, in the order of the report.
      baseline: the display name of the optimizer that others are compared with.
      early_stopping: what the report stops runs by, or `None`. Runs are trained to
        their end in any case; the patience is one of evaluations.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    baseline: str = "adamw"
    early_stopping: EarlyStopping | None = None

    def only(self, task_names: Sequence[str]) -> Suite:
        """The suite restricted to some tasks; unknown ones come without optimizers.

        Args:
          task_names: names with overrides, or without, which means all entries of that
            task.
        """
        chosen = []
        for name in task_names:
            full = Entry(task=name).task_name
            found = [e for e in self.entries if full == e.task_name or name == e.task]
            chosen += found or [Entry(task=name)]
        return dataclasses.replace(self, entries=tuple(chosen))
