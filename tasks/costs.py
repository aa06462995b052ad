"""What an optimizer costs: time per update, bytes of state and of temporaries."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tasks.base import Task
from tasks.compiling import for_few_calls

_WARM_UP, _ROUNDS = 5, 20


class UpdateTimer:
    """Times one update on a task's parameters, side by side with `optax.adamw`.

    The two take turns in one process, so that a busy machine slows both and their
    ratio keeps its meaning. An update is one call of the jitted `update` with its state
    donated; applying the update to the parameters is not part of it. A third in turn is
    the gradient of one batch, to which the share of the step refers.
    """

    def __init__(self, task: Task, budget_seconds: float = 0.5):
        self.task, self._budget = task, budget_seconds
        init = jax.jit(task.init, compiler_options=for_few_calls())
        self._params, self._model_state = init(jax.random.key(0))
        self._reference, _ = self._updates(optax.adamw(1e-3))
        self._gradients = self._timed_gradients()

    def measure(self, transformation: optax.GradientTransformation) -> dict[str, float]:
        """What an update costs.

        Returns:
          `update_ms`, the median, `update_ratio_to_adamw`, `update_share` of the sum of
          an update and a gradient, and `temporary_bytes_per_parameter` that the
          compiled update needs beside its arguments and results (where the backend
          tells).
        """
        updates, memory = self._updates(transformation)
        ours, adamw, gradient = [], [], []
        turn = [
            (updates, ours),
            (self._reference, adamw),
            (self._gradients, gradient),
        ]
        deadline = time.perf_counter() + self._budget
        while len(ours) < _ROUNDS or time.perf_counter() < deadline:
            for clock, seconds in turn:
                seconds.append(next(clock))
            turn.reverse()  # being first in a round is not an advantage
        update = statistics.median(ours)
        return {
            "update_ms": 1e3 * update,
            "update_ratio_to_adamw": update / statistics.median(adamw),
            "update_share": update / (update + statistics.median(gradient)),
            **memory,
        }

    def _updates(self, transformation):
        """Yields the seconds of one update after another, for ever; and its memory."""
        transformation = optax.with_extra_args_support(transformation)
        grads = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), self._params)
        init = jax.jit(transformation.init, compiler_options=for_few_calls())
        state = init(self._params)
        loss = jnp.float32(1.0)
        update = (
            jax.jit(transformation.update, donate_argnums=1)
            .lower(grads, state, self._params, value=loss)
            .compile()
        )

        def run(state):
            while True:
                updates, state = update(grads, state, self._params, value=loss)
                yield updates, state

        return _seconds(run(state)), self._temporary_bytes(update)

    def _timed_gradients(self):
        batch = jax.jit(self.task.sample)(self.task.data["train"], jax.random.key(1))
        gradient = jax.jit(jax.value_and_grad(self.task.loss, has_aux=True))

        def run():
            while True:
                yield gradient(
                    self._params, self._model_state, batch, jax.random.key(2)
                )

        return _seconds(run())

    def _temporary_bytes(self, compiled) -> dict[str, float]:
        memory = compiled.memory_analysis()
        if memory is None:
            return {}
        per_parameter = memory.temp_size_in_bytes / num_parameters(self._params)
        return {"temporary_bytes_per_parameter": per_parameter}


def _seconds(results: Iterator[Any]) -> Iterator[float]:
    """The time that each result takes, after a few that are not counted."""
    for _ in range(_WARM_UP):
        jax.block_until_ready(next(results))
    while True:
        began = time.perf_counter()
        jax.block_until_ready(next(results))
        yield time.perf_counter() - began


def state_bytes_per_parameter(
    task: Task, transformation: optax.GradientTransformation
) -> float:
    """Bytes of optimizer state over the number of scalar parameters.

    Example:
      >>> state_bytes_per_parameter(task, optax.adamw(1e-3))  # doctest: +SKIP
      8.0
    """

    def start(key):
        params, _ = task.init(key)
        return params, transformation.init(params)

    params, state = jax.eval_shape(start, jax.random.key(0))
    return sum(map(_bytes, jax.tree.leaves(state))) / num_parameters(params)


def num_parameters(params: Any) -> int:
    """Number of scalars in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return leaf.size * leaf.dtype.itemsize
