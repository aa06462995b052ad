"""Trees of any shape, leaves of any size and dtype."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

TREES = {
    "one_number": jnp.float32(2.0),
    "nested": {"a": None, "b": (jnp.ones(()), [jnp.zeros((0, 4)), (jnp.ones(3),)])},
    "empty": {},
}


def one_update(tx, tree):
    return jax.jit(tx.update)(tree, tx.init(tree), tree)


@pytest.mark.parametrize("name", TREES)
def test_trees(tx, name):
    tree = TREES[name]
    updates, state = one_update(tx, tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, tree)
    chex.assert_tree_all_finite((updates, state))
    moved = optax.tree.norm(updates)
    assert (moved > 0) == bool(jax.tree.leaves(tree))


def test_low_precision(tx, params, train):
    """Parameters are low, their arithmetic is not: the update is the float32 one."""
    low = optax.tree.cast(params, jnp.bfloat16)
    updates, state = one_update(tx, low)
    assert updates["w"].dtype == jnp.bfloat16
    expected, _ = one_update(tx, optax.tree.cast(low, jnp.float32))
    np.testing.assert_allclose(
        updates["w"].astype(jnp.float32), expected["w"], rtol=1e-2, atol=1e-7
    )
    for leaf in jax.tree.leaves(optax.tree.get(state, "hyperparams")):
        assert leaf.dtype == jnp.float32
    after, state = train(tx, low, steps=6)
    chex.assert_tree_all_finite((after, state))


def test_float32_gradients_of_low_parameters(tx, params):
    """Updates come in the dtype of the parameters, moments stay as they are."""
    low = optax.tree.cast(params, jnp.bfloat16)
    state = tx.init(low)
    updates, after = jax.jit(tx.update)(params, state, low)
    assert updates["w"].dtype == jnp.bfloat16
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


def test_complex_parameters_have_one_clear_answer(tx):
    """Either they work, or there is an error that says what to do."""
    z = {"z": jnp.array([1.0 + 1.0j])}
    try:
        updates, _ = one_update(tx, z)
    except ValueError as error:
        assert "omplex" in str(error) and "split_real_and_imaginary" in str(error)
    else:
        assert updates["z"].dtype == z["z"].dtype
