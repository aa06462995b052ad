"""Truncated backpropagation through training."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from lopt.estimators.base import (
    Estimate,
    OnParticles,
    Theta,
    copies,
    step_weights,
    summarize,
)
from lopt.keys import particle_keys
from lopt.unroll import Particle, Unroll


@dataclasses.dataclass(frozen=True)
class TruncatedBackprop(OnParticles):
    """The gradient of a truncation's mean loss by the chain rule.

    No gradient goes back beyond the start of the truncation. The estimate has little
    variance, is biased towards short horizons, and can explode if training is chaotic.
    A particle that has a loss which is not finite adds nothing to it.

    Attributes:
      num_particles: runs, over all devices.
      truncation_length: inner steps between two meta-gradients.
      checkpoint: store the state of each step only, and recompute the rest.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> TruncatedBackprop(num_particles=4, truncation_length=20).checkpoint
      False
    """

    truncation_length: int = 50
    checkpoint: bool = False

    def estimate(
        self, unroll: Unroll, theta: Theta, state: Particle, key, indices, data
    ) -> tuple[Particle, Estimate]:
        """Advances the particles by one truncation; see `Estimator`."""
        keys = particle_keys(key, indices)

        def total_loss(thetas):
            particles, trajectory = unroll.run(
                lambda episode: thetas,
                state,
                keys,
                data,
                self.truncation_length,
                checkpoint=self.checkpoint,
            )
            loss = jnp.sum(trajectory.loss[..., 0] * step_weights(trajectory.mask))
            return loss, (particles, trajectory)

        # A theta for each particle: a gradient with respect to a theta that devices
        # share would be summed over them, here and once more by the outer loop.
        gradients, (particles, trajectory) = jax.grad(total_loss, has_aux=True)(
            copies(theta, keys)
        )
        finite = trajectory.finite.all(axis=(0, 2))
        only_finite = jax.vmap(jnp.where, in_axes=(0, 0, None))
        gradient = jax.tree.map(
            lambda leaf: only_finite(finite, leaf, 0.0).sum(axis=(0, 1)), gradients
        )
        return particles, summarize(gradient, trajectory)
