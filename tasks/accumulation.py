"""Gradient accumulation: the mean loss of a batch in the memory of a part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tasks.base import Batch, Params

Sums = Callable[[Params, Batch, jax.Array], tuple[jax.Array, jax.Array]]
MeanLoss = Callable[[Params, Batch, jax.Array], jax.Array]


def mean_loss(sums: Sums, microbatches: int = 1) -> MeanLoss:
    """Makes a loss of one that is known as a sum and a count.

    With several micro-batches the gradient of each is taken as soon as its loss is
    known, and their sum is all that is kept: nothing is computed twice. The result has
    no forward-mode derivatives then.

    Args:
      sums: `(params, batch, key) -> (sum of losses, how many)`, float32 scalars; the
        count does not depend on the parameters.
      microbatches: a divisor of the batch's leading axis.

    Returns:
      `(params, batch, key) -> mean loss`, which is 0 where nothing counts.

    Example:
      >>> def squares(params, batch, key):
      ...     return jnp.sum((params - batch) ** 2), jnp.float32(len(batch))
      >>> loss, key = mean_loss(squares, microbatches=2), jax.random.key(0)
      >>> jax.value_and_grad(loss)(jnp.float32(0), jnp.arange(4.0), key)
      (Array(3.5, dtype=float32), Array(-3., dtype=float32))
    """

    def mean(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        total, count = sums(params, batch, key)
        return total / jnp.maximum(1, count)

    def over_parts(function: Callable[..., Any], params, batch, key) -> Any:
        # A part is every so many-th row: where devices share a batch, they share it.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch
        )
        each = parts, jax.random.split(key, microbatches)

        def of_part(part: tuple[Batch, jax.Array]) -> Any:
            return function(params, *part)

        def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_part(part)), None

        first = jax.tree.map(lambda x: x[0], each)
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, first)
        )
        return jax.lax.scan(add, zeros, each)[0]

    @jax.custom_vjp
    def accumulated(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        total, count = over_parts(sums, params, batch, key)
        return total / jnp.maximum(1, count)

    def forward(params: Params, batch: Batch, key: jax.Array) -> Any:
        with_gradient = jax.value_and_grad(sums, has_aux=True)
        (total, count), grads = over_parts(with_gradient, params, batch, key)
        count = jnp.maximum(1, count)
        return total / count, jax.tree.map(lambda g: g / count, grads)

    def backward(grads: Params, cotangent: jax.Array) -> Any:
        return jax.tree.map(lambda g: g * cotangent, grads), None, None

    accumulated.defvjp(forward, backward)
    return mean if microbatches == 1 else accumulated
