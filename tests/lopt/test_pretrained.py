"""The weights of the package load, say where they come from, and train."""

import importlib.resources

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lopt
import tasks

NAMES = sorted(
    path.name.removesuffix(".npz")
    for path in (importlib.resources.files("lopt") / "pretrained").iterdir()
    if path.name.endswith(".npz") and not path.name.startswith("celo2")
)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_made_them(name):
    metadata = lopt.load_pretrained(name).metadata
    preset = name.replace("_", "-")
    assert metadata["command"].startswith(
        f"python -m lopt meta-train {preset} --out runs/"
    )
    assert metadata["steps"] == metadata["config"]["steps"]
    assert {"versions", "metrics", "architecture"} <= set(metadata)


@pytest.mark.parametrize("name", NAMES)
def test_they_train(name):
    parametrization = "mup" if name.startswith("mulo") else "sp"
    task = tasks.get("digits-mlp", width=32, depth=3, parametrization=parametrization)
    tx = lopt.mulo(name, width_multipliers=task.width_multipliers)
    params, model_state = task.init(jax.random.key(1))

    def step(carry, key):
        params, state = carry
        (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, model_state, task.sample(task.data["train"], key), key
        )
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    keys = jax.random.split(jax.random.key(2), 100)
    losses = jax.jit(lambda carry: jax.lax.scan(step, carry, keys)[1])(
        (params, tx.init(params))
    )
    assert np.isfinite(losses).all()
    assert jnp.mean(losses[-10:]) < 0.5 < losses[0]
