"""VeLO against its equations, on every kind of leaf and in every transformation."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import velo_reference as reference

import lopt

SHAPES = {
    "scalar": (),
    "still": (3,),
    "unit": (1, 1),
    "flat": (1, 9),
    "cube": (5, 2, 4),
    "deep": (2, 1, 2, 2, 3, 2),
}
LOUD = lopt.velo(
    7,
    hidden_size=8,
    bank_size=4,
    step_multiplier=0.1,
    exp_multiplier=0.5,
    bank_multiplier=2.0,
)
CONSTANTS = {"step": 0.1, "exp": 0.5, "bank": 2.0}


def draw(seed, scale=1.0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {k: np.float32(scale * rng.normal(size=s)) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def theta():
    """All of it matters: biases, and the initial state."""
    leaves, treedef = jax.tree.flatten(jax.jit(LOUD.init)(jax.random.key(0)))
    rng = np.random.default_rng(1)
    moved = [x + np.float32(0.1 * rng.normal(size=x.shape)) for x in leaves]
    return treedef.unflatten(moved)


@functools.partial(jax.jit, static_argnums=0)
def update(architecture, theta, grads, state, params, loss):
    return architecture.transform(theta).update(grads, state, params, value=loss)


def run(architecture, theta, params, gradients, losses):
    """The parameters after every update, and the last state."""
    state = architecture.transform(theta).init(params)
    trajectory = []
    for grads, loss in zip(gradients, losses, strict=True):
        updates, state = update(architecture, theta, grads, state, params, loss)
        params = optax.apply_updates(params, updates)
        trajectory.append(params)
    return trajectory, state


LOSSES = np.float32([2.0, 1.5, 1.8, 30.0, 1.2, -0.4, 1.1, 1.0])
GRADIENTS = [draw(seed, 10.0 ** (seed - 4)) for seed in range(3, 11)]
GRADIENTS = [{**grads, "still": 0 * grads["still"]} for grads in GRADIENTS]


def test_equations(theta):
    """Also beyond the horizon, with gradients that are clipped, and with none."""
    assert np.abs(GRADIENTS[-1]["cube"]).max() > 1000
    params = draw(2)
    got, state = run(LOUD, theta, params, GRADIENTS, LOSSES)
    wanted, rows = reference.run_velo(theta, params, GRADIENTS, LOSSES, 7, **CONSTANTS)
    for mine, theirs in zip(got, wanted, strict=True):
        for name, p in theirs.items():
            bound = 1e-4 * np.abs(p - params[name]).max() + 1e-6 * np.abs(p).max()
            np.testing.assert_allclose(mine[name], p, 0, bound)
    chex.assert_trees_all_close(tuple(state.lstm), rows, rtol=0, atol=1e-4)


def test_mup(theta):
    """The step is divided by the width, and does not depend on the parameter's size."""
    shapes = {"matrix": (4, 3), "vector": (5,)}
    params, grads = draw(2, 1, shapes), draw(3, 1, shapes)
    params["vector"] *= 0
    architecture = dataclasses.replace(LOUD, parametrization="mup")
    widths = {"matrix": 4.0, "vector": jnp.float32(1)}
    tx = architecture.transform(theta, width_multipliers=widths)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params, value=1.0)
    (wanted,), _ = reference.run_velo(
        theta, params, [grads], [1.0], 7, **CONSTANTS, by_size=False
    )
    for name, width in {"matrix": 4, "vector": 1}.items():
        step = (wanted[name] - params[name]) / width
        np.testing.assert_allclose(updates[name], step, 1e-4, 1e-5 * np.abs(step).max())


def test_options(theta):
    """Controls of 1, multipliers of 1, and decay."""
    params, grads = draw(2, 1, {"v": (5,)}), draw(3, 1, {"v": (5,)})
    one = jax.tree.map(jnp.zeros_like, theta["rnn_params"])
    one["rnn_to_controls"]["b"] = jnp.ones(4)
    one["step_size"]["b"] = jnp.ones(1)
    by_hand, _ = run(LOUD, {**theta, "rnn_params": one}, params, [grads], [1.0])
    options = dict(unit_controls=True, unit_multiplier=True, weight_decay=0.01)
    decayed = dataclasses.replace(LOUD, **options)
    by_option, _ = run(decayed, theta, params, [grads], [1.0])
    wanted = by_hand[0]["v"] - 0.01 * params["v"]
    np.testing.assert_allclose(by_option[0]["v"], wanted, rtol=1e-4, atol=1e-6)


def test_leaves_that_are_empty_or_masked_are_not_seen(theta):
    params, grads = draw(2, 1, {"v": (5,)}), draw(3, 1, {"v": (5,)})
    alone, _ = run(LOUD, theta, params, [grads], [1.0])
    nothing = {"a": jnp.zeros((0, 3)), "z": None}
    more, state = run(LOUD, theta, {**params, **nothing}, [{**grads, **nothing}], [1.0])
    chex.assert_trees_all_close(more[0]["v"], alone[0]["v"])
    assert state.lstm.hidden.shape == (1, 8)

    masked = optax.masked(LOUD.transform(theta), {"v": True, "w": False})
    both = {**params, "w": jnp.ones(3)}
    state = masked.init(both)
    updates, _ = jax.jit(masked.update)({**grads, "w": 2.0}, state, both, value=1.0)
    chex.assert_trees_all_close(params["v"] + updates["v"], alone[0]["v"], rtol=1e-5)


