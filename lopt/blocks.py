"""Large leaves in blocks, so that little of what is made from them exists at once.

A block takes the same rows of every slab, and there are as many slabs as devices may
hold a leaf between them: wherever the leaf is sharded, a block is there too.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Numbers of a leaf: on a CPU enough for two threads to share a loop, and few enough for
# the caches; elsewhere a few hundred megabytes, and long enough to fill the device.
CPU_BLOCK = 1 << 15
BLOCK = 1 << 20


def sharers() -> int:
    """How many devices may hold a leaf between them: one, inside `jax.shard_map`."""
    local = jax.sharding.get_abstract_mesh().are_all_axes_manual
    return 1 if local else jax.device_count()


class _Plan(NamedTuple):
    """A leaf's axis, from the end, as (slabs, blocks * rows + rest)."""

    axis: int
    slabs: int
    blocks: int
    rows: int
    rest: int


def _plan(shape: Sequence[int], limit: int) -> _Plan | None:
    """Blocks of about `limit` numbers along the first axis that is fine enough."""
    size = math.prod(shape)
    if size <= limit:
        return None
    plans = []
    for axis, length in enumerate(shape):
        slabs = math.gcd(length, sharers())
        slab, finest = length // slabs, size // length * slabs
        wanted = min(max(limit // finest, 1), slab)
        rows = next(
            (r for r in range(wanted, wanted // 2, -1) if slab % r == 0), wanted
        )
        blocks, rest = divmod(slab, rows)
        plan = _Plan(axis - len(shape), slabs, blocks, rows, rest)
        if finest <= limit:
            return plan
        plans.append((finest, plan))
    return min(plans)[1]


def _slabs(plan: _Plan, x: jax.Array) -> jax.Array:
    length = x.shape[plan.axis]
    lengths = (plan.slabs, length // plan.slabs) if length > 1 else (1, 1)
    at = x.ndim + plan.axis
    return x.reshape(*x.shape[:at], *lengths, *x.shape[at + 1 :])


def _slice(plan: _Plan, start, rows: int, x: jax.Array) -> jax.Array:
    """Rows of every slab, along the axis of a leaf again."""
    if x.shape[plan.axis] > 1:
        x = jax.lax.dynamic_slice_in_dim(x, start, rows, x.ndim + plan.axis)
    at = x.ndim + plan.axis - 1
    return x.reshape(*x.shape[:at], -1, *x.shape[at + 2 :])


def _blocks(plan: _Plan, f: Callable, arrays: Sequence[jax.Array]):
    """`f` of all blocks, stacked, and `f` of the rest."""
    slabs = [_slabs(plan, x) for x in arrays]

    def at(start, rows):
        return f(*[_slice(plan, start, rows, x) for x in slabs])

    starts = plan.rows * jnp.arange(plan.blocks)
    stacked = jax.lax.map(jax.checkpoint(lambda i: at(i, plan.rows)), starts)
    return stacked, at(plan.blocks * plan.rows, plan.rest) if plan.rest else None


def _joined(plan: _Plan, shape, stacked: jax.Array, rest) -> jax.Array:
    """Results of blocks, where they belong in the leaf."""
    at = len(shape) + plan.axis
    before, after = shape[:at], shape[at + 1 :]
    x = stacked.reshape(plan.blocks, *before, plan.slabs, plan.rows, *after)
    x = jnp.moveaxis(x, 0, at + 1)
    x = x.reshape(*before, plan.slabs, plan.blocks * plan.rows, *after)
    if rest is not None:
        rest = rest.reshape(*before, plan.slabs, plan.rest, *after)
        x = jnp.concatenate([x, rest], at + 1)
    return x.reshape(shape)


def _is_partitioned(x: jax.Array) -> bool:
    """Whether the type itself says that the leaf is spread over devices."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def _by_platform(run: Callable, arrays: Sequence[jax.Array], shape: Sequence[int]):
    """`run(plan, *arrays)` with the plan of the platform."""
    plans = [_plan(shape, limit) for limit in (CPU_BLOCK, BLOCK)]
    if plans == [None, None] or any(map(_is_partitioned, arrays)):
        return run(None, *arrays)
    cpu, default = [functools.partial(run, plan) for plan in plans]
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)


def map_blocks(
    f: Callable[..., jax.Array], arrays: Sequence[jax.Array], shape: Sequence[int]
) -> jax.Array:
    """`f(*arrays)`, an array of the shape of the leaf, computed in blocks.

    Args:
      f: acts on every number of the leaf by itself.
      arrays: broadcast against the leaf, and may have further axes in front.
      shape: of the leaf.
    """

    def run(plan, *arrays):
        if plan is None:
            return f(*arrays)
        return _joined(plan, shape, *_blocks(plan, f, arrays))

    return _by_platform(run, arrays, shape)


def sum_blocks(
    f: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    shape: Sequence[int],
    axes: Sequence[int],
) -> jax.Array:
    """`f(*arrays)`, sums over some axes of the leaf, added up from blocks.

    Args:
      f: keeps the axes over which it sums, with length 1, and may add one in front.
      arrays: broadcast against the leaf.
      shape: of the leaf.
      axes: that are summed over, as negative numbers.
    """

    def run(plan, *arrays):
        if plan is None:
            return f(*arrays)
        stacked, rest = _blocks(plan, f, arrays)
        if plan.axis in axes:
            return stacked.sum(0) if rest is None else stacked.sum(0) + rest
        kept = [1 if i - len(shape) in axes else n for i, n in enumerate(shape)]
        return _joined(plan, (*stacked.shape[1 : -len(shape)], *kept), stacked, rest)

    return _by_platform(run, arrays, shape)
