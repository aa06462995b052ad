"""How well a theta trains tasks from scratch, while it is being meta-trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt import door, factories, parallel
from lopt.checks import check_counts
from lopt.unroll import Unroll
from tasks.base import Task, TaskFamily

Theta = Any


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Tasks that are trained from scratch with the current theta every so often.

    Attributes:
      tasks: tasks that meta-training may or may not know.
      every: meta-steps between evaluations; there is one before the first, too.
      steps: training steps.
      num_seeds: trainings per task, from different initial parameters and batches.
    """

    tasks: Task | TaskFamily | Sequence[Task | TaskFamily]
    every: int = 100
    steps: int = 200
    num_seeds: int = 3

    def __post_init__(self):
        check_counts(every=self.every, steps=self.steps, num_seeds=self.num_seeds)


def _trainer(
    task: Task,
    transformation: optax.GradientTransformationExtraArgs,
    steps: int,
    to_hyperparams: Callable[[Theta], Any] = lambda theta: theta,
) -> Callable[[Theta, jax.Array, Any], dict[str, jax.Array]]:
    """A compiled function that trains a task with a theta, all seeds side by side.

    Args:
      task: what is trained; it needs the splits "train" and "valid".
      transformation: an optimizer whose state has the field `hyperparams`.
      steps: training steps.
      to_hyperparams: as in `Unroll`.

    Returns:
      `(theta, keys, data) -> {"train_loss": ..., "valid_loss": ...}`, float32 (keys,):
      the mean training loss of the last tenth of the steps, and the loss at the end on
      the validation split.
    """

    def train(theta, key, data):
        init_key, run_key = jax.random.split(key)
        params, model_state = task.init(init_key)
        opt_state = transformation.init(params)
        values = door.fill(door.get(opt_state), to_hyperparams(theta))
        carry = params, model_state, door.put(opt_state, values)

        def step(carry, t):
            params, model_state, opt_state = carry
            batch_key, noise_key = jax.random.split(jax.random.fold_in(run_key, t))
            batch = task.sample(data["train"], batch_key)
            (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, model_state, batch, noise_key
            )
            updates, opt_state = transformation.update(
                grads, opt_state, params, value=loss
            )
            params = optax.apply_updates(params, updates)
            return (params, model_state, opt_state), loss

        carry, losses = jax.lax.scan(step, carry, jnp.arange(steps))
        valid = task.evaluate(carry[0], carry[1], data["valid"])
        return {
            "train_loss": losses[-max(1, steps // 10) :].mean(),
            "valid_loss": valid["loss"],
        }

    return jax.jit(jax.vmap(train, in_axes=(None, 0, None)))


def evaluator(
    held_out: HeldOut, unroll: Callable[[Task, int], Unroll], key: jax.Array
) -> Callable[[Theta], dict[str, float]]:
    """A function of theta that trains the held-out tasks and gives their losses.

    It works in process 0; in others it gives nothing, and they wait at the next step.

    Args:
      held_out: what is trained, how long and how often.
      unroll: makes the `Unroll` of a task, for its transformation, which may ask for
        the number of training steps.
      key: decides initial parameters and batches, the same at every evaluation.
    """
    tasks = factories.flatten_tasks(held_out.tasks)
    trainers = []
    for task in tasks:
        of_task = unroll(task, held_out.steps)
        trainers.append(
            _trainer(
                task, of_task.transformation, held_out.steps, of_task.to_hyperparams
            )
        )
    keys = jax.random.split(key, held_out.num_seeds)

    def evaluate(theta: Theta) -> dict[str, float]:
        if not parallel.is_first_process():
            return {}
        theta = jax.device_get(theta)
        return {
            f"heldout_{name}/{task.name}": float(np.mean(values))
            for task, train in zip(tasks, trainers, strict=True)
            for name, values in train(theta, keys, dict(task.data)).items()
        }

    return evaluate
