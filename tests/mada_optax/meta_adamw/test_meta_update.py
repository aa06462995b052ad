"""Properties of the meta update that need no recorded run."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import PARAMS, batches, loss, trained

import mada_optax
from mada_optax import meta_adamw
from mada_optax.meta_adamw.objectives import regularizers

EVERYTHING = {
    "features": "enhanced",
    "use_feature_gating": True,
    "groups": {"layers": "body", "head": "head"},
    "attn_hidden_dim": 8,
    "weight_decay": 0.3,
}


def tangent(tree, seed=0):
    """A direction of length 1 for every leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [
        jax.random.normal(key, x.shape, x.dtype)
        for key, x in zip(keys, leaves, strict=True)
    ]
    return treedef.unflatten([x / jnp.linalg.norm(x) for x in drawn])


@functools.cache
def setting(**options):
    """A trained state in float64, and the total as a function of `hyperparams`."""
    with jax.enable_x64(True):
        tx = meta_adamw(0.1, **EVERYTHING, **options)
        params, state, grads = trained(tx, optax.tree.cast(PARAMS, jnp.float64))
        # Away from the zeros at which norms have a corner.
        moved = jax.tree.map(
            lambda x, t: x + 0.3 * t, state.hyperparams, tangent(state.hyperparams, 1)
        )
        state = state._replace(hyperparams=moved)
        args = batches(2, 4, jnp.float64)

        @jax.jit
        def update(hyperparams):
            return tx.meta_update(
                loss, params, state._replace(hyperparams=hyperparams), grads, *args
            )

        return state, update


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"virtual_step": "advance", "meta_reg": "squared", "gap_at": "theta_prime"},
        {"beta_gradient": False, "beta_range": 0.0, "decay_scaling": "bias_corrected"},
    ],
    ids=["default", "advance", "no beta"],
)
def test_the_gradient_is_the_slope_of_the_total(options):
    state, update = setting(**options)
    with jax.enable_x64(True):
        _, aux = update(state.hyperparams)
        direction = tangent(state.hyperparams)
        leaves, treedef = jax.tree.flatten(direction)
        slopes = jax.tree.leaves(aux.gradient)
        paths = jax.tree_util.tree_leaves_with_path(direction)
        for i, (path, leaf) in enumerate(paths):
            alone = [leaf if i == j else 0 * x for j, x in enumerate(leaves)]
            ends = [
                update(
                    jax.tree.map(
                        lambda x, t, e=e: x + e * t,
                        state.hyperparams,
                        treedef.unflatten(alone),
                    )
                )[1].total
                for e in (1e-5, -1e-5)
            ]
            np.testing.assert_allclose(
                float(jnp.vdot(slopes[i], leaf)),
                float(ends[0] - ends[1]) / 2e-5,
                rtol=1e-5,
                atol=1e-8,
                err_msg=jax.tree_util.keystr(path),
            )


def test_without_beta_gradient_its_head_does_not_learn():
    state, update = setting(beta_gradient=False)
    _, full_update = setting()
    with jax.enable_x64(True):
        cut, full = (
            jax.tree.map(np.asarray, f(state.hyperparams)[1])
            for f in (update, full_update)
        )
    np.testing.assert_allclose(cut.total, full.total, rtol=1e-12)
    cut, full = (aux.gradient["head"]["bias"] for aux in (cut, full))
    assert cut[1] == 0 and abs(full[1]) > 1e-6
    others = [0, 2, 3]
    np.testing.assert_allclose(cut[others], full[others], rtol=1e-9)


@pytest.fixture
def prepared():
    """`prepared(**options)`: transformation and jitted meta update after some steps."""

    def make(steps=2, params=PARAMS, **options):
        tx = meta_adamw(0.1, **options)
        params, state, grads = trained(tx, params, steps)
        update = jax.jit(functools.partial(tx.meta_update, loss))
        return tx, update, params, state, grads

    return make


@pytest.mark.parametrize("reg", ["norm", "squared"])
def test_the_gap_alone_carries_no_gradient(prepared, reg):
    tx, update, *args = prepared(meta_objective="gen_gap", meta_reg=reg)
    _, aux = update(*args, *batches(3, 3))
    assert aux.terms.gen_gap > 0 and aux.terms.gradient is None
    pull = jax.grad(regularizers)(args[1].hyperparams, tx.rule.options)
    chex.assert_trees_all_close(aux.gradient, pull, rtol=1e-6)
    chex.assert_tree_all_finite(aux.gradient)
    assert not aux.gradient["encoder"]["qkv"]["bias"].any()


