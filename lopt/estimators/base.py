"""What an estimator of meta-gradients is, and what all of them share."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax

from lopt.unroll import Unroll

Theta = Any
State = Any


class Estimate(NamedTuple):
    """What some particles contribute to a meta-step: sums over these particles.

    Sums over all particles follow by one `psum`; divided by their number they are the
    estimate.

    Attributes:
      gradient: a pytree like theta, float32; of the mean meta-loss of a step.
      loss: float32; the meta-loss of a step, the mean over the two signs.
      num_steps: int32; inner steps made, over both signs, restarts left out.
      num_nonfinite: int32; how many of their losses were not finite.
    """

    gradient: Theta
    loss: jax.Array
    num_steps: jax.Array
    num_nonfinite: jax.Array


class Estimator(Protocol):
    """Estimates gradients of the meta-loss with respect to theta.

    Both functions are pure and can be jitted, also inside `jax.shard_map` with the
    state and the indices sharded over particles. All random numbers of a particle come
    from `key` and its index, so that it makes no difference how particles are spread.

    Attributes:
      num_particles: particles over all devices; where there are two signs, each
        particle is an antithetic pair.
    """

    @property
    def num_particles(self) -> int: ...  # noqa: D102

    def init(
        self,
        unroll: Unroll,
        theta: Theta,
        key: jax.Array,
        indices: jax.Array,
        data: dict[str, Any],
    ) -> State:
        """Starts the particles.

        Args:
          unroll: what is trained, by what and for how long.
          theta: the meta-parameters, a pytree of floating-point arrays.
          key: random key.
          indices: int32 (particles,); which of the `num_particles` these are.
          data: the arrays of the splits in `unroll.splits`, by name.

        Returns:
          A pytree whose leaves have a leading axis of particles.

        Raises:
          ValueError: theta does not fit the transformation's `hyperparams`.
        """
        ...

    def estimate(
        self,
        unroll: Unroll,
        theta: Theta,
        state: State,
        key: jax.Array,
        indices: jax.Array,
        data: dict[str, Any],
    ) -> tuple[State, Estimate]:
        """Advances the particles by one truncation; `key` is new at every call."""
        ...
