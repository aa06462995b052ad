"""The harness of Celo2: who has the learned rule, who Adam, how large steps are."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lopt
from lopt import door

MUON = lopt.celo2.pass_through("muon")
PARAMS = {
    "token_embedding": {"table": jnp.linspace(-1, 1, 12).reshape(4, 3)},
    "hidden": {"kernel": jnp.linspace(1, 2, 6).reshape(3, 2), "bias": jnp.ones(2)},
    "readout": {"kernel": jnp.linspace(-2, 1, 8).reshape(2, 4)},
}


def gradient(t):
    return jax.tree.map(lambda p: jnp.sin(3 * p + t), PARAMS)


def updates_of(tx, steps=2):
    """Of the last of some steps; parameters stay."""
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for t in range(steps):
        updates, state = update(gradient(t), state, PARAMS)
    return updates, state


@functools.cache
def plain_updates():
    return updates_of(lopt.celo2(1.0).transform(MUON))[0]


def test_matrices_learn_and_the_rest_has_adamw():
    updates, state = updates_of(lopt.celo2(1e-2, weight_decay=0.1).transform(MUON))
    assert list(door.get(state)) == ["ff_mod_stack"]
    # An epsilon under the root, too, which is not that of AdamW.
    expected, _ = updates_of(optax.adamw(0.2, 0.9, 0.95, weight_decay=0.1))
    for name, key in (("token_embedding", "table"), ("hidden", "bias")):
        np.testing.assert_allclose(updates[name][key], expected[name][key], rtol=1e-5)
    for name in ("hidden", "readout"):
        step = plain_updates()[name]["kernel"] - 0.1 * PARAMS[name]["kernel"]
        np.testing.assert_allclose(updates[name]["kernel"], 1e-2 * step, rtol=2e-5)
        rms = jnp.sqrt(jnp.mean(plain_updates()[name]["kernel"] ** 2))
        np.testing.assert_allclose(rms, 1, atol=1e-4)


def test_adam_without_bias_correction():
    """And with another multiplier and other decays."""
    architecture = lopt.celo2(
        1.0, adam_multiplier=3.0, adam_b1=0.8, adam_b2=0.9, adam_bias_correction=False
    )
    bias = updates_of(architecture.transform(MUON))[0]["hidden"]["bias"]
    first, second = (gradient(t)["hidden"]["bias"] for t in range(2))
    m = 0.8 * 0.2 * first + 0.2 * second
    v = 0.9 * 0.1 * first**2 + 0.1 * second**2
    np.testing.assert_allclose(bias, -3 * m / (jnp.sqrt(v) + 1e-8), rtol=1e-5)


def test_base_has_the_learned_rule_for_all_leaves():
    theta = lopt.celo2.pass_through("adam")
    updates, _ = updates_of(lopt.celo2(0.5, orthogonalize=False).transform(theta))
    expected, _ = updates_of(lopt.scale_by_celo2(theta, orthogonalize=False))
    half = jax.tree.map(lambda u: -0.5 * u, expected)
    chex.assert_trees_all_close(updates, half, rtol=1e-5)


def test_the_readout_is_up_to_the_user():
    labels = functools.partial(lopt.celo2_labels, adam=("embed", "readout"))
    of_function = lopt.celo2(1.0, label_fn=labels).transform(MUON)
    adam = updates_of(optax.adam(20.0, 0.9, 0.95))[0]["readout"]["kernel"]
    np.testing.assert_allclose(
        updates_of(of_function)[0]["readout"]["kernel"], adam, rtol=1e-5
    )
    tree = {"hidden": {"kernel": "learned", "bias": "adam"}}
    tree |= {"token_embedding": "adam", "readout": "learned"}
    of_tree = lopt.celo2(1.0, label_fn=tree).transform(MUON)
    chex.assert_trees_all_close(updates_of(of_tree)[0], plain_updates())


def test_schedules_clipping_and_width_multipliers():
    schedule = optax.linear_schedule(1.0, 0.0, 2)
    multipliers = {"hidden": 4.0, "readout": 1.0, "token_embedding": 1.0}
    tx = lopt.celo2(schedule).transform(MUON, width_multipliers=multipliers)
    updates, _ = updates_of(tx)
    for name, factor in (("hidden", 0.125), ("readout", 0.5), ("token_embedding", 0.5)):
        expected = optax.tree.scale(factor, plain_updates()[name])
        chex.assert_trees_all_close(updates[name], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="has nothing for the parameter"):
        updates_of(lopt.celo2().transform(MUON, width_multipliers={"hidden": 2.0}))

    _, state = updates_of(lopt.celo2(clip_norm=0.5).transform(MUON), steps=1)
    momentum = optax.tree.get(state, "accumulators").momenta[0]["hidden"]["kernel"]
    grads = gradient(0)
    expected = 0.1 * 0.5 / optax.tree.norm(grads) * grads["hidden"]["kernel"]
    np.testing.assert_allclose(momentum, expected, rtol=1e-5)


@pytest.mark.parametrize("rule", ["muon", "adam"])
def test_controls_have_names(rule):
    theta, metadata = lopt.load_pretrained(f"celo2_{rule}")
    chex.assert_trees_all_equal(theta, lopt.celo2.pass_through(rule))
    assert metadata["architecture"]["orthogonalize"] == (rule == "muon")
    tx = lopt.from_pretrained(f"celo2_{rule}", learning_rate=1e-2)
    assert door.get(tx.init(PARAMS)).keys() == theta.keys()


def test_random_theta_is_spread_over_the_layers():
    stack = lopt.celo2().init(jax.random.key(0))["ff_mod_stack"]
    assert sum(x.size for x in stack.values()) == 347
    first = np.concatenate([stack[f"w0__{i}"] for i in range(14)])
    assert first.shape == (30, 8)
    assert 0.8 < first.std() * 30**0.5 < 1.05
    assert 0.6 < stack["w1"].std() * 8**0.5 < 1.1
    assert not any(stack[f"b{i}"].any() for i in range(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adam_multiplier": 0.0}, "adam_multiplier must be a finite number > 0"),
        ({"adam_b2": 1.0}, "adam_b2 must be at least 0 and below 1, got 1.0"),
        ({"clip_norm": -1.0}, "clip_norm must be a finite number > 0, got -1.0"),
        ({"reshape": "flat"}, "reshape is 'flat'"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        lopt.celo2(**options)


def test_mistakes_that_the_parameters_show():
    everything = lopt.celo2(label_fn="learned").transform(MUON)
    with pytest.raises(ValueError, match=r"\['bias'\].*cannot be orthogonalized"):
        everything.init(PARAMS)
    with pytest.raises(ValueError, match=r"'query' of shape \(4, 2, 3\) has 3 axes"):
        lopt.celo2().transform(MUON).init({"query": jnp.ones((4, 2, 3))})
    with pytest.raises(ValueError, match="Complex parameters are not supported"):
        lopt.celo2().transform(MUON).init({"b": jnp.ones(2) * 1j})
    with pytest.raises(ValueError, match="theta does not belong to Celo2"):
        lopt.celo2().transform({"ff_mod_stack": {}})
