"""What is proven about AVGrad, and the problems on which Adam fails."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mada_optax

fixed = functools.partial(mada_optax.mada, learn=())


def inverse_root(count):
    return 1.0 / jnp.sqrt(count.astype(float) + 1)


def effective_rates(grads, **coefficients):
    """a_t / sqrt(v_t) with a_t = 1/sqrt(t), as the ratio of update and gradient."""
    tx = fixed(
        inverse_root,
        b1=0.0,
        eps=0.0,
        nu_init=0.0,
        bias_correction=False,
        **coefficients,
    )

    def step(state, grad):
        update, state = tx.update(grad, state)
        return state, -update / grad

    run = jax.jit(lambda g: jax.lax.scan(step, tx.init(g[0]), g)[1])
    return np.asarray(run(jnp.asarray(grads)))


def first_growth(rates):
    """The first t at which the effective rate grows, or `None`."""
    grows = rates[1:] > rates[:-1] * (1 + 1e-9)
    return int(np.argmax(grows)) + 2 if grows.any() else None


# A gradient of 1e-100 shows the rate, and its square is too small to move it.
BURST = np.where(np.arange(2000) == 0, 1.0, 1e-100)


def gradients():
    rng = np.random.default_rng(0)
    t = np.arange(1, 2001)
    return {
        "one_burst": BURST,
        "random": rng.normal(size=2000),
        "bursts": np.where(rng.random(2000) < 0.02, 10.0, 1e-3),
        "vanishing": 1.0 / t**2,
    }


@pytest.mark.parametrize(
    ("b2", "rho", "first"),
    [(0.5, 0.5, 4), (0.9, 0.5, 20), (0.9, 1.0, 11), (0.99, 0.5, 200), (0.99, 1.0, 101)],
)
@jax.enable_x64(True)
def test_a_constant_rho_keeps_the_rate_from_growing_for_so_long(b2, rho, first):
    assert first == int(1 + b2 / (rho * (1 - b2)) + 1e-9) + 1
    assert first_growth(effective_rates(BURST[:220], b2=b2, rho=rho)) == first


@pytest.mark.parametrize("c", [1.0, 0.3])
@pytest.mark.parametrize("kind", gradients())
@jax.enable_x64(True)
def test_avgrad_never_raises_its_effective_rate(kind, c):
    def falling(count):
        return 0.5 / (count.astype(float) + 1)

    rates = functools.partial(effective_rates, gradients()[kind], b2=0.5, c=c)
    assert first_growth(rates(rho=0.0)) is None
    assert first_growth(rates(rho=falling)) is None


@jax.enable_x64(True)
def test_a_rho_that_falls_from_above_b2_can_raise_it():
    def falling(count):
        return 1.0 / (count.astype(float) + 1)

    late_burst = np.where(np.arange(50) == 9, 1.0, 1e-100)
    assert first_growth(effective_rates(late_burst, b2=0.5, rho=falling)) == 11


def minimize_linear(tx, slope, steps, at):
    """Projected descent of slope(t) * x in [-1, 1] from 0: x and mean regret at `at`.

    The best point is -1.
    """

    def step(carry, t):
        x, state, regret = carry
        regret += slope(t) * (x + 1)
        update, state = tx.update(jnp.asarray(slope(t)), state, x)
        x = jnp.clip(x + update, -1, 1)
        return (x, state, regret), (x, regret / t)

    x = jnp.zeros(())
    carry = (x, tx.init(x), x)
    _, (xs, regrets) = jax.lax.scan(step, carry, jnp.arange(1, steps + 1))
    at = jnp.asarray(at) - 1
    return xs[at], regrets[at]


PERIODIC = {
    "adam": functools.partial(fixed, bias_correction=False, nu_init=0.0),
    "amsgrad": functools.partial(mada_optax.amsgrad, bias_correction=False),
    "avgrad": functools.partial(mada_optax.avgrad, bias_correction=False),
}
# x after 1e3, 1e4, 1e5 steps for C = 3, 4, 10.
PERIODIC_X = {
    "adam": [[0.9967, 0.9990, 0.9997], None, [0.9968, 0.9990, 0.9997]],
    "amsgrad": [[-0.7794, -1, -1], [-1, -1, -1], [-1, -1, -1]],
    "avgrad": [[-1, -1, -1], [-1, -1, -1], [-1, -1, -1]],
}
PERIODIC_REGRET = {"adam": 0.666, "amsgrad": 0.0022, "avgrad": 0.0015}


@pytest.mark.parametrize("name", PERIODIC)
@jax.enable_x64(True)
def test_adam_fails_and_avgrad_does_not_on_the_periodic_problem(name):
    """The gradient is C once in three steps and else -1; b2 = 1/(1 + C^2)."""

    @jax.jit
    @jax.vmap
    def run(size):
        tx = PERIODIC[name](
            lambda count: 0.1 * inverse_root(count),
            b1=0.0,
            b2=1 / (1 + size**2),
            eps=0.0,
        )

        def slope(t):
            return jnp.where(t % 3 == 1, size, -1.0)

        return minimize_linear(tx, slope, 100_000, [1_000, 10_000, 100_000])

    x, regret = run(jnp.array([3.0, 4.0, 10.0]))
    for row, expected in zip(x, PERIODIC_X[name], strict=True):
        if expected is not None:
            np.testing.assert_allclose(row, expected, rtol=0, atol=6e-5)
    np.testing.assert_allclose(regret[0, -1], PERIODIC_REGRET[name], rtol=0.04)


AT = [1_000, 10_000, 100_000]
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
LINEAR = {
    "adam": (
        mada_optax.adam(1e-3, **ADAM),
        [0.0183, 0.1880, 0.9955],
        [0.2306, 0.2569, 0.2194],
    ),
    "amsgrad": (
        mada_optax.amsgrad(1e-3, **ADAM),
        [-0.0008, -0.0077, -0.0817],
        [0.2322, 0.2319, 0.1367],
    ),
    "avgrad": (
        fixed(1e-3, **ADAM, rho=0.0, compat="released"),
        [-0.0015, -0.0109, -0.1043],
        [0.2423, 0.2404, 0.1440],
    ),
}


def rare_and_large(t):
    return jnp.where(t % 101 == 1, 1010.0, -10.0)


@pytest.mark.parametrize("name", LINEAR)
@jax.enable_x64(True)
def test_adam_runs_to_the_wrong_end_of_the_1010_problem(name):
    tx, expected_x, expected_regret = LINEAR[name]
    x, regret = jax.jit(lambda: minimize_linear(tx, rare_and_large, 100_000, AT))()
    np.testing.assert_allclose(x, expected_x, rtol=0, atol=6e-5)
    np.testing.assert_allclose(regret, expected_regret, rtol=0, atol=6e-5)


@jax.enable_x64(True)
def test_mada_moves_to_avgrad_on_the_1010_problem():
    names, steps = ("b3", "c", "rho"), 100_000
    tx = mada_optax.mada(
        1e-3,
        b1=0.9,
        b2=0.99,
        eps=1e-6,
        learn=names,
        hyper_learning_rate=0.1,
        hyper_momentum=0.9,
        hyper_clip=None,
        compat="released",
    )

    def step(carry, t):
        x, state, regret = carry
        slope = rare_and_large(t)
        regret += slope * (x + 1)
        update, state = tx.update(slope, state, x)
        q = jnp.stack([getattr(state.hyperparams, name) for name in names])
        x = x + update
        return (x, state, regret), (x, regret / t, q)

    @jax.jit
    def run(x):
        carry = (x, tx.init(x), x)
        return jax.lax.scan(step, carry, jnp.arange(1, steps + 1))[1]

    x, regret, q = run(jnp.zeros(()))
    assert np.abs(x).max() < 1  # So the projection never cuts a derivative.
    at = np.array(AT) - 1
    np.testing.assert_allclose(x[at], [0.0162, 0.1067, 0.3894], rtol=0, atol=6e-5)
    np.testing.assert_allclose(regret[at], [0.2305, 0.2402, 0.1579], rtol=0, atol=6e-5)
    expected = [[0.084, 0.996, 0.864], [0.688, 0.974, 0.832], [0.749, 0.855, 0.041]]
    np.testing.assert_allclose(q[at], expected, rtol=0, atol=6e-4)
