"""What every optimizer here asks of the leaves of a tree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax


def reject_complex(tree: Any) -> None:
    """Raises `ValueError` if a leaf is complex."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                "Complex parameters are not supported, but leaf "
                f"{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}: wrap the "
                "optimizer in optax.contrib.split_real_and_imaginary."
            )


def wide_dtype(leaf: Any) -> Any:
    """The dtype of a leaf's moments: its own, and float32 at least."""
    return jnp.promote_types(jnp.result_type(leaf), jnp.float32)


def widest_dtype(tree: Any) -> Any:
    """The dtype of scalars that meet every leaf, float32 at least."""
    dtypes = map(wide_dtype, jax.tree.leaves(tree))
    return functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))


def increment(count: jax.Array) -> jax.Array:
    """Count + 1, without overflow."""
    return jnp.asarray(optax.safe_increment(count))


def vary_like(scalars: Any, tree: Any) -> Any:
    """`scalars`, typed inside `jax.shard_map` as varying over the axes of `tree`.

    A state that starts as a constant there could not be carried through a scan.
    """
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.core.Tracer)]
    return jax.tree.map(
        lambda x: sum((jnp.zeros_like(y, x.dtype, ()) for y in leaves), x), scalars
    )
