"""The buffer of losses against its equations, and with losses that are not finite."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import velo_reference as reference

from lopt import loss_features


@jax.jit
def shown(losses):
    """What the buffer shows after each loss, and the last buffer."""

    def step(buffer, loss):
        return loss_features.advance(buffer, loss, 1000)

    return jax.lax.scan(step, loss_features.init(jnp.zeros(())), losses)[::-1]


@pytest.mark.parametrize("num_steps", [1, 8, 1000, 10**6])
def test_equations(num_steps):
    """In float32, for half-lives of up to a million steps."""
    rng = np.random.default_rng(0)
    losses = np.float32(np.exp(-np.arange(40) / 20) + 0.3 * rng.normal(size=40))
    losses[20] = 1e9
    state = reference.start_loss(num_steps)
    buffer, largest = loss_features.init(jnp.zeros(())), 0.0
    for loss in losses:
        state, wanted = reference.advance_loss(state, loss)
        buffer, got = loss_features.advance(buffer, loss, num_steps)
        np.testing.assert_allclose(buffer.means, state["mean"], 2e-5, 1e-7)
        np.testing.assert_allclose(buffer.minima, state["min"], 2e-5, 1e-6)
        np.testing.assert_allclose(got, wanted, 0, 1e-3)
        largest = max(largest, np.abs(wanted).max())
    assert buffer.seen == 40 and largest > 0.9


def test_losses_that_are_not_finite():
    """Infinity and NaN are large losses; a first one, and -inf, are left out."""
    losses = jnp.array([2.0, 1.0, 1.5, 9.0, 1.2])
    wanted = shown(losses)
    for large in (jnp.inf, jnp.nan):
        chex.assert_trees_all_equal(shown(losses.at[3].set(large)), wanted)
    for nothing in (jnp.inf, jnp.nan, -jnp.inf):
        features, buffer = shown(jnp.concatenate([jnp.array([nothing]), losses]))
        chex.assert_trees_all_equal(features[1:], wanted[0])
        chex.assert_trees_all_equal(buffer, wanted[1])
    features, buffer = shown(jnp.insert(losses, 2, -jnp.inf))
    assert not features[2].any()
    chex.assert_trees_all_equal((jnp.delete(features, 2, 0), buffer), wanted)
