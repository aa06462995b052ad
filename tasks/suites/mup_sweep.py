"""The grid search that tuned Adam in muP for the suite `mulo-mini`.

`python -m tasks.suites.mup_sweep` runs it and prints what won: the 500 configurations
of Thérien et al. (arXiv 2406.00153), on the task on which `mulo_s` is meta-trained.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import optax
import tqdm
import tyro

from tasks import registry
from tasks.base import Task

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
MULTIPLIERS = (2.0**4, 2.0**2, 1.0, 2.0**-2, 2.0**-4)
SEEDS = (100, 101)


def sweep(
    task: str = "digits-mlp", width: int = 32, depth: int = 3, steps: int = 1000
) -> None:
    """Prints the ten configurations with the lowest mean training loss.

    Args:
      task: a task that has a parametrization.
      width: of the task.
      depth: of the task.
      steps: training steps, over which the mean is taken.
    """
    grid = jnp.array(list(itertools.product(RATES, MULTIPLIERS)))
    found = []
    of_task = itertools.product(MULTIPLIERS, MULTIPLIERS)
    for into, out in tqdm.tqdm(list(of_task), unit="task"):
        rules = f"mup(input_multiplier={into}, output_multiplier={out})"
        made = registry.get(task, width=width, depth=depth, parametrization=rules)
        losses = jax.jit(jax.vmap(_mean_loss(made, steps), in_axes=(0, None)))(
            grid, made.data["train"]
        )
        for (rate, hidden), loss in zip(grid.tolist(), losses.tolist(), strict=True):
            found.append((loss, rate, into, out, hidden))
    print("mean loss, learning rate, input, output, hidden learning rate multiplier")
    for row in sorted(found)[:10]:
        print(", ".join(f"{x:.4g}" for x in row))


def _mean_loss(task: Task, steps: int):
    """`(learning rate, multiplier), data -> loss`, the mean over steps and seeds."""
    multipliers = task.width_multipliers
    adam = optax.scale_by_adam()

    def train(setting, data, seed_key):
        rate, hidden = setting
        init_key, run_key = jax.random.split(seed_key)
        params, model_state = task.init(init_key)

        def step(carry, t):
            params, model_state, state = carry
            batch_key, noise_key = jax.random.split(jax.random.fold_in(run_key, t))
            batch = task.sample(data, batch_key)
            (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, model_state, batch, noise_key
            )
            updates, state = adam.update(grads, state)
            params = jax.tree.map(
                lambda p, u, m: p - rate * u * (hidden / m if m > 1 else 1.0),
                params,
                updates,
                multipliers,
            )
            return (params, model_state, state), task.normalize(loss)

        start = params, model_state, adam.init(params)
        return jax.lax.scan(step, start, jnp.arange(steps))[1].mean()

    keys = jnp.stack([jax.random.key(seed) for seed in SEEDS])
    return lambda setting, data: jnp.mean(
        jax.vmap(train, in_axes=(None, None, 0))(setting, data, keys)
    )


if __name__ == "__main__":
    tyro.cli(sweep)
