import jax
import jax.numpy as jnp
import optax
import pytest
from inner_toys import follow, sgd

import mada_optax
from lopt import door

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
MASK = {"w": True, "b": False}


def jitted(tx):
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


@pytest.mark.parametrize(
    "tx",
    [
        sgd(),
        optax.chain(optax.clip(1.0), optax.chain(sgd(), optax.identity())),
        optax.named_chain(("clip", optax.clip(1.0)), ("sgd", sgd())),
        optax.masked(sgd(), MASK),
        optax.MultiSteps(sgd(), 2),
        optax.partition({"a": sgd(), "b": optax.sgd(1.0)}, {"w": "a", "b": "b"}),
    ],
)
def test_the_field_is_found_and_set_anywhere(tx):
    state = tx.init(PARAMS)
    assert door.get(state) == {"learning_rate": pytest.approx(0.3)}
    after = door.put(state, {"learning_rate": jnp.float32(2.0)})
    assert door.get(after) == {"learning_rate": 2.0}
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert door.get(state) == {"learning_rate": pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("tx", "count"), [(optax.adam(1e-3), 0), (optax.chain(sgd(), sgd()), 2)]
)
def test_no_field_or_several_are_refused(tx, count):
    with pytest.raises(ValueError, match=f"exactly one field.*got {count}"):
        door.get(jax.eval_shape(tx.init, PARAMS))


def test_some_names_of_a_dict_or_of_a_named_tuple():
    adam = door.get(optax.inject_hyperparams(optax.adam)(1e-3).init(PARAMS))
    filled = door.fill(adam, {"b1": 0.5})
    assert filled["b1"] == 0.5 and filled["b2"] == adam["b2"]
    mada = door.get(mada_optax.mada(1e-3).init(PARAMS))
    filled = door.fill(mada, {"rho": jnp.float32(0.25)})
    assert filled.rho == 0.25 and filled.b1 == mada.b1
    assert type(filled) is type(mada)


def test_values_take_the_dtype_of_what_they_replace():
    old = {"rate": jnp.bfloat16(1)}
    assert door.fill(old, {"rate": jnp.float32(2)})["rate"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 1.0}, r"names \['lr'\], but .* have \['b', 'rate'\]"),
        ({}, "theta has the names"),
        ({"rate": jnp.zeros(2)}, r"hyperparams\['rate'\] has shape \(\), .* \(2,\)"),
        ({"b": {"z": jnp.zeros(3)}}, "theta does not fit"),
        (jnp.zeros(3), "theta does not fit"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        door.fill({"rate": jnp.float32(1), "b": {"w": jnp.zeros(3)}}, values)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        jitted,
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.masked(tx, MASK),
        lambda tx: optax.MultiSteps(tx, 2),
        lambda tx: optax.chain(tx, optax.clip(1.0)),
    ],
)
def test_what_update_passes_through_stays(wrap):
    assert door.moved(wrap(sgd()), PARAMS) == {"learning_rate": False}


def test_what_an_optimizer_learns_or_schedules_moves():
    assert all(jax.tree.leaves(door.moved(mada_optax.mada(1e-3), PARAMS)))
    assert door.moved(follow(moves=True), {"x": jnp.ones(1)}) is True
    assert door.moved(follow(), {"x": jnp.ones(1)}) is False
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    scheduled = optax.inject_hyperparams(optax.sgd)(schedule, 0.9)
    assert door.moved(scheduled, PARAMS) == {"learning_rate": True, "momentum": False}
    learning = mada_optax.hypergradient(sgd(), optax.sgd(0.1))
    assert door.moved(jitted(learning), PARAMS) == {"learning_rate": True}
