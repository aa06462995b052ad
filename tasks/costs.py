"""What an optimizer costs: time per update, bytes of state."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tasks.base import Task

_WARM_UP, _ROUNDS = 5, 20


class UpdateTimer:
    """Times one update on a task's parameters, side by side with `optax.adamw`.

    The two take turns in one process, so that a busy machine slows both and their
    ratio keeps its meaning. An update is one call of the jitted `update` with its state
    donated; applying the update to the parameters is not part of it.
    """

    def __init__(self, task: Task, budget_seconds: float = 0.5):
        self.task, self._budget = task, budget_seconds
        self._reference = self._updates(optax.adamw(1e-3))

    def measure(self, transformation: optax.GradientTransformation) -> dict[str, float]:
        """Median milliseconds of an update, and their ratio to adamw's."""
        updates = self._updates(transformation)
        ours, adamw = [], []
        turn = [(updates, ours), (self._reference, adamw)]
        deadline = time.perf_counter() + self._budget
        while len(ours) < _ROUNDS or time.perf_counter() < deadline:
            for clock, seconds in turn:
                seconds.append(next(clock))
            turn.reverse()  # being first in a round is not an advantage
        return {
            "update_ms": 1e3 * statistics.median(ours),
            "update_ratio_to_adamw": statistics.median(ours) / statistics.median(adamw),
        }

    def _updates(self, transformation):
        """Yields the seconds of one update after another, for ever."""
        transformation = optax.with_extra_args_support(transformation)
        params, _ = jax.jit(self.task.init)(jax.random.key(0))
        grads = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), params)
        state = jax.jit(transformation.init)(params)
        update = jax.jit(transformation.update, donate_argnums=1)
        loss = jnp.float32(1.0)
        for _ in range(_WARM_UP):
            _, state = jax.block_until_ready(update(grads, state, params, value=loss))
        while True:
            began = time.perf_counter()
            _, state = jax.block_until_ready(update(grads, state, params, value=loss))
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
