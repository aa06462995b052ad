"""The members of the family, and their points of O_q, against their own papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mada_optax

STEPS, RATE = 40, 0.03
fixed = functools.partial(mada_optax.mada, learn=())


def adam(g, s, t, b1=0.9, b2=0.999, eps=1e-8):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def avgrad(g, s, t, b1=0.9, b2=0.95, eps=1e-8, corrected=True):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    s["sum"] = s["sum"] + s["v"]
    c1, c2 = (1 - b1**t, 1 - b2**t) if corrected else (1, 1)
    return s["m"] / c1 / (np.sqrt(s["sum"] / t / c2) + eps)


def yogi(g, s, t, b1=0.9, b2=0.999, eps=1e-3, start=1e-6):
    v = s["v"] + start if t == 1 else s["v"]
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = v + (1 - b2) * g**2 * np.sign(g**2 - v)
    return s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def adan(g, s, t, b1=0.98, b2=0.92, b3=0.99, eps=1e-8):
    d = g - s["g"] if t > 1 else 0 * g
    s["g"] = g
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["w"] = b2 * s["w"] + (1 - b2) * d
    s["z"] = b3 * s["z"] + (1 - b3) * (g + b2 * d) ** 2
    top = s["m"] / (1 - b1**t) + b2 * s["w"] / (1 - b2**t)
    return top / (np.sqrt(s["z"] / (1 - b3**t)) + eps)


def lion(g, s, t, b1=0.9, b2=0.99):
    direction = np.sign(b1 * s["m"] + (1 - b1) * g)
    s["m"] = b2 * s["m"] + (1 - b2) * g
    return direction


def lion_of_the_released_code(g, s, t, b1=0.95, b2=0.98):
    """Updates its momentum first, and takes the direction from the new one."""
    s["m"] = b2 * s["m"] + (1 - b2) * g
    return np.sign(b1 * s["m"] + (1 - b1) * g)


def amsgrad(g, s, t, b1=0.9, b2=0.999, eps=1e-8, corrected=True, debiased_max=False):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    c1, c2 = (1 - b1**t, 1 - b2**t) if corrected else (1, 1)
    s["max"] = np.maximum(s["max"], s["v"] / c2 if debiased_max else s["v"])
    return s["m"] / c1 / (np.sqrt(s["max"] if debiased_max else s["max"] / c2) + eps)


def partial(f, **kwargs):
    return functools.partial(f, **kwargs)


PAIRS = {
    "adam": (mada_optax.adam, adam, {}),
    "adam_betas": (mada_optax.adam, adam, {"b1": 0.6, "b2": 0.7, "eps": 1e-3}),
    "avgrad": (mada_optax.avgrad, avgrad, {}),
    "avgrad_raw": (
        partial(mada_optax.avgrad, bias_correction=False),
        partial(avgrad, corrected=False),
        {"b1": 0.5},
    ),
    "yogi": (mada_optax.yogi, yogi, {}),
    "yogi_fast": (mada_optax.yogi, yogi, {"b2": 0.9, "eps": 1e-8}),
    "adan": (mada_optax.adan, adan, {}),
    "adan_fast": (mada_optax.adan, adan, {"b1": 0.5, "b2": 0.6, "b3": 0.7}),
    "lion": (mada_optax.lion, lion, {}),
    "lion_betas": (mada_optax.lion, lion, {"b1": 0.5, "b2": 0.6}),
    "amsgrad": (mada_optax.amsgrad, amsgrad, {"b2": 0.9}),
    "amsgrad_raw": (
        partial(mada_optax.amsgrad, bias_correction=False),
        partial(amsgrad, corrected=False),
        {"b1": 0.5, "b2": 0.9},
    ),
    "amsgrad_max_of_debiased": (
        partial(mada_optax.amsgrad, max_of_debiased=True),
        partial(amsgrad, debiased_max=True),
        {"b2": 0.9},
    ),
    "point_adam": (partial(fixed, nu_init=0.0), adam, {"b2": 0.95}),
    "point_avgrad": (partial(fixed, nu_init=0.0, rho=0.0), avgrad, {}),
    "point_yogi": (partial(fixed, nu_init=1e-6, c=0.0), yogi, {"eps": 1e-3, "b2": 0.9}),
    "point_adan": (
        partial(fixed, nu_init=0.0, b1=0.98, b2=0.99, b3=0.92, debias_n=True),
        adan,
        {},
    ),
    "point_lion": (partial(fixed, gamma=0.0), partial(lion, b1=0.95, b2=0.98), {}),
    "point_lion_released": (
        partial(fixed, gamma=0.0, compat="released"),
        lion_of_the_released_code,
        {},
    ),
}


def problem(size=7):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    noise = rng.normal(size=(STEPS, size)) * 10 ** rng.uniform(-2, 0.5, (STEPS, 1))
    return root @ root.T, noise, rng.normal(size=size)


def train(tx):
    matrix, noise, start = problem()

    def step(carry, eta):
        x, state = carry
        updates, state = tx.update(matrix @ x + eta, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    def run(x):
        return jax.lax.scan(step, (x, tx.init(x)), jnp.asarray(noise))[1]

    return jax.jit(run)(jnp.asarray(start))


def train_numpy(rule, weight_decay):
    matrix, noise, x = problem()
    buffers = dict.fromkeys(("m", "v", "w", "z", "g", "sum", "max"), np.zeros_like(x))
    path = []
    for t, eta in enumerate(noise, start=1):
        g = matrix @ x + eta
        x = x - RATE * weight_decay * x - RATE * rule(g, buffers, t)
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("name", PAIRS)
@jax.enable_x64(True)
def test_takes_the_steps_of_its_paper(name, weight_decay):
    factory, rule, arguments = PAIRS[name]
    x = train(factory(RATE, weight_decay=weight_decay, **arguments))
    expected = train_numpy(partial(rule, **arguments), weight_decay)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mada_optax.adam(RATE), optax.adam(RATE)),
        (mada_optax.adam(RATE, weight_decay=0.1), optax.adamw(RATE, weight_decay=0.1)),
        (
            mada_optax.lion(RATE, weight_decay=0.1),
            optax.lion(RATE, weight_decay=0.1),
        ),
        (mada_optax.amsgrad(RATE, max_of_debiased=True), optax.amsgrad(RATE)),
    ],
    ids=["adam", "adamw", "lion", "amsgrad"],
)
@jax.enable_x64(True)
def test_takes_the_steps_of_its_optax_twin(ours, theirs):
    np.testing.assert_allclose(train(ours), train(theirs), rtol=0, atol=1e-10)


@jax.enable_x64(True)
def test_adam_point_with_the_default_start_of_the_second_moment():
    """The 1e-15 from which MADA starts costs nothing that can be seen."""
    np.testing.assert_allclose(
        train(fixed(RATE)), train(mada_optax.adam(RATE, b2=0.95)), rtol=0, atol=1e-11
    )


def test_weight_decay_follows_the_mask():
    params = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    zeros = jax.tree.map(jnp.zeros_like, params)
    masks = {
        "tree": {"bias": False, "kernel": True},
        "function": lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
    }
    for factory in (mada_optax.adam, mada_optax.lion, mada_optax.mada):
        for mask in masks.values():
            tx = factory(0.1, weight_decay=0.5, mask=mask)
            updates, _ = tx.update(zeros, tx.init(params), params)
            np.testing.assert_allclose(updates["bias"], 0.0)
            np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
