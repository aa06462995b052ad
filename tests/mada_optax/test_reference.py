"""Every combination of options against the reference that stores all it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mada_reference import BOX, NAMES, Mada

import mada_optax

STEPS = 14
NEUTRAL = {"b3": 0.0, "c": 1.0, "rho": 1.0, "gamma": 1.0}


def warm_up(count):
    return jnp.linspace(0.0, 0.05, STEPS)[count]  # An Optax schedule is float32.


def draw(seed):
    """Random arguments of `mada`, of all kinds at once."""
    rng = np.random.default_rng(seed)
    learn = [name for name in NAMES[:6] if rng.random() < 0.7]
    start = {
        name: rng.uniform(0.1, 0.9) if name != "b2" else rng.uniform(0.55, 0.95)
        for name in NAMES[:6]
    }
    for name in set(NEUTRAL) - set(learn):
        if rng.random() < 0.6:
            start[name] = NEUTRAL[name]
    rate = 0.05
    if rng.random() < 0.3:
        learn.append("learning_rate")
    elif rng.random() < 0.5:
        rate = warm_up
    bounds = {}
    for name in learn[:2]:
        low, high = BOX[name] if name != "learning_rate" else (0.02, 0.06)
        value = start.get(name, rate)
        bounds[name] = (value - (value - low) / 20, value + (high - value) / 20)
    return dict(
        learning_rate=rate,
        **start,
        eps=rng.choice([1e-8, 1e-3]),
        weight_decay=rng.choice([0.0, 0.3]),
        learn=tuple(learn),
        bounds=bounds,
        hyper_learning_rate={
            name: rng.uniform(0.01, 0.2) * (1e-2 if name == "learning_rate" else 1)
            for name in learn
        },
        hyper_momentum={name: rng.choice([0.0, 0.7]) for name in learn},
        hyper_clip=rng.choice([None, 0.5]),
        hyper_warmup=int(rng.choice([0, 0, 3])),
        hyper_grad_scale=rng.choice([1.0, 0.2]),
        clip_norm=rng.choice([None, 2.0]),
        lion_betas=(0.931, 0.98) if rng.random() < 0.5 else (0.95, 0.98),
        nu_init=rng.choice([1e-15, 1e-2]),
        n_init=str(rng.choice(["zeros", "grad_sq"])),
        prev_grad=str(rng.choice(["true", "true", "zero"])),
        prev_grad_init=str(rng.choice(["first", "zeros"])),
        bias_correction=bool(rng.random() < 0.7),
        debias_n=bool(rng.random() < 0.4),
        detach_average=bool(rng.random() < 0.6),
        update_order=str(rng.choice(["q_first", "x_first"])),
        reparam=None if rng.random() < 0.7 else "tanh",
    )


def problem(seed, size):
    """The gradient of a random quadratic with noise; its scale jumps, as signs need."""
    rng = np.random.default_rng([seed, 1])
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    matrix = root @ root.T
    noise = rng.normal(size=(STEPS, size))
    noise *= 10 ** rng.uniform(-1.5, 0.5, size=(STEPS, 1))
    return matrix, noise, rng.normal(size=size)


def transformed(tx, matrix, noise, start, split):
    """The same three histories as `Mada.run`, in two leaves of different rank."""

    def tree(x):
        return {"b": x[:split], "w": x[split:].reshape(-1, 2)}

    def flat(params):
        return jnp.concatenate([params["b"], params["w"].ravel()])

    def step(carry, eta):
        params, state = carry
        grads = tree(matrix @ flat(params) + eta)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen = mada_optax.diagnostics(state)
        h = jnp.stack([seen.get(f"hypergradient/{n}", jnp.zeros(())) for n in NAMES])
        q = jnp.stack([seen[name] for name in NAMES[:6]])
        return (params, state), (flat(params), q, h)

    @jax.jit
    def run(start):
        params = tree(start)
        return jax.lax.scan(step, (params, tx.init(params)), noise)[1]

    return run(start)


@pytest.mark.parametrize("seed", range(16))
@jax.enable_x64(True)
def test_agrees_with_the_naive_scheme(seed):
    size, split = 9, 3
    arguments = draw(seed)
    matrix, noise, start = problem(seed, size)
    expected = Mada(**arguments, decayed=np.arange(size) >= split).run(
        start, lambda x, i: matrix @ x + noise[i], STEPS
    )

    tx = mada_optax.mada(**arguments, mask={"b": False, "w": True})
    x, q, h = transformed(tx, matrix, noise, start, split)

    np.testing.assert_allclose(x, expected[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(q, expected[1][:, :6], rtol=0, atol=1e-10)
    scale = np.abs(expected[2]).max() + 1e-30
    np.testing.assert_allclose(h / scale, expected[2] / scale, rtol=0, atol=1e-9)
