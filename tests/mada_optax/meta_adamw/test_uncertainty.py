"""Uncertainty weighting with priorities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mada_optax import uncertainty_weighting


def test_value_and_gradient_at_the_start():
    ones, zeros = jnp.ones(3), jnp.zeros(3)
    total, slope = jax.value_and_grad(uncertainty_weighting, 1)(ones, zeros)
    assert total == 1.5
    np.testing.assert_array_equal(slope, 0)
    weighted = uncertainty_weighting(ones, zeros, priorities=jnp.array([1.0, 3.0, 9.0]))
    assert weighted == total


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_descent_ends_at_the_loss_over_the_priority(kind):
    losses, priorities = jnp.array([0.5, 2.0, 3.0]), jnp.array([1.0, 4.0, 0.5])

    def total(log_vars):
        return uncertainty_weighting(
            losses, log_vars, priorities=priorities, task_types=kind
        )

    step = jax.jit(lambda _, s: s - 0.3 * jax.grad(total)(s))
    found = jax.lax.fori_loop(0, 300, step, jnp.zeros(3))
    np.testing.assert_allclose(found, jnp.log(losses / priorities), atol=1e-4)


def test_types_of_tasks():
    losses, log_vars = jnp.array([2.0, 2.0]), jnp.array([0.3, 0.3])
    kinds = {"task_types": ["regression", "classification"]}
    data, pull = 2 * np.exp(-0.3), 0.3
    doubled = uncertainty_weighting(losses, log_vars, **kinds)
    np.testing.assert_allclose(doubled, 1.5 * data + 1.5 * pull, rtol=1e-6)
    kendall = uncertainty_weighting(losses, log_vars, **kinds, classification="kendall")
    np.testing.assert_allclose(kendall, 1.5 * data + pull, rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"task_types must be one of.*'ranking'"):
        uncertainty_weighting(jnp.ones(2), jnp.zeros(2), task_types="ranking")
    with pytest.raises(ValueError, match="classification must be one of"):
        uncertainty_weighting(jnp.ones(2), jnp.zeros(2), classification="half")
