"""Properties of the update that need no recorded run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import PARAMS, trained

from mada_optax import meta_adamw
from mada_optax.meta_adamw.features import Leaf, standardize, time_feature
from mada_optax.meta_adamw.options import FEATURES

LEAVES = jax.tree.leaves(PARAMS)
THREE = {"layers": ["first", "second"], "head": "head"}


@pytest.mark.parametrize(
    ("features", "groups"),
    [*((name, THREE) for name in FEATURES), ("basic", "original")],
)
def test_a_head_of_zeros_is_adamw(features, groups):
    with jax.enable_x64(True):
        params = optax.tree.cast(PARAMS, jnp.float64)
        options = {"features": features, "groups": groups, "head_init": "zero"}
        tx = meta_adamw(0.1, **options, weight_decay=0.1)
        ours, state, _ = trained(tx, params)
        theirs, _, _ = trained(optax.adamw(0.1, weight_decay=0.1), params)
        chex.assert_trees_all_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert (state.alpha == 1).all() and (state.beta == 1).all()


def test_where_the_released_code_puts_the_decay():
    options = {"head_init": "zero", "weight_decay": 0.3}
    tx = meta_adamw(0.1, **options)
    params, state, grads = trained(tx, steps=2)
    released = meta_adamw(0.1, **options, decay_scaling="bias_corrected")
    plain, _ = jax.jit(tx.update)(grads, state, params)
    scaled, _ = jax.jit(released.update)(grads, state, params)
    extra = -0.1 * 0.3 * (1 / (1 - 0.9**3) - 1)
    chex.assert_trees_all_close(
        jax.tree.map(jnp.subtract, scaled, plain),
        jax.tree.map(lambda p: extra * p, params),
        atol=1e-6,
    )


@pytest.mark.parametrize("features", ["basic", "enhanced"])
def test_the_order_of_leaves_is_of_no_consequence(features):
    """Nothing is tied to a position: not a group, not an embedding."""
    one, two = jnp.linspace(-1, 1, 6).reshape(2, 3), jnp.ones(4)

    def run(params, labels):
        tx = meta_adamw(0.1, groups=labels, features=features)
        state = tx.init(params)
        for _ in range(3):
            updates, state = jax.jit(tx.update)(params, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    ahead, state = run({"a": one, "b": two}, {"a": "first", "b": "second"})
    behind, other = run({"b": one, "a": two}, {"b": "first", "a": "second"})
    np.testing.assert_allclose(ahead["a"], behind["b"], rtol=1e-6)
    np.testing.assert_allclose(ahead["b"], behind["a"], rtol=1e-6)
    np.testing.assert_allclose(state.alpha, other.alpha, rtol=1e-6)
    if features == "basic":
        _, swapped = run({"a": one, "b": two}, {"a": "second", "b": "first"})
        np.testing.assert_allclose(state.alpha, swapped.alpha[::-1], rtol=1e-6)


def test_time():
    t = jnp.arange(1, 4)
    np.testing.assert_allclose(time_feature(t, None, jnp.float32), jnp.tanh(t / 2000))
    np.testing.assert_allclose(time_feature(t, 2, jnp.float32), t / 2)


def test_features_are_those_before_the_step():
    """t = 1 in the first update, whose moments are still 0."""
    tx = meta_adamw(0.1, groups="original", num_steps=10)
    state = tx.init(PARAMS)
    _, after = jax.jit(tx.update)(PARAMS, state, PARAMS)
    leaves = [Leaf(p, 0 * p, 0 * p, p) for p in jax.tree.leaves(PARAMS)]
    seen = state.hyperparams, leaves, tx.rule.layout(PARAMS), jnp.array(1)
    raw, _ = tx.rule.rows(*seen)
    norm = np.mean([np.linalg.norm(p) for p in jax.tree.leaves(PARAMS)])
    expected = [norm, 0, norm, 0, 0, 0.1, 0, 0]
    np.testing.assert_allclose(raw[0], expected, rtol=1e-6)
    np.testing.assert_allclose(after.alpha, tx.rule.factors(*seen).alpha, rtol=1e-5)


def test_standardized_columns():
    x = jnp.array([[1.0, 5.0, 0.0], [2.0, 5.0, 0.0], [4.0, 5.0, 0.0]])
    expected = (x[:, 0] - 7 / 3) / np.std(x[:, 0], ddof=1)
    np.testing.assert_allclose(standardize(x)[:, 0], expected, rtol=1e-5)
    assert not standardize(x)[:, 1:].any()
    assert not standardize(x[:1]).any()
    near = jnp.array([[1.0], [1.0 + 1e-7], [1.0]])
    assert not standardize(near).any()
    slope = jax.grad(lambda x: jnp.sum(standardize(x) ** 3))(x)
    assert jnp.isfinite(slope).all()


def test_norms_of_one_group_are_finite():
    tx = meta_adamw(0.1, features="norm_basic", groups="original")
    params, state, _ = trained(tx)
    chex.assert_tree_all_finite((params, state))


def test_two_groups_are_a_poor_sample():
    tx = meta_adamw(0.1, features="norm_basic", groups={"a": "x", "b": "y"})
    with pytest.warns(UserWarning, match="two groups"):
        tx.init({"a": jnp.ones(2), "b": jnp.ones(2)})


@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0, 1e6])
def test_factors_stay_in_their_range(size):
    tx = meta_adamw(0.1, alpha_range=0.6, beta_range=0.2, features="basic_plus")
    state = tx.init(PARAMS)
    grads = jax.tree.map(lambda p: jnp.full_like(p, size), PARAMS)
    update = jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(grads, state, PARAMS)
        assert (jnp.abs(state.alpha - 1) <= 0.3 + 1e-6).all()
        assert (jnp.abs(state.beta - 1) <= 0.1 + 1e-6).all()
        chex.assert_tree_all_finite(updates)


def test_base_groups_have_rates_decays_and_betas_of_their_own():
    labels = {"layers": "body", "head": "head"}
    head = {"learning_rate": lambda t: 0.2 / (t + 1), "b1": 0.5, "weight_decay": 0.3}
    tx = meta_adamw(
        0.1,
        weight_decay=0.0,
        base_labels=labels,
        base_groups={"head": head, "nothing has this label": {}},
        head_init="zero",
    )
    ours, _, _ = trained(tx)
    rate = head["learning_rate"]
    theirs, _, _ = trained(
        optax.partition(
            {
                "body": optax.adam(0.1),
                "head": optax.adamw(rate, b1=0.5, weight_decay=0.3),
            },
            labels,
        )
    )
    chex.assert_trees_all_close(ours, theirs, rtol=2e-5, atol=1e-5)
    original = meta_adamw(0.1, base_labels=lambda p: labels, groups="original")
    assert list(original.groups(PARAMS)) == ["body", "head"]


def test_a_mask_says_what_decays():
    mask = {"layers": True, "head": False}
    ours, _, _ = trained(meta_adamw(0.1, mask=mask, head_init="zero", weight_decay=0.1))
    theirs, _, _ = trained(optax.adamw(0.1, mask=mask, weight_decay=0.1))
    chex.assert_trees_all_close(ours, theirs, rtol=2e-5, atol=1e-5)


def test_log1p_of_norms_and_a_last_norm():
    plain = meta_adamw(0.1, groups="original", features="basic_plus")
    log = meta_adamw(
        0.1, groups="original", features="basic_plus", feature_transform="log1p"
    )
    layout, leaves = plain.rule.layout(PARAMS), [Leaf(p, p, p, p) for p in LEAVES]
    hyperparams = plain.init(PARAMS).hyperparams
    rows = [
        tx.rule.rows(hyperparams, leaves, layout, jnp.array(1))[0][0]
        for tx in (plain, log)
    ]
    cosines = np.isin(np.arange(12), (3, 8, 10, 11))  # and the time, and the padding
    expected = np.where(cosines, rows[0], np.log1p(rows[0]))
    np.testing.assert_allclose(rows[1], expected, rtol=1e-5, atol=1e-6)

    last = meta_adamw(0.1, final_norm=True)
    hyperparams = last.init(PARAMS).hyperparams
    assert hyperparams["encoder"]["final_norm"]["scale"].shape == (1, 8)
    big = jax.tree.map(lambda p: 1e4 * p, PARAMS)
    _, state = jax.jit(last.update)(big, last.init(big), big)
    assert (jnp.abs(state.alpha - 1) < 0.499).all()


def test_gates_before_and_after_standardization():
    before, after = (
        meta_adamw(
            0.1,
            groups=THREE,
            features="norm_basic",
            use_feature_gating=True,
            gate_position=where,
        )
        for where in ("before", "after")
    )
    layout, leaves = after.rule.layout(PARAMS), [Leaf(p, p, p, p) for p in LEAVES]
    hyperparams = after.init(PARAMS).hyperparams
    seen = hyperparams, leaves, layout, jnp.array(1)
    (raw, gated), (_, undone) = after.rule.rows(*seen), before.rule.rows(*seen)
    share = jax.nn.sigmoid(1.0)
    np.testing.assert_allclose(gated[:, :5], share * undone[:, :5], rtol=1e-5)
    np.testing.assert_allclose(gated[:, 5], share * raw[:, 5], rtol=1e-6)


def test_the_draw():
    tx = meta_adamw(0.1, attn_layers=3, seed=1, features="enhanced")
    hyperparams = tx.init(PARAMS).hyperparams
    encoder, dim = hyperparams["encoder"], 16
    assert encoder["qkv"]["kernel"].shape == (3, dim, 3 * dim)
    for name, sizes in {
        "qkv": (dim, 3 * dim),
        "up": (dim, 32),
        "down": (32, dim),
    }.items():
        bound = np.sqrt(6 / sum(sizes))
        most = jnp.abs(encoder[name]["kernel"]).max()
        assert 0.95 * bound < most <= bound
    for name, fan in {"up": dim, "down": 32}.items():
        bias = encoder[name]["bias"]
        np.testing.assert_array_equal(bias[0], bias[2])
        assert 0 < jnp.abs(bias).max() <= fan**-0.5
    assert not encoder["qkv"]["bias"].any()
    assert set(hyperparams["group_embeddings"]) == set(tx.groups(PARAMS))
    other = meta_adamw(0.1, attn_layers=3, seed=2, features="enhanced").init(PARAMS)
    assert (other.hyperparams["head"]["kernel"] != hyperparams["head"]["kernel"]).all()
