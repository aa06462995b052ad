"""Closed-form hypergradients against automatic differentiation of the same step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mada_optax

NAMES = ("b1", "b2", "b3", "c", "rho", "gamma")
LOWER = np.array([0.01, 0.501, 0.0, 0.0, 0.0, 0.0])
UPPER = np.array([0.99, 0.99, 0.99, 1.0, 1.0, 1.0])
STEPS, RATE, EPS = 6, 0.1, 1e-8
OPTIONS = {
    "default": {},
    "attached_average": {"detach_average": False},
    "debiased_n": {"debias_n": True},
    "no_bias_correction": {"bias_correction": False},
    "no_bias_correction_attached": {"bias_correction": False, "detach_average": False},
    "zero_previous_gradient": {"prev_grad": "zero"},
    "released": {"compat": "released"},
}
stop = jax.lax.stop_gradient


def step(
    q,
    old,
    grad,
    t,
    *,
    bias_correction=True,
    debias_n=False,
    detach_average=True,
    prev_grad="true",
    compat=None,
):
    """The change of one parameter, differentiable in q, and the state after it."""
    b1, b2, b3, c, rho, gamma = q
    m, v, mean, n, lion, last = old
    l1, l2 = (0.931, 0.98) if compat else (0.95, 0.98)
    if compat is None:
        last = jnp.where(t == 1, grad, last)
    else:
        n = jnp.where(t == 1, grad**2, n)
    d = grad - (0.0 if prev_grad == "zero" else last)
    ahead = grad + b3 * d
    sign = stop(jnp.sign(ahead**2 - v))
    square = c * ahead**2 + (1 - c) * (v + sign * ahead**2)
    m = b1 * m + (1 - b1) * grad
    v = b2 * v + (1 - b2) * square
    n = b3 * n + (1 - b3) * d
    mean = mean + (v - mean) / t
    c1, c2 = (1 - b1**t, 1 - b2**t) if bias_correction else (1.0, 1.0)
    c3 = 1 - b3**t if debias_n else 1.0
    second = rho * v + (1 - rho) * (stop(mean) if detach_average else mean)
    adaptive = (m / c1 + b3 * n / c3) / (jnp.sqrt(second / c2) + EPS)
    signs = stop(jnp.sign(l1 * lion + (1 - l1) * grad))
    new = m, v, mean, n, l2 * lion + (1 - l2) * grad, grad
    return -RATE * (gamma * adaptive + (1 - gamma) * signs), stop(new)


def by_differentiation(q, grads, options):
    """h at every update: the gradient times d(last change)/dq."""

    def update(old, inputs):
        t, grad, following = inputs
        change = functools.partial(step, old=old, grad=grad, t=t, **options)
        partials, new = jax.jacfwd(change, has_aux=True)(q)
        return new, partials * following

    start = (jnp.zeros(()), jnp.full((), 1e-15), *jnp.zeros(4))
    inputs = jnp.arange(1.0, STEPS), grads[:-1], grads[1:]
    return jnp.pad(jax.lax.scan(update, start, inputs)[1], ((1, 0), (0, 0)))


def by_closed_form(q, grads, options):
    tx = mada_optax.mada(
        RATE,
        **dict(zip(NAMES, q, strict=True)),
        eps=EPS,
        hyper_learning_rate=0.0,
        **options,
    )

    def update(state, grad):
        _, state = tx.update(grad, state)
        seen = mada_optax.diagnostics(state)
        return state, jnp.stack([seen[f"hypergradient/{name}"] for name in NAMES])

    return jax.lax.scan(update, tx.init(grads[0]), grads)[1]


def random_runs(size, seed=0):
    """Coefficients inside the box and in its corners; gradients of jumping size."""
    rng = np.random.default_rng(seed)
    inside = rng.uniform(LOWER, UPPER, (size, 6))
    corner = np.where(rng.random((size, 6)) < 0.5, LOWER, UPPER)
    q = np.where(rng.random((size, 6)) < 0.5, corner, inside)
    grads = rng.normal(size=(size, STEPS)) * 10 ** rng.uniform(-2, 1, (size, STEPS))
    return q, grads


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@jax.enable_x64(True)
def test_hypergradients_are_derivatives_of_the_step(options):
    q, grads = random_runs(400)

    @jax.jit
    @jax.vmap
    def both(q, grads):
        return by_differentiation(q, grads, options), by_closed_form(q, grads, options)

    expected, h = jax.tree.map(np.asarray, both(q, grads))

    assert (np.abs(expected).max(axis=(0, 1)) > 1e-3).all()
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True) + np.abs(expected)
    np.testing.assert_allclose(h / scale, expected / scale, rtol=0, atol=1e-11)


@jax.enable_x64(True)
def test_what_is_known_without_computing():
    rng = np.random.default_rng(1)
    q, grads = random_runs(50)
    q = {
        "interior": rng.uniform(LOWER, UPPER, (50, 6)),
        "rho=0": q * [1, 1, 1, 1, 0, 1],
        "gamma=0": q * [1, 1, 1, 1, 1, 0],
    }

    @jax.jit
    @jax.vmap
    def hypergradients(q, grads):
        h = by_closed_form(q, grads, {})
        return dict(zip(NAMES, h.T, strict=True))

    h = hypergradients(q["interior"], grads)
    assert not np.any([h[name][:, 0] for name in NAMES])
    # After one step m = g up to its bias correction, and the mean is of one value.
    first = {name: np.abs(h[name][:, 1]) for name in NAMES}
    assert (first["b1"] < 1e-12 * np.abs(grads[:, 1])).all()
    assert (first["rho"] == 0).all()
    assert (first["c"] < 1e-8).all()
    assert (first["b2"] > 1e-12).any()
    assert (first["gamma"] > 1e-6).any()

    h = hypergradients(q["rho=0"], grads)
    assert not np.any(h["c"])
    assert np.any(h["b2"])

    h = hypergradients(q["gamma=0"], grads)
    assert not np.any([h[name] for name in NAMES if name != "gamma"])
    assert np.any(h["gamma"])


@pytest.mark.parametrize("c", [0.0, 0.4, 1.0])
@jax.enable_x64(True)
def test_a_tie_of_the_signs_gives_the_square_for_every_c(c):
    tx = mada_optax.mada(0.1, c=c, learn=(), nu_init=0.25, active=("c",))
    grad = jnp.array(0.5, jnp.float64)
    _, state = tx.update(grad, tx.init(grad))
    np.testing.assert_allclose(state.moments.nu, 0.25, rtol=1e-15)
