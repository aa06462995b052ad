"""The grid searches that tuned the hand-designed optimizers of the suite `mulo-mini`.

`python -m tasks.suites.mup_sweep --optimizer mup_adam` (or `adamw`) prints what won and
writes it. Both train the task on which `mulo_s` is meta-trained, and are judged as it
was: by the mean of the training loss over a run.

Source of both grids: Thérien et al. (arXiv 2406.00153), its first version for Adam in
muP, its fifth for AdamW.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
import tyro

from tasks import records, registry
from tasks.base import Task
from tasks.training import initial_carry, training_step
from tasks.width_scaling import mup_adam

SEEDS = (100, 101)
RATES = (1e-1, 1e-2, 1e-3, 1e-4)
MULTIPLIERS = (2.0**4, 2.0**2, 1.0, 2.0**-2, 2.0**-4)
ADAMW = {
    "learning_rate": tuple(np.geomspace(1e-5, 0.1, 14).tolist()),
    "b1": (0.9, 0.95, 0.99),
    "b2": (0.95, 0.99, 0.999),
    "weight_decay": (0.1, 0.01, 0.001, 0.0001),
}
_AT_A_TIME = 20

Found = Iterator[tuple[float, dict[str, float]]]


def sweep(
    optimizer: Literal["mup_adam", "adamw"] = "mup_adam",
    *,
    task: str = "digits-mlp",
    width: int = 32,
    depth: int = 3,
    steps: int = 1000,
    out: pathlib.Path | None = None,
) -> None:
    """Prints the ten configurations with the lowest mean training loss.

    Args:
      optimizer: Adam in muP over 4 learning rates and 5 values of each multiplier, or
        AdamW in standard parametrization over 504 configurations.
      task: a task that has a width, a depth and a parametrization.
      width: of the task.
      depth: of the task.
      steps: training steps, over which the mean is taken.
      out: file of a record in JSON; by default none.
    """
    began = time.perf_counter()
    options = {"width": width, "depth": depth}
    search = {"mup_adam": _mup_adam, "adamw": _adamw}[optimizer]
    found = sorted(search(task, options, steps), key=lambda pair: pair[0])
    best = [{"mean_loss": loss, **setting} for loss, setting in found[:10]]
    for row in best:
        print(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if out is not None:
        words = ["python", "-m", "tasks.suites.mup_sweep", *sys.argv[1:]]
        record = {
            "command": shlex.join(words),
            "optimizer": optimizer,
            "task": {"name": task, **options},
            "steps": steps,
            "seeds": SEEDS,
            "configurations": len(found),
            "seconds": round(time.perf_counter() - began),
            "best": best,
            **records.environment(),
        }
        records.write_atomically(out, json.dumps(record, indent=1) + "\n")


def mean_losses(
    task: Task,
    make: Callable[..., optax.GradientTransformation],
    settings: dict[str, Any],
    steps: int,
) -> jax.Array:
    """Mean training loss over steps and seeds, of all settings by one program.

    Args:
      task: what is trained on.
      make: the optimizer by the values of a setting, which are traced.
      settings: the arguments of `make`, pytrees with a leading axis of settings.
      steps: training steps.

    Returns:
      float32[settings]; losses are normalized as in meta-training.
    """

    def run(setting: dict[str, Any], key: jax.Array, train: Any) -> jax.Array:
        transformation = optax.with_extra_args_support(make(**setting))
        step = training_step(task, transformation)

        def body(carry, t):
            carry, loss = step(carry, train, t)
            return carry, task.normalize(loss)

        carry = initial_carry(task, transformation)(key)
        return jax.lax.scan(body, carry, jnp.arange(steps))[1].mean()

    @jax.jit
    def run_all(settings: dict[str, Any], keys: jax.Array, train: Any) -> jax.Array:
        seeds = jax.vmap(run, in_axes=(None, 0, None))
        return jax.lax.map(
            lambda setting: seeds(setting, keys, train).mean(),
            settings,
            batch_size=_AT_A_TIME,
        )

    keys = jnp.stack([jax.random.key(seed) for seed in SEEDS])
    return run_all(settings, keys, task.data["train"])


def _mup_adam(name: str, options: dict[str, int], steps: int) -> Found:
    def task(**multipliers: float) -> Task:
        fields = ", ".join(f"{k}={v}" for k, v in multipliers.items())
        return registry.get(name, parametrization=f"mup({fields})", **options)

    # The multipliers of updates are data of the optimizer, the others of the model.
    trees = [
        task(hidden_learning_rate_multiplier=hidden).width_multipliers
        for hidden in MULTIPLIERS
    ]
    grid = list(itertools.product(RATES, range(len(MULTIPLIERS))))
    settings = {
        "learning_rate": jnp.array([rate for rate, _ in grid]),
        "width_multipliers": jax.tree.map(
            lambda *m: jnp.array(m), *(trees[i] for _, i in grid)
        ),
    }
    of_task = list(itertools.product(MULTIPLIERS, MULTIPLIERS))
    for into, out in tqdm.tqdm(of_task, unit="program"):
        made = task(input_multiplier=into, output_multiplier=out)
        losses = mean_losses(made, mup_adam, settings, steps)
        for (rate, i), loss in zip(grid, losses.tolist(), strict=True):
            yield (
                loss,
                {
                    "learning_rate": rate,
                    "input_multiplier": into,
                    "output_multiplier": out,
                    "hidden_learning_rate_multiplier": MULTIPLIERS[i],
                },
            )


def _adamw(name: str, options: dict[str, int], steps: int) -> Found:
    grid = list(itertools.product(*ADAMW.values()))
    columns = zip(*grid, strict=True)
    settings = {k: jnp.array(v) for k, v in zip(ADAMW, columns, strict=True)}
    losses = mean_losses(registry.get(name, **options), optax.adamw, settings, steps)
    for setting, loss in zip(grid, losses.tolist(), strict=True):
        yield loss, dict(zip(ADAMW, setting, strict=True))


if __name__ == "__main__":
    tyro.cli(sweep)
