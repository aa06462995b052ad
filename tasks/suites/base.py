"""What a suite is: tasks, and for each the optimizers and the number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tasks import registry
from tasks.base import Task
from tasks.checks import check_known
from tasks.claims import Claim
from tasks.early_stopping import EarlyStopping
from tasks.measures import FINAL_VALID, MEASURES
from tasks.optimizers import OptimizerLike

if TYPE_CHECKING:
    from tasks.results import Results

DEFAULT_STEPS = 1000
TRACKS = ("tuned", "untuned")
IN_DISTRIBUTION = "in-distribution"


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
      track: how the settings of the optimizers were chosen: `"tuned"` on this task, or
        `"untuned"`, one setting for all tasks; `None` where it is not said.
      tuning: by display name of an optimizer, how it was tuned, see `tasks.tuning`.
      tags: what sets the entry apart from others of the suite. Tasks that learned
        optimizers were meta-trained on have `IN_DISTRIBUTION`, and the report does not
        mix them with others.
    """

    task: str | Task
    optimizers: tuple[OptimizerLike, ...] = ()
    steps: int = DEFAULT_STEPS
    eval_every: int | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target: float | None = None
    early_stopping: EarlyStopping | None = None
    track: Literal["tuned", "untuned"] | None = None
    tuning: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def __post_init__(self):
        if self.track is not None:
            check_known("track", self.track, TRACKS)

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
      baselines: display names of the optimizers among which the best sets targets and
        the unit of scores; by default `baseline` alone.
      measure: what scores and targets are about, one of `tasks.measures.MEASURES`.
      claims: what the run is to show, declared before it, such as `"mada < adamw in
        final validation loss on digits-mlp"`; see `tasks.claims`.
      then: from what the suite found to entries that are run after it, on the same
        tasks, such as optimizers that start where others ended.

    Raises:
      ValueError: the measure is unknown, or a claim cannot be read.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    baseline: str = "adamw"
    early_stopping: EarlyStopping | None = None
    baselines: tuple[str, ...] = ()
    measure: str = FINAL_VALID
    claims: tuple[str, ...] = ()
    then: Callable[[Results], tuple[Entry, ...]] | None = None

    def __post_init__(self):
        check_known("measure", self.measure, MEASURES)
        for claim in self.claims:
            Claim.parse(claim)

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
