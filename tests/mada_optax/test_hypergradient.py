"""The generic wrapper: derivatives of complete updates, and how they are used."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mada_optax
from mada_optax import hypergradient

INTERIOR = {"b1": 0.8, "b2": 0.9, "b3": 0.3, "c": 0.7, "rho": 0.4, "gamma": 0.6}
BOX = {
    **{"b1": (0.01, 0.99), "b2": (0.501, 0.99), "b3": (0.0, 0.99)},
    **dict.fromkeys(("c", "rho", "gamma"), (0.0, 1.0)),
}
RATES = {"b1": 0.02, "b2": 0.02, "b3": 0.2, "c": 0.5, "rho": 0.5, "gamma": 0.2}
adamw = optax.inject_hyperparams(optax.adamw)


def problem(steps, size=6, seed=0):
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-1.5, 0.5, (steps, 1))
    noise = rng.normal(size=(steps, size)) * scale
    return jnp.asarray(rng.normal(size=size)), jnp.asarray(noise)


def train(tx, params, noise):
    """Parameters and states after every update with gradients params + noise[t]."""

    def step(carry, eta):
        params, state = carry
        grads = jax.tree.map(lambda p: p + eta, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), noise)[1])
    return run(params)


@pytest.mark.parametrize("detach_average", [False, True])
@jax.enable_x64(True)
def test_oracle_of_mada(detach_average):
    """The closed form and automatic differentiation of the fixed family agree."""
    options = {**INTERIOR, "detach_average": detach_average, "clip_norm": None}
    closed = mada_optax.mada(
        0.05, **options, hyper_learning_rate=RATES, hyper_momentum=0.5, hyper_clip=None
    )
    fixed = mada_optax.mada(0.05, **options, learn=(), active=tuple(INTERIOR))
    descents = {name: optax.sgd(rate, momentum=0.5) for name, rate in RATES.items()}
    generic = hypergradient(fixed, descents, bounds=BOX)

    x, noise = problem(25)
    path, states = train(closed, x, noise)
    path_generic, states_generic = train(generic, x, noise)
    h = jnp.stack(states_generic.hypergradient, axis=1)
    scale = jnp.abs(h).max()
    np.testing.assert_allclose(
        states.learning.hypergradient[:, :6] / scale, h / scale, rtol=0, atol=1e-11
    )
    np.testing.assert_allclose(path, path_generic, rtol=0, atol=1e-11)
    for name, start in INTERIOR.items():
        values = getattr(states.hyperparams, name)
        assert values[-1] != start
        other = getattr(states_generic.hyperparams, name)
        np.testing.assert_allclose(values, other, rtol=0, atol=1e-11)


@jax.enable_x64(True)
def test_the_complete_update_is_differentiated():
    """Clipping, decay, schedule and what comes after: against finite differences."""
    inner = optax.chain(
        optax.clip_by_global_norm(1.0),
        adamw(0.1, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.2),
        optax.scale_by_schedule(lambda count: 1 / (1 + count)),
        optax.clip(0.04),
    )
    learn = ("learning_rate", "b1", "b2", "eps", "weight_decay")
    tx = hypergradient(inner, optax.set_to_zero(), learn=learn)
    x, noise = problem(4)
    state, inner_state = tx.init(x), inner.init(x)
    for grads in noise:
        before = inner_state
        updates, inner_state = inner.update(grads, inner_state, x)
        same, state = tx.update(grads, state, x)
        np.testing.assert_allclose(same, updates, rtol=1e-12)
    following = 1 + x
    _, state = tx.update(following, state, x)

    for i, name in enumerate(sorted(learn)):

        def gain(value, name=name):
            changed = optax.tree.set(before, **{name: value})
            return following @ inner.update(noise[-1], changed, x)[0]

        value, step = optax.tree.get(before, name), 1e-6
        slope = (gain(value + step) - gain(value - step)) / (2 * step)
        assert abs(slope) > 1e-3
        np.testing.assert_allclose(state.hypergradient[i], slope, rtol=1e-6)


def project(lower, upper):
    """Keeps parameters in a box."""

    def update(updates, state, params):
        moved = jax.tree.map(
            lambda p, u: jnp.clip(p + u, lower, upper) - p, params, updates
        )
        return moved, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_a_step_that_the_box_stopped_has_no_derivative():
    inner = optax.chain(adamw(0.5, weight_decay=0.0), project(-1.0, 1.0))
    tx = hypergradient(inner, optax.set_to_zero(), learn=["learning_rate"])
    for start, stopped in ((0.0, False), (-0.9, True)):
        x = jnp.full(1, start)
        updates, state = tx.update(jnp.ones(1), tx.init(x), x)
        x = x + updates
        _, state = tx.update(jnp.ones(1), state, x)
        assert bool(state.hypergradient[0] == 0) == stopped


def test_only_what_is_named_moves():
    x, noise = problem(6)
    tx = hypergradient(adamw(0.1), optax.sgd(1e-2), learn=["b1", "learning_rate"])
    _, states = train(tx, x, noise)
    for name, values in states.hyperparams.items():
        assert (len(set(values.tolist())) > 3) == (name in ("b1", "learning_rate"))

    by_name = {"b1": optax.sgd(1e-2), "learning_rate": optax.adam(1e-3)}
    _, states = train(hypergradient(adamw(0.1), by_name), x, noise)
    for name, values in states.hyperparams.items():
        assert (len(set(values.tolist())) > 3) == (name in by_name)


def test_schedules_are_left_alone():
    x, noise = problem(6)
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    tx = hypergradient(adamw(schedule, eps_root=1e-16), optax.sgd(1e-2))
    _, states = train(tx, x, noise)
    expected = jax.vmap(schedule)(jnp.arange(6))
    np.testing.assert_allclose(states.hyperparams["learning_rate"], expected, rtol=1e-6)
    assert states.hyperparams["b1"][-1] != states.hyperparams["b1"][0]


def test_bounds_and_the_domain_of_usual_names():
    x, noise = problem(10)
    wild = optax.sgd(100.0)
    inner = adamw(0.1, eps_root=1e-16)
    learn = ["b1", "learning_rate", "weight_decay"]
    _, states = train(hypergradient(inner, wild, learn=learn), x, noise)
    for name in learn:
        assert (states.hyperparams[name] >= 0).all()
    assert (states.hyperparams["b1"] < 1).all()
    tx = hypergradient(inner, wild, learn=learn, bounds={"learning_rate": (0.05, 0.2)})
    rates = train(tx, x, noise)[1].hyperparams["learning_rate"]
    assert set(np.asarray(rates)) <= {np.float32(v) for v in (0.05, 0.1, 0.2)}


def updated(tx, x, noise, **extra):
    """The state after an update with each of these gradients."""
    state = tx.init(x)
    for grads in noise:
        _, state = tx.update(grads, state, x, **extra)
    return state


def test_normalized_hypergradients_are_cosines():
    """They do not depend on the scale of the loss, nor on the learning rate."""
    x, noise = problem(2)
    first, second = noise
    cosines = []
    for scale, rate in ((1.0, 0.1), (100.0, 0.1), (1.0, 1e-3)):
        tx = hypergradient(
            adamw(rate, eps=1e-20, weight_decay=0.0),
            optax.set_to_zero(),
            learn=["learning_rate", "b1"],
            normalize=True,
        )
        state = updated(tx, x, scale * noise)
        cosines.append(state.hypergradient)
    step = -np.sign(first)
    expected = second @ step / np.linalg.norm(second) / np.linalg.norm(step)
    by_name = dict(zip(["b1", "learning_rate"], cosines[0], strict=True))
    np.testing.assert_allclose(by_name["learning_rate"], expected, rtol=1e-5)
    for other in cosines[1:]:
        np.testing.assert_allclose(other[1], cosines[0][1], rtol=1e-4)


@pytest.mark.parametrize(
    ("coordinate", "forward", "inverse", "slope"),
    [
        ("identity", lambda q: q, lambda z: z, lambda q: 1.0),
        (
            "logit",
            lambda q: np.log(q / (1 - q)),
            lambda z: 1 / (1 + np.exp(-z)),
            lambda q: q * (1 - q),
        ),
        ("log1m", lambda q: np.log(1 - q), lambda z: 1 - np.exp(z), lambda q: q - 1),
        ("log", np.log, np.exp, lambda q: q),
    ],
    ids=["identity", "logit", "log1m", "log"],
)
def test_descent_in_other_coordinates(coordinate, forward, inverse, slope):
    x, noise = problem(3)
    tx = hypergradient(
        mada_optax.mada(1.0, **INTERIOR, learn=()),
        optax.sgd(0.3),
        learn=["rho", "gamma"],
        coordinates={"gamma": coordinate},
    )
    before, state = updated(tx, x, noise[:2]), updated(tx, x, noise)
    h = dict(zip(["rho", "gamma"], state.hypergradient, strict=True))["gamma"]
    q = before.hyperparams.gamma
    expected = inverse(forward(q) - 0.3 * h * slope(q))
    assert abs(expected - q) > 5e-4
    np.testing.assert_allclose(state.hyperparams.gamma, expected, rtol=1e-6)


def test_a_filter_is_a_corrected_average():
    x, noise = problem(4)
    options = {"learn": ["b1"], "filter_decay": 0.7}
    _, states = train(hypergradient(adamw(0.1), optax.sgd(1e-2), **options), x, noise)
    raw = np.asarray(states.hypergradient[0])
    average = 0.0
    q = [0.9]
    for t in range(1, 4):
        average = 0.7 * average + 0.3 * raw[t]
        q.append(q[-1] - 1e-2 * average / (1 - 0.7**t))
    np.testing.assert_allclose(states.hyperparams["b1"], q, rtol=1e-5)


def test_warm_up():
    x, noise = problem(6)
    tx = hypergradient(adamw(0.1), optax.sgd(1e-2), learn=["b1"], warmup=4)
    b1 = train(tx, x, noise)[1].hyperparams["b1"]
    assert (b1[:4] == b1[0]).all() and b1[4] != b1[3]


def test_no_move_at_a_spike_of_the_loss():
    x, noise = problem(8)
    learn = ["learning_rate"]
    tx = hypergradient(adamw(0.1), optax.sgd(1e-3), learn=learn, spike=2.0)
    state, rates = tx.init(x), []
    for grads, loss in zip(noise, [1, 1, 1, 5, 1, jnp.inf, 1, 1], strict=True):
        _, state = jax.jit(tx.update)(grads, state, x, value=jnp.float32(loss))
        rates.append(float(state.hyperparams["learning_rate"]))
    moved = np.diff(rates) != 0
    np.testing.assert_array_equal(moved, [1, 1, 0, 1, 0, 1, 1])
    with pytest.raises(TypeError, match="value=loss"):
        tx.update(noise[0], state, x)


def test_a_gradient_that_is_not_finite_moves_nothing():
    x, noise = problem(2)
    tx = hypergradient(adamw(0.1), optax.adam(1e-2), learn=["b1", "learning_rate"])
    state = updated(tx, x, noise)
    assert state.skipped == 0
    _, after = tx.update(noise[0].at[1].set(jnp.nan), state, x)
    assert after.skipped == 1
    chex.assert_trees_all_equal(after.hyperparams, state.hyperparams)
    chex.assert_trees_all_equal(after.hyper_optimizer, state.hyper_optimizer)


class LearnedState(NamedTuple):
    hyperparams: dict


def learned_scale(size):
    """A step of its own for every parameter."""

    def update(updates, state, params, **extra):
        return -state.hyperparams["scale"] * updates, state

    start = {"scale": jnp.full(size, 0.1), "kind": jnp.zeros((), jnp.int32)}
    return optax.GradientTransformationExtraArgs(
        lambda params: LearnedState(jax.tree.map(jnp.copy, start)), update
    )


def test_hyper_parameters_of_any_shape():
    x, noise = problem(2)
    first, second = noise
    inner = learned_scale(x.size)
    tx = hypergradient(inner, optax.sgd(0.01))
    state = updated(tx, x, noise, value=jnp.ones(()))
    np.testing.assert_allclose(state.hypergradient[0], -first * second, rtol=1e-6)
    moved = 0.1 + 0.01 * first * second
    np.testing.assert_allclose(state.hyperparams["scale"], moved, rtol=1e-6)
    with pytest.raises(ValueError, match=r"normalize.*scalar.*\(6,\)"):
        updated(hypergradient(inner, optax.sgd(0.01), normalize=True), x, noise)


AT_CONSTRUCTION = {
    "coordinates": ({"coordinates": {"b1": "exp"}}, "coordinates['b1']", "'logit'"),
    "warmup": ({"warmup": -1}, "warmup", ">= 0", "-1"),
    "filter": ({"filter_decay": 1.0}, "filter_decay", "[0, 1)", "1.0"),
    "spike": ({"spike": 0.5}, "spike", ">= 1", "0.5"),
    "bounds": ({"bounds": {"b1": (0.5, 1.5)}}, "bounds['b1']", "[0, 1)", "1.5"),
}
AT_INIT = {
    "learn": ({"learn": ["b9"]}, "learn", "'b9'", "'b1'"),
    "bounds": ({"bounds": {"b9": (0, 1)}}, "bounds", "'b9'", "'b1'"),
    "coordinates": ({"coordinates": {"b9": "log"}}, "coordinates", "'b9'", "'b1'"),
}


@pytest.mark.parametrize("case", AT_CONSTRUCTION)
def test_errors_at_construction(case):
    arguments, *words = AT_CONSTRUCTION[case]
    with pytest.raises(ValueError) as error:
        hypergradient(adamw(0.1), optax.sgd(0.1), **arguments)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("case", AT_INIT)
def test_errors_at_init(case):
    arguments, *words = AT_INIT[case]
    with pytest.raises(ValueError) as error:
        hypergradient(adamw(0.1), optax.sgd(0.1), **arguments).init(jnp.ones(2))
    for word in words:
        assert word in str(error.value)


def test_errors_about_the_inner_transformation():
    x = jnp.ones(2)
    for inner, found in (
        (optax.adam(0.1), 0),
        (optax.chain(adamw(1.0), adamw(1.0)), 2),
    ):
        with pytest.raises(
            ValueError, match=f"one field `hyperparams`.*{found}.*inject"
        ):
            hypergradient(inner, optax.sgd(0.1)).init(x)
    scheduled = adamw(optax.constant_schedule(0.1))
    with pytest.raises(ValueError, match=r"learning_rate.*schedule.*learn"):
        hypergradient(scheduled, optax.sgd(0.1), learn=["learning_rate"]).init(x)
    by_name = {"b9": optax.sgd(0.1)}
    with pytest.raises(ValueError, match=r"hyper_optimizer.*'b9'.*'b1'"):
        hypergradient(adamw(0.1), by_name).init(x)
    tx = hypergradient(adamw(0.1), optax.sgd(0.1))
    with pytest.raises(ValueError, match="params=None"):
        tx.update(x, tx.init(x))
