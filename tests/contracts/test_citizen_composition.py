"""Inside Optax's combinators and Flax's training loop, an optimizer stays itself."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

close = dict(rtol=2e-5, atol=2e-6)


def test_chain_and_named_chain(tx, params, train):
    expected, _ = train(tx, params)
    off = (optax.clip_by_global_norm(1e9), optax.scale(1.0))
    chain = optax.chain(off[0], tx, off[1])
    named = optax.named_chain(("clip", off[0]), ("optimizer", tx), ("scale", off[1]))
    for combined in (chain, named):
        chex.assert_trees_all_close(train(combined, params)[0], expected, **close)


def test_chain_before_clipping_and_after_decay(tx, params, train):
    combined = optax.chain(
        optax.add_decayed_weights(0.1), tx, optax.clip_by_global_norm(1e-3)
    )
    after, state = train(combined, params, steps=2)
    change = optax.tree.norm(jax.tree.map(jnp.subtract, after, params))
    assert 0 < change <= 2.001e-3
    chex.assert_tree_all_finite(state)


def test_masked(tx, params, leaves, train):
    """The leaf that is left out gets its gradient as it is; the other does not care."""
    alone, _ = train(tx, params)
    after, _ = train(optax.masked(tx, {"b": False, "w": True}), leaves)
    chex.assert_trees_all_close(after["w"], alone["w"], **close)


def test_masked_to_nothing(tx, params):
    nothing = optax.masked(tx, {"w": False})
    updates, _ = nothing.update(params, nothing.init(params), params)
    chex.assert_trees_all_equal(updates, params)


def test_partition(tx, params, leaves, train):
    groups = {"ours": tx, "none": optax.set_to_zero()}
    combined = optax.partition(groups, {"b": "none", "w": "ours"})
    after, _ = train(combined, leaves)
    alone, _ = train(tx, params)
    chex.assert_trees_all_close(after["w"], alone["w"], **close)
    np.testing.assert_array_equal(after["b"], leaves["b"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_multi_steps(tx, params, dtype):
    """Two halves of a gradient are worth their mean, once."""
    params = optax.tree.cast(params, dtype)
    steps = optax.MultiSteps(tx, every_k_schedule=2)
    update, state = jax.jit(steps.update), steps.init(params)
    grads = jax.tree.map(lambda p: p * 0 + 1, params)
    none, first = update(jax.tree.map(lambda g: 2 * g, grads), state, params)
    updates, second = update(jax.tree.map(jnp.zeros_like, grads), first, params)

    assert not any(leaf.any() for leaf in jax.tree.leaves(none))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, second)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    expected, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-2, atol=1e-6)


def test_apply_if_finite(tx, params):
    guarded = optax.apply_if_finite(tx, max_consecutive_errors=5)
    update, state = jax.jit(guarded.update), guarded.init(params)
    _, state = update(params, state, params)
    broken = {"w": params["w"].at[0].set(jnp.nan)}
    updates, after = update(broken, state, params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(updates))
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    assert after.total_notfinite == 1


def test_conditionally_transform(tx, params):
    """Transforms every other gradient, and keeps its state in between."""
    wrapped = optax.transforms.conditionally_transform(tx, lambda step: step % 2 == 0)
    update, state = jax.jit(wrapped.update), wrapped.init(params)
    first, state = update(params, state, params)
    second, state = update(params, state, params)
    expected, _ = jax.jit(tx.update)(params, tx.init(params), params)
    chex.assert_trees_all_close(first, expected, **close)
    chex.assert_trees_all_equal(second, params)


def test_lookahead(tx, params):
    slow = optax.lookahead(tx, sync_period=2, slow_step_size=0.5, reset_state=True)
    pair = optax.LookaheadParams.init_synced(params)
    update, state = jax.jit(slow.update), slow.init(pair)
    for _ in range(4):
        updates, state = update(pair.fast, state, pair)
        pair = optax.apply_updates(pair, updates)
    chex.assert_trees_all_close(pair.fast, pair.slow)
    assert optax.tree.norm(pair.slow) < optax.tree.norm(params)
    start = tx.init(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state.fast_state, start)
    chex.assert_trees_all_close(state.fast_state, start, atol=1e-7)


def test_split_real_and_imaginary(tx, params):
    """Complex parameters are twice as many real ones."""
    wrapped = optax.contrib.split_real_and_imaginary(tx)
    real, imaginary = params["w"], 2 - params["w"] ** 2
    z = {"z": real + 1j * imaginary}
    updates, _ = jax.jit(wrapped.update)(z, wrapped.init(z), z)
    pair = {"r": real, "i": imaginary}
    expected, _ = jax.jit(tx.update)(pair, tx.init(pair), pair)
    joined = expected["r"] + 1j * expected["i"]
    chex.assert_trees_all_close(updates["z"], joined, **close)


def test_nnx_optimizer(tx):
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    inputs = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)

    def loss_fn(model):
        return jnp.mean((model(inputs) - 1) ** 2)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    losses = [step(model, optimizer) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_unknown_extra_arguments(tx, params):
    grads, state = params, tx.init(params)
    update = jax.jit(tx.update)
    expected = update(grads, state, params)[0]
    got = update(grads, state, params, value=jnp.ones(()), something=1)[0]
    chex.assert_trees_all_close(got, expected, **close)


def test_without_parameters(tx, params):
    """Works, or says that parameters are needed."""
    grads, state = params, tx.init(params)
    try:
        updates, _ = tx.update(grads, state)
    except ValueError as error:
        assert "params=None" in str(error)
    else:
        chex.assert_trees_all_close(updates, tx.update(grads, state, params)[0])
