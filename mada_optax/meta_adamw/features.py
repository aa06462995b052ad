r"""One row of statistics per group: what the attention sees of the training.

For leaf i of a group, with gradient g, moments m and v before the step, parameters x:

.. math::

    a_i = \|g\|, \quad b_i = \|m\|, \quad c_i = \|x\|, \quad w_i = \|v\|, \quad
    e_i = \frac{\langle g, m \rangle}{\max(\|g\|, \delta) \max(\|m\|, \delta)},
    \quad \delta = 10^{-8},

and z, y the fractions of entries of g and m that are exactly 0. Rows are their means
and, in some versions, spreads (population form) over the leaves of the group.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mada_optax.family import root
from mada_optax.leaves import wide_dtype
from mada_optax.meta_adamw.grouping import Layout
from mada_optax.meta_adamw.options import Options

_SMALLEST_NORM = 1e-8


class Leaf(NamedTuple):
    """The arrays of one leaf, of one shape."""

    grad: jax.Array
    mu: jax.Array
    nu: jax.Array
    param: jax.Array


def cosine(inner: jax.Array, norm: jax.Array, other: jax.Array) -> jax.Array:
    """Cosine from an inner product and two norms; 0, and flat, where one of them is 0.

    Tiny norms count as 1e-8.
    """
    norms = jnp.maximum(norm, _SMALLEST_NORM) * jnp.maximum(other, _SMALLEST_NORM)
    return jnp.where((norm > 0) & (other > 0), inner / norms, 0)


def _sums(leaf: Leaf, options: Options) -> dict[str, jax.Array]:
    """The sums over one leaf that its features need."""
    dtype = wide_dtype(leaf.param)
    grad, mu, nu, param = (x.astype(dtype) for x in leaf)
    out = {"gg": grad * grad, "mm": mu * mu}
    if not options.is_basic:
        out |= {"z": (grad == 0).astype(dtype), "y": (mu == 0).astype(dtype)}
        return {name: x.sum() for name, x in out.items()}
    out |= {"gm": grad * mu, "pp": param * param}
    if options.use_v_norms:
        out["vv"] = nu * nu
    return {name: x.sum() for name, x in out.items()}


def statistics(
    leaves: Sequence[Leaf], options: Options, dtype: Any
) -> dict[str, jax.Array]:
    """The features of every leaf, (N,) each, by their letters."""
    if not leaves:
        return dict.fromkeys("abcwezy", jnp.zeros(0, dtype))
    sums = [_sums(leaf, options) for leaf in leaves]
    total = {name: jnp.stack([x[name].astype(dtype) for x in sums]) for name in sums[0]}
    norms = {
        letter: root(total[name])
        for letter, name in {"a": "gg", "b": "mm", "c": "pp", "w": "vv"}.items()
        if name in total
    }
    if options.is_basic:
        return {**norms, "e": cosine(total["gm"], norms["a"], norms["b"])}
    sizes = jnp.array([max(leaf.grad.size, 1) for leaf in leaves], dtype)
    return {**norms, "z": total["z"] / sizes, "y": total["y"] / sizes}


def _columns(
    leaf: dict[str, jax.Array], tau: jax.Array, layout: Layout, options: Options
) -> list[jax.Array]:
    """The columns of a version, (G,) each, before padding."""
    dtype = tau.dtype
    average, rows = jnp.asarray(layout.average, dtype), jnp.array(layout.rows, int)

    def mean(x: Any) -> jax.Array:
        return jnp.dot(average, jnp.asarray(x, dtype), precision="highest")

    def log(x: jax.Array) -> jax.Array:
        return jnp.log1p(x) if options.feature_transform == "log1p" else x

    def variance(x: jax.Array) -> jax.Array:
        return mean((x - mean(x)[rows]) ** 2)

    time = [jnp.broadcast_to(tau, len(layout.names))]
    time = time if options.include_time_step else []
    if not options.is_basic:
        return [
            *[log(f(leaf[x])) for x in "ab" for f in (mean, variance)],
            mean(leaf["z"]),
            mean(leaf["y"]),
            mean(jnp.log(jnp.array(layout.sizes, dtype) + 1)),
            mean(layout.bias_like),
            mean(layout.depth),
            *time,
        ]
    letters = "abcew" if options.use_v_norms else "abce"
    means = [mean(leaf[x]) if x == "e" else log(mean(leaf[x])) for x in letters]
    if not options.has_spreads:
        return [*means, *time]
    spreads = [root(variance(leaf[x])) for x in letters]
    spreads = [
        x if name == "e" else log(x) for name, x in zip(letters, spreads, strict=True)
    ]
    return [*means, *spreads, *time]


def raw_rows(
    leaf: dict[str, jax.Array],
    tau: jax.Array,
    layout: Layout,
    options: Options,
    embeddings: Any,
) -> jax.Array:
    """The features of every group, (G, D), padded, and with its embedding if it has.

    Args:
      leaf: what `statistics` gives.
      tau: the time feature, a scalar.
      layout: the groups.
      options: which features.
      embeddings: arrays (E,) by label, where the version has them.
    """
    columns = _columns(leaf, tau, layout, options)
    width = options.dim if options.is_basic else options.dim - options.group_embed_dim
    rows = jnp.stack(columns, 1)[:, :width]
    rows = jnp.pad(rows, ((0, 0), (0, width - rows.shape[1])))
    if options.is_basic:
        return rows
    if options.has_embeddings and layout.names:
        last = jnp.stack([embeddings[name] for name in layout.names])
    else:
        last = jnp.zeros((len(layout.names), options.group_embed_dim), tau.dtype)
    return jnp.concatenate([rows, last], 1)


def standardize(x: jax.Array) -> jax.Array:
    """(x - mean) / (std + 1e-8) over the rows, 0 where all rows are the same.

    A column that is constant but for rounding would become that rounding times 1e8.
    """
    if len(x) < 2:
        return jnp.zeros_like(x)
    mean = x.mean(0, keepdims=True)
    std = root(jnp.sum((x - mean) ** 2, 0, keepdims=True) / (len(x) - 1))
    constant = std <= 1e-6 * jnp.abs(mean)
    return jnp.where(constant, 0, (x - mean) / (jnp.where(constant, 1, std) + 1e-8))


def encoder_input(rows: jax.Array, gates: Any, options: Options) -> jax.Array:
    """Rows after gating and standardization, as the version has them."""

    def gate(x):
        return x if gates is None else x * jax.nn.sigmoid(gates)[None]

    if options.gate_position == "before":
        rows = gate(rows)
    n = options.num_standardized
    rows = jnp.concatenate([standardize(rows[:, :n]), rows[:, n:]], 1) if n else rows
    return gate(rows) if options.gate_position == "after" else rows


def time_feature(count: jax.Array, num_steps: Any, dtype: Any) -> jax.Array:
    """The time t / T, or tanh(t / 2000) where the number T of steps is not known."""
    t = count.astype(dtype)
    return jnp.tanh(t / 2000) if num_steps is None else t / num_steps
