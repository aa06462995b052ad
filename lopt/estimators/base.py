"""What an estimator of meta-gradients is, and what all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from lopt.checks import check_counts, check_positive
from lopt.keys import particle_keys, split_keys
from lopt.unroll import Trajectory, Unroll, vary

Theta = Any
State = Any

_CHECKS = {
    "num_particles": check_counts,
    "truncation_length": check_counts,
    "final_batches": check_counts,
    "std": check_positive,
    "clip": check_positive,
    "sign": check_positive,
}


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
        self, unroll: Unroll, theta: Theta, key: jax.Array, indices: jax.Array
    ) -> State:
        """Starts the particles.

        Args:
          unroll: what is trained, by what and for how long.
          theta: the meta-parameters, a pytree of floating-point arrays.
          key: random key.
          indices: int32 (particles,); which of the `num_particles` these are.

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
        """Advances the particles by one truncation.

        Args:
          unroll: as in `init`.
          theta: the meta-parameters by now.
          state: of these particles.
          key: random key, a new one at every call.
          indices: as in `init`.
          data: the arrays of the splits in `unroll.splits`, by name.
        """
        ...


@dataclasses.dataclass(frozen=True)
class OnParticles:
    """An estimator whose state is a run of theta for each particle."""

    num_particles: int = 8

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _CHECKS and (value, field.default) != (None, None):
                _CHECKS[field.name](**{field.name: value})

    def init(self, unroll: Unroll, theta: Theta, key, indices) -> Any:
        """Starts the particles; see `Estimator`."""
        unroll.check(theta)
        keys = particle_keys(key, indices)
        return unroll.start(copies(theta, keys), keys)


@dataclasses.dataclass(frozen=True)
class Perturbing(OnParticles):
    """An estimator that compares runs of theta plus and minus a perturbation."""

    std: float = 0.01

    def draw(self, theta: Theta, key, indices) -> tuple[Theta, jax.Array]:
        """A perturbation (particles, ...) and a key for each particle."""
        noise_keys, run_keys = split_keys(particle_keys(key, indices))
        return perturbations(noise_keys, theta, self.std), run_keys


def copies(theta: Theta, keys: jax.Array, number: int = 1) -> Theta:
    """Theta of as many runs of each particle.

    Args:
      theta: the meta-parameters.
      keys: (particles,), which may differ between devices; then, so do the copies.
      number: runs of a particle.

    Returns:
      Like theta, each leaf (particles, number, ...).

    Example:
      >>> copies(jnp.float32(3), jax.random.split(jax.random.key(0), 2))
      Array([[3.],
             [3.]], dtype=float32)
    """

    def copy(leaf):
        return jnp.broadcast_to(leaf, (len(keys), number, *jnp.shape(leaf)))

    return vary(jax.tree.map(copy, theta), keys)


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
