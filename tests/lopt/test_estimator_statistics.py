"""Estimators on a quadratic whose meta-gradients are integrals of one variable.

Gradient descent at rate θ on x²/2 gives x_k = Π (1 - θ - e_i), where e_i perturbs
step i, so that the expectation of an estimate is a sum of products of moments.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inner_toys import follow, quadratic, sgd, task

from lopt.estimators import PES, FullES, NoiseReuseES, TruncatedBackprop, TruncatedES
from lopt.estimators.base import perturbations
from lopt.keys import particle_keys, split_keys
from lopt.truncation import Constant
from lopt.unroll import Unroll

RATE, STD, LENGTH, TRUNCATION, NUM_CALLS = 0.3, 0.2, 4, 2, 5
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


def mean(function):
    """E[f(e)] for e ~ N(0, STD²)."""
    return np.sum(WEIGHTS * function(STD * NODES)) / np.sqrt(2 * np.pi)


def decay(steps):
    """E[(1 - θ - e)^(2 steps)], what the squared x of some steps contributes."""
    return mean(lambda e: (1 - RATE - e) ** (2 * steps))


def slope(steps):
    """Derivative of `decay` with respect to θ, by Stein's identity."""
    return mean(lambda e: e / STD**2 * (1 - RATE - e) ** (2 * steps))


def smoothed_slope(counts, credited):
    """Slope of E[x²/2] after `counts` steps under perturbations, some of them credited.

    Args:
      counts: steps made under each perturbation of the run.
      credited: indices of the perturbations that the estimator sees.
    """
    return 0.5 * sum(
        slope(counts[i]) * np.prod([decay(n) for j, n in enumerate(counts) if j != i])
        for i in credited
    )


def expected(credit, reuse=False):
    """The mean estimate of each call, from the calendar of runs of four steps.

    Args:
      credit: `(number of the run's perturbations, is this its last step) -> indices`.
      reuse: a run keeps the perturbation it starts with.
    """
    counts, step, means = [0], 0, []
    for call in range(NUM_CALLS):
        if call and not reuse:
            counts.append(0)
        slopes = []
        for _ in range(TRUNCATION):
            if step == LENGTH:
                counts, step = [0], 0
                continue
            credited = credit(len(counts), step == LENGTH - 1)
            slopes.append(smoothed_slope(counts, credited))
            counts[-1] += 1
            step += 1
        means.append(np.mean(slopes))
    return np.array(means)


def everything(count, last):
    del last
    return range(count)


def newest(count, last):
    del last
    return [count - 1]


def published(count, last):
    """The last step of a run goes to the newest perturbation only."""
    return [count - 1] if last else range(count)


@functools.cache
def estimates(estimator, groups=100, per_group=400):
    """Mean estimates of groups of particles, (calls, groups)."""
    unroll = Unroll(quadratic(), sgd(), Constant(LENGTH))
    theta = {"learning_rate": jnp.float32(RATE)}
    data = {"train": unroll.task.data["train"]}
    indices = jnp.arange(per_group)

    @jax.jit
    @jax.vmap
    def run(key):
        def call(state, key):
            state, estimate = estimator.estimate(
                unroll, theta, state, key, indices, data
            )
            return state, estimate.gradient["learning_rate"] / per_group

        state = estimator.init(unroll, theta, key, indices)
        return jax.lax.scan(call, state, jax.random.split(key, NUM_CALLS))[1]

    return np.asarray(run(jax.random.split(jax.random.key(0), groups))).T


def check_means(found, wanted):
    error = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
    assert np.all(np.abs(found.mean(axis=1) - wanted) <= 4 * error + 1e-6)


def deviations(found, wrong):
    """How many standard errors the means are away from `wrong`."""
    error = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
    return np.abs(found.mean(axis=1) - wrong) / np.maximum(error, 1e-9)


EXACT = PES(400, STD, TRUNCATION, exact=True)
PARITY = PES(400, STD, TRUNCATION)
REUSE = NoiseReuseES(400, STD, TRUNCATION)
TRUNCATED = TruncatedES(400, STD, TRUNCATION)


def test_exact_pes_is_unbiased():
    check_means(estimates(EXACT), expected(everything))


def test_the_published_pes_is_biased_at_the_last_step_of_a_run():
    found = estimates(PARITY)
    check_means(found, expected(published))
    # Runs end in the second call and in the fifth.
    biased = deviations(found, expected(everything)) > 8
    assert biased.tolist() == [False, True, False, False, True]


def test_noise_reuse_is_unbiased():
    check_means(estimates(REUSE), expected(everything, reuse=True))


