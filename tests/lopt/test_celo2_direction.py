"""Celo2's direction: published numbers, a reference, invariances, known optimizers."""

import celo2_reference as reference
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lopt
from lopt.orthogonalization import orthogonalize

# Of the third call, for the indexed weights, parameters and gradients.
PUBLISHED = {
    ((2, 5), True): "-0.3761559 -0.1406935 1.3836771 1.2066846 1.2002611 "
    "1.7929238 1.3248050 0.0019242 0.1918340 0.1447304",
    ((2, 5), False): "0.9562816 0.8188323 1.1327741 1.1219197 1.0834632 "
    "1.0477928 0.8709724 0.9767849 0.9910902 0.9520684",
    ((4,), False): "0.9675690 0.8908860 1.0524597 1.0781748",
}
MATRICES = ((3, 3), (2, 5), (5, 2), (2, 2, 3, 4))
THETA = reference.indexed_theta()
LEARNED = {o: lopt.scale_by_celo2(THETA, orthogonalize=o) for o in (True, False)}
UPDATE = {o: jax.jit(tx.update) for o, tx in LEARNED.items()}


def trees(shapes, t):
    """Parameters and gradients, by shape."""
    params = {str(s): np.float32(reference.indexed_param(s)) for s in shapes}
    return params, {str(s): np.float32(reference.indexed_grad(s, t)) for s in shapes}


@pytest.mark.parametrize("variant", [True, False], ids=["orthogonalized", "base"])
def test_published_numbers_and_the_reference(variant):
    """In the last call, gradients are beyond what they are clipped to."""
    shapes = MATRICES if variant else (*MATRICES, (4,), ())
    rules = {s: reference.Celo2Reference(THETA, orthogonalize=variant) for s in shapes}
    params, _ = trees(shapes, 0)
    state = LEARNED[variant].init(params)
    for t, scale in enumerate((1, 1, 1, 1e5)):
        grads = optax.tree.scale(np.float32(scale), trees(shapes, t)[1])
        updates, state = UPDATE[variant](grads, state, params)
        for shape, rule in rules.items():
            grad = scale * reference.indexed_grad(shape, t)
            expected = rule(reference.indexed_param(shape), grad)
            ours = updates[str(shape)]
            most = np.abs(expected).max()
            close = 2e-5 if scale == 1 else 1e-3
            np.testing.assert_allclose(ours, expected, atol=close * most)
            if t == 2 and (shape, variant) in PUBLISHED:
                published = np.array(PUBLISHED[shape, variant].split(), float)
                np.testing.assert_allclose(expected.ravel(), published, atol=1e-6)
                np.testing.assert_allclose(np.ravel(ours), published, atol=2e-5 * most)
            rms = np.sqrt(np.mean(ours**2, tuple(range(-min(len(shape), 2), 0))))
            np.testing.assert_allclose(rms, 1, atol=1e-4)


def test_singular_values_come_near_one():
    x = jax.random.normal(jax.random.key(0), (2, 24, 8))
    assert orthogonalize(x).shape == x.shape
    values = np.linalg.svd(orthogonalize(x), compute_uv=False)
    assert values.min() > 0.65 and values.max() < 1.25
    np.testing.assert_allclose(orthogonalize(x[0].T), orthogonalize(x)[0].T, atol=1e-5)
    with pytest.raises(ValueError, match=r"x has shape \(3,\), but only matrices"):
        orthogonalize(jnp.ones(3))


def scale_free():
    """Without the kinds of features whose squares are below the epsilon of the mean."""
    stack = dict(THETA["ff_mod_stack"])
    return {
        "ff_mod_stack": stack | {f"w0__{i}": 0 * stack[f"w0__{i}"] for i in (4, 9, 10)}
    }


@settings(max_examples=20, deadline=None)
@given(
    of_params=st.floats(1e-2, 1e3),
    of_grads=st.floats(0.9, 1.9),
    order=st.permutations(range(3)),
    variant=st.booleans(),
)
def test_scales_do_not_matter_and_rows_may_be_permuted(
    of_params, of_grads, order, variant
):
    """Gradients stay below 0.1 and far above the epsilons."""
    order, theta = np.array(order), jax.tree.map(np.float32, scale_free())
    p = reference.indexed_param((3, 3))
    plain = changed = LEARNED[variant].init(np.float32(p))._replace(hyperparams=theta)
    for t in range(2):
        g = reference.indexed_grad((3, 3), t)
        g = np.sign(g) * (0.04 + 0.2 * np.abs(g))
        u, plain = UPDATE[variant](np.float32(g), plain, np.float32(p))
        other_p, other_g = of_params * p[order], of_grads * g[order]
        v, changed = UPDATE[variant](np.float32(other_g), changed, np.float32(other_p))
    np.testing.assert_allclose(v, u[order], atol=3e-2)


def test_leading_axes_are_independent_matrices():
    theta = lopt.celo2.pass_through("muon")
    tx = lopt.scale_by_celo2(theta, reshape=lambda path, shape: shape)
    p, g = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    update = jax.jit(tx.update)
    together = update(g, tx.init(p), p)[0]
    one_by_one = [update(g[i], tx.init(p[i]), p[i])[0] for i in range(3)]
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_vmap_is_a_loop():
    p, g = jax.random.normal(jax.random.key(1), (2, 3, 3, 3))
    for variant, tx in LEARNED.items():
        states = jax.vmap(tx.init)(p)
        mapped = jax.jit(jax.vmap(tx.update))(g, states, p)[0]
        looped = [UPDATE[variant](g[i], tx.init(p[i]), p[i])[0] for i in range(3)]
        np.testing.assert_allclose(mapped, looped, atol=1e-5)


