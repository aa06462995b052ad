"""Random keys of particles, which do not depend on how particles are spread."""

from __future__ import annotations

from typing import NamedTuple

import jax


def particle_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """A key for each particle, which depends on nothing but its index.

    Example:
      >>> key = jax.random.key(0)
      >>> all_keys = particle_keys(key, jax.numpy.arange(8))
      >>> bool((all_keys[4:] == particle_keys(key, jax.numpy.arange(4, 8))).all())
      True
    """
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def split_keys(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two keys for each one.

    Example:
      >>> [keys.shape for keys in split_keys(jax.random.split(jax.random.key(0), 8))]
      [(8,), (8,)]
    """
    first, second = jax.vmap(jax.random.split, out_axes=1)(keys)
    return first, second


class StepKeys(NamedTuple):
    """The keys of an inner step, one of each for every particle.

    Attributes:
      restart: of initial parameters.
      batch: of the training batch.
      noise: of the training loss.
      meta_batch: of the batch of the meta-loss, where it has one of its own.
      meta_noise: of the meta-loss, likewise.
    """

    restart: jax.Array
    batch: jax.Array
    noise: jax.Array
    meta_batch: jax.Array
    meta_noise: jax.Array


def step_keys(keys: jax.Array, num_steps: int) -> StepKeys:
    """The keys of many steps, drawn at once: in a loop they would cost more.

    Args:
      keys: one key per particle.
      num_steps: number of steps.

    Returns:
      Keys, each (num_steps, particles).

    Example:
      >>> step_keys(jax.random.split(jax.random.key(0), 8), 50).batch.shape
      (50, 8)
    """
    shape = (num_steps, len(StepKeys._fields))
    keys = jax.vmap(lambda key: jax.random.split(key, shape), out_axes=2)(keys)
    return StepKeys(*(keys[:, i] for i in range(shape[1])))
