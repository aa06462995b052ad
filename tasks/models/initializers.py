"""Initializers that models share."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import nnx

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), with which PyTorch starts matrices and kernels.
FAN_IN_UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(bound: float) -> Callable[..., jax.Array]:
    """Initializes from U(-bound, bound).

    Example:
      >>> values = uniform(0.5)(jax.random.key(0), (100,), float)
      >>> bool(abs(values).max() <= 0.5), bool(values.min() < -0.4)
      (True, True)
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
