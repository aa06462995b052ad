"""A task and an estimator that compile fast: keys become numbers by arithmetic."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.estimators.base import Estimate
from tasks.base import Task


def quadratic(name="quadratic", dim=4):
    """Distance to rows of a table; the width multiplier is the dimension."""
    rows = np.random.default_rng(0).normal(size=(32, dim)).astype(np.float32)

    def init(key):
        return {"x": 1 + draw(key) % 8 / 4 + jnp.arange(dim) / dim}, ()

    def loss(params, model_state, batch, key):
        del key
        return 0.5 * jnp.mean((params["x"][None] - batch) ** 2), model_state

    def sample(data, key):
        return jax.lax.dynamic_slice_in_dim(data, draw(key) % 16, 8)

    def evaluate(params, model_state, data):
        del model_state
        return {"loss": 0.5 * jnp.mean((params["x"][None] - data) ** 2)}

    return Task(
        name=name,
        init=init,
        loss=loss,
        sample=sample,
        evaluate=evaluate,
        data={"train": jnp.asarray(rows[:24]), "valid": jnp.asarray(rows[24:])},
        width_multipliers={"x": float(dim)},
        metadata={"dim": dim},
    )


def draw(key):
    """A number in [0, 1024)."""
    return (jax.random.key_data(key)[1] % 1024).astype(jnp.int32)


class State(NamedTuple):
    params: dict
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class ToyES:
    """Truncated ES without restarts, and theta must be the `learning_rate` of SGD.

    With the given probability, which all particles share, an estimate is `broken`.
    """

    num_particles: int = 8
    truncation_length: int = 5
    std: float = 0.01
    nonfinite: float = 0.0
    broken: float = float("inf")

    def init(self, unroll, theta, key, indices):
        del theta

        def start(index):
            params, _ = unroll.task.init(jax.random.fold_in(key, index))
            return State(params, unroll.transformation.init(params))

        return jax.vmap(start)(indices)

    def estimate(self, unroll, theta, state, key, indices, data):
        def run(theta, state, key):
            def step(state, t):
                now = jax.random.wrap_key_data(jax.random.key_data(key) + t)
                batch = unroll.task.sample(data["train"], now)
                loss, grads = jax.value_and_grad(
                    lambda p: unroll.task.loss(p, (), batch, key)[0]
                )(state.params)
                opt_state = optax.tree.set(state.opt_state, learning_rate=theta)
                updates, opt_state = unroll.transformation.update(
                    grads, opt_state, state.params
                )
                params = optax.apply_updates(state.params, updates)
                return State(params, opt_state), loss

            times = jnp.arange(self.truncation_length, dtype=jnp.uint32)
            state, losses = jax.lax.scan(step, state, times)
            return state, losses.mean()

        def pair(state, index):
            particle_key = jax.random.fold_in(key, index)
            noise = self.std * (draw(particle_key) % 2 * 2 - 1) * (1 + index % 8 / 8)

            def signed(sign):
                return run(theta["learning_rate"] + sign * noise, state, particle_key)

            states, losses = jax.vmap(signed)(jnp.array([1.0, -1.0]))
            gradient = (losses[0] - losses[1]) * noise / (2 * self.std**2)
            return jax.tree.map(lambda x: x[0], states), gradient, losses.mean()

        state, gradient, loss = jax.vmap(pair)(state, indices)
        broken = draw(key) < 1024 * self.nonfinite
        gradient = jnp.where(broken, self.broken, gradient)
        num_steps = 2 * self.truncation_length * len(indices)
        return state, Estimate(
            {"learning_rate": gradient.sum()},
            loss.sum(),
            jnp.int32(num_steps),
            broken * jnp.int32(len(indices)),
        )


def sgd():
    return optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
