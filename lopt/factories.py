"""From what a user wants to meta-train to the transformation for a task."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import optax

from lopt import door
from tasks.base import Task, TaskFamily

Theta = Any


def flatten_tasks(tasks: Task | TaskFamily | Sequence[Task | TaskFamily]) -> list[Task]:
    """The tasks of families and sequences, in order.

    Raises:
      ValueError: there is none, or two have the same name.
    """
    if isinstance(tasks, Task):
        return [tasks]
    members = tasks.tasks if isinstance(tasks, TaskFamily) else tasks
    flat = [task for member in members for task in _members(member)]
    if not flat:
        name = f" {tasks.name!r}" if isinstance(tasks, TaskFamily) else ""
        raise ValueError(f"the family of tasks{name} is empty; give at least one task")
    names = [task.name for task in flat]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"task {name!r} is given {names.count(name)} times")
    return flat


def build(
    make_transform: Any, theta: Theta, task: Task, num_steps: int
) -> optax.GradientTransformationExtraArgs:
    """The transformation that trains a task.

    Args:
      make_transform: a `LearnedOptimizer`, a gradient transformation, or a function
        that returns one, of parameters that are called `width_multipliers`,
        `num_steps` or `labels` as far as it needs them.
      theta: the meta-parameters, for a learned optimizer.
      task: the optimizee.
      num_steps: the length of the longest run.

    Raises:
      ValueError: what comes out is no gradient transformation.
    """
    if isinstance(make_transform, optax.GradientTransformation):
        return optax.with_extra_args_support(make_transform)
    learned = is_learned(make_transform)
    factory = partial(make_transform.transform, theta) if learned else make_transform
    if not callable(factory):
        raise ValueError(
            f"make_transform is a {type(factory).__name__}; it must be a learned "
            "optimizer, an optax.GradientTransformation or a function that returns one"
        )
    of_run = {
        "width_multipliers": task.width_multipliers,
        "num_steps": num_steps,
        "labels": task.labels,
    }
    asked = inspect.signature(factory).parameters
    made = factory(**{k: v for k, v in of_run.items() if k in asked})
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(
            f"make_transform gives a {type(made).__name__}, which is not an "
            "optax.GradientTransformation"
        )
    return optax.with_extra_args_support(made)


def initial_theta(
    make_transform: Any, task: Task, num_steps: int, key: jax.Array
) -> Theta:
    """Where meta-training starts if the user does not say.

    A learned optimizer starts at random, another one with the `hyperparams` it has.
    """
    if is_learned(make_transform):
        return make_transform.init(key)
    transformation = build(make_transform, None, task, num_steps)
    params, _ = jax.eval_shape(task.init, key)
    zeros = jax.tree.map(lambda p: jax.numpy.zeros(p.shape, p.dtype), params)
    return door.get(transformation.init(zeros))


def is_learned(make_transform: Any) -> bool:
    """Whether it is a `LearnedOptimizer`."""
    return callable(getattr(make_transform, "transform", None)) and callable(
        getattr(make_transform, "init", None)
    )


def _members(member: Task | TaskFamily) -> tuple[Task, ...]:
    return member.tasks if isinstance(member, TaskFamily) else (member,)
