"""Persistent evolution strategies (Vicol et al. 2021, arXiv 2112.13835).

Truncations of one run are perturbed independently. What a loss owes to perturbations of
earlier truncations reaches it through the state of the run, and is credited to the sum
of them all, which makes the estimate unbiased for whole runs.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.estimators.base import (
    Estimate,
    Perturbing,
    Theta,
    antithetic,
    copies,
    step_weights,
    summarize,
    weighted_sum,
)
from lopt.keys import particle_keys
from lopt.truncation import Ticks
from lopt.unroll import Particle, Unroll


class PESState(NamedTuple):
    """What PES carries from one truncation to the next.

    Attributes:
      particles: antithetic pairs of runs, leaves (particles, 2, ...).
      accumulator: the sum of the perturbations of each run so far, (particles, ...).
    """

    particles: Particle
    accumulator: Theta


@dataclasses.dataclass(frozen=True)
class PES(Perturbing):
    """Persistent evolution strategies.

    Attributes:
      num_particles: antithetic pairs, over all devices.
      std: standard deviation of the perturbations of theta.
      truncation_length: inner steps between two meta-gradients.
      exact: credit the last step of a run to all of its perturbations. The published
        code credits it, as it does the steps of the next run, to the newest only, which
        biases the estimate by about 1/length of the signal.
      sign: a number c takes ±c in place of the difference that a pair has in its mean
        loss, or `None`.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> PES(num_particles=8, std=0.01, truncation_length=50).exact
      False
    """

    truncation_length: int = 50
    exact: bool = False
    sign: float | None = None

    def init(self, unroll: Unroll, theta: Theta, key, indices) -> PESState:
        """Starts the particles; see `Estimator`."""
        unroll.check(theta)
        keys = particle_keys(key, indices)
        zeros = jax.tree.map(lambda x: jnp.zeros((len(keys), *x.shape)), theta)
        return PESState(unroll.start(copies(theta, keys, 2), keys), zeros)

    def estimate(
        self, unroll: Unroll, theta: Theta, state: PESState, key, indices, data
    ) -> tuple[PESState, Estimate]:
        """Advances the particles by one truncation; see `Estimator`."""
        noise, keys = self.draw(theta, key, indices)
        return self.advance(unroll, theta, state, noise, keys, data)

    def advance(
        self, unroll: Unroll, theta: Theta, state: PESState, noise, keys, data
    ) -> tuple[PESState, Estimate]:
        """`estimate`, with given perturbations (particles, ...) and keys."""
        thetas = antithetic(theta, noise)
        particles, trajectory = unroll.run(
            lambda episode: thetas, state.particles, keys, data, self.truncation_length
        )
        gradient, accumulator = pes_gradient(
            trajectory.loss,
            trajectory.ticks,
            noise,
            state.accumulator,
            std=self.std,
            exact=self.exact,
            sign=self.sign,
        )
        return PESState(particles, accumulator), summarize(gradient, trajectory)


def pes_gradient(
    loss: jax.Array,
    ticks: Ticks,
    noise: Theta,
    accumulator: Theta,
    *,
    std: float,
    exact: bool = False,
    sign: float | None = None,
) -> tuple[Theta, Theta]:
    """The arithmetic of PES.

    With e the perturbation of this truncation, A that plus the accumulator, D the
    difference of a pair in its loss at a step, and n the number of its unmasked steps::

        gradient = Σ_particles (A Σ_before D / n + e Σ_after D / n) / (2 std²)

    Args:
      loss: float32 (steps, particles, 2).
      ticks: each (steps, particles).
      noise: e, each leaf (particles, ...).
      accumulator: like `noise`.
      std: standard deviation of the perturbations.
      exact: steps are "after" from the first restart on, rather than from the first
        step that is done.
      sign: see `PES`.

    Returns:
      The gradient, summed over particles, and the next accumulator: e of a particle
      that has steps after, A of any other.
    """
    weights = step_weights(~ticks.restart)
    after = (ticks.episode if exact else jnp.cumsum(ticks.done, axis=0)) > 0
    difference = loss[..., 0] - loss[..., 1]
    if sign is not None:
        mean = jnp.sum(difference * weights, axis=0, keepdims=True)
        difference = jnp.broadcast_to(sign * jnp.sign(mean), difference.shape)
    difference = difference * weights / (2 * std**2)
    total = jax.tree.map(jnp.add, accumulator, noise)
    gradient = jax.tree.map(
        jnp.add,
        weighted_sum(jnp.sum(difference * ~after, axis=0), total),
        weighted_sum(jnp.sum(difference * after, axis=0), noise),
    )
    keep = partial(jax.vmap(jnp.where), after[-1])
    return gradient, jax.tree.map(keep, noise, total)
