"""Tasks small enough to reason about."""

import jax
import jax.numpy as jnp
import numpy as np

from tasks.base import Task


def quadratic(name="quadratic", dim=4):
    """Distance to random rows; the loss also draws noise, as dropout would."""
    rows = np.random.default_rng(0).normal(size=(32, dim)).astype(np.float32)

    def init(key):
        return {"x": 2 + jax.random.normal(key, (dim,))}, ()

    def loss(params, model_state, batch, key):
        noise = 0.01 * jax.random.normal(key, ())
        return 0.5 * jnp.mean((params["x"][None] - batch) ** 2) + noise, model_state

    def sample(data, key):
        return data[jax.random.randint(key, (8,), 0, len(data))]

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
        width_multipliers={"x": 3.0},
        labels={"x": "vector"},
        metadata={"dim": dim, "sha256": {"train": "0" * 64}},
    )


def regression(name="regression", features=5):
    """Softmax regression whose state counts the steps."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(48, features)).astype(np.float32)
    data = {"input": inputs, "label": np.argmax(inputs[:, :3], axis=1)}

    def init(key):
        kernel = 0.1 * jax.random.normal(key, (features, 3))
        return {"bias": jnp.zeros(3), "kernel": kernel}, {"steps": jnp.zeros((), int)}

    def log_likelihood(params, batch):
        logits = batch["input"] @ params["kernel"] + params["bias"][None]
        one_hot = jax.nn.one_hot(batch["label"], 3)
        return jnp.sum(jax.nn.log_softmax(logits) * one_hot, axis=1), logits

    def loss(params, model_state, batch, key):
        del key
        model_state = {"steps": model_state["steps"] + 1}
        return -log_likelihood(params, batch)[0].mean(), model_state

    def sample(data, key):
        rows = jax.random.randint(key, (16,), 0, len(data["label"]))
        return jax.tree.map(lambda x: x[rows], data)

    def evaluate(params, model_state, data):
        likelihood, logits = log_likelihood(params, data)
        correct = logits.argmax(axis=1) == data["label"]
        return {
            "loss": -likelihood.mean(),
            "accuracy": correct.mean(dtype=jnp.float32),
            "steps": model_state["steps"].astype(jnp.float32),
        }

    return Task(
        name=name,
        init=init,
        loss=loss,
        sample=sample,
        evaluate=evaluate,
        data={
            "train": jax.tree.map(lambda x: jnp.asarray(x[:32]), data),
            "valid": jax.tree.map(lambda x: jnp.asarray(x[32:]), data),
        },
    )
