"""Memory: what is not learned keeps no buffer, and what is kept is donated."""

import jax
import jax.numpy as jnp
import pytest

import mada_optax
from mada_optax import mada

SIZE = 100_000
B3_FIXED = ("b1", "b2", "c", "rho", "gamma")
GAMMA_FIXED = ("b1", "b2", "b3", "c", "rho")
INTERIOR = {"b3": 0.3, "c": 0.7, "rho": 0.4, "gamma": 0.6}

FLOATS = {
    "adam": (mada_optax.adam(1e-3), 2),
    "yogi": (mada_optax.yogi(1e-3), 2),
    "lion": (mada_optax.lion(1e-3), 1),
    "amsgrad": (mada_optax.amsgrad(1e-3), 3),
    "avgrad": (mada_optax.avgrad(1e-3), 3),
    "adan": (mada_optax.adan(1e-3), 4),
    "fixed_at_lion": (mada(1e-3, learn=(), gamma=0.0), 1),
    "fixed_at_adam": (mada(1e-3, learn=()), 2),
    "fixed_all_branches": (mada(1e-3, learn=(), **INTERIOR), 6),
    "hyper_adam": (mada_optax.hyper_adam(1e-3), 3),
    "b1_b2": (mada(1e-3, learn=("b1", "b2")), 3),
    "b1_b2_c_rho": (mada(1e-3, learn=("b1", "b2", "c", "rho")), 4),
    "b3_fixed": (mada(1e-3, learn=B3_FIXED), 5),
    "gamma_fixed": (mada(1e-3, learn=GAMMA_FIXED), 6),
    "all": (mada(1e-3), 7),
    "all_x_first": (mada(1e-3, update_order="x_first"), 7),
    "all_but_true_previous_gradient": (mada(1e-3, prev_grad="zero"), 6),
}


def floats_per_parameter(state):
    leaves = jax.tree.leaves(state)
    return sum(x.size * x.dtype.itemsize for x in leaves) / 4 / SIZE


@pytest.mark.parametrize("name", FLOATS)
def test_floats_of_state_per_parameter(name):
    tx, floats = FLOATS[name]
    params = {"w": jnp.ones((SIZE // 2,)), "b": jnp.ones((SIZE // 2,))}
    state = jax.jit(tx.init)(params)
    assert floats <= floats_per_parameter(state) < floats + 1e-3

    update = jax.jit(tx.update, donate_argnums=(0, 1))
    memory = update.lower(params, state, params).compile().memory_analysis()
    # All but the scalars of the state is written where it was.
    assert memory.alias_size_in_bytes >= (floats + 1) * 4 * SIZE

    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert floats <= floats_per_parameter(jax.eval_shape(tx.init, low)) < floats + 1e-3


@pytest.mark.parametrize("name", ["adam", "hyper_adam", "all"])
def test_an_update_needs_little_beyond_the_state(name):
    """Large leaves, one of them odd; in floats per parameter."""
    tx, _ = FLOATS[name]
    shapes = [(1000, 1000), (1000, 1000), (1_000_001,)]
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    update = jax.jit(tx.update, donate_argnums=(0, 1))
    lowered = update.lower(params, jax.eval_shape(tx.init, params), params)
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    assert temporary / 4 / 3_000_001 < (0.1 if name == "adam" else 2.5)
