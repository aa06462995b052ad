"""Celo2's meta-trained rules beside what they would be without having learned.

    python -m benchmarks.celo2_controls --data-dir DATA [--out DIR]
        [--orthogonalized RUN/theta.npz ...] [--base RUN/theta.npz ...]

A control is the same network with weights that pass one feature through: Muon where
directions are orthogonalized, Adam where they are not. It has the harness, the schedule
and the learning rates of the learned rule, so the difference is what was learned.

Every optimizer trains an MLP of one hidden layer on grey images of 8x8 pixels with
cosine decay to a tenth, at each learning rate of one grid. The rate with the lowest
training loss on two seeds is judged by others, which all optimizers share.
"""

import functools
import importlib.metadata
import json
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import lopt
import tasks
from tasks.base import Task
from tasks.statistics import paired_difference, verdict

DATA_SETS = ("mnist-mlp", "fashion-mnist-mlp", "cifar10-mlp", "digits-mlp")
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEEDS = (100, 101)
ADAMW = "optax.adamw"


class Rule(NamedTuple):
    """An optimizer, and what it is compared with."""

    make: Callable[[Any, optax.Schedule], optax.GradientTransformation]
    theta: Any
    controls: tuple[str, ...] = ()


def celo2(orthogonalize: bool):
    def make(theta, schedule):
        architecture = lopt.celo2(schedule, orthogonalize=orthogonalize)
        return architecture.transform(theta)

    return make


def adamw(theta, schedule):
    del theta
    return optax.adamw(schedule, 0.9, 0.95, weight_decay=0.0)


def rules(orthogonalized: Sequence[str], base: Sequence[str]) -> dict[str, Rule]:
    """All that are compared, by name."""
    muon, adam = map(lopt.celo2.pass_through, ("muon", "adam"))
    random = lopt.celo2().init(jax.random.key(0))
    with_newton_schulz, without = celo2(True), celo2(False)
    found = {
        "muon-like": Rule(with_newton_schulz, muon, (ADAMW,)),
        "adam-like": Rule(without, adam, (ADAMW,)),
        "random base": Rule(without, random),
        ADAMW: Rule(adamw, {}),
    }
    for paths, make, controls in (
        (orthogonalized, with_newton_schulz, ("muon-like", ADAMW)),
        (base, without, ("adam-like", "random base", ADAMW)),
    ):
        for path in paths:
            theta = lopt.load_pretrained(path).theta
            found[_name(path)] = Rule(make, theta, controls)
    return found


def _name(path: str) -> str:
    """Of RUN/theta.npz it is RUN."""
    parts = pathlib.PurePath(path).with_suffix("").parts
    return parts[-2] if parts[-1] == "theta" and len(parts) > 1 else parts[-1]


