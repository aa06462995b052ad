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

from mada_optax import domains
from mada_optax.family import root


class Numbers(NamedTuple):
    """What a step needs beside arrays, scalars in the dtype of the leaf.

    Attributes:
      rate: learning rate times alpha.
      decay: weight decay times beta, over c1 where that is asked for; `None` for 0.
      over_c1: 1 / (1 - b1^t).
      over_c2: 1 / (1 - b2^t).
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root.
    """

    rate: jax.Array
    decay: jax.Array | None
    over_c1: jax.Array
    over_c2: jax.Array
    b1: Any
    b2: Any
    eps: Any


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
    decays: bool,
    corrected_decay: bool,
    dtype: Any,
) -> Numbers:
    """The numbers of step `count` (1 for the first) of a leaf of the base group."""
    t = count.astype(dtype)
    over_c1, over_c2 = _over(base["b1"], t), _over(base["b2"], t)
    decay = None
    if decays and domains.weight_decay_or_none(base["weight_decay"]) is not None:
        decay = jnp.asarray(base["weight_decay"], dtype) * beta.astype(dtype)
        decay = decay * over_c1 if corrected_decay else decay
    return Numbers(
        rate=jnp.asarray(rate, dtype) * alpha.astype(dtype),
        decay=decay,
        over_c1=over_c1,
        over_c2=over_c2,
        b1=base["b1"],
        b2=base["b2"],
        eps=base["eps"],
    )


def _average(b: Any, old: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.asarray(b, old.dtype) * old + jnp.asarray(1 - b, old.dtype) * new


def advance(
    mu: jax.Array, nu: jax.Array, grad: jax.Array, s: Numbers
) -> tuple[jax.Array, jax.Array]:
    """The moments after a step with this gradient."""
    return _average(s.b1, mu, grad), _average(s.b2, nu, grad * grad)


def change(mu: jax.Array, nu: jax.Array, param: jax.Array, s: Numbers) -> jax.Array:
    """What the step adds to the parameter."""
    direction = mu * s.over_c1 / (root(nu * s.over_c2) + jnp.asarray(s.eps, mu.dtype))
    if s.decay is not None:
        direction += s.decay * param.astype(mu.dtype)
    return -s.rate * direction
