"""Meta-training improves whatever is behind the field `hyperparams`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lopt
import mada_optax
from lopt.keys import particle_keys
from lopt.truncation import Constant
from lopt.unroll import Unroll
from tasks.base import Task

ROWS = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)


def regression():
    """Least squares in six dimensions, from a random start."""

    def init(key):
        return {"w": jax.random.normal(key, (6,)), "b": jnp.ones(())}, ()

    def loss(params, model_state, batch, key):
        del key
        error = batch @ params["w"] + params["b"]
        return jnp.mean(error**2), model_state

    return Task(
        name="regression",
        init=init,
        loss=loss,
        sample=lambda data, key: data[jax.random.randint(key, (8,), 0, len(data))],
        evaluate=lambda *_: {},
        data={"train": jnp.asarray(ROWS), "valid": jnp.asarray(ROWS)},
    )


def meta_train(unroll, theta, estimator, rate, steps):
    """Theta after meta-training, and the mean loss of runs before and after it."""
    data = {"train": unroll.task.data["train"]}
    indices = jnp.arange(estimator.num_particles)
    optimizer = optax.adam(rate)

    @jax.jit
    def train(theta, key):
        def step(carry, key):
            theta, opt_state, state = carry
            state, estimate = estimator.estimate(
                unroll, theta, state, key, indices, data
            )
            gradient = jax.tree.map(lambda g: g / len(indices), estimate.gradient)
            updates, opt_state = optimizer.update(gradient, opt_state)
            return (optax.apply_updates(theta, updates), opt_state, state), None

        state = estimator.init(unroll, theta, key, indices)
        carry = theta, optimizer.init(theta), state
        return jax.lax.scan(step, carry, jax.random.split(key, steps))[0][0]

    @jax.jit
    def evaluate(theta):
        thetas = jax.tree.map(lambda x: jnp.broadcast_to(x, (64, 1, *x.shape)), theta)
        keys = particle_keys(jax.random.key(99), jnp.arange(64))
        length = jnp.int32(unroll.schedule.longest)
        return unroll.run_whole(thetas, keys, data, length)[1].loss.mean()

    after = train(theta, jax.random.key(0))
    return after, float(evaluate(theta)), float(evaluate(after))


@pytest.mark.parametrize(
    "estimator",
    [
        lopt.pes(8, 0.1, 5),
        lopt.es(8, 0.1, 5),
        lopt.full_es(8, 0.1),
        lopt.noise_reuse_es(8, 0.1, 5),
        lopt.truncated_backprop(8, 5),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_learning_rate_of_adamw(estimator):
    unroll = Unroll(
        regression(),
        optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3, eps_root=1e-16),
        Constant(20, stagger=20),
        to_hyperparams=lambda theta: {"learning_rate": jnp.exp(theta["log_rate"])},
    )
    theta = {"log_rate": jnp.log(jnp.float32(1e-3))}
    theta, before, after = meta_train(unroll, theta, estimator, 0.1, 60)
    assert 0.03 < np.exp(theta["log_rate"]) < 3
    assert after < 0.5 * before


def test_where_the_coefficients_of_mada_start():
    """Momentum of 0.95 overshoots; MADA moves it by itself too, but slowly."""
    unroll = Unroll(
        regression(),
        mada_optax.mada(0.2),
        Constant(20, stagger=20),
        to_hyperparams=lambda theta: {"b1": jax.nn.sigmoid(theta["logit_b1"])},
    )
    theta = {"logit_b1": jax.scipy.special.logit(jnp.float32(0.95))}
    estimator = lopt.noise_reuse_es(8, 0.3, 5)
    theta, before, after = meta_train(unroll, theta, estimator, 0.15, 60)
    assert jax.nn.sigmoid(theta["logit_b1"]) < 0.85
    assert after < 0.8 * before


def test_the_weights_of_a_learned_optimizer():
    optimizer = lopt.small_fc("sp", hidden_size=4, step_multiplier=0.05)
    theta = optimizer.init(jax.random.key(0))
    unroll = Unroll(regression(), optimizer.transform(theta), Constant(20, stagger=20))
    estimator = lopt.pes(8, 0.03, 5)
    _, before, after = meta_train(unroll, theta, estimator, 0.02, 100)
    assert after < 0.5 * before
