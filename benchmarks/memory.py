"""Tells how much memory a training step of the large tasks takes, without taking it.

    python -m benchmarks.memory [--models gpt2-124M ...] [--limit-gib 16] [--out FILE]

A step of AdamW is compiled from shapes alone, with parameters and optimizer state
donated as in an evaluation. "arguments" are these and a batch, "temporary" is what XLA
allocates beside them. The CPU's compiler computes in float32 what a model has in
bfloat16 and has no fused attention: accelerators need no more than it says.
"""

import dataclasses
import functools
import json
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import tyro

from tasks.base import Task
from tasks.classification import classifier
from tasks.data import Dataset
from tasks.gpt2 import CHARACTERS, LARGE, MEDIUM, TOKENS, VOCAB_SIZE, gpt2_on
from tasks.models import MLP

GIB = 2**30
GPT2 = {"width": 768, "depth": 12, "num_heads": 12}


def gpt2(num_classes: int = TOKENS, **options: Any) -> Task:
    """GPT-2 on zeros, as the task has it but for the data."""
    tokens = {"tokens": np.zeros(2000, np.uint16)}
    data = Dataset("zeros", {"train": tokens, "valid": tokens}, num_classes, "", {})
    options = {"context": 1024, "dropout": 0.0, "batch_size": 480, **options}
    options = (
        {"vocab_size": VOCAB_SIZE, **options} if num_classes == TOKENS else options
    )
    return gpt2_on(data, use_bias=False, **options)


def mlp(pixels: int, width: int = 8192) -> Task:
    """The widest MLP of muLO on zeros."""
    rows = {
        "image": np.zeros((2, pixels, pixels, 3), np.uint8),
        "label": np.zeros(2, np.int32),
    }
    data = Dataset("zeros", {"train": rows, "valid": rows}, 1000, "", {})

    def build(rngs):
        return MLP(3 * pixels**2, 1000, width=width, depth=3, rngs=rngs)

    return classifier(data, build, batch_size=4096, metadata={})


LOW = {"dtype": "bfloat16"}
MODELS: dict[str, Callable[[], Task]] = {
    "gpt2-10M": functools.partial(gpt2, 65, **CHARACTERS),
    "gpt2-124M": functools.partial(gpt2, **GPT2, **LARGE),
    "gpt2-124M bfloat16": functools.partial(gpt2, **GPT2, **LARGE, **LOW),
    "gpt2-355M": functools.partial(gpt2, **MEDIUM, **LARGE),
    "gpt2-355M bfloat16": functools.partial(gpt2, **MEDIUM, **LARGE, **LOW),
    "mlp-8192 32x32": functools.partial(mlp, 32),
    "mlp-8192 64x64": functools.partial(mlp, 64),
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a compiled step takes, in bytes."""

    model: str
    parameters: int
    arguments: int
    temporary: int
    total: int
    compile_seconds: float


def measure(name: str, task: Task) -> Memory:
    """Compiles a step of a task; nothing of the model's size is allocated."""
    tx = optax.adamw(1e-3)

    def step(params, state, model_state, batch, key):
        (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, model_state, batch, key
        )
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, model_state, loss

    key = jax.eval_shape(lambda: jax.random.key(0))
    params, model_state = jax.eval_shape(task.init, key)
    batch = jax.eval_shape(task.sample, task.data["train"], key)
    state = jax.eval_shape(tx.init, params)
    began = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1, 2)).lower(
        params, state, model_state, batch, key
    )
    found: Any = lowered.compile().memory_analysis()
    kept = found.argument_size_in_bytes, found.temp_size_in_bytes
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(
        name,
        sum(x.size for x in jax.tree.leaves(params)),
        *kept,
        sum(kept) + new,
        round(time.perf_counter() - began, 1),
    )


def main(
    models: tuple[str, ...] = tuple(MODELS),
    limit_gib: float = 16.0,
    out: pathlib.Path | None = None,
) -> None:
    """Prints a table, and fails if a model takes more than the limit.

    Args:
      models: names of `MODELS`.
      limit_gib: the memory that there is.
      out: file of a record in JSON; by default none.
    """
    rows = []
    print(
        f"{'model':20} {'million':>8} {'arguments':>10} {'temporary':>10} {'total':>7}"
    )
    for name in models:
        row = measure(name, MODELS[name]())
        sizes = [x / GIB for x in (row.arguments, row.temporary, row.total)]
        shown = "{:10.2f} {:10.2f} {:7.2f} GiB".format(*sizes)
        print(f"{name:20} {row.parameters / 1e6:8.2f} {shown}", flush=True)
        rows.append(dataclasses.asdict(row))
    if out is not None:
        record = {
            "command": "python -m benchmarks.memory",
            "jax": jax.__version__,
            "backend": jax.default_backend(),
            "machine": platform.machine(),
            "models": rows,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")
    over = [r["model"] for r in rows if r["total"] > limit_gib * GIB]
    if over:
        raise SystemExit(f"over {limit_gib} GiB: {', '.join(over)}")


if __name__ == "__main__":
    tyro.cli(main)
