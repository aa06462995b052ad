"""Sums of many element-wise products over a leaf, in one pass through memory.

XLA's CPU backend gives every sum a loop of its own and evaluates its operand there one
number at a time; so on a CPU the operands are written out first, for a block of rows
that stays in the cache. Elsewhere the compiler fuses the sums by itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Elements: a few arrays of this size fit the second-level cache of two cores, and it
# is large enough to be split between threads.
BLOCK = 50_000

Products = Callable[..., dict[str, jax.Array]]
Sums = dict[str, jax.Array]


def _direct(products: Products, *arrays: jax.Array) -> Sums:
    return {name: x.sum() for name, x in products(*arrays).items()}


def _written_out(products: Products, *arrays: jax.Array) -> Sums:
    written = jax.lax.optimization_barrier(products(*arrays))
    return {name: x.sum() for name, x in written.items()}


def _blocked(products: Products, rows: int, *arrays: jax.Array) -> Sums:
    blocks, rest = divmod(arrays[0].shape[0], rows)

    def add(i, totals):
        block = [jax.lax.dynamic_slice_in_dim(x, i * rows, rows) for x in arrays]
        return jax.tree.map(jnp.add, totals, products(*block))

    first = products(*[x[:rows] for x in arrays])
    totals = jax.lax.fori_loop(1, blocks, add, first)
    totals = {name: x.sum() for name, x in totals.items()}
    if rest:
        tail = _written_out(products, *[x[-rest:] for x in arrays])
        totals = jax.tree.map(jnp.add, totals, tail)
    return totals


def _is_partitioned(x: jax.Array) -> bool:
    """Whether the type itself says that the leaf is spread over devices."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def sums(products: Products, arrays: Sequence[jax.Array]) -> Sums:
    """The sums of `products(*arrays)`, arrays of one shape, over all elements."""
    direct = functools.partial(_direct, products)
    if any(map(_is_partitioned, arrays)):
        return direct(*arrays)
    cpu = functools.partial(_written_out, products)
    size, rows = arrays[0].size, len(arrays[0]) if arrays[0].ndim else 1
    if size >= 2 * BLOCK:
        cpu = functools.partial(_blocked, products, max(1, BLOCK * rows // size))
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=direct)


def write_out(arrays: Any) -> Any:
    """The same arrays, on a CPU written out before anything is computed from them.

    Fused into each of its readers, a step would be computed several times there.
    """
    return jax.lax.platform_dependent(
        arrays, cpu=jax.lax.optimization_barrier, default=lambda x: x
    )


def after(earlier: Any, arrays: Any) -> Any:
    """The same arrays, on a CPU known only when the arrays `earlier` are.

    A donated buffer is overwritten in place only if its last reader is known to come
    before, else it is copied; and the compiler drops an `optimization_barrier` too
    early to know.
    """
    if any(map(_is_partitioned, jax.tree.leaves((earlier, arrays)))):
        return arrays

    def tie(earlier, arrays):
        ends = [x.reshape(-1)[0] for x in jax.tree.leaves(earlier) if x.size]
        zero = sum(jnp.where(jnp.isfinite(x), 0 * x, 0) for x in ends)
        return jax.tree.map(lambda x: x + jnp.asarray(zero, x.dtype), arrays)

    return jax.lax.platform_dependent(
        earlier, arrays, cpu=tie, default=lambda _, arrays: arrays
    )
