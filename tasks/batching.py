"""Batches of arrays that live on the device: random ones, and all of them in turn."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def sample_rows(data: dict, key: jax.Array, batch_size: int) -> dict:
    """Draws `batch_size` rows, with replacement, the same ones from every array.

    Args:
      data: arrays with a common leading axis.
      key: random key.
      batch_size: number of rows.

    Example:
      >>> batch = sample_rows({"label": jnp.arange(10)}, jax.random.key(0), 4)
      >>> batch["label"].shape
      (4,)
    """
    (num_rows,) = {len(array) for array in jax.tree.leaves(data)}
    rows = jax.random.randint(key, (batch_size,), 0, num_rows)
    return jax.tree.map(lambda array: array[rows], data)


def sample_windows(
    tokens: jax.Array, key: jax.Array, batch_size: int, length: int
) -> jax.Array:
    """Draws windows of consecutive tokens, each start equally likely.

    Returns:
      int32 tokens of shape (batch_size, length).

    Example:
      >>> sample_windows(jnp.arange(9), jax.random.key(0), 2, 9).shape
      (2, 9)
    """
    starts = jax.random.randint(key, (batch_size, 1), 0, len(tokens) - length + 1)
    return tokens[starts + jnp.arange(length)[None]].astype(jnp.int32)


def sum_over(
    per_row: Callable[[jax.Array], dict[str, jax.Array]],
    num_rows: int,
    batch_size: int,
) -> dict[str, jax.Array]:
    """Sums metrics over rows 0 to `num_rows - 1` in the memory of one batch.

    The last batch is filled up with repetitions of the last row, which do not count.

    Args:
      per_row: `row indices of shape (batch_size,) -> {name: values (batch_size,)}`.
      num_rows: number of rows in all.
      batch_size: number of rows at a time.

    Example:
      >>> sum_over(lambda rows: {"sum": rows}, num_rows=5, batch_size=2)
      {'sum': Array(10, dtype=int32)}
    """
    batch_size = min(batch_size, num_rows)
    num_batches = -(-num_rows // batch_size)

    def batch_sums(start: jax.Array) -> dict[str, jax.Array]:
        rows = start + jnp.arange(batch_size)
        values = per_row(jnp.minimum(rows, num_rows - 1))
        return {k: jnp.sum(jnp.where(rows < num_rows, v, 0)) for k, v in values.items()}

    sums = jax.lax.map(batch_sums, batch_size * jnp.arange(num_batches))
    return {name: jnp.sum(values) for name, values in sums.items()}
