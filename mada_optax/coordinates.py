"""Coordinates in which a hyper-parameter is free of its bounds."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_TINY = 1e-6


class Coordinate(NamedTuple):
    """z = forward(q) and q = inverse(z)."""

    forward: Callable[[jax.Array], jax.Array]
    inverse: Callable[[jax.Array], jax.Array]


def _inside(q: jax.Array) -> jax.Array:
    return jnp.clip(q, _TINY, 1 - _TINY)


COORDINATES = {
    "identity": Coordinate(lambda q: q, lambda z: z),
    # Weights in [0, 1].
    "logit": Coordinate(lambda q: jax.scipy.special.logit(_inside(q)), jax.nn.sigmoid),
    # Decays, whose distance from 1 matters.
    "log1m": Coordinate(
        lambda q: jnp.log1p(-jnp.minimum(q, 1 - _TINY)), lambda z: -jnp.expm1(z)
    ),
    # Positive scales.
    "log": Coordinate(lambda q: jnp.log(jnp.maximum(q, 1e-30)), jnp.exp),
}
