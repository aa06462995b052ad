"""Statistics of the gradient that all learned optimizers share.

Momenta, second moments, and factored second moments in the manner of Adafactor, each
with several decays. There is no bias correction. A decay beta is always given as its
rate 1 - beta, which is what can be learned and computed without cancellation.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Accumulators(NamedTuple):
    """Each entry a tuple with, per decay, a tree of arrays like the parameters.

    One leaf of the parameters of rank 2 or more, with axes A and B, the second largest
    and the largest, has a row (mean over B, of length 1 there) and a column (mean over
    A, likewise). A leaf of rank 0 or 1 has a row of its own shape and an empty column.
    All are float32, or wider where the parameter is.

    Attributes:
      momenta: moving averages of the gradient.
      second_moments: of its square.
      rows: of the mean over the largest axis of its square + 1e-30.
      cols: of the mean over the second largest axis of the same.
    """

    momenta: tuple[Any, ...]
    second_moments: tuple[Any, ...]
    rows: tuple[Any, ...]
    cols: tuple[Any, ...]


class Rates(NamedTuple):
    """1 - beta of every decay.

    Attributes:
      momenta: shape (momenta,).
      second_moments: shape (second moments,).
      factored: shape (rows,).
    """

    momenta: jax.Array | np.ndarray
    second_moments: jax.Array | np.ndarray
    factored: jax.Array | np.ndarray


def factored_axes(shape: Sequence[int]) -> tuple[int, int] | None:
    """The second largest and the largest axis; of equal ones the later is larger.

    Args:
      shape: of a leaf.

    Returns:
      A and B, or `None` for rank 0 and 1.

    Examples:
      >>> factored_axes((3, 3, 8, 8)), factored_axes((9, 1)), factored_axes((5,))
      ((2, 3), (1, 0), None)
    """
    if len(shape) < 2:
        return None
    *_, second, largest = sorted(range(len(shape)), key=shape.__getitem__)
    return second, largest


def learned_rates(
    rates: Sequence[float], offsets: jax.Array, *, clip: bool = True
) -> jax.Array:
    """(1 - B) exp(10 a), for base rates 1 - B and learned offsets a.

    Args:
      rates: 1 - B of each decay.
      offsets: a, shape `(len(rates),)`.
      clip: whether to keep rates, and so decays, in [0, 1].

    Examples:
      >>> learned_rates((0.1, 0.01), jnp.array([0.0, 1.0]))
      Array([0.1, 1. ], dtype=float32)
    """
    moved = jnp.asarray(rates, offsets.dtype) * jnp.exp(10 * offsets)
    return jnp.clip(moved, 0, 1) if clip else moved


def wide_dtype(leaf: Any) -> Any:
    """The dtype of a leaf's statistics: its own, and float32 at least."""
    return jnp.promote_types(jnp.result_type(leaf), jnp.float32)


def widest_dtype(tree: Any) -> Any:
    """The dtype of what meets every leaf, float32 at least."""
    dtypes = map(wide_dtype, jax.tree.leaves(tree))
    return functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))


def zero_of(params: Any) -> jax.Array:
    """A scalar 0 of the widest dtype, for what is made from all leaves.

    Inside of `jax.shard_map` it varies over devices like the leaves.
    """
    dtype = widest_dtype(params)
    zeros = [jnp.zeros_like(p, dtype=dtype).sum() for p in jax.tree.leaves(params)]
    return sum(zeros, jnp.zeros((), dtype))


def init(
    params: optax.Params, momenta: int = 3, second_moments: int = 1, factored: int = 3
) -> Accumulators:
    """Zeros.

    Args:
      params: a tree of arrays, or of their shapes.
      momenta: how many decays.
      second_moments: how many decays.
      factored: how many decays.
    """

    def full(p):
        return jnp.zeros_like(p, dtype=wide_dtype(p))

    # Sums, so that shardings and their types come out as after an update.
    def row(p):
        axes = factored_axes(p.shape)
        return full(p).sum(axes[1], keepdims=True) if axes else full(p)

    def col(p):
        axes = factored_axes(p.shape)
        if axes:
            return full(p).sum(axes[0], keepdims=True)
        return jnp.zeros_like(p, dtype=wide_dtype(p), shape=(0,))

    def trees(make, number):
        return tuple(jax.tree.map(make, params) for _ in range(number))

    return Accumulators(
        momenta=trees(full, momenta),
        second_moments=trees(full, second_moments),
        rows=trees(row, factored),
        cols=trees(col, factored),
    )


def advance(old: Accumulators, grad: jax.Array, rates: Rates) -> Accumulators:
    """The accumulators of one leaf after its next gradient.

    Args:
      old: arrays in place of trees.
      grad: in the dtype of `old`.
      rates: 1 - beta of every decay.
    """
    if not grad.size:
        return old
    squared = grad**2
    above_zero = squared + 1e-30
    axes = factored_axes(grad.shape)
    if axes is None:
        row, cols = above_zero, old.cols
    else:
        row = above_zero.mean(axes[1], keepdims=True)
        col = above_zero.mean(axes[0], keepdims=True)
        cols = _average(old.cols, col, rates.factored)
    return Accumulators(
        momenta=_average(old.momenta, grad, rates.momenta),
        second_moments=_average(old.second_moments, squared, rates.second_moments),
        rows=_average(old.rows, row, rates.factored),
        cols=cols,
    )


def _average(old, new, rates):
    pairs = zip(old, rates.astype(new.dtype), strict=True)
    return tuple((1 - rate) * average + rate * new for average, rate in pairs)


def factors(
    row: jax.Array, col: jax.Array, second: int, eps: float = 1e-9
) -> tuple[jax.Array, jax.Array]:
    """What to multiply a gradient of rank 2 or more with, by row and by column.

    Args:
      row: with length 1 along the largest axis.
      col: with length 1 along the second largest axis.
      second: the second largest axis.
      eps: added to a mean, and the least value under a root.

    Returns:
      1/sqrt(row / mean(row)) and 1/sqrt(col), which broadcast against the gradient.
    """
    mean = row.mean(second, keepdims=True)
    relative = jnp.maximum(row / (mean + eps), eps)
    return jax.lax.rsqrt(relative), jax.lax.rsqrt(jnp.maximum(col, eps))


def leaves(accumulators: Accumulators, treedef: Any) -> list[Accumulators]:
    """One `Accumulators` of arrays per leaf of the parameters."""
    kinds = [
        zip(*map(treedef.flatten_up_to, trees), strict=True) for trees in accumulators
    ]
    return [Accumulators(*leaf) for leaf in zip(*kinds, strict=True)]


def unflatten(
    leaves: Sequence[Accumulators], like: Accumulators, treedef: Any
) -> Accumulators:
    """The inverse of `leaves`, with as many decays as `like` has."""
    return Accumulators(
        *[
            tuple(
                treedef.unflatten([leaf[kind][i] for leaf in leaves])
                for i in range(len(trees))
            )
            for kind, trees in enumerate(like)
        ]
    )
