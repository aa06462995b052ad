"""Evolution strategies on truncations, which are biased, and on whole runs."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from lopt.checks import check_option
from lopt.estimators.base import (
    Estimate,
    Perturbing,
    Theta,
    antithetic,
    step_weights,
    summarize,
    weighted_sum,
)
from lopt.keys import particle_keys
from lopt.unroll import Particle, Runs, Unroll


@dataclasses.dataclass(frozen=True)
class TruncatedES(Perturbing):
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

    truncation_length: int = 50
    sign: float | None = None

    def estimate(
        self, unroll: Unroll, theta: Theta, state: Particle, key, indices, data
    ) -> tuple[Particle, Estimate]:
        """Advances the particles by one truncation; see `Estimator`."""
        noise, keys = self.draw(theta, key, indices)
        thetas = antithetic(theta, noise)
        doubled: Runs = jax.tree.map(partial(jnp.repeat, repeats=2, axis=1), state.runs)
        pairs, trajectory = unroll.run(
            lambda episode: thetas,
            Particle(*doubled, state.step, state.length),
            keys,
            data,
            self.truncation_length,
        )
        positive: Runs = jax.tree.map(lambda leaf: leaf[:, :1], pairs.runs)
        difference = mean_difference(trajectory.loss, trajectory.mask)
        gradient = es_gradient(difference, noise, std=self.std, sign=self.sign)
        state = Particle(*positive, pairs.step, pairs.length)
        return state, summarize(gradient, trajectory)


@dataclasses.dataclass(frozen=True)
class FullES(Perturbing):
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
      final_batches: a number k takes as meta-loss, in place of a reduction, the mean
        loss at the end of the run on k new batches of the split of the meta-loss.

    Raises:
      ValueError: an attribute is out of range.

    Example:
      >>> FullES(reduction="last", clip=0.5).num_particles
      8
    """

    reduction: str = "mean"
    clip: float | None = None
    sign: float | None = None
    final_batches: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_option("reduction", self.reduction, ("mean", "min", "last"))

    def init(self, unroll: Unroll, theta: Theta, key, indices) -> tuple[()]:
        """Nothing is carried; see `Estimator`."""
        del key, indices
        unroll.check(theta)
        return ()

    def estimate(
        self, unroll: Unroll, theta: Theta, state: tuple[()], key, indices, data
    ) -> tuple[tuple[()], Estimate]:
        """Makes one whole run of each particle; see `Estimator`."""
        length_key, key, final_key = jax.random.split(key, 3)
        noise, keys = self.draw(theta, key, indices)
        length = unroll.schedule.sample(length_key)
        thetas = antithetic(theta, noise)
        runs, trajectory = unroll.run_whole(thetas, keys, data, length)
        loss = reduce_losses(trajectory.loss, trajectory.mask, self.reduction)
        num_nonfinite = 0
        if self.final_batches is not None:
            final_keys = particle_keys(final_key, indices)
            losses, finite = unroll.losses(runs, final_keys, data, self.final_batches)
            loss, num_nonfinite = losses.mean(axis=0), jnp.sum(~finite)
        gradient = es_gradient(
            loss[:, 0] - loss[:, 1], noise, std=self.std, clip=self.clip, sign=self.sign
        )
        estimate = summarize(gradient, trajectory)
        return state, estimate._replace(
            loss=jnp.sum(loss.mean(axis=1)),
            num_nonfinite=estimate.num_nonfinite + num_nonfinite,
        )


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