def test_the_initial_state_of_the_lstm_is_behind_the_door(theta):
    """Theta that is put into the state after `init` counts with all that it holds."""
    params, grads = draw(2, 1, {"v": (5,)}), draw(3, 1, {"v": (5,)})
    start = jax.tree.map(lambda x: x + 1, theta["lstm_init_state"])
    other = {**theta, "lstm_init_state": start}
    state = LOUD.transform(theta).init(params)
    arguments = (grads, optax.tree.set(state, hyperparams=other), params, 1.0)
    by_hand, _ = update(LOUD, theta, *arguments)
    direct, _ = run(LOUD, other, params, [grads], [1.0])
    chex.assert_trees_all_close(
        optax.apply_updates(params, by_hand), direct[0], rtol=1e-6
    )


def test_long_horizons_take_the_mean_of_several_calls(theta):
    """Of gradients and of losses; 3 updates of 3 calls, and one call is left over."""
    long = dataclasses.replace(LOUD, num_steps=10, max_steps=4)
    assert (long.calls_per_update, long.num_updates) == (3, 3)
    shapes = {"v": (5,)}
    params, grads = draw(2, 1, shapes), [draw(i, 1, shapes) for i in range(12)]
    losses = np.float32([3, 1, 2, 5, 0, 1, 9, 1, 2, 0.1, 0.3, 0.2])
    got, _ = run(long, theta, params, grads, losses)
    means = [
        jax.tree.map(lambda *x: sum(x) / 3, *grads[i : i + 3]) for i in range(0, 12, 3)
    ]
    short = dataclasses.replace(LOUD, num_steps=3)
    wanted, _ = run(short, theta, params, means, losses.reshape(4, 3).mean(1))
    chex.assert_trees_all_close(got[2::3], wanted, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(got[1], params)
    chex.assert_trees_all_equal(got[4], got[2])


def test_derivative_by_theta(theta):
    """Finite where gradients are 0 or tiny; and of all entries but the idle layer."""
    params = draw(2, 1, {"v": (4,)})
    tx = LOUD.transform(theta)

    def loss(theta, scale):
        def step(carry, _):
            params, state = carry
            grads = jax.tree.map(lambda p: scale * jnp.arange(4) * p, params)
            value = optax.tree.norm(grads, squared=True)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        start = optax.tree.set(tx.init(params), hyperparams=theta)
        (after, _), _ = jax.lax.scan(step, (params, start), length=4)
        return optax.tree.norm(after, squared=True)

    @jax.jit
    def slopes(theta, scale):
        gradient = jax.grad(loss)(theta, scale)
        _, along = jax.jvp(lambda theta: loss(theta, scale), (theta,), (gradient,))
        return gradient, along

    for scale in (0.0, 1e-18, 1e-12, 1e3, 1.0):
        gradient, along = slopes(theta, scale)
        chex.assert_tree_all_finite(gradient)
        squared = optax.tree.norm(gradient, squared=True)
        np.testing.assert_allclose(along, squared, 1e-3)
    still = {
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(gradient)
        if not jnp.abs(x).max() > 0
    }
    assert still == {f"['rnn_params']['linear']['{x}']" for x in "wb"}


def test_pass_through_is_adam_in_steps_of_relative_size():
    architecture = lopt.velo(5, hidden_size=2, bank_size=3, exp_multiplier=0.7)
    params, grads = draw(2, 1, {"w": (6, 4)}), draw(3, 1, {"w": (6, 4)})
    tx = architecture.transform(architecture.pass_through(7))
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params, value=1.0)
    w, g = params["w"], grads["w"]
    ratio = 0.1 * g / np.sqrt(0.001 * g**2 + 1e-6)
    ratio /= np.sqrt(1e-5 + np.mean(ratio**2))
    wanted = -0.001 * np.sqrt(np.mean(w**2)) * ratio
    np.testing.assert_allclose(updates["w"], wanted, rtol=1e-4, atol=1e-8)


def test_networks_start_at_one_scale():
    """Weights that are mixed vary with 1/sqrt(30), whatever the size of the bank."""
    bank, multiplier = 50, 3.0
    architecture = lopt.velo(
        100, hidden_size=16, bank_size=bank, bank_multiplier=multiplier
    )
    theta = jax.jit(architecture.init)(jax.random.key(0))
    controls = theta["rnn_params"]["rnn_to_controls"]["b"]
    blocks = [theta["ff_mod_stack"][f"w0__{i}"] for i in range(14)]
    weights = np.concatenate(blocks, 1) * controls[:, None, None]
    size = multiplier * np.std(weights.mean(0)) * 30**0.5
    assert 0.6 < size < 1
    assert (theta["rnn_params"]["step_size"]["b"] == 1).all()


def test_bad_input(theta):
    for name, value in {"num_steps": 0, "bank_size": 0, "max_steps": 1.5}.items():
        with pytest.raises(ValueError, match=rf"{name} must be an integer >= 1"):
            dataclasses.replace(LOUD, **{name: value})
    with pytest.raises(ValueError, match="weight_decay must be"):
        dataclasses.replace(LOUD, weight_decay=-0.1)
    with pytest.raises(ValueError, match="parametrization must be one of"):
        dataclasses.replace(LOUD, parametrization="ntk")
    with pytest.raises(ValueError, match=r"does not belong to VeLO.*is missing, not"):
        LOUD.transform(lopt.small_fc().init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"rnn_to_controls.*is \(8, 4\), not \(8, 5\)"):
        dataclasses.replace(LOUD, bank_size=5).transform(theta)

    for architecture in (LOUD, dataclasses.replace(LOUD, max_steps=2)):
        tx, params = architecture.transform(theta), {"w": jnp.ones(3)}
        state = tx.init(params)
        with pytest.raises(
            TypeError, match=r"update\(grads, state, params, value=loss"
        ):
            tx.update(params, state, params)
        with pytest.raises(ValueError, match=r"value must be a real scalar.*\(3,\)"):
            tx.update(params, state, params, value=params["w"])
        with pytest.raises(ValueError, match="params=None"):
            tx.update(params, state, value=1.0)
