"""The learned schedule against its equations, alone and behind other optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import velo_reference as reference

import lopt

LOSSES = np.float32([2.0, 1.5, 1.8, 1.2, 1.1, 1.0])


@pytest.fixture(scope="module")
def theta():
    """All of it matters: biases, and the initial state."""
    drawn = lopt.LearnedSchedule(10, hidden_size=8).init(jax.random.key(0))
    leaves, treedef = jax.tree.flatten(drawn)
    rng = np.random.default_rng(1)
    moved = [x + np.float32(0.3 * rng.normal(size=x.shape)) for x in leaves]
    return treedef.unflatten(moved)


def test_equations(theta):
    """Of updates of several dtypes, and divided by the width."""
    widths = {"w": 4.0, "b": 1.0}
    tx = lopt.scale_by_learned_schedule(
        theta, 10, hidden_size=8, width_multipliers=widths
    )
    ones = {"w": jnp.ones((2, 3)), "b": jnp.ones((), jnp.bfloat16)}
    state, update = tx.init(ones), jax.jit(tx.update)
    factors = reference.run_schedule(theta, LOSSES, 10)
    for loss, factor in zip(LOSSES, factors, strict=True):
        updates, state = update(ones, state, value=loss)
        np.testing.assert_allclose(updates["w"], np.full((2, 3), factor / 4), 1e-4)
        assert updates["b"].dtype == jnp.bfloat16
        np.testing.assert_allclose(float(updates["b"]), factor, 1e-2)
    assert state.count == 6 and np.ptp(factors) > 0.01


def test_celo_adam(theta):
    """Adam with the schedule, of clipped gradients."""
    tx = lopt.celo_adam(theta, 10, hidden_size=8)
    p = jnp.linspace(-1, 1, 5)
    state, update = tx.init(p), jax.jit(tx.update)
    m = v = np.zeros(5)
    factors = reference.run_schedule(theta, LOSSES, 10)
    for t, (loss, factor) in enumerate(zip(LOSSES, factors, strict=True), 1):
        g = np.array([0.0, 1e-4, -1.0, 1.0, 5000.0]) / t
        updates, state = update(jnp.float32(g), state, p, value=loss)
        g = np.clip(g, -1000, 1000)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        root = 1e-8 + np.sqrt(v / (1 - 0.999**t) + 1e-10)
        wanted = -1e-3 * factor * m / (1 - 0.9**t) / root
        np.testing.assert_allclose(updates, wanted, 1e-4, 1e-12)


def test_factors_start_near_one():
    p = jnp.ones(())
    architecture = lopt.LearnedSchedule(100)
    factors = []
    for seed in range(5):
        tx = architecture.transform(architecture.init(jax.random.key(seed)))
        factors.append(tx.update(p, tx.init(p), value=1.0)[0])
    assert 0.5 < min(factors) <= max(factors) < 2


def test_bad_input(theta):
    p = jnp.ones(())
    for horizon in (0, None, 10.0):
        with pytest.raises(ValueError, match="num_steps must be an integer >= 1"):
            lopt.scale_by_learned_schedule(theta, horizon)
    with pytest.raises(ValueError, match="does not belong to LearnedSchedule"):
        lopt.scale_by_learned_schedule(theta, 10)
    tx = lopt.scale_by_learned_schedule(theta, 10, hidden_size=8)
    with pytest.raises(TypeError, match="value=loss"):
        optax.chain(tx, optax.scale(2.0)).update(p, (tx.init(p), ()), p)
    with pytest.raises(ValueError, match=r"value must be a real scalar.*complex"):
        tx.update(p, tx.init(p), value=1j)
