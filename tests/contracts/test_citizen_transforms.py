"""Under JAX's transformations an update is the same function."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

close = dict(rtol=2e-5, atol=2e-6)


def training_step(tx, carry, i):
    params, state = carry
    grads = jax.tree.map(lambda p: p - 0.3 * jnp.cos(1.0 + i), params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def loop(tx, params, steps=4):
    """In one compiled loop."""
    carry = params, tx.init(params)
    step = functools.partial(training_step, tx)
    return jax.lax.fori_loop(0, steps, lambda i, c: step(c, i * 1.0), carry)


def test_jit_does_what_eager_does(tx, params, train):
    state = tx.init(params)
    eager = params
    for i in range(2):
        eager, state = training_step(tx, (eager, state), jnp.float32(i))
    jitted, jitted_state = train(tx, params, steps=2)
    chex.assert_trees_all_close(eager, jitted, **close)
    chex.assert_trees_all_close(state, jitted_state, rtol=1e-4, atol=1e-5)


def test_loops_do_what_steps_do(tx, params, train):
    """`fori_loop`, which compiles to a while loop, `scan`, and `cond` inside of it."""
    expected = train(tx, params)
    chex.assert_trees_all_close(
        jax.jit(functools.partial(loop, tx))(params), expected, rtol=1e-4, atol=1e-5
    )

    def scanned(carry, i):
        new = training_step(tx, carry, i)
        return jax.lax.cond(i < 4, lambda: new, lambda: carry), None

    @jax.jit
    def scan(params):
        return jax.lax.scan(scanned, (params, tx.init(params)), jnp.arange(6.0))[0]

    chex.assert_trees_all_close(scan(params), expected, rtol=1e-4, atol=1e-5)


def test_one_trace(tx, params):
    traces = []

    @jax.jit
    def step(grads, state, params):
        traces.append(None)
        return tx.update(grads, state, params)

    state = tx.init(params)
    for _ in range(3):
        updates, state = step(params, state, params)
        params = optax.apply_updates(params, updates)
    assert len(traces) == 1


def test_donated_buffers_are_reused(tx, params):
    state = tx.init(params)
    expected, _ = jax.jit(tx.update)(params, state, params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    old = jax.tree.leaves((params, state))
    expected = optax.apply_updates(params, expected)
    params, state = step(params, state)
    assert all(leaf.is_deleted() for leaf in old if leaf.size > 8)
    chex.assert_trees_all_close(params, expected, **close)
    step(params, state)


def test_vmap_over_parameters(tx, params):
    """Every model of an ensemble has its own state and its own hyper-parameters."""
    many = {"w": jnp.stack([params["w"], -3 * params["w"], params["w"] ** 2])}
    together, states = jax.jit(jax.vmap(functools.partial(loop, tx)))(many)
    run = jax.jit(functools.partial(loop, tx))
    for i in range(3):
        one = jax.tree.map(lambda x: x[i], many)  # noqa: B023
        chex.assert_trees_all_close(
            jax.tree.map(lambda x: x[i], (together, states)),  # noqa: B023
            run(one),
            rtol=1e-4,
            atol=1e-5,
        )


def test_vmap_over_learning_rates(optimizer, params):
    """The factory is called inside of the trace; also with a schedule made there."""
    rates = jnp.array([1e-3, 1e-2])
    run = jax.jit(jax.vmap(lambda rate: loop(optimizer(learning_rate=rate), params)[0]))
    together = run(rates)
    slow = jax.jit(lambda: loop(optimizer(learning_rate=1e-3), params)[0])()
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[0], together), slow, rtol=1e-4, atol=1e-5
    )
    assert jnp.abs(together["w"][0] - together["w"][1]).max() > 1e-3


def test_vmap_over_hyperparams(tx, params):
    """Particles of a population differ by what is behind the door."""

    def final(scale):
        state = tx.init(params)
        hyperparams = jax.tree.map(
            lambda x: scale * x, optax.tree.get(state, "hyperparams")
        )
        carry = params, optax.tree.set(state, hyperparams=hyperparams)
        for i in range(2):
            carry = training_step(tx, carry, 1.0 * i)
        return carry

    scales = jnp.array([1.0, 0.9])
    together = jax.jit(jax.vmap(final))(scales)
    second = jax.jit(final)(scales[1])
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[1], together), second, rtol=1e-4, atol=1e-5
    )


def meta_loss(tx, hyperparams, params, steps=3):
    """Loss after some steps; the first coordinate never has a gradient."""
    state = optax.tree.set(tx.init(params), hyperparams=hyperparams)
    alive = jax.tree.map(lambda p: (jnp.arange(p.size) > 0).reshape(p.shape), params)

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda p, a: a * p, params, alive)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, state), length=steps)
    return optax.tree.norm(params, squared=True)


def test_meta_gradients_are_finite(tx, params):
    """Forwards and backwards; also at rest, where all gradients are 0."""

    @jax.jit
    def differentiate(*args):
        _, push = jax.linearize(functools.partial(meta_loss, tx), *args)
        return push(*args), jax.linear_transpose(push, *args)(1.0)

    for params in (params, optax.tree.zeros_like(params)):  # noqa: B020
        args = optax.tree.get(tx.init(params), "hyperparams"), params
        forwards, backwards = differentiate(*args)
        chex.assert_tree_all_finite((forwards, backwards))
        np.testing.assert_allclose(
            forwards, optax.tree.vdot(backwards, args), rtol=1e-3, atol=1e-4
        )


def test_meta_gradient_is_the_slope(optimizer, params):
    """Against finite differences in float64, inside of the domain."""
    if optimizer.smooth is None:
        pytest.skip("no slope")
    with jax.enable_x64(True):
        tx = optimizer(**optimizer.smooth)
        params = optax.tree.cast(params, jnp.float64)
        start = optax.tree.get(tx.init(params), "hyperparams")

        @jax.jit
        @jax.value_and_grad
        def along(distance):
            moved = optax.tree.scale(0.9 + distance, start)
            return meta_loss(tx, moved, params)

        step = 1e-5
        slope = float(along(0.0)[1])
        difference = float(along(step)[0] - along(-step)[0]) / (2 * step)
    assert abs(slope) > 1e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_shard_map_of_vmap(tx, params):
    """A population, spread over the devices, each with its own run."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), "particles")
    many = {"w": params["w"][None] * jnp.linspace(0.5, 2.0, 8)[:, None, None]}
    states = jax.vmap(tx.init)(many)

    def run(carry):
        for i in range(2):
            carry = jax.vmap(lambda c: training_step(tx, c, 1.0 * i))(carry)  # noqa: B023
        return carry

    spec = jax.P("particles")
    spread = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec)
    chex.assert_trees_all_close(
        jax.jit(spread)((many, states)),
        jax.jit(run)((many, states)),
        rtol=1e-4,
        atol=1e-5,
    )