def test_the_gap_after_the_virtual_step_does(prepared):
    _, update, *args = prepared(meta_objective="gen_gap", gap_at="theta_prime")
    _, aux = update(*args, *batches(3))
    assert jnp.abs(aux.gradient["head"]["bias"][0]) > 1e-6


def test_only_what_is_meta_learned_changes(prepared):
    _, update, params, state, grads = prepared(meta_optimizer=optax.adam(1e-2))
    after, aux = update(params, state, grads, *batches(3))
    assert aux.ok and after.skipped == 0
    for name in ("count", "mu", "nu", "alpha", "beta"):
        chex.assert_trees_all_equal(getattr(state, name), getattr(after, name))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    change = jax.tree.map(jnp.subtract, after.hyperparams, state.hyperparams)
    for name in ("encoder", "head", "log_vars"):
        assert optax.tree.norm(change[name]) > 1e-3


def test_sgd_by_default_and_clipped_where_asked_for(prepared):
    _, update, *args = prepared(meta_learning_rate=0.5)
    after, aux = update(*args, *batches(3))
    change = jax.tree.map(jnp.subtract, after.hyperparams, args[1].hyperparams)
    chex.assert_trees_all_close(
        change, optax.tree.scale(-0.5, aux.gradient), rtol=1e-4, atol=1e-6
    )
    _, update, *args = prepared(meta_learning_rate=0.5, meta_clip=1e-3)
    after, aux = update(*args, *batches(3))
    change = jax.tree.map(jnp.subtract, after.hyperparams, args[1].hyperparams)
    assert aux.gradient_norm > 1e-2
    np.testing.assert_allclose(optax.tree.norm(change), 5e-4, rtol=1e-3)


def test_log_variances_stay_in_their_box(prepared):
    def negative(params, batch):
        return loss(params, batch) - 100

    box = {"huw_log_var_bounds": (-0.5, 0.2)}
    tx, _, *args = prepared(meta_learning_rate=10.0, **box)
    after, aux = jax.jit(functools.partial(tx.meta_update, negative))(
        *args, *batches(3)
    )
    assert aux.ok
    assert (after.hyperparams["log_vars"] >= -0.5).all()
    assert (after.hyperparams["log_vars"] <= 0.2).all()
    assert jnp.isin(after.hyperparams["log_vars"], jnp.array([-0.5, 0.2])).any()


def test_gates_learn_unless_they_are_told_not_to(prepared):
    for trains in (True, False):
        _, update, *args = prepared(
            use_feature_gating=True,
            train_gates=trains,
            meta_optimizer=optax.adamw(1e-2),
        )
        after, aux = update(*args, *batches(3))
        assert aux.gradient["gates"].any()
        assert (after.hyperparams["gates"] != 1).any() == trains


def test_fixed_lambdas(prepared):
    _, update, *args = prepared(lambda_mode="fixed", lambda_values=(0.5, 2.0))
    _, aux = update(*args, *batches(3))
    assert (aux.factors.lambda1 == 0.5).all() and (aux.factors.lambda2 == 2).all()
    assert not aux.gradient["head"]["bias"][2:].any()


def test_fixed_weights_of_the_terms(prepared):
    weights = (1.0, 0.3, 0.2)
    tx, update, *args = prepared(use_huw=False, objective_weights=weights)
    _, aux = update(*args, *batches(3))
    total = sum(w * x for w, x in zip(weights, aux.terms, strict=True))
    total += regularizers(args[1].hyperparams, tx.rule.options)
    np.testing.assert_allclose(aux.total, total, rtol=1e-6)
    assert "log_vars" not in args[1].hyperparams


@pytest.mark.parametrize("objective", ["combined", "gradient"])
def test_finite_at_rest(prepared, objective):
    """All gradients are 0, and so are all directions."""
    rest = jax.tree.map(jnp.zeros_like, PARAMS)

    def flat(params, batch):
        return 0 * loss(params, batch)

    tx = meta_adamw(0.1, meta_objective=objective, use_feature_gating=True)
    state = tx.init(rest)
    _, state = tx.update(rest, state, rest)
    update = jax.jit(functools.partial(tx.meta_update, flat))
    after, aux = update(rest, state, rest, *batches(3))
    assert aux.ok
    chex.assert_tree_all_finite((after, aux))


