"""Noise-reuse evolution strategies (Li et al. 2023, arXiv 2304.12180).

A run keeps one perturbation in all of its truncations, so that whatever a loss owes to
theta, it owes to that perturbation: there is nothing to accumulate.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.estimators.base import (
    Estimate,
    Perturbing,
    Theta,
    antithetic,
    perturbations,
    step_weights,
    summarize,
    weighted_sum,
)
from lopt.keys import particle_keys, split_keys
from lopt.truncation import Ticks, max_restarts
from lopt.unroll import Particle, Unroll


class NoiseReuseState(NamedTuple):
    """What the estimator carries from one truncation to the next.

    Attributes:
      particles: antithetic pairs of runs, leaves (particles, 2, ...).
      noise: the perturbation of each pair in its present run, (particles, ...).
    """

    particles: Particle
    noise: Theta


@dataclasses.dataclass(frozen=True)
class NoiseReuseES(Perturbing):
    """One perturbation per run: unbiased for whole runs, as PES is.

    Its variance is lower where the gradients of a run's truncations agree, and can be
    higher where they do not. It also suits `hyperparams` that the optimizer moves by
    itself, whose start is perturbed once per run in any case.

    Attributes:
      num_particles: antithetic pairs, over all devices.
      std: standard deviation of the perturbations of theta.
      truncation_length: inner steps between two meta-gradients.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> NoiseReuseES(num_particles=8, std=0.01, truncation_length=50).std
      0.01
    """

    truncation_length: int = 50

    def init(self, unroll: Unroll, theta: Theta, key, indices) -> NoiseReuseState:
        """Starts the particles; see `Estimator`."""
        unroll.check(theta)
        noise, keys = self.draw(theta, key, indices)
        return NoiseReuseState(unroll.start(antithetic(theta, noise), keys), noise)

    def estimate(
        self, unroll: Unroll, theta: Theta, state: NoiseReuseState, key, indices, data
    ) -> tuple[NoiseReuseState, Estimate]:
        """Advances the particles by one truncation; see `Estimator`."""
        noise_keys, run_keys = split_keys(particle_keys(key, indices))
        restarts = max_restarts(unroll.schedule, self.truncation_length)
        new = jax.vmap(
            lambda key: perturbations(jax.random.split(key, restarts), theta, self.std)
        )(noise_keys)
        noise = jax.tree.map(
            lambda now, new: jnp.concatenate([now[:, None], new], axis=1),
            state.noise,
            new,
        )
        particles, trajectory = unroll.run(
            lambda episode: antithetic(theta, _choose(noise, episode)),
            state.particles,
            run_keys,
            data,
            self.truncation_length,
        )
        gradient = noise_reuse_gradient(
            trajectory.loss, trajectory.ticks, noise, std=self.std
        )
        last = _choose(noise, trajectory.ticks.episode[-1])
        return NoiseReuseState(particles, last), summarize(gradient, trajectory)


def noise_reuse_gradient(
    loss: jax.Array, ticks: Ticks, noise: Theta, *, std: float
) -> Theta:
    """The arithmetic of the estimator.

    Args:
      loss: float32 (steps, particles, 2).
      ticks: each (steps, particles).
      noise: perturbations, each leaf (particles, episodes, ...); entry k is the one in
        force after k restarts.
      std: standard deviation of the perturbations.

    Returns:
      `Σ_particles Σ_k noise_k · Σ_(steps of k) difference / n / (2 std²)`, with n the
      number of a particle's unmasked steps.
    """
    weights = step_weights(~ticks.restart) / (2 * std**2)
    difference = (loss[..., 0] - loss[..., 1]) * weights
    num_episodes = jax.tree.leaves(noise)[0].shape[1]
    of_episode = jax.nn.one_hot(ticks.episode, num_episodes)
    credit = jnp.sum(difference[..., None] * of_episode, axis=0)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), noise)
    return weighted_sum(credit.ravel(), flat)


def _choose(noise: Theta, episode: jax.Array) -> Theta:
    """Of each particle, the perturbation after so many restarts."""
    return jax.tree.map(
        lambda leaf: jax.vmap(lambda row, k: row[k])(leaf, episode), noise
    )
