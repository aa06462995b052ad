r"""One leaf's AdamW step with the factors of its group.

.. math::

    m &= b_1 m' + (1 - b_1) g, \qquad v = b_2 v' + (1 - b_2) g^2, \\
    \Delta x &= -\eta\,\alpha \left( \frac{m / c_1}{\sqrt{v / c_2} + \epsilon}
      + \beta\,w\,x \right), \qquad c_i = 1 - b_i^t.

The released code divides the decay w by c1 too.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mada_optax import blocks, domains
from mada_optax.family import root


class Numbers(NamedTuple):
    """What a step needs beside arrays, scalars in the dtype of the leaf.

    Attributes:
      rate: learning rate times alpha, of one group or all.
      decay: weight decay times beta, over c1 where that is asked for; `None` for 0.
      over_c1: 1 / (1 - b1^t).
      over_c2: 1 / (1 - b2^t).
      first: b1 and 1 - b1.
      second: b2 and 1 - b2.
      eps: added to the root.
    """

    rate: jax.Array
    decay: jax.Array | None
    over_c1: jax.Array
    over_c2: jax.Array
    first: tuple[jax.Array, jax.Array]
    second: tuple[jax.Array, jax.Array]
    eps: jax.Array


def _over(b: Any, t: jax.Array) -> jax.Array:
    """1 / (1 - b^t), of a known b without the rounding of b itself."""
    if domains.is_static(b):
        log = math.log(b) if b else -math.inf
    else:
        log = jnp.log(jnp.asarray(b, t.dtype))
    return -1 / jnp.expm1(t * log)


def numbers(
    base: Mapping[str, Any],
    count: jax.Array,
    rate: jax.typing.ArrayLike,
    alpha: jax.Array,
    beta: jax.Array,
    *,
    corrected_decay: bool,
    dtype: Any,
) -> Numbers:
    """What step `count` (1 for the first) needs in a base group; factors are (G,)."""
    t = count.astype(dtype)
    over_c1, over_c2 = _over(base["b1"], t), _over(base["b2"], t)
    decay = None
    if domains.weight_decay_or_none(base["weight_decay"]) is not None:
        decay = jnp.asarray(base["weight_decay"], dtype) * beta.astype(dtype)
        decay = decay * over_c1 if corrected_decay else decay
    rate = jnp.asarray(rate, dtype) * alpha.astype(dtype)
    # Features have read the moments when these are overwritten.
    late = blocks.after(rate, jnp.zeros_like(rate.sum()))
    first, second = (
        (jnp.asarray(b, dtype) + late, jnp.asarray(1 - b, dtype) + late)
        for b in (base["b1"], base["b2"])
    )
    eps = jnp.asarray(base["eps"], dtype)
    made = Numbers(rate, decay, over_c1, over_c2, first, second, eps)
    # Otherwise they may be computed again for every element that they meet.
    return jax.lax.optimization_barrier(made)


def of_group(s: Numbers, row: int, *, decays: bool) -> Numbers:
    """The numbers of a leaf of one group."""
    decay = s.decay[row] if decays and s.decay is not None else None
    return s._replace(rate=s.rate[row], decay=decay)


def advance(
    mu: jax.Array, nu: jax.Array, grad: jax.Array, s: Numbers
) -> tuple[jax.Array, jax.Array]:
    """The moments after a step with this gradient."""
    (b1, new1), (b2, new2) = s.first, s.second
    # (1 - b2) g first: g^2 would be kept from the features on, to be read again.
    return b1 * mu + new1 * grad, b2 * nu + new2 * grad * grad


def change(mu: jax.Array, nu: jax.Array, param: jax.Array, s: Numbers) -> jax.Array:
    """What the step adds to the parameter."""
    direction = mu * s.over_c1 / (root(nu * s.over_c2) + s.eps)
    if s.decay is not None:
        direction += s.decay * param.astype(mu.dtype)
    return -s.rate * direction
