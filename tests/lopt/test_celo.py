"""Celo against its equations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import velo_reference as reference

import lopt

SHAPES = {"scalar": (), "vector": (9,), "square": (3, 3), "cube": (5, 2, 4)}
LOSSES = np.float32([2.0, 1.5, 1.8, 1.2, 1.1, 1.0])
CELO = lopt.celo(10, hidden_size=8)


def draw(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: np.float32(scale * rng.normal(size=s)) for k, s in SHAPES.items()}


@pytest.fixture(scope="module")
def theta():
    """All of it matters: biases, and the initial state."""
    leaves, treedef = jax.tree.flatten(CELO.init(jax.random.key(0)))
    rng = np.random.default_rng(1)
    moved = [x + np.float32(0.3 * rng.normal(size=x.shape)) for x in leaves]
    return treedef.unflatten(moved)


def test_equations(theta):
    params = draw(2)
    gradients = [draw(seed, 10.0 ** (seed - 4)) for seed in range(3, 9)]
    tx = CELO.transform(theta)
    state, update, moved = tx.init(params), jax.jit(tx.update), params
    wanted = reference.run_celo(theta, params, gradients, LOSSES, 10)
    for grads, loss, after in zip(gradients, LOSSES, wanted, strict=True):
        updates, state = update(grads, state, moved, value=loss)
        moved = optax.apply_updates(moved, updates)
        for name, expected in after.items():
            size = np.abs(expected - params[name]).max()
            bound = 1e-3 * size + 1e-6 * np.abs(expected).max()
            np.testing.assert_allclose(moved[name], expected, 0, bound)
    assert state.lstm.hidden.shape == (1, 8)


def test_first_phase_and_pass_through(theta):
    """With alpha = 1, as in the first phase of meta-training, and in the control."""
    params, grads = draw(2), draw(3)
    control = CELO.pass_through(5)
    first_phase = dataclasses.replace(CELO, unit_multiplier=True)
    one_network = {**theta, "ff_mod_stack": control["ff_mod_stack"]}
    for architecture, weights in ((first_phase, one_network), (CELO, control)):
        tx = architecture.transform(weights)
        updates, _ = jax.jit(tx.update)(grads, tx.init(params), params, value=1.0)
        for name, p in params.items():
            m = 0.001 * grads[name]
            wanted = m / np.sqrt(1e-5 + np.mean(m**2))
            wanted *= -1e-3 * np.sqrt(np.mean(p**2))
            np.testing.assert_allclose(updates[name], wanted, 1e-4, 1e-9)


def test_bad_input(theta):
    with pytest.raises(ValueError, match="num_steps must be an integer >= 1"):
        lopt.celo(0)
    with pytest.raises(ValueError, match="does not belong to Celo"):
        lopt.celo(10).transform(theta)
    tx, params = CELO.transform(theta), {"w": jnp.ones(3)}
    with pytest.raises(TypeError, match="Celo looks at the loss"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="params=None"):
        tx.update(params, tx.init(params), value=1.0)