def test_a_step_that_is_not_finite_is_counted_and_not_taken(prepared):
    tx, _, params, state, grads = prepared(meta_optimizer=optax.adam(1e-2))
    broken = functools.partial(
        tx.meta_update, lambda params, batch: loss(params, batch) * jnp.nan
    )
    after, aux = jax.jit(broken)(params, state, grads, *batches(3))
    assert not aux.ok and after.skipped == 1
    chex.assert_trees_all_equal(after._replace(skipped=state.skipped), state)


def test_nothing_happens_before_the_first_update():
    tx = meta_adamw(0.1)
    state = tx.init(PARAMS)
    after, aux = jax.jit(functools.partial(tx.meta_update, loss))(
        PARAMS, state, PARAMS, *batches(3)
    )
    assert not aux.ok
    chex.assert_trees_all_equal(after, state)


def test_in_a_chain_and_with_frozen_leaves(prepared):
    """What is masked is a constant, though the loss depends on it; also an integer."""
    tx = meta_adamw(0.1)
    params = {**PARAMS, "step": jnp.array(3)}
    trains = {"layers": True, "head": False, "step": False}
    chain = optax.chain(optax.masked(optax.chain(optax.clip(1.0), tx), trains))
    grads = jax.grad(loss)(PARAMS, batches(1)[0])
    given = {**grads, "step": params["step"]}
    _, state = jax.jit(chain.update)(given, chain.init(params), params)
    free = functools.partial(mada_optax.meta_update, tx, loss)
    after, aux = jax.jit(free)(params, state, *batches(3), grads=given)
    chex.assert_trees_all_equal_structs(after, state)

    alone = {"layers": PARAMS["layers"]}
    state = tx.init(alone)
    _, state = jax.jit(tx.update)({"layers": grads["layers"]}, state, alone)

    def rest(params, batch):
        return loss({**PARAMS, **params}, batch)

    _, expected = jax.jit(functools.partial(tx.meta_update, rest))(
        alone, state, {"layers": grads["layers"]}, *batches(3)
    )
    chex.assert_trees_all_close(aux, expected, rtol=1e-4, atol=1e-6)


def test_leaves_are_matched_by_name():
    """A gradient in another order of keys is the same gradient."""
    tx = meta_adamw(0.1, meta_feature_grad="batch1", meta_objective="gradient")
    params, state, _ = trained(tx)
    after, _ = mada_optax.meta_update(tx, loss, params, state, *batches(3, 2))
    backwards = dict(reversed(params.items()))
    again, _ = mada_optax.meta_update(tx, loss, backwards, state, *batches(3, 2))
    chex.assert_trees_all_close(after, again)


def test_keys_of_both_sides_of_a_decrease():
    """With a loss that is nothing but its key, a paired decrease is 0."""

    def noise(params, batch, key):
        return 0 * loss(params, batch) + jax.random.normal(key)

    for paired in (True, False):
        tx = meta_adamw(0.1, paired_rng=paired)
        params, state, grads = trained(tx)
        _, aux = tx.meta_update(
            noise, params, state, grads, *batches(3), key=jax.random.key(0)
        )
        assert (aux.terms.loss_decrease == 0) == paired
        assert aux.terms.gen_gap > 0


def test_the_virtual_step_has_the_rate_of_the_last_step():
    """Under a schedule: a rate of 0 at the last step moves nothing."""
    tx = meta_adamw(
        lambda count: jnp.where(count == 2, 0.0, 0.1), meta_objective="loss_decrease"
    )
    for steps, moves in ((2, True), (3, False)):
        params, state, grads = trained(tx, steps=steps)
        update = jax.jit(functools.partial(tx.meta_update, loss))
        _, aux = update(params, state, grads, *batches(3, 3))
        assert (aux.terms.loss_decrease != 0) == moves


def test_needs_are_said():
    tx = meta_adamw(0.1)
    params, state, grads = trained(tx)
    one, two, val, _ = batches(3)
    with pytest.raises(ValueError, match="meta_objective='combined' needs val_batch"):
        tx.meta_update(loss, params, state, grads, one, two)
    with pytest.raises(ValueError, match="needs grads"):
        tx.meta_update(loss, params, state, None, one, two, val)
    with pytest.raises(ValueError, match="one MetaAdamWState, got 0"):
        tx.meta_update(loss, params, state.mu, grads, one, two, val)
    with pytest.raises(ValueError, match="one MetaAdamWState, got 2"):
        tx.meta_update(loss, params, (state, state), grads, one, two, val)
    with pytest.raises(ValueError, match=r"grads has no leaf.*kernel"):
        tx.meta_update(loss, params, state, {}, one, two, val)
