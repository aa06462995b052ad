import jax
import jax.numpy as jnp
import optax
import pytest

from contracts.registry import PARAMS


@pytest.fixture(params=PARAMS)
def optimizer(request):
    return request.param


@pytest.fixture
def tx(optimizer):
    return optimizer()


@pytest.fixture
def params():
    return {"w": jnp.linspace(-2.0, 2.0, 16).reshape(8, 2)}


@pytest.fixture
def leaves(params):
    return {**params, "b": jnp.linspace(-1.0, 1.0, 8)}


def gradient(params, i):
    """Of a quadratic bowl that swings, so that no moment has a trivial value."""
    return jax.tree.map(lambda p: p - 0.3 * jnp.cos(1.0 + i), params)


@pytest.fixture
def train():
    """`train(tx, params, steps=4)`: parameters and state after jitted updates."""

    def run(tx, params, state=None, start=0, steps=4):
        @jax.jit
        def step(params, state, i):
            grads = jax.tree.map(
                lambda g, p: g.astype(p.dtype), gradient(params, i), params
            )
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        state = tx.init(params) if state is None else state
        for i in range(start, start + steps):
            params, state = step(params, state, jnp.float32(i))
        return params, state

    return run
