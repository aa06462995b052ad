"""Eight devices give the numbers of one, and the state lies with its parameters."""

import chex
import jax
import numpy as np
import pytest

close = dict(rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["auto", "explicit"])
def mesh(request):
    kind = getattr(jax.sharding.AxisType, request.param.capitalize())
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        yield mesh


def spread(leaves, mesh):
    specs = {"w": jax.P("x", None), "b": jax.P()}
    return {
        name: jax.device_put(leaf, jax.NamedSharding(mesh, specs[name]))
        for name, leaf in leaves.items()
    }


def test_numbers_of_one_device(tx, leaves, train, mesh):
    with jax.set_mesh(jax.sharding.Mesh(np.array(jax.devices()[:1]), "x")):
        alone = jax.device_get(train(tx, leaves, steps=3))
    many = train(tx, spread(leaves, mesh), steps=3)
    assert not many[0]["w"].sharding.is_fully_replicated
    chex.assert_trees_all_close(jax.device_get(many), alone, **close)


def test_state_lies_where_the_parameters_lie(tx, leaves, train, mesh):
    params = spread(leaves, mesh)
    start = tx.init(params)
    trained = train(tx, params, start, steps=2)
    for state in (start, trained[1]):
        matrices = [x for x in jax.tree.leaves(state) if x.shape == (8, 2)]
        assert matrices
        for leaf in matrices:
            assert leaf.sharding.is_equivalent_to(params["w"].sharding, 2)
    assert trained[0]["w"].sharding.is_equivalent_to(params["w"].sharding, 2)


def test_types_on_an_explicit_mesh(tx, leaves):
    """The type of the state, in which the sharding is, is the same at all times."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = spread(leaves, mesh)
        eager = tx.init(params)
        updates, after = tx.update(params, eager, params)
        states = [eager, after, jax.jit(tx.init)(params)]
        states.append(jax.jit(tx.update)(params, states[-1], params)[1])
        types = [jax.tree.map(jax.typeof, state) for state in states]
        assert types[0] == types[1] == types[2] == types[3]
        assert jax.tree.map(jax.typeof, updates) == jax.tree.map(jax.typeof, params)
