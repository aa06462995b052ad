"""Backpropagation past runs that have diverged: no NaN of theirs reaches theta."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from inner_toys import quadratic, sgd

from lopt.estimators import TruncatedBackprop
from lopt.truncation import Constant
from lopt.unroll import Unroll

UNROLL = Unroll(quadratic(), sgd(), Constant(60))
ESTIMATOR = TruncatedBackprop(2, 5)
THETA = {"learning_rate": jnp.float32(0.3)}
KEY = jax.random.key(0)
BOTH = jnp.arange(2)


def at(step, first=1.0):
    """Two runs, of which the first is at that step and all its numbers are `first`."""
    runs = jax.jit(lambda: ESTIMATOR.init(UNROLL, THETA, KEY, BOTH))()

    def put(leaf):
        return (
            leaf.at[0].set(first) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        )

    return jax.tree.map(put, runs)._replace(step=jnp.array([step, 0]))


@jax.jit
def estimate(state, indices=BOTH):
    data = {"train": jnp.ones(1)}
    return ESTIMATOR.estimate(UNROLL, THETA, state, KEY, indices, data)


def test_a_run_that_restarts_forgets_that_it_has_diverged():
    diverged, healthy = estimate(at(60, jnp.nan)), estimate(at(60))
    chex.assert_tree_all_finite(diverged)
    chex.assert_trees_all_equal(diverged, healthy)
    assert diverged[1].num_steps == 4 + 5


def test_until_then_it_is_counted_and_left_out():
    after, both = estimate(at(57, jnp.nan))
    assert both.num_nonfinite == 3
    second = jax.tree.map(lambda leaf: leaf[1:], at(57))
    _, alone = estimate(second, BOTH[1:])
    chex.assert_trees_all_close(both.gradient, alone.gradient, rtol=1e-6)
    assert np.isfinite(after.params["x"]).all() and alone.gradient["learning_rate"]
