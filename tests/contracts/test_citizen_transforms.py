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


def loop(tx, params, steps=3, scale=1.0):
    """In one compiled loop, with what is behind the door scaled at its start."""
    state = tx.init(params)
    hyperparams = optax.tree.scale(scale, optax.tree.get(state, "hyperparams"))
    carry = params, optax.tree.set(state, hyperparams=hyperparams)
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
    """A while loop, and a scan with a condition inside."""
    expected = train(tx, params, steps=3)
    while_loop = jax.jit(functools.partial(loop, tx))(params)
    chex.assert_trees_all_close(while_loop, expected, rtol=1e-4, atol=1e-5)

    def step_or_not(carry, i):
        new = training_step(tx, carry, i)
        return jax.lax.cond(i < 3, lambda: new, lambda: carry), None

    @jax.jit
    def scan(params):
        return jax.lax.scan(step_or_not, (params, tx.init(params)), jnp.arange(5.0))[0]

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
    run = functools.partial(loop, tx, params)
    together = jax.jit(jax.vmap(lambda scale: run(scale=scale)))(jnp.array([1.0, 0.9]))
    second = jax.jit(lambda scale: run(scale=scale))(0.9)
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
    """Also at rest, where all gradients are 0."""
    gradient = jax.jit(jax.grad(functools.partial(meta_loss, tx), argnums=(0, 1)))
    for start in (params, optax.tree.zeros_like(params)):
        hyperparams = optax.tree.get(tx.init(start), "hyperparams")
        chex.assert_tree_all_finite(gradient(hyperparams, start))


def test_meta_gradient_is_the_slope(optimizer, params):
    """Against finite differences in float64, inside of the domain."""
    if optimizer.smooth is None:
        pytest.skip("no slope")
    with jax.enable_x64(True):
        tx = optimizer(**optimizer.smooth)
        params = optax.tree.cast(params, jnp.float64)
        start = optax.tree.get(tx.init(params), "hyperparams")

        def along(distance):
            return meta_loss(tx, optax.tree.scale(0.9 + distance, start), params)

        along = jax.jit(functools.partial(jax.jvp, along))
        step = 1e-5
        _, slope = along((0.0,), (1.0,))
        ends = [along((end,), (1.0,))[0] for end in (step, -step)]
        slope, difference = float(slope), float(ends[0] - ends[1]) / (2 * step)
    assert abs(slope) > 1e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_shard_map_of_vmap(tx, params):
    """A population, spread over the devices, each with its own run and state."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), "particles")
    many = {"w": params["w"][None] * jnp.linspace(0.5, 2.0, 8)[:, None, None]}
    run = jax.vmap(lambda params: loop(tx, params))
    spec = jax.P("particles")
    spread = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec)
    chex.assert_trees_all_close(
        jax.jit(spread)(many), jax.jit(run)(many), rtol=1e-4, atol=1e-5
    )
