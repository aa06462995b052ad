"""How the coefficients move: what stays, what starts when, what can be read and set."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mada_optax

INTERIOR = {"b1": 0.8, "b2": 0.9, "b3": 0.3, "c": 0.7, "rho": 0.4, "gamma": 0.6}
NAMES = tuple(INTERIOR)
STEPS = 20


def noise(size, seed=0):
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-1.5, 0.5, (STEPS, 1))
    return jnp.asarray(rng.normal(size=(STEPS, size)) * scale)


def train(tx, params, grads):
    """Parameters and states after every update with gradients params + grads[t]."""

    def step(carry, grad):
        params, state = carry
        grad = jax.tree.map(lambda p, g: p + g, params, grad)
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    run = jax.jit(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])
    return run(params, grads)


@pytest.mark.parametrize("learn", [("b1",), ("b3", "rho"), ("c", "gamma"), ()])
def test_what_is_not_learned_stays_bit_identical(learn):
    """Also outside of the box, which is for what is learned."""
    start = {**INTERIOR, "b2": 0.999}
    tx = mada_optax.mada(0.05, **start, learn=learn, hyper_learning_rate=0.3)
    _, states = train(tx, jnp.ones(5), noise(5))
    for name in NAMES:
        values = np.asarray(getattr(states.hyperparams, name))
        if name in learn:
            assert len(set(values.tolist())) > STEPS / 2
        else:
            assert (values == np.float32(start[name])).all()


@jax.enable_x64(True)
def test_a_learner_that_does_not_move_takes_the_steps_of_the_fixed_optimizer():
    x = jnp.ones(5)
    fixed, _ = train(mada_optax.mada(0.05, **INTERIOR, learn=()), x, noise(5))
    still = mada_optax.mada(0.05, **INTERIOR, hyper_learning_rate=0.0)
    path, states = train(still, x, noise(5))
    np.testing.assert_allclose(path, fixed, rtol=0, atol=1e-13)
    for name in NAMES:
        assert (getattr(states.hyperparams, name) == INTERIOR[name]).all()


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: (state, ())])
def test_final_state_is_the_fixed_optimizer_at_the_learned_point(wrap):
    x, grads = jnp.ones(5), noise(5)
    options = {"eps": 1e-4, "weight_decay": 0.1, "clip_norm": 1.0}
    learner = mada_optax.mada(0.05, **INTERIOR, hyper_learning_rate=0.1, **options)
    _, states = train(learner, x, grads)
    last = jax.tree.map(lambda leaf: leaf[-1], states)
    q = {name: float(getattr(last.hyperparams, name)) for name in NAMES}
    assert q["b1"] != INTERIOR["b1"]

    final = mada_optax.mada_final_state(wrap(last), 0.05, **options)
    path, states = train(final, x, grads)
    fixed = mada_optax.mada(0.05, **q, learn=(), **options)
    np.testing.assert_array_equal(path, train(fixed, x, grads)[0])
    assert states.learning is None
    by_dict = mada_optax.mada_final_state(q, 0.05, **options)
    np.testing.assert_array_equal(path, train(by_dict, x, grads)[0])


@jax.enable_x64(True)
def test_one_q_for_all_leaves():
    """How parameters are split into leaves makes no difference."""
    tx = mada_optax.mada(0.05, **INTERIOR, hyper_learning_rate=0.1, clip_norm=1.0)
    whole, grads = jnp.linspace(-1, 1, 10), noise(10)

    def split(x):
        first = x[..., :4].reshape(*x.shape[:-1], 2, 2)
        return {"a": first, "b": [x[..., 4], x[..., 5:]]}

    path, states = train(tx, whole, grads)
    path_split, states_split = train(tx, split(whole), split(grads))
    np.testing.assert_allclose(path[..., 5:], path_split["b"][1], rtol=0, atol=1e-12)
    for name in NAMES:
        moved = getattr(states.hyperparams, name)
        assert moved[-1] != INTERIOR[name]
        same = getattr(states_split.hyperparams, name)
        np.testing.assert_allclose(moved, same, rtol=0, atol=1e-12)


@jax.enable_x64(True)
def test_orders_differ_by_the_step_that_first_feels_a_change():
    x, grads = jnp.ones(5), noise(5)
    options = {**INTERIOR, "hyper_learning_rate": 0.1}
    fixed, _ = train(mada_optax.mada(0.05, **INTERIOR, learn=()), x, grads)
    for order, feels in (("q_first", 2), ("x_first", 3)):
        tx = mada_optax.mada(0.05, **options, update_order=order)
        path, _ = train(tx, x, grads)
        differs = np.abs(path - fixed).max(axis=1) > 1e-9
        assert np.argmax(differs) + 1 == feels


def test_coefficients_follow_schedules():
    def falling(count):
        return 0.9 / (count.astype(float) + 1)

    x, grads = jnp.ones(5), noise(5)
    for learn in ((), ("b1",)):
        tx = mada_optax.mada(0.05, rho=falling, learn=learn)
        path, states = train(tx, x, grads)
        expected = np.float32(0.9) / np.arange(1, STEPS + 1, dtype=np.float32)
        np.testing.assert_allclose(states.hyperparams.rho, expected, rtol=1e-6)
        constant = mada_optax.mada(0.05, rho=0.9, learn=learn)
        assert np.abs(path - train(constant, x, grads)[0]).max() > 1e-3


def test_learning_starts_after_the_warm_up():
    tx = mada_optax.mada(0.05, **INTERIOR, hyper_learning_rate=0.1, hyper_warmup=7)
    _, states = train(tx, jnp.ones(5), noise(5))
    for name in NAMES:
        values = np.asarray(getattr(states.hyperparams, name))
        assert (values[:7] == np.float32(INTERIOR[name])).all()
        assert values[7] != values[6]


def test_tanh_keeps_coefficients_inside_without_a_box():
    free = dict.fromkeys(("b1", "b2", "b3"), (0.0, 0.999))
    options = {**INTERIOR, "bounds": free, "hyper_clip": None}
    tx = mada_optax.mada(0.05, reparam="tanh", hyper_learning_rate=3.0, **options)
    _, states = train(tx, jnp.ones(5), noise(5))
    for name in NAMES:
        values = getattr(states.hyperparams, name)
        assert (0 <= values).all() and (values <= 1).all()
        assert np.ptp(values) > 0.01


def test_a_learned_learning_rate_grows_where_it_is_too_small():
    tx = mada_optax.hyper_adam(
        1e-3,
        learn=("b1", "b2", "learning_rate"),
        hyper_learning_rate={"learning_rate": 1e-4},
    )
    x, still = jnp.full(5, 3.0), jnp.zeros((200, 5))
    path, states = train(tx, x, still)
    rates = states.hyperparams.learning_rate
    assert rates[0] == np.float32(1e-3)
    assert rates[-1] > 0.02
    slow, _ = train(mada_optax.hyper_adam(1e-3), x, still)
    assert jnp.abs(path[-1]).max() < jnp.abs(slow[-1]).min() / 5


def test_hypergradients_see_the_gradient_before_clipping():
    """Inside, clipping touches the moments alone; outside, it scales h as well."""
    x, scale = jnp.ones(3), 50.0
    inside = mada_optax.mada(0.1, clip_norm=1.0, hyper_learning_rate=0.0)
    outside = optax.chain(
        optax.clip_by_global_norm(1.0), mada_optax.mada(0.1, hyper_learning_rate=0.0)
    )
    h = []
    for tx in (inside, outside):
        state = tx.init(x)
        for _ in range(3):
            _, state = tx.update(scale * x, state, x)
        h.append(mada_optax.diagnostics(state)["hypergradient/b1"])
    norm = scale * np.sqrt(3)
    np.testing.assert_allclose(h[0], h[1] * norm, rtol=1e-5)


def test_diagnostics_in_a_chain():
    learner = mada_optax.mada(0.05, **INTERIOR)
    tx = optax.chain(optax.clip_by_global_norm(1.0), learner, optax.scale(1.0))
    state = tx.init(jnp.ones(3))
    _, state = tx.update(jnp.ones(3), state, jnp.ones(3))
    seen = mada_optax.diagnostics(state)
    assert set(seen) == {
        *NAMES,
        "learning_rate",
        "skipped",
        "hypergradient/learning_rate",
        *[f"hypergradient/{name}" for name in NAMES],
    }
    assert all(jnp.ndim(value) == 0 for value in seen.values())
    fixed = mada_optax.adam(1e-3).init(jnp.ones(3))
    assert set(mada_optax.diagnostics(fixed)) == set(NAMES)


def test_diagnostics_of_an_ambiguous_state():
    state = mada_optax.mada(0.05).init(jnp.ones(3))
    for states in [(state, state), optax.adam(1e-3).init(jnp.ones(3))]:
        with pytest.raises(ValueError, match="one MadaState, got"):
            mada_optax.diagnostics(states)


@pytest.mark.parametrize("learn", [(), NAMES])
def test_hyperparams_can_be_set_by_hand(learn):
    """The next update is that of an optimizer which has come there by itself."""
    x = jnp.ones(3)
    options = {**INTERIOR, "learn": learn, "hyper_learning_rate": 0.0}
    tx = mada_optax.mada(0.05, **options)
    other = mada_optax.mada(0.05, **{**options, "b1": 0.5, "rho": 0.9})
    _, state = tx.update(x, tx.init(x), x)
    changed = optax.tree.set(state, b1=jnp.float32(0.5), rho=jnp.float32(0.9))
    updates, _ = tx.update(-x, changed, x)
    np.testing.assert_array_equal(updates, other.update(-x, changed, x)[0])
    assert (updates != tx.update(-x, state, x)[0]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("order", ["q_first", "x_first"])
def test_a_gradient_that_is_not_finite_moves_no_coefficient(bad, order):
    x = jnp.ones(3)
    tx = mada_optax.mada(
        0.05,
        **INTERIOR,
        hyper_learning_rate=0.1,
        update_order=order,
        hyper_momentum=0.5,
    )
    update = jax.jit(tx.update)
    state = tx.init(x)
    for _ in range(3):
        _, state = update(x, state, x)
    assert state.learning.skipped == 0
    _, after = update(x.at[1].set(bad), state, x)
    assert mada_optax.diagnostics(after)["skipped"] == 1
    chex.assert_trees_all_equal(after.hyperparams, state.hyperparams)
    np.testing.assert_array_equal(after.learning.momentum, state.learning.momentum)


@pytest.mark.parametrize("learn", [NAMES, ("b1", "b2")])
def test_a_parameter_without_gradients_stays_finite(learn):
    """Its second moment falls to 0 in float32, where sqrt has no derivative."""
    rates = {**dict.fromkeys(learn, 1e-3), "rho": 0.0}
    tx = mada_optax.mada(0.01, learn=learn, hyper_learning_rate=rates)
    params = {"alive": jnp.ones(3), "dead": jnp.ones(4)}
    wave = jnp.sin(jnp.arange(3000.0)[:, None] + jnp.arange(3.0)[None])

    def step(carry, alive):
        params, state = carry
        grads = {"alive": alive, "dead": jnp.zeros(4)}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), mada_optax.diagnostics(state)

    run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), wave))
    (params, state), seen = run(params)
    for leaf in jax.tree.leaves((params, state.hyperparams, seen)):
        assert jnp.isfinite(leaf).all()
    assert state.learning.skipped == 0
    np.testing.assert_array_equal(params["dead"], 1.0)
    assert (state.moments.nu["dead"] == 0).all() and state.hyperparams.rho == 1


@pytest.mark.parametrize("learn", [NAMES, ("b1", "b2"), ()])
def test_meta_gradients_where_the_second_moment_is_zero(learn):
    """As it becomes for a parameter without gradients; with eps it is no division."""
    tx = mada_optax.mada(0.1, learn=learn, nu_init=0.0, hyper_learning_rate=0.1)
    x, alive = jnp.ones(3), jnp.array([0.0, 1.0, 1.0])

    def loss(hyperparams, x):
        def step(carry, _):
            x, state = carry
            updates, state = tx.update(alive * x, state, x)
            return (x + updates, state), None

        state = tx.init(x)._replace(hyperparams=hyperparams)
        (x, _), _ = jax.lax.scan(step, (x, state), length=3)
        return jnp.sum(x**2)

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(tx.init(x).hyperparams, x)
    chex.assert_tree_all_finite(slopes)
    assert slopes[0].b1 != 0
