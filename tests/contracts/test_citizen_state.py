"""The state: strong-typed arrays, one structure for ever, one door."""

import chex
import jax
import jax.numpy as jnp
import optax


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def entries(hyperparams):
    if hasattr(hyperparams, "_asdict"):
        hyperparams = hyperparams._asdict()
    return {name: x for name, x in hyperparams.items() if x is not None}


def test_leaves_are_arrays_without_weak_types(tx, params, train):
    for state in (tx.init(params), train(tx, params, steps=1)[1]):
        for leaf in jax.tree.leaves(state):
            assert isinstance(leaf, jax.Array) and not leaf.weak_type


def test_types_never_change(tx, params, train):
    """Also with leaves of several dtypes, and if the update is jitted or not."""
    mixed = {**params, "h": jnp.ones(3, jnp.bfloat16), "s": jnp.ones(())}
    state = tx.init(mixed)
    after_params, after = train(tx, mixed, steps=2)
    chex.assert_trees_all_equal_structs(state, after)
    assert types(state) == types(after)
    assert types(mixed) == types(after_params)
    assert types(state) == types(jax.jit(tx.init)(mixed))


def test_init_of_shapes(tx, params):
    shapes = jax.eval_shape(lambda: params)
    state = jax.eval_shape(tx.init, shapes)
    assert types(tx.init(params)) == types(state)
    update = jax.eval_shape(tx.update, shapes, state, shapes)
    assert types(update[0]) == types(params)
    chex.assert_trees_all_equal_structs(tx.init(params), tx.init(shapes))


def test_every_buffer_is_its_own(tx, params, train):
    """Else the state could not be donated."""
    for state in (tx.init(params), train(tx, params, steps=1)[1]):
        leaves = [*jax.tree.leaves(params), *jax.tree.leaves(state)]
        pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size]
        assert len(set(pointers)) == len(pointers)


def test_the_door(tx, params):
    """`hyperparams` is found once, and each of its entries can be read and set."""
    state = tx.init(params)
    hyperparams = entries(optax.tree.get(state, "hyperparams"))
    assert hyperparams
    for name, value in hyperparams.items():
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(value))
        assert optax.tree.get(state, name) is value
        half = optax.tree.scale(0.5, value)
        changed = optax.tree.set(state, **{name: half})
        chex.assert_trees_all_equal(optax.tree.get(changed, name), half)
        assert types(changed) == types(state)


def test_updates_obey_the_door(tx, params, train):
    """What is set by hand acts from the next update on, and stays."""
    _, state = train(tx, params, steps=1)
    other = jax.tree.map(lambda x: 0.8 * x, optax.tree.get(state, "hyperparams"))
    by_hand = train(tx, params, optax.tree.set(state, hyperparams=other), steps=2)
    kept = optax.tree.get(by_hand, "hyperparams")
    chex.assert_trees_all_close(kept, other, rtol=0.05, atol=0.05)

    by_itself = train(tx, params, state, steps=2)
    difference = jax.tree.map(
        lambda x, y: jnp.abs(x - y).max(),
        optax.tree.set(by_hand, hyperparams=None),
        optax.tree.set(by_itself, hyperparams=None),
    )
    assert optax.tree.max(difference) > 1e-4


def test_partition_specs_by_map_params(tx, leaves):
    state = tx.init(leaves)
    spec = jax.P("x")
    specs = optax.tree.map_params(
        tx, lambda leaf: spec, state, transform_non_params=lambda leaf: jax.P()
    )

    def is_spec(x):
        return isinstance(x, jax.P)

    # One spec may stand for a subtree, as in `in_shardings`.
    specs = jax.tree.broadcast(specs, state, is_leaf=is_spec)
    found = jax.tree.leaves(specs, is_leaf=is_spec)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    theta = jax.tree_util.GetAttrKey("hyperparams")  # has keys of its own
    of_leaves = [
        theta not in path and path[-1] in map(jax.tree_util.DictKey, leaves)
        for path in paths
    ]
    assert any(of_leaves)
    assert found == [spec if of_leaf else jax.P() for of_leaf in of_leaves]
