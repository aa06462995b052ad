"""Projected heavy-ball descent on a vector of coefficients."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mada_optax import domains

ByName = jax.typing.ArrayLike | Mapping[str, jax.typing.ArrayLike]


def vector(
    argument: str,
    value: ByName,
    names: Sequence[str],
    learn: Sequence[str],
    defaults: Mapping[str, float],
    check: Callable[[str, Any], None] = domains.check_number,
) -> list[Any]:
    """One number per name: `value`, or its entry, or the default.

    Raises:
      ValueError: an unknown name, a number that `check` refuses, or a learned
        coefficient that has neither an entry nor a default.
    """
    if isinstance(value, Mapping):
        domains.check_names(argument, value, names)
        table = {**defaults, **value}
    else:
        table = dict.fromkeys(names, value)
    for name in learn:
        if name not in table:
            raise ValueError(
                f"{argument} has no default for {name!r}; pass {{{name!r}: ...}}."
            )
        check(f"{argument} of {name!r}", table[name])
    return [table[name] if name in learn else 0.0 for name in names]


@dataclasses.dataclass(frozen=True)
class Descent:
    """q <- clip(q - rate * buf), buf <- momentum * buf + clipped h.

    All sequences have one entry per coefficient.

    Attributes:
      learned: whether the coefficient moves at all.
      rate: hyper-learning rates.
      momentum: heavy-ball factors.
      bounds: the box of the projection. A buffer is not reset at a bound.
      clip: largest |h_i|, or `None`.
      scale: factor on h before clipping.
      unconstrained: whether the step is taken in z = atanh(2 q - 1).
    """

    learned: Sequence[bool]
    rate: Sequence[Any]
    momentum: Sequence[Any]
    bounds: Sequence[tuple[float, float]]
    clip: jax.typing.ArrayLike | None
    scale: jax.typing.ArrayLike
    unconstrained: Sequence[bool]

    def step(
        self, q: jax.Array, buffer: jax.Array, h: jax.Array, enabled: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """One step; what is not learned or not enabled stays bit-equal."""
        tanh = np.asarray(self.unconstrained)
        lower, upper = jnp.asarray(self.bounds, q.dtype).T
        moves = np.asarray(self.learned) & enabled
        h = jnp.where(moves, h, 0) * jnp.asarray(self.scale, q.dtype)
        if tanh.any():
            h = jnp.where(tanh, h * 2 * q * (1 - q), h)
        if self.clip is not None:
            h *= jnp.minimum(1, jnp.asarray(self.clip, q.dtype) / (jnp.abs(h) + 1e-6))
        new_buffer = jnp.asarray(self.momentum, q.dtype) * buffer + h
        change = jnp.asarray(self.rate, q.dtype) * new_buffer
        new = q - change
        if tanh.any():
            inside = jnp.where(tanh, jnp.clip(q, 1e-6, 1 - 1e-6), 0.5)
            z = jnp.arctanh(2 * inside - 1) - change
            new = jnp.where(tanh, (jnp.tanh(z) + 1) / 2, new)
        new = jnp.clip(new, lower, upper)
        return jnp.where(moves, new, q), jnp.where(moves, new_buffer, buffer)
