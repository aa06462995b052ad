"""Statistics and learned decays, and the errors of what is given with them."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lopt
from lopt import accumulators

ARCHITECTURE = lopt.small_fc(hidden_size=4)
THETA = ARCHITECTURE.init(jax.random.key(0))
PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.ones(3)}


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((64, 64), (0, 1)),
        ((64, 64, 3, 3), (0, 1)),
        ((3, 3, 8, 8), (2, 3)),
        ((5, 5, 3, 2), (0, 1)),
        ((16, 16, 1, 1), (0, 1)),
        ((8, 4, 8), (0, 2)),
        ((9, 1), (1, 0)),
    ],
)
def test_ties_of_axes_keep_their_order(shape, axes):
    assert accumulators.factored_axes(shape) == axes


def test_rates_do_not_cancel():
    """The reference computes 1 - beta from 1 - 0.999f, which is off by 5e-5."""
    offsets = jnp.array([0.1, -0.2, 0.0])
    rates = accumulators.learned_rates((0.1, 0.01, 0.001), offsets)
    exact = np.array([0.1, 0.01, 0.001]) * np.exp(10 * np.array([0.1, -0.2, 0]))
    np.testing.assert_allclose(rates, exact, rtol=5e-7)


def test_only_second_moments_have_decays_in_the_unit_interval():
    """An offset of 0.3 makes the first momentum decay -1.0."""
    theta = {**THETA, "momentum_decays": jnp.full(3, 0.3)}
    theta |= {"rms_decays": jnp.full(1, 1.0), "adafactor_decays": jnp.full(3, 1.0)}
    for clip, first in ((False, 0.1 * np.exp(3.0)), (True, 1.0)):
        architecture = dataclasses.replace(ARCHITECTURE, clip_momentum_decays=clip)
        tx = architecture.transform(theta)
        _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        kept = state.accumulators
        np.testing.assert_allclose(kept.momenta[0]["w"], first * PARAMS["w"], 1e-5)
        np.testing.assert_allclose(kept.second_moments[0]["w"], PARAMS["w"] ** 2, 1e-6)
        np.testing.assert_allclose(kept.rows[2]["b"], PARAMS["b"] ** 2, 1e-6)


def test_transposition():
    state = accumulators.init(PARAMS)
    treedef = jax.tree.structure(PARAMS)
    leaves = accumulators.leaves(state, treedef)
    assert leaves[0].momenta[0].shape == (3,) and leaves[1].cols[2].shape == (4, 1)
    assert leaves[0].cols[0].size == 0 and leaves[1].rows[0].shape == (1, 3)
    again = accumulators.unflatten(leaves, state, treedef)
    chex.assert_trees_all_equal_structs(again, state)


@pytest.mark.parametrize(
    ("clip_norm", "nan_to_zero", "expected"),
    [
        (None, False, [jnp.nan, 3.0, 4.0]),
        (None, True, [0.0, 3.0, 4.0]),
        (1.0, True, [0.0, 0.0, 0.0]),
        (1.0, False, [jnp.nan] * 3),
    ],
)
def test_clipping_comes_before_nan_become_0(clip_norm, nan_to_zero, expected):
    architecture = lopt.small_fc(
        hidden_size=4, clip_norm=clip_norm, nan_to_zero=nan_to_zero
    )
    tx = architecture.transform(THETA)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(2)}
    grads = {"a": jnp.array([jnp.nan]), "b": jnp.array([3.0, 4.0])}
    _, state = tx.update(grads, tx.init(params), params)
    momenta = state.accumulators.momenta[0]
    got = np.concatenate([momenta["a"], momenta["b"]])
    np.testing.assert_allclose(got, 0.1 * np.array(expected), rtol=1e-5)


def test_clipping_to_a_norm():
    tx = lopt.small_fc(hidden_size=4, clip_norm=1.0).transform(THETA)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(2)}
    for scale, kept in ((0.1, 0.5), (1.0, 1.0)):
        grads = {"a": jnp.zeros(1), "b": scale * jnp.array([3.0, 4.0])}
        _, state = tx.update(grads, tx.init(params), params)
        norm = optax.tree.norm(state.accumulators.momenta[0])
        np.testing.assert_allclose(norm, 0.1 * kept, rtol=1e-5)


def test_defaults_of_a_parametrization():
    for name, step, broken in (("mup", 0.01, False), ("sp", 0.001, True)):
        architecture = lopt.small_fc(name, hidden_size=2)
        tx = architecture.transform(architecture.pass_through(0))
        params, grads = {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, -1.0])}
        updates, state = tx.update(grads, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], [-step, step], rtol=1e-4)
        updates, _ = tx.update({"w": jnp.array([jnp.nan, 1.0])}, state, params)
        assert bool(jnp.isnan(updates["w"]).any()) == broken


def test_width_multipliers_are_found_by_path():
    """Also under a mask, and by a prefix of the tree."""
    plain = ARCHITECTURE.transform(THETA)
    expected, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    for multipliers in ({"w": 4.0, "b": 1.0}, {"w": jnp.float32(4.0), "b": 1}):
        tx = ARCHITECTURE.transform(THETA, width_multipliers=multipliers)
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates["w"], expected["w"] / 4, rtol=1e-6)
        np.testing.assert_allclose(updates["b"], expected["b"], rtol=1e-6)
        masked = optax.masked(tx, {"w": True, "b": False})
        updates, _ = masked.update(PARAMS, masked.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates["w"], expected["w"] / 4, rtol=1e-6)
    tx = ARCHITECTURE.transform(THETA, width_multipliers=2.0)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, optax.tree.scale(0.5, expected), rtol=1e-6)


def test_theta_outlives_a_donated_state():
    tx = ARCHITECTURE.transform(THETA)
    step = jax.jit(tx.update, donate_argnums=1)
    step(PARAMS, tx.init(PARAMS), PARAMS)
    step(PARAMS, tx.init(PARAMS), PARAMS)
    assert not any(x.is_deleted() for x in jax.tree.leaves(THETA))


def test_theta_is_passed_through_unchanged():
    """The same variable of the traced program: nothing is computed from it."""
    tx = ARCHITECTURE.transform(THETA)
    state = tx.init(PARAMS)
    traced = jax.make_jaxpr(tx.update)(PARAMS, state, PARAMS).jaxpr
    (_, new) = jax.tree.unflatten(jax.tree.structure((PARAMS, state)), traced.outvars)
    (_, old, _) = jax.tree.unflatten(
        jax.tree.structure((PARAMS, state, PARAMS)), traced.invars
    )
    pairs = zip(*map(jax.tree.leaves, (old.hyperparams, new.hyperparams)), strict=True)
    assert all(before is after for before, after in pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parametrization": "ntk"}, r"parametrization must be one of 'mup', 'sp'"),
        ({"hidden_size": 0}, r"hidden_size must be an integer >= 1, got 0"),
        ({"hidden_size": 4.0}, r"hidden_size must be an integer >= 1, got 4.0"),
        ({"clip_norm": 0.0}, r"clip_norm must be a finite number > 0, got 0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        lopt.small_fc(**options)


def test_bad_trees():
    with pytest.raises(ValueError, match=r"\['b2'\] is missing, not \(2,\)"):
        nn = {k: v for k, v in THETA["nn"].items() if k != "b2"}
        ARCHITECTURE.transform({**THETA, "nn": nn})
    with pytest.raises(ValueError, match=r"\['w1'\] is \(4, 4\), not \(32, 32\)"):
        lopt.small_fc().transform(THETA)
    with pytest.raises(ValueError, match=r"\['lstm'\] is \(\), not expected"):
        ARCHITECTURE.transform({**THETA, "lstm": 1.0})
    with pytest.raises(ValueError, match=r"width_multipliers\['w'\] .* > 0, got -1"):
        ARCHITECTURE.transform(THETA, width_multipliers={"w": -1.0})
    tx = ARCHITECTURE.transform(THETA, width_multipliers={"w": 2.0})
    with pytest.raises(ValueError, match=r"nothing for the parameter \['b'\]"):
        tx.init(PARAMS)
    tx = ARCHITECTURE.transform(THETA)
    with pytest.raises(ValueError, match="params=None"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="split_real_and_imaginary"):
        tx.init({"z": jnp.ones(2, complex)})
    with pytest.raises(ValueError, match=r"feature must be one of"):
        ARCHITECTURE.pass_through(39)
