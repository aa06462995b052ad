"""How the loss has moved lately, on ten time scales: what VeLO and Celo see of it.

Each average of the loss is compared with that of the next longer half-life, and both
with the least value that the former ever had: -1 at a new minimum, 0 on a plateau, 1
where the loss rises.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SCALES = 10


class LossBuffer(NamedTuple):
    """Moving averages of the loss.

    Attributes:
      means: shape (10,), from 0 on; half-lives are spaced evenly in the logarithm, from
        10 steps to the whole run.
      minima: shape (10,), the least of the averages, corrected for that start.
      seen: losses so far, int32 scalar.
    """

    means: jax.Array
    minima: jax.Array
    seen: jax.Array


def init(zero: jax.Array) -> LossBuffer:
    """No loss yet; `zero` has the dtype, and varies over devices like the loss."""
    return LossBuffer(
        means=jnp.full(SCALES, zero),
        minima=jnp.full(SCALES, zero + 999999999999.0),
        seen=zero.astype(jnp.int32),
    )


def check(value: Any, whose: str) -> None:
    """Raises `TypeError` for no loss, and `ValueError` for one that is no real scalar.

    Examples:
      >>> check(None, "Celo")
      Traceback (most recent call last):
      ...
      TypeError: Celo looks at the loss: call update(grads, state, params, value=loss).
    """
    call = "call update(grads, state, params, value=loss)"
    if value is None:
        raise TypeError(f"{whose} looks at the loss: {call}.")
    if jnp.shape(value) or jnp.iscomplexobj(value):
        raise ValueError(
            f"value must be a real scalar, the loss, got {jnp.result_type(value)} of "
            f"shape {jnp.shape(value)}: {call}."
        )


def advance(
    old: LossBuffer, value: jax.Array, num_steps: int
) -> tuple[LossBuffer, jax.Array]:
    """The buffer after the next loss, and what it shows.

    A loss counts for at most twice the largest average: so do infinity and NaN. A first
    loss that is not finite is left out.

    Args:
      old: the buffer.
      value: the loss, a scalar.
      num_steps: length of the run.

    Returns:
      The buffer, and 9 features in [-1, 1]; they are 0 for the first two losses.
    """
    dtype = old.means.dtype
    half_lives = np.logspace(1, np.log10(num_steps), SCALES)
    per_step = jnp.asarray(-1 / half_lives, dtype)
    seen = jnp.asarray(old.seen + 1, jnp.int32)
    # For long half-lives, float32 has few digits of exp near 1.
    weights = -jnp.expm1(per_step * seen)

    loss = jnp.asarray(value, dtype)
    loss = jnp.where(jnp.isnan(loss), jnp.inf, loss)
    largest = 2 * jnp.abs(jnp.max(old.means / weights))
    loss = jnp.minimum(loss, jnp.where(old.seen == 0, jnp.inf, largest))
    usable = jnp.isfinite(loss)
    loss = jnp.where(usable, loss, 0)

    means = jnp.exp(per_step) * old.means - jnp.expm1(per_step) * loss
    averages = means / weights
    new = LossBuffer(means, jnp.minimum(old.minima, averages), seen)
    new = jax.tree.map(lambda new, old: jnp.where(usable, new, old), new, old)

    above = averages - new.minima
    longer = jnp.maximum(averages[1:] - new.minima[:-1], 1e-8)
    features = jnp.clip(above[:-1] / longer - 1, -1, 1)
    return new, jnp.where(usable & (seen > 2), features, 0)