def test_truncated_es_is_biased_to_the_truncation():
    found = estimates(TRUNCATED)
    check_means(found, expected(newest))
    # In these calls, earlier truncations of the run matter.
    assert np.all(deviations(found, expected(everything))[[1, 3, 4]] > 8)


def test_truncated_es_goes_on_from_the_positive_run():
    unroll = Unroll(quadratic(), sgd(), Constant(LENGTH))
    theta = {"learning_rate": jnp.float32(RATE)}
    key, indices = jax.random.key(3), jnp.arange(2)
    data = {"train": unroll.task.data["train"]}
    state = TRUNCATED.init(unroll, theta, key, indices)
    state, _ = TRUNCATED.estimate(unroll, theta, state, key, indices, data)
    noise_keys, _ = split_keys(particle_keys(key, indices))
    noise = perturbations(noise_keys, theta, STD)["learning_rate"]
    found = state.params["x"][:, 0, 0]
    np.testing.assert_allclose(found, (1 - RATE - noise) ** TRUNCATION, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, range(LENGTH)),
        ({"reduction": "last"}, [LENGTH - 1]),
        ({"final_batches": 3}, [LENGTH]),
    ],
)
def test_full_es_is_unbiased(options, steps):
    found = estimates(FullES(400, STD, **options))
    wanted = np.mean([smoothed_slope([k], [0]) for k in steps])
    check_means(found, np.full(NUM_CALLS, wanted))


def test_truncated_backprop_is_the_gradient_within_the_truncation():
    for checkpoint in (False, True):
        found = estimates(TruncatedBackprop(2, TRUNCATION, checkpoint), 2, 2)
        # x before a step, and its derivative if the truncation starts at a given step.
        x = [(1 - RATE) ** k for k in range(LENGTH)]
        slopes = [-k / (1 - RATE) * (1 - RATE) ** (2 * k) for k in range(3)]
        first, second = np.mean(slopes[:2]), x[2] ** 2 * np.mean(slopes[:2])
        # The third call restarts, and the fourth starts after one step.
        fourth = x[1] ** 2 * np.mean(slopes[:2])
        wanted = [first, second, 0, fourth, 0]
        np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-5, atol=1e-7)


@functools.cache
def linear_estimates(estimator, num_calls, dim=6, num_particles=4000):
    """Estimates (calls, particles, dim) where each truncation's loss is the sum of θ.

    The loss is taken after the update, which makes parameters follow θ, so that it
    depends on the perturbation of its own truncation only.
    """
    toy = task(lambda x, batch: jnp.sum(x) + batch, dim=dim)
    unroll = Unroll(toy, follow(dim), Constant(num_calls), meta_split="train")
    theta, data = jnp.zeros(dim), {"train": toy.data["train"]}
    indices = jnp.arange(1)

    @jax.jit
    @jax.vmap
    def run(key):
        def call(state, key):
            state, estimate = estimator.estimate(
                unroll, theta, state, key, indices, data
            )
            return state, estimate.gradient

        state = estimator.init(unroll, theta, key, indices)
        return jax.lax.scan(call, state, jax.random.split(key, num_calls))[1]

    keys = jax.random.split(jax.random.key(1), num_particles)
    return np.asarray(run(keys)).swapaxes(0, 1)


def total_variance(estimates):
    return estimates.var(axis=0).sum()


def test_variance_of_single_truncations_is_lower_with_noise_reuse():
    """Σ_i e_i (g·e_w) has variance (w d + 1) |g|², e (g·e) has (d + 1) |g|²."""
    calls, dim = 8, 6
    pes = linear_estimates(PES(1, 0.1, 1, exact=True), calls)
    reuse = linear_estimates(NoiseReuseES(1, 0.1, 1), calls)
    for found in (pes, reuse):
        np.testing.assert_allclose(found.mean(axis=1), 1, atol=0.35)
    for w in range(calls):
        variances = total_variance(pes[w]), total_variance(reuse[w])
        wanted = dim * ((w + 1) * dim + 1), dim * (dim + 1)
        np.testing.assert_allclose(variances, wanted, rtol=0.15)


def test_variance_of_whole_runs_is_lower_with_pes():
    """Fresh noise averages out over a run in which truncations have equal gradients."""
    calls, dim = 8, 6
    pes = linear_estimates(PES(1, 0.1, 1, exact=True), calls).mean(axis=0)
    reuse = linear_estimates(NoiseReuseES(1, 0.1, 1), calls).mean(axis=0)
    wanted = dim * (dim * (calls - 1) / 2 + dim + 1) / calls
    np.testing.assert_allclose(total_variance(pes), wanted, rtol=0.15)
    np.testing.assert_allclose(total_variance(reuse), dim * (dim + 1), rtol=0.15)
    assert total_variance(pes) < total_variance(reuse)
