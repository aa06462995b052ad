"""What an estimator of meta-gradients is, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from lopt.unroll import Trajectory, Unroll

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
        data: Mapping[str, Any],
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
        data: Mapping[str, Any],
    ) -> tuple[State, Estimate]:
        """Advances the particles by one truncation; `key` is new at every call."""
        ...


def perturbations(keys: jax.Array, theta: Theta, std: float) -> Theta:
    """Draws a perturbation of theta, float32 numbers N(0, std²), for each key.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 8)
      >>> perturbations(keys, {"b1": jnp.float32(0.9)}, std=0.01)["b1"].shape
      (8,)
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), theta)
    flat, unravel = ravel_pytree(zeros)

    # One draw for all leaves compiles several times faster than one for each.
    def draw(key):
        return unravel(std * jax.random.normal(key, flat.shape))

    return jax.vmap(draw)(keys)


def antithetic(theta: Theta, noise: Theta) -> Theta:
    """Theta plus and minus noise.

    Args:
      theta: the meta-parameters.
      noise: like theta, each leaf (particles, ...).

    Returns:
      Like theta, each leaf (particles, 2, ...), in the dtypes of theta.

    Example:
      >>> antithetic(jnp.float32(3), jnp.array([1.0, 2.0]))
      Array([[4., 2.],
             [5., 1.]], dtype=float32)
    """

    def pair(leaf, noise):
        leaf = jnp.broadcast_to(leaf, noise.shape)
        return jnp.stack([leaf + noise, leaf - noise], axis=1).astype(leaf.dtype)

    return jax.tree.map(pair, theta, noise)


def step_weights(mask: jax.Array) -> jax.Array:
    """What turns a sum over steps into a mean over the unmasked ones.

    Example:
      >>> step_weights(jnp.array([[True, False], [True, True]]))
      Array([[0.5, 0. ],
             [0.5, 1. ]], dtype=float32)
    """
    count = jnp.maximum(mask.sum(axis=0, keepdims=True), 1)
    return mask.astype(jnp.float32) / count


def weighted_sum(weights: jax.Array, trees: Any) -> Any:
    """The sum over particles of trees (particles, ...), times a weight for each.

    Example:
      >>> weighted_sum(jnp.array([1.0, 2.0]), {"a": jnp.eye(2)})
      {'a': Array([1., 2.], dtype=float32)}
    """
    return jax.tree.map(
        lambda leaf: jnp.tensordot(weights, leaf, axes=1, precision="highest"), trees
    )


def summarize(gradient: Theta, trajectory: Trajectory) -> Estimate:
    """The estimate with that gradient, and with the figures of a trajectory."""
    weights = step_weights(trajectory.mask)
    copies = trajectory.loss.shape[-1]
    return Estimate(
        gradient=gradient,
        loss=jnp.sum(trajectory.loss.mean(axis=-1) * weights),
        num_steps=copies * jnp.sum(trajectory.mask, dtype=jnp.int32),
        num_nonfinite=jnp.sum(~trajectory.finite, dtype=jnp.int32),
    )