def normalized(tree):
    return jax.tree.map(lambda x: x / jnp.sqrt(jnp.mean(x**2)), tree)


def test_pass_through_is_muon_and_adam():
    """Their bias corrections are numbers, which the normalization takes away."""
    params = {"tall": jnp.ones((8, 3)), "wide": jnp.ones((2, 5))}
    axes = jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)
    muon = optax.contrib.scale_by_muon(
        beta=0.9, nesterov=False, weight_dimension_numbers=axes
    )
    adam = optax.scale_by_adam(0.9, 0.95, eps=0.0, eps_root=1e-8)
    for rule, theirs in (("muon", muon), ("adam", adam)):
        tx = lopt.scale_by_celo2(
            lopt.celo2.pass_through(rule), orthogonalize=rule == "muon"
        )
        update, their_update = jax.jit(tx.update), jax.jit(theirs.update)
        state, their_state = tx.init(params), theirs.init(params)
        for t in range(3):
            keys = jax.random.split(jax.random.key(t), 2)
            grads = {
                name: jax.random.normal(key, p.shape)
                for key, (name, p) in zip(keys, params.items(), strict=True)
            }
            ours, state = update(grads, state, params)
            expected, their_state = their_update(grads, their_state, params)
            chex.assert_trees_all_close(ours, normalized(expected), atol=2e-5)


def test_any_feature_passes_through_exactly():
    """Row 17 of 30 is the third kind of rows; outputs are the feature, normalized."""
    tx = lopt.scale_by_celo2(lopt.celo2.pass_through(17), orthogonalize=False)
    params, grads = trees(((2, 5),), 0)
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    row = jnp.broadcast_to(state.accumulators.rows[2]["(2, 5)"], (2, 5))
    np.testing.assert_allclose(updates["(2, 5)"], normalized(row), rtol=2e-3)
    for rule in ("lion", 30, -1):
        with pytest.raises(ValueError, match="rule must be one of"):
            lopt.celo2.pass_through(rule)


@pytest.mark.parametrize("variant", [True, False], ids=["orthogonalized", "base"])
def test_zero_gradients_and_low_precision(variant):
    """Finite, and so is what truncated backprop would see."""
    tx = LEARNED[variant]
    params = {"z": jnp.zeros((2, 3)), "w": jnp.ones((2, 3), jnp.bfloat16)}
    grads = jax.tree.map(jnp.zeros_like, params)
    start = tx.init(params)
    dtypes = {x.dtype for x in jax.tree.leaves(start.accumulators)}
    assert dtypes == {jnp.dtype(jnp.float32)}

    def total(theta, grads):
        state = start._replace(hyperparams=theta)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
        assert updates["w"].dtype == jnp.bfloat16
        return sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(updates))

    gradient = jax.jit(jax.value_and_grad(total, (0, 1)))(start.hyperparams, grads)
    chex.assert_tree_all_finite(gradient)


def test_three_axes_are_seen_as_one_says():
    """The rule sees the merged leaf, statistics too; momenta have the leaf's shape."""
    p, g = jax.random.normal(jax.random.key(2), (2, 4, 2, 3))
    plain = LEARNED[True]
    wide_p, wide_g = p.reshape(4, 6), g.reshape(4, 6)
    expected, _ = UPDATE[True](wide_g, plain.init(wide_p), wide_p)
    for reshape in ("merge", lambda path, shape: (shape[0], -1)):
        tx = lopt.scale_by_celo2(THETA, reshape=reshape)
        start = tx.init({"kernel": p})
        updates, state = jax.jit(tx.update)({"kernel": g}, start, {"kernel": p})
        np.testing.assert_allclose(updates["kernel"].reshape(4, 6), expected, atol=1e-5)
        assert state.accumulators.momenta[0]["kernel"].shape == (4, 2, 3)
        assert state.accumulators.rows[0]["kernel"].shape == (4, 1)
        chex.assert_trees_all_equal_shapes_and_dtypes(start, state)


@pytest.mark.parametrize(
    ("shape", "reshape", "message"),
    [
        ((3,), None, r"\['x'\] of shape \(3,\) cannot be orthogonalized.*lopt.Celo2"),
        (
            (2, 3, 4),
            None,
            r"'x' of shape \(2, 3, 4\) has 3 axes.*'merge' for \(2, 12\)",
        ),
        ((2, 6), lambda *_: (3, 5), r"reshape gives \(3, 5\) for the parameter 'x'"),
        ((2, 6), lambda *_: (12,), "at least 2 axes"),
        ((2, 6), lambda *_: (-1, 5), "as many numbers"),
    ],
)
def test_leaves_that_are_no_matrices(shape, reshape, message):
    tx = lopt.scale_by_celo2(THETA, reshape=reshape)
    with pytest.raises(ValueError, match=message):
        tx.init({"x": jnp.ones(shape)})


def test_mistakes_before_anything_is_compiled():
    other = lopt.small_fc().init(jax.random.key(0))
    with pytest.raises(ValueError, match="theta does not belong to Celo2"):
        lopt.scale_by_celo2(other)
    with pytest.raises(ValueError, match="reshape is 'flat'; it must be None, 'merge'"):
        lopt.scale_by_celo2(THETA, reshape="flat")
    tx = LEARNED[True]
    x = jnp.ones((2, 2))
    with pytest.raises(ValueError, match="params=None"):
        tx.update(x, tx.init(x))
    with pytest.raises(ValueError, match="Complex parameters are not supported"):
        tx.init(x * 1j)
