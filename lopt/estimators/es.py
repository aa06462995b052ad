"""Evolution strategies on truncations, which are biased, and on whole runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lopt.checks import check_counts, check_option, check_positive
from lopt.estimators.base import (
    Estimate,
    Theta,
    antithetic,
    perturbations,
    step_weights,
    summarize,
    weighted_sum,
)
from lopt.keys import particle_keys, split_keys
from lopt.unroll import Particle, Runs, Unroll


@dataclasses.dataclass(frozen=True)
class TruncatedES:
    """Evolution strategies on each truncation by itself.

    Both runs of a pair start from one state; the positive one goes on. The estimate is
    blind to what theta does beyond the truncation: it is biased to short horizons.

    Attributes:
      num_particles: antithetic pairs, over all devices.
      std: standard deviation of the perturbations of theta.
      truncation_length: inner steps between two meta-gradients.
      sign: a number c takes ±c in place of the difference that a pair has in its mean
        loss, or `None`.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> TruncatedES(num_particles=16).truncation_length
      50
    """

    num_particles: int = 8
    std: float = 0.01
    truncation_length: int = 50
    sign: float | None = None

    def __post_init__(self):
        check_counts(
            num_particles=self.num_particles, truncation_length=self.truncation_length
        )
        check_positive(std=self.std)
        if self.sign is not None:
            check_positive(sign=self.sign)

    def init(
        self,
        unroll: Unroll,
        theta: Theta,
        key: jax.Array,
        indices: jax.Array,
        data: Mapping[str, Any],
    ) -> Particle:
        """Starts the particles; see `Estimator`. They have one copy each."""
        del data
        unroll.check(theta)
        copies = (len(indices), 1)
        thetas = jax.tree.map(lambda x: jnp.broadcast_to(x, (*copies, *x.shape)), theta)
        return unroll.start(thetas, particle_keys(key, indices))

    def estimate(
        self,
        unroll: Unroll,
        theta: Theta,
        state: Particle,
        key: jax.Array,
        indices: jax.Array,
        data: Mapping[str, Any],
    ) -> tuple[Particle, Estimate]:
        """Advances the particles by one truncation; see `Estimator`."""
        noise_keys, run_keys = split_keys(particle_keys(key, indices))
        noise = perturbations(noise_keys, theta, self.std)
        thetas = antithetic(theta, noise)
        doubled: Runs = jax.tree.map(partial(jnp.repeat, repeats=2, axis=1), state.runs)
        pairs, trajectory = unroll.run(
            lambda episode: thetas,
            Particle(*doubled, state.step, state.length),
            run_keys,
            data,
            self.truncation_length,
        )
        positive: Runs = jax.tree.map(lambda leaf: leaf[:, :1], pairs.runs)
        difference = mean_difference(trajectory.loss, trajectory.mask)
        gradient = es_gradient(difference, noise, std=self.std, sign=self.sign)
        state = Particle(*positive, pairs.step, pairs.length)
        return state, summarize(gradient, trajectory)


@dataclasses.dataclass(frozen=True)
class FullES:
    """Evolution strategies on whole runs, which start anew at every meta-step.

    The runs of a meta-step have one length, drawn from the schedule. The estimate is
    unbiased, but there is one meta-step per run.

    Attributes:
      num_particles: antithetic pairs, over all devices.
      std: standard deviation of the perturbations of theta.
      reduction: the meta-loss of a run is the "mean", the "min" or the "last" of the
        meta-losses of its steps.
      clip: bound of the difference of a pair in meta-loss, or `None`.
      sign: a number c takes ±c in place of that difference, or `None`.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> FullES(reduction="last", clip=0.5).num_particles
      8
    """

    num_particles: int = 8
    std: float = 0.01
    reduction: str = "mean"
    clip: float | None = None
    sign: float | None = None

    def __post_init__(self):
        check_counts(num_particles=self.num_particles)
        check_positive(std=self.std)
        check_option("reduction", self.reduction, ("mean", "min", "last"))
        for name in ("clip", "sign"):
            if getattr(self, name) is not None:
                check_positive(**{name: getattr(self, name)})

    def init(
        self,
        unroll: Unroll,
        theta: Theta,
        key: jax.Array,
        indices: jax.Array,
        data: Mapping[str, Any],
    ) -> tuple[()]:
        """Nothing is carried; see `Estimator`."""
        del key, indices, data
        unroll.check(theta)
        return ()

    def estimate(
        self,
        unroll: Unroll,
        theta: Theta,
        state: tuple[()],
        key: jax.Array,
        indices: jax.Array,
        data: Mapping[str, Any],
    ) -> tuple[tuple[()], Estimate]:
        """Makes one whole run of each particle; see `Estimator`."""
        length_key, key = jax.random.split(key)
        noise_keys, run_keys = split_keys(particle_keys(key, indices))
        noise = perturbations(noise_keys, theta, self.std)
        length = unroll.schedule.sample(length_key)
        trajectory = unroll.run_whole(antithetic(theta, noise), run_keys, data, length)
        loss = reduce_losses(trajectory.loss, trajectory.mask, self.reduction)
        difference = loss[:, 0] - loss[:, 1]
        options = {"clip": self.clip, "sign": self.sign}
        gradient = es_gradient(difference, noise, std=self.std, **options)
        estimate = summarize(gradient, trajectory)
        return state, estimate._replace(loss=jnp.sum(loss.mean(axis=1)))


def mean_difference(loss: jax.Array, mask: jax.Array) -> jax.Array:
    """The difference of each pair in its mean loss over unmasked steps.

    Example:
      >>> loss = jnp.array([[[3.0, 1.0]], [[9.0, 0.0]]])
      >>> mean_difference(loss, jnp.array([[True], [False]]))
      Array([2.], dtype=float32)
    """
    return jnp.sum((loss[..., 0] - loss[..., 1]) * step_weights(mask), axis=0)


def reduce_losses(loss: jax.Array, mask: jax.Array, reduction: str) -> jax.Array:
    """The mean, the minimum or the last of the unmasked losses.

    Args:
      loss: float32 (steps, particles, copies).
      mask: bool (steps, particles).
      reduction: "mean", "min" or "last".

    Returns:
      float32 (particles, copies).

    Example:
      >>> loss = jnp.array([[[3.0]], [[5.0]], [[0.0]]])
      >>> reduce_losses(loss, jnp.array([[True], [True], [False]]), "last")
      Array([[5.]], dtype=float32)
    """
    if reduction == "mean":
        return jnp.sum(loss * step_weights(mask)[..., None], axis=0)
    if reduction == "min":
        return jnp.min(jnp.where(mask[..., None], loss, jnp.inf), axis=0)
    last = len(mask) - 1 - jnp.argmax(mask[::-1], axis=0)
    return jnp.take_along_axis(loss, last[None, :, None], axis=0)[0]


def es_gradient(
    difference: jax.Array,
    noise: Theta,
    *,
    std: float,
    clip: float | None = None,
    sign: float | None = None,
) -> Theta:
    """The antithetic estimate `Σ_particles difference · noise / (2 std²)`.

    Args:
      difference: of each pair in its meta-loss, float32 (particles,); 0 is taken in
        place of one that is not finite.
      noise: perturbations of theta, each leaf (particles, ...).
      std: standard deviation of the perturbations.
      clip: bound of the differences, or `None`.
      sign: a number c takes ±c in place of the differences, or `None`.

    Example:
      >>> es_gradient(jnp.array([2.0, jnp.nan]), jnp.array([0.5, 9.0]), std=1.0)
      Array(0.5, dtype=float32)
    """
    difference = jnp.where(jnp.isfinite(difference), difference, 0)
    if clip is not None:
        difference = jnp.clip(difference, -clip, clip)
    if sign is not None:
        difference = sign * jnp.sign(difference)
    return weighted_sum(difference / (2 * std**2), noise)
