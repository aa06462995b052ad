"""The inner training runs that meta-training looks at, many of them side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from lopt.truncation import Schedule
from tasks.base import ModelState, Params, Task

Theta = Any


class Particle(NamedTuple):
    """An inner training run; of many runs, each leaf has a leading axis of particles.

    Where the runs of a particle differ in theta only, such as the two of an antithetic
    pair, there is a second axis, of copies; `step` and `length` are common to them.

    Attributes:
      params: what is trained.
      model_state: what else the model carries.
      opt_state: the state of the transformation.
      step: int32; steps made since the start of the run.
      length: int32; steps after which the run ends.
    """

    params: Params
    model_state: ModelState
    opt_state: optax.OptState
    step: jax.Array
    length: jax.Array


@dataclasses.dataclass(frozen=True)
class Unroll:
    """What is trained, by what, and for how long.

    Attributes:
      task: the optimizee.
      transformation: an optimizer whose state has a field `hyperparams`.
      schedule: the lengths of the runs.
      to_hyperparams: maps theta to values for `hyperparams`: the whole of it, or a
        mapping from some of its names.
      meta_split: `None` takes as meta-loss the loss of each step, on its batch and
        before its update; the name of a split takes the loss after the update, on
        another batch, of that split.
      nonfinite_loss: stands in for a loss that is not finite.
      max_loss: meta-losses above it count as it, or `None`.
    """

    task: Task
    transformation: optax.GradientTransformationExtraArgs
    schedule: Schedule
    to_hyperparams: Callable[[Theta], Any] = lambda theta: theta
    meta_split: str | None = None
    nonfinite_loss: float = 20.0
    max_loss: float | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the task's data that a run reads."""
        return ("train",) if self.meta_split is None else ("train", self.meta_split)

    def check(self, theta: Theta) -> None:
        """Raises `ValueError` if theta does not fit the transformation."""
        raise NotImplementedError
