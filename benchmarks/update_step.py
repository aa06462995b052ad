"""Times one update of every optimizer against `optax.adamw` on the same tree.

    python -m benchmarks.update_step [--trees 10M ...] [--optimizers mada ...]

A step is `update` and `apply_updates` in one jitted function whose parameters and state
are donated. All optimizers take turns in one process; the ratio is that of the medians.
"Floor" is the memory traffic that no implementation of the same update can avoid, in
bytes per parameter: what a pass over the tree must read and write when each array is
larger than the caches, relative to the floor of AdamW.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import tyro

import mada_optax

TREES = {
    "1M": [(1000, 1000)],
    "10M": [(1000, 1000)] * 10,
    "200x10k": [(100, 100)] * 200,
    "10M/24": [(645, 645)] * 24,
}

ADAMW_FLOOR = 28  # reads g, m, v, x and writes m, v, x in float32


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer, its floor in bytes per parameter, and its Optax twin."""

    make: Callable[[], optax.GradientTransformation]
    floor: int
    twin: str | None = None


def floor(state: int, passes: int = 1) -> int:
    """Bytes per parameter of an update that keeps `state` floats.

    One pass reads the gradient, the parameter and the state and writes the latter two.
    Where the hypergradient has to be known before the step, an earlier pass reads the
    gradient and the state, and the gradient that is kept is written anew.
    """
    step = 4 * (1 + 1 + state + 1 + state)
    return step + (passes - 1) * 4 * (1 + state)


def one_of_24(params: Any) -> Any:
    """Labels that make at most 24 groups of the leaves."""
    leaves, treedef = jax.tree.flatten(params)
    return treedef.unflatten(f"group {i % 24}" for i in range(len(leaves)))


ENTRIES = {
    "optax.adamw": Entry(lambda: optax.adamw(1e-3), ADAMW_FLOOR),
    "optax.adam": Entry(lambda: optax.adam(1e-3), floor(2)),
    "optax.amsgrad": Entry(lambda: optax.amsgrad(1e-3), floor(3)),
    "optax.yogi": Entry(lambda: optax.yogi(1e-3), floor(2)),
    "optax.adan": Entry(lambda: optax.adan(1e-3), floor(4)),
    "optax.lion": Entry(lambda: optax.lion(1e-3), floor(1)),
    "adam": Entry(lambda: mada_optax.adam(1e-3), floor(2), "optax.adam"),
    "amsgrad": Entry(lambda: mada_optax.amsgrad(1e-3), floor(3), "optax.amsgrad"),
    "yogi": Entry(lambda: mada_optax.yogi(1e-3), floor(2), "optax.yogi"),
    "adan": Entry(lambda: mada_optax.adan(1e-3), floor(4), "optax.adan"),
    "lion": Entry(lambda: mada_optax.lion(1e-3), floor(1), "optax.lion"),
    "avgrad": Entry(lambda: mada_optax.avgrad(1e-3), floor(3), "optax.amsgrad"),
    "hyper_adam": Entry(lambda: mada_optax.hyper_adam(1e-3), floor(3, 2)),
    "mada": Entry(lambda: mada_optax.mada(1e-3), floor(7, 2)),
    "mada x_first": Entry(
        lambda: mada_optax.mada(1e-3, update_order="x_first"), floor(7)
    ),
    # The factors depend on all statistics, so a first pass reads all that the second
    # does: the parameters too.
    "meta_adamw": Entry(
        lambda: mada_optax.meta_adamw(1e-3, groups=one_of_24), floor(2) + 4 * (2 + 2)
    ),
}


def tree(shapes: list[tuple[int, ...]], seed: int) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [
        jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)
    ]


def stepper(
    entry: Entry, shapes: list[tuple[int, ...]]
) -> tuple[Callable[[], Any], jax.stages.Compiled]:
    """A function that takes one step and waits for it, and the compiled program."""
    tx = entry.make()
    params, grads = tree(shapes, 0), tree(shapes, 1)
    carry = [params, jax.jit(tx.init)(params)]

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, grads).compile()

    def run():
        carry[:] = jax.block_until_ready(compiled(*carry, grads))

    return run, compiled


def measure(shapes, names: list[str], repeats: int):
    """Median seconds per step, the optimizers taking turns, and temporary bytes."""
    steps, temporary = {}, {}
    for name in names:
        steps[name], compiled = stepper(ENTRIES[name], shapes)
        analysis = compiled.memory_analysis()
        temporary[name] = getattr(analysis, "temp_size_in_bytes", 0)
    times: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
    seconds = {name: float(np.median(values)) for name, values in times.items()}
    return seconds, temporary


def main(
    trees: tuple[str, ...] = tuple(TREES),
    optimizers: tuple[str, ...] = tuple(ENTRIES),
    repeats: int = 15,
    out: pathlib.Path | None = None,
) -> None:
    """Prints the table and writes it to `out` as JSON."""
    names = list(dict.fromkeys(("optax.adamw", *optimizers)))
    device = jax.devices()[0]
    record: dict[str, Any] = {
        "command": "python -m benchmarks.update_step",
        "device": device.device_kind,
        "platform": device.platform,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            "python": platform.python_version(),
            **{x: importlib.metadata.version(x) for x in ("jax", "jaxlib", "optax")},
        },
        "trees": {},
    }
    for which in trees:
        shapes = TREES[which]
        count = sum(int(np.prod(shape)) for shape in shapes)
        times, temporary = measure(shapes, names, repeats)
        print(f"\n{which}: {len(shapes)} leaves, {count:,} parameters")
        print(
            f"{'optimizer':15s} {'ms':>8s} {'/adamw':>7s} {'/twin':>7s} {'floor':>7s}"
        )
        rows = record["trees"].setdefault(which, {})
        for name in names:
            entry, seconds = ENTRIES[name], times[name]
            row = {
                "ms": seconds * 1e3,
                "ratio_adamw": seconds / times["optax.adamw"],
                "ratio_twin": seconds / times[entry.twin]
                if entry.twin in times
                else None,
                "floor_bytes": entry.floor,
                "floor_ratio": entry.floor / ADAMW_FLOOR,
                "temporary_bytes": temporary[name] / count,
            }
            rows[name] = row
            twin = "" if row["ratio_twin"] is None else f"{row['ratio_twin']:.2f}"
            print(
                f"{name:15s} {row['ms']:8.2f} {row['ratio_adamw']:7.2f} {twin:>7s} "
                f"{row['floor_ratio']:7.2f} {row['temporary_bytes']:18.1f}"
            )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
