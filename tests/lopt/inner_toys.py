"""Inner problems whose meta-gradients are known in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from tasks.base import Task


def task(loss, start=1.0, dim=1, **options):
    """Params {"x": (dim,)} from `start`; the loss sees them and a batch of noise."""

    def init(key):
        del key
        return {"x": jnp.full(dim, start)}, ()

    return Task(
        name="toy",
        init=init,
        loss=lambda params, model_state, batch, key: (
            loss(params["x"], batch),
            model_state,
        ),
        sample=lambda data, key: data[0] * jax.random.normal(key),
        evaluate=lambda params, model_state, data: {"loss": loss(params["x"], 0.0)},
        data={"train": jnp.zeros(1), "valid": jnp.ones(1)},
        **options,
    )


def quadratic(**options):
    """Half the squared distance to 0: SGD at rate r multiplies x by 1 - r."""
    return task(lambda x, batch: 0.5 * jnp.sum(x**2) + batch, **options)


def sgd(learning_rate=0.3):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate)


class FollowState(NamedTuple):
    hyperparams: jax.Array
    count: jax.Array


def follow(dim=1, moves=False):
    """Sets x to its hyper-parameters; where it `moves`, these halve at every step."""

    def init(params):
        del params
        return FollowState(jnp.zeros(dim), jnp.zeros((), jnp.int32))

    def update(updates, state, params, **extra):
        del updates, extra
        new = {"x": state.hyperparams - params["x"]}
        after = state.hyperparams * 0.5 if moves else state.hyperparams
        return new, FollowState(after, state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)
