"""A small network whose leaves make several groups, and its loss."""

import jax
import jax.numpy as jnp

PARAMS = {
    "layers": [
        {"kernel": 0.3 * jnp.ones((3, 4)), "bias": jnp.zeros(4)},
        {"kernel": 0.2 * jnp.eye(4), "bias": jnp.full(4, 0.1)},
    ],
    "head": {"kernel": jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)},
}


def predict(params, x):
    for layer in params["layers"]:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
    return x @ params["head"]["kernel"]


def loss(params, batch):
    target = jnp.cos(batch.sum(1, keepdims=True))
    return jnp.mean((predict(params, batch) - target) ** 2)


def batches(seed, n=4, dtype=jnp.float32):
    return list(jax.random.normal(jax.random.key(seed), (n, 8, 3), dtype))


def trained(tx, params=PARAMS, steps=3, state=None):
    """Parameters, state and last gradient after some jitted steps."""
    state = tx.init(params) if state is None else state

    @jax.jit
    def step(params, state, batch):
        grads = jax.grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        return params, state, grads

    grads = None
    for batch in batches(1, steps, params["head"]["kernel"].dtype):
        params, state, grads = step(params, state, batch)
    return params, state, grads
