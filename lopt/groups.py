"""Particles in groups, one after the other, compiled alike for any number of groups.

An antithetic difference cancels most digits of two losses, so that what is left depends
on how a compiler rounds, and that depends on the shapes it sees. Here the loop's body
never sees how many groups a device has: not in its trip count, which is an argument of
the program, nor in the shape of a single one, which gets company.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lopt import parallel

Tree = Any
_map = jax.tree.map


def map_groups(
    function: Callable[[Tree, jax.Array], tuple[Tree, Tree]],
    state: Tree,
    indices: jax.Array,
    size: int,
    num_groups: jax.Array,
) -> tuple[Tree, Tree]:
    """Applies a function to each group of particles; inside `over_particles`.

    Args:
      function: `(state, indices) -> (state, result)` of a group.
      state: leaves (particles, ...).
      indices: int32 (particles,).
      size: particles in a group; divides their number.
      num_groups: int32; the number of particles over `size`, as an argument of the
        program, lest it be folded.

    Returns:
      The state of all particles, and the results, each leaf (groups, ...).
    """
    known = len(indices) // size
    groups, indices = _split((state, indices), size)
    if known == 1:
        groups, indices = _map(lambda x: jnp.concatenate([x, x]), (groups, indices))

    def apply(i, groups):
        return function(*_map(lambda x: _row(x, i), (groups, indices)))

    def body(i, carry):
        return _map(
            lambda x, row: jax.lax.dynamic_update_index_in_dim(x, row, i, 0),
            carry,
            apply(i, carry[0]),
        )

    results = _map(
        lambda x: parallel.vary(jnp.zeros((len(indices), *x.shape), x.dtype)),
        jax.eval_shape(apply, 0, groups)[1],
    )
    carry = jax.lax.fori_loop(0, num_groups, body, (groups, results))
    groups, results = _map(lambda x: x[:known], carry)
    return _map(lambda x: x.reshape(known * size, *x.shape[2:]), groups), results


def _split(tree: Tree, size: int) -> Tree:
    return _map(lambda x: x.reshape(len(x) // size, size, *x.shape[1:]), tree)


def _row(x: jax.Array, i: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
