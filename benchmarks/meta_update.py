"""Times a meta update of MetaAdamW against a plain training step.

    python -m benchmarks.meta_update [--models mlp gpt ...]

A training step is loss, gradient, `update` and `apply_updates` in one jitted function
whose parameters and state are donated; a meta update is `tx.meta_update` with one
validation batch. All take turns in one process; ratios of medians. Products of matrices
say what to expect: a step does 3 units of them (one forward, two backward), a meta
update with the default objective 3 for g1, 1 for L(x; Bv), 3 for L(x'; Bv) and its
gradient, 3 for g2 and 6 for the derivative of g2: 16/3 = 5.3 times as many.
"""

import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import mada_optax


@dataclasses.dataclass(frozen=True)
class Model:
    """Parameters, a loss, and the batches that it takes."""

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    batch: Callable[[jax.Array], Any]


def dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    kernel = jax.random.normal(key, (inputs, outputs)) * inputs**-0.5
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def apply(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def norm(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    x = x - x.mean(-1, keepdims=True)
    x *= jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * layer["scale"] + layer["bias"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mlp(width: int = 640, batch: int = 128) -> Model:
    """Four layers, 1.03 million parameters."""
    sizes = [(320, width), (width, width), (width, width), (width, 10)]

    def init(key):
        keys = jax.random.split(key, len(sizes))
        layers = zip(keys, sizes, strict=True)
        return {"layers": [dense(key, *size) for key, size in layers]}

    def loss(params, data):
        x, y = data
        for layer in params["layers"][:-1]:
            x = jax.nn.relu(apply(layer, x))
        return cross_entropy(apply(params["layers"][-1], x), y)

    def batches(key):
        x = jax.random.normal(key, (batch, sizes[0][0]))
        return x, jax.random.randint(key, (batch,), 0, 10)

    return Model(init, loss, batches)


def gpt(
    dim: int = 128, blocks: int = 4, vocab: int = 1000, seq: int = 32, batch: int = 16
) -> Model:
    """A decoder with one head, 1.05 million parameters."""

    def scale():
        return {"scale": jnp.ones(dim), "bias": jnp.zeros(dim)}

    def block(key):
        keys = jax.random.split(key, 6)
        return {
            "norm1": scale(),
            "attn": {n: dense(k, dim, dim) for n, k in zip("qkvo", keys, strict=False)},
            "norm2": scale(),
            "ffn": {"up": dense(keys[4], dim, 4 * dim)}
            | {"down": dense(keys[5], 4 * dim, dim)},
        }

    def init(key):
        *keys, last = jax.random.split(key, blocks + 1)
        return {
            "embed": 0.02 * jax.random.normal(last, (vocab, dim)),
            "pos": 0.02 * jax.random.normal(key, (seq, dim)),
            "blocks": list(map(block, keys)),
            "head": dense(last, dim, vocab),
        }

    def loss(params, data):
        h = params["embed"][data[:, :-1]] + params["pos"]
        mask = jnp.tril(jnp.ones((seq, seq), bool))
        for p in params["blocks"]:
            z = norm(p["norm1"], h)
            q, k, v = (apply(p["attn"][name], z) for name in "qkv")
            logits = jnp.where(mask, q @ k.mT * dim**-0.5, -1e9)
            h += apply(p["attn"]["o"], jax.nn.softmax(logits) @ v)
            z = jax.nn.gelu(apply(p["ffn"]["up"], norm(p["norm2"], h)))
            h += apply(p["ffn"]["down"], z)
        return cross_entropy(apply(params["head"], h), data[:, 1:])

    return Model(
        init, loss, lambda k: jax.random.randint(k, (batch, seq + 1), 0, vocab)
    )


MODELS = {"mlp": mlp, "gpt": gpt}
OBJECTIVES = ("combined", "gradient", "loss_decrease")


def training_step(model: Model, tx: optax.GradientTransformation) -> Callable[[], Any]:
    """A function that takes one step and waits for it."""
    params = jax.jit(model.init)(jax.random.key(0))
    carry = [params, jax.jit(tx.init)(params)]
    batch = model.batch(jax.random.key(1))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        grads = jax.grad(model.loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def run():
        carry[:] = jax.block_until_ready(step(*carry, batch))

    return run


def meta_update(model: Model, tx: mada_optax.MetaAdamW) -> Callable[[], Any]:
    """A function that makes one meta update and waits for it."""
    params = jax.jit(model.init)(jax.random.key(0))
    batches = list(map(model.batch, jax.random.split(jax.random.key(2), 4)))
    grads = jax.jit(jax.grad(model.loss))(params, batches[0])
    _, state = jax.jit(tx.update)(grads, jax.jit(tx.init)(params), params)
    update = jax.jit(functools.partial(tx.meta_update, model.loss))

    def run():
        jax.block_until_ready(update(params, state, grads, *batches[1:])[0])

    return run


def measure(model: Model, repeats: int) -> dict[str, float]:
    """Median seconds, everything taking turns."""
    ours = functools.partial(mada_optax.meta_adamw, 1e-3)
    runs = {
        "adamw step": training_step(model, optax.adamw(1e-3)),
        "meta_adamw step": training_step(model, ours()),
    }
    for objective in OBJECTIVES:
        tx = ours(meta_objective=objective)
        runs[f"meta update, {objective}"] = meta_update(model, tx)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def main(
    models: tuple[str, ...] = tuple(MODELS),
    repeats: int = 25,
    out: pathlib.Path | None = None,
) -> None:
    """Prints the table and writes it to `out` as JSON."""
    device = jax.devices()[0]
    record: dict[str, Any] = {
        "command": "python -m benchmarks.meta_update",
        "device": device.device_kind,
        "platform": device.platform,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            "python": platform.python_version(),
            **{x: importlib.metadata.version(x) for x in ("jax", "jaxlib", "optax")},
        },
        "models": {},
    }
    for name in models:
        seconds = measure(MODELS[name](), repeats)
        rows = record["models"].setdefault(name, {})
        print(f"\n{name}\n{'':28s} {'ms':>8s} {'/adamw':>7s} {'/ours':>7s}")
        for what, value in seconds.items():
            rows[what] = {
                "ms": value * 1e3,
                "ratio_adamw_step": value / seconds["adamw step"],
                "ratio_meta_adamw_step": value / seconds["meta_adamw step"],
            }
            ms, adamw, ours = rows[what].values()
            print(f"{what:28s} {ms:8.2f} {adamw:7.2f} {ours:7.2f}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
