import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tasks.functional import count_parameters, functional


class Normalized(nnx.Module):
    """Eleven layers, so that "10" sorts before "2", and running statistics."""

    def __init__(self, rngs):
        self.layers = nnx.List(nnx.Linear(3, 3, rngs=rngs) for _ in range(11))
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)

    def __call__(self, x, train=True):
        for layer in self.layers:
            x = layer(x)
        return self.norm(x, use_running_average=not train)


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(x)


@pytest.fixture(scope="module")
def normalized():
    init, apply = functional(Normalized)
    return jax.jit(init), jax.jit(apply, static_argnames="train")


def inputs(rows=5):
    return jax.random.normal(jax.random.key(7), (rows, 3))


def test_parameters_are_plain_dicts_with_string_keys(normalized):
    params, model_state = normalized[0](jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path((params, model_state)):
        assert isinstance(leaf, jax.Array)
        assert all(isinstance(entry.key, str) for entry in path[1:])
    assert type(params) is dict and type(params["layers"]["10"]) is dict


def test_apply_uses_the_layers_in_their_order(normalized):
    init, apply = normalized
    params, model_state = init(jax.random.key(0))
    outputs, _ = apply(params, model_state, inputs(), train=False)
    expected = np.asarray(inputs(), np.float64)
    for i in range(11):
        layer = params["layers"][str(i)]
        expected = expected @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_returned_and_used(normalized):
    init, apply = normalized
    params, before = init(jax.random.key(0))
    _, after = apply(params, before, inputs())
    chex.assert_trees_all_equal(before["norm"]["mean"], jnp.zeros(3))
    identity, _ = apply(params, before, inputs(), train=False)
    mean = identity.mean(0) * np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(after["norm"]["mean"], mean / 2, rtol=1e-4)
    outputs, unchanged = apply(params, after, inputs(), train=False)
    chex.assert_trees_all_equal(unchanged, after)
    assert jnp.abs(outputs - identity).max() > 1e-3


def test_init_and_apply_do_not_change_their_arguments(normalized):
    init, apply = normalized
    params, model_state = init(jax.random.key(0))
    copies = jax.tree.map(jnp.copy, (params, model_state))
    apply(params, model_state, inputs())
    chex.assert_trees_all_equal((params, model_state), copies)
    chex.assert_trees_all_equal(init(jax.random.key(0)), (params, model_state))


def test_vmap_over_seeds_equals_a_loop(normalized):
    init, apply = normalized
    keys = jax.random.split(jax.random.key(1), 3)

    def run(key):
        params, model_state = init(key)
        return params, *apply(params, model_state, inputs())

    together = jax.jit(jax.vmap(run))(keys)
    one_by_one = jax.tree.map(lambda *x: jnp.stack(x), *map(jax.jit(run), keys))
    chex.assert_trees_all_close(together, one_by_one, rtol=1e-5, atol=1e-6)


def test_model_state_is_carried_through_scan(normalized):
    init, apply = normalized
    params, first = init(jax.random.key(0))

    def step(model_state, _):
        _, model_state = apply(params, model_state, inputs())
        return model_state, None

    scanned, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=3))(first)
    stepped = first
    for _ in range(3):
        stepped, _ = step(stepped, None)
    chex.assert_trees_all_close(scanned, stepped, rtol=1e-5)


def test_random_streams_advance_in_the_model_state():
    init, apply = functional(Noisy)
    params, model_state = init(jax.random.key(0))
    assert params == {}
    first, model_state = apply(params, model_state, jnp.ones((8, 8)))
    second, _ = apply(params, model_state, jnp.ones((8, 8)))
    assert (first != second).any()


def test_stateless_modules_have_the_empty_tuple_as_state():
    init, apply = functional(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    params, model_state = init(jax.random.key(0))
    assert model_state == ()
    assert apply(params, (), inputs())[1] == ()


def test_count_parameters(normalized):
    assert count_parameters(normalized[0]) == 11 * (9 + 3) + 6