def trainer(task: Task, make, steps: int):
    """`(theta, rates, seeds, data) -> losses`, each (rates, seeds), side by side."""

    def train(theta, rate, seed, data):
        transformation = optax.with_extra_args_support(
            make(theta, optax.cosine_decay_schedule(rate, steps, alpha=0.1))
        )
        key = jax.random.key(seed)
        params, model_state = task.init(key)

        def step(carry, t):
            params, model_state, state = carry
            batch_key, noise_key = jax.random.split(jax.random.fold_in(key, t))
            batch = task.sample(data["train"], batch_key)
            (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, model_state, batch, noise_key
            )
            updates, state = transformation.update(grads, state, params)
            return (optax.apply_updates(params, updates), model_state, state), loss

        carry = params, model_state, transformation.init(params)
        (params, model_state, _), losses = jax.lax.scan(step, carry, jnp.arange(steps))
        valid = task.evaluate(params, model_state, data["valid"])
        return {"train": losses[-max(1, steps // 10) :].mean(), "valid": valid["loss"]}

    of_seeds = jax.vmap(train, (None, None, 0, None))
    return jax.jit(jax.vmap(of_seeds, (None, 0, None, None)))


def losses_of(task: Task, rule: Rule, train, seeds: Sequence[int]) -> dict[str, Any]:
    """At the rate that is best with the tuning seeds, the losses with `seeds`."""
    data = {split: task.data[split] for split in ("train", "valid")}
    every_seed = jnp.array([*TUNING_SEEDS, *seeds])
    found = train(rule.theta, jnp.array(RATES), every_seed, data)
    found = {k: np.where(np.isfinite(x), x, np.inf) for k, x in found.items()}
    grid = found["train"][:, : len(TUNING_SEEDS)].mean(-1)
    best = int(np.argmin(grid))
    return {
        "grid": {str(r): float(x) for r, x in zip(RATES, grid, strict=True)},
        "rate": RATES[best],
        "at_edge": best in (0, len(RATES) - 1),
        **{k: x[best, len(TUNING_SEEDS) :].tolist() for k, x in found.items()},
    }


def compared(rows: dict[str, Any], found: dict[str, Rule], split: str):
    """Differences with the same seeds, and their 95 % intervals."""
    return {
        f"{name} - {control}": paired_difference(
            rows[name][split], rows[control][split]
        )
        for name, rule in found.items()
        for control in rule.controls
        if control in rows
    }


def measure(
    found: dict[str, Rule], data_sets, steps: int, seeds: Sequence[int], data_dir
) -> dict[str, Any]:
    """Rows by task and optimizer."""
    record: dict[str, Any] = {}
    for name in data_sets:
        options = {"width": 32, "depth": 1, "batch_size": 64, "size": 8, "grey": True}
        task = tasks.get(name, **options, data_dir=data_dir)
        programs = functools.cache(lambda make, task=task: trainer(task, make, steps))
        makes = {rule.make: programs(rule.make) for rule in found.values()}
        start = time.perf_counter()
        rows = {
            optimizer: losses_of(task, rule, makes[rule.make], seeds)
            for optimizer, rule in found.items()
        }
        record[name] = rows
        print(f"\n{name}, {time.perf_counter() - start:.0f} s")
        for optimizer, row in rows.items():
            print(
                f"  {optimizer:16s} train {np.mean(row['train']):.4f} "
                f"valid {np.mean(row['valid']):.4f} at {row['rate']:g}"
                f"{' (edge)' if row['at_edge'] else ''}",
                flush=True,
            )
    return record


def mean_of_tasks(record: dict[str, Any]) -> dict[str, Any]:
    """For each optimizer and seed, the mean over tasks."""
    tables = list(record.values())
    return {
        name: {
            split: np.mean([rows[name][split] for rows in tables], 0).tolist()
            for split in ("train", "valid")
        }
        for name in tables[0]
    }


def main(
    orthogonalized: tuple[str, ...] = (),
    base: tuple[str, ...] = (),
    data_sets: tuple[str, ...] = DATA_SETS,
    steps: int = 1000,
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    data_dir: str | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Prints tables, and writes OUT/controls.json.

    Args:
      orthogonalized: weights of Celo2, names or paths as of `lopt.load_pretrained`.
      base: weights of Celo2-base.
      data_sets: names of tasks.
      steps: training steps.
      seeds: of the comparison; those of the tuning are 100 and 101.
      data_dir: the folder of data that are not embedded.
      out: where to write.
    """
    found = rules(orthogonalized, base)
    record = measure(found, data_sets, steps, seeds, data_dir)
    means = mean_of_tasks(record)
    tables = {**record, "mean of tasks": means}
    comparisons = {
        name: {split: compared(rows, found, split) for split in ("train", "valid")}
        for name, rows in tables.items()
    }
    print("\nmean of tasks, final training loss")
    for name, row in means.items():
        print(f"  {name:16s} {np.mean(row['train']):.4f}")
    for pair, interval in comparisons["mean of tasks"]["train"].items():
        print(
            f"  {pair}: {interval.estimate:+.4f} [{interval.low:+.4f}, "
            f"{interval.high:+.4f}], {verdict(interval)}"
        )
    if out is not None:
        device = jax.devices()[0]
        written = {
            "command": shlex.join(
                ["python", "-m", "benchmarks.celo2_controls", *sys.argv[1:]]
            ),
            "orthogonalized": list(map(_name, orthogonalized)),
            "base": list(map(_name, base)),
            "steps": steps,
            "seeds": list(seeds),
            "tuning_seeds": list(TUNING_SEEDS),
            "device": device.device_kind,
            "versions": {
                "python": platform.python_version(),
                **{
                    x: importlib.metadata.version(x) for x in ("jax", "jaxlib", "optax")
                },
            },
            "tasks": record,
            "mean of tasks": means,
            "differences": comparisons,
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / "controls.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
