"""Times one update of small_fc beside `optax.adamw`, and beside google's AdafacMLPLOpt.

    python -m benchmarks.lopt_step [--peer-python PYTHON --peer-script SCRIPT]

A step is `update` and `apply_updates` in one jitted function whose parameters and state
are donated. "mlp x 16" is what meta-training does: 16 particles with their own theta,
parameters and state, of the layers of a small MLP, in a scan.

The peer runs in an interpreter of its own. `SCRIPT --tensors N --side M` must time
updates of N matrices of M x M parameters and print a line of JSON with the entries
"adafac_mlp_h32" and "optax_adamw", each with "median_s". Ours and the peer's take turns
in every round; the ratio is that of the medians over rounds.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import lopt

TREES = {"1M": (4, 512), "4M": (4, 1024)}
MLP: list[tuple[int, ...]] = [
    (64, 32),
    (32,),
    (32, 32),
    (32,),
    (32, 32),
    (32,),
    (32, 10),
    (10,),
]
PARTICLES, SCAN = 16, 20


def small_fc() -> optax.GradientTransformation:
    architecture = lopt.small_fc()
    return architecture.transform(architecture.init(jax.random.key(0)))


OPTIMIZERS = {"optax.adamw": lambda: optax.adamw(1e-3), "small_fc": small_fc}


def tree(shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), len(shapes))
    pairs = zip(keys, shapes, strict=True)
    return [0.02 * jax.random.normal(key, shape) for key, shape in pairs]


class Timed:
    """A compiled step that carries its own state, and what it took."""

    def __init__(self, step, params, state, grads, updates_per_call: int):
        program = jax.jit(step, donate_argnums=(0, 1))
        start = time.perf_counter()
        self.program = program.lower(params, state, grads).compile()
        self.compile_s = time.perf_counter() - start
        self.parameters = sum(x.size for x in jax.tree.leaves(params))
        analysis = self.program.memory_analysis()
        temporary = getattr(analysis, "temp_size_in_bytes", 0)
        self.temporary_bytes = temporary / self.parameters
        self.carry, self.grads = (params, state), grads
        self.updates_per_call = updates_per_call
        self.seconds: list[float] = []

    def run(self) -> None:
        """Takes a step, or a scan of them, and waits for it."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.program(*self.carry, self.grads))
        self.seconds.append((time.perf_counter() - start) / self.updates_per_call)


def one_step(tx, params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def on_matrices(name: str, which: str) -> Timed:
    number, side = TREES[which]
    tx, params = OPTIMIZERS[name](), tree([(side, side)] * number)
    grads = [0.1 * p + 0.001 for p in params]
    state = tx.init(params)
    return Timed(lambda *args: one_step(tx, *args), params, state, grads, 1)


def on_particles(name: str) -> Timed:
    tx = OPTIMIZERS[name]()

    def several(x: jax.Array) -> jax.Array:
        return jnp.stack([x * (1 + 0.01 * i) for i in range(PARTICLES)])

    params = [several(x) for x in tree(MLP)]
    state: Any = jax.vmap(tx.init)(params)
    if name == "small_fc":
        theta = jax.tree.map(lambda x: several(x[0]), state.hyperparams)
        state = state._replace(hyperparams=theta)

    def steps(params, state, grads):
        def body(carry, _):
            return jax.vmap(lambda *args: one_step(tx, *args))(*carry, grads), None

        return jax.lax.scan(body, (params, state), length=SCAN)[0]

    grads = jax.tree.map(lambda p: 0.1 * p + 0.001, params)
    return Timed(steps, params, state, grads, SCAN)


def peer(command: Sequence[Any], which: str) -> dict[str, float]:
    """Median seconds per update of the peer and of its `optax.adamw`."""
    number, side = TREES[which]
    command = [*command, "--tensors", number, "--side", side, "--n", 7]
    done = subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    )
    printed = json.loads(done.stdout.strip().splitlines()[-1])
    names = {"adafac_mlp_h32": "AdafacMLPLOpt", "optax_adamw": "peer's adamw"}
    return {name: printed[key]["median_s"] for key, name in names.items()}


def measure(
    which: str, rounds: int, repeats: int, peer_command: Sequence[Any]
) -> dict[str, Any]:
    """A row per optimizer; everything takes turns in every round."""
    steps = {
        name: on_particles(name) if which not in TREES else on_matrices(name, which)
        for name in OPTIMIZERS
    }
    peers: dict[str, list[float]] = {}
    for step in steps.values():
        step.run()
        step.seconds.clear()
    for _ in range(rounds):
        for _ in range(repeats):
            for step in steps.values():
                step.run()
        if peer_command[0] and which in TREES:
            for name, seconds in peer(peer_command, which).items():
                peers.setdefault(name, []).append(seconds)
    count = steps["small_fc"].parameters
    rows: dict[str, Any] = {
        name: {
            "ns_per_parameter": float(np.median(step.seconds)) / count * 1e9,
            "temporary_bytes_per_parameter": step.temporary_bytes,
            "compile_s": step.compile_s,
        }
        for name, step in steps.items()
    }
    for name, seconds in peers.items():
        rows[name] = {"ns_per_parameter": float(np.median(seconds)) / count * 1e9}
    ours = rows["small_fc"]["ns_per_parameter"]
    for row in rows.values():
        row["times_small_fc"] = row["ns_per_parameter"] / ours
    return rows


def main(
    trees: tuple[str, ...] = (*TREES, f"mlp x {PARTICLES}"),
    rounds: int = 3,
    repeats: int = 5,
    peer_python: pathlib.Path | None = None,
    peer_script: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Prints the table and writes it to `out` as JSON."""
    if (peer_python is None) != (peer_script is None):
        raise SystemExit("give --peer-python and --peer-script, or neither")
    peer_command = (peer_python, peer_script)
    device = jax.devices()[0]
    record: dict[str, Any] = {
        "command": "python -m benchmarks.lopt_step",
        "device": device.device_kind,
        "platform": device.platform,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load_before": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            **{x: importlib.metadata.version(x) for x in ("jax", "jaxlib", "optax")},
        },
        "trees": {},
    }
    for which in trees:
        rows = measure(which, rounds, repeats, peer_command)
        record["trees"][which] = rows
        print(f"\n{which}\n{'':15s} {'ns/param':>9s} {'x ours':>7s} {'temp B':>7s}")
        for name, row in rows.items():
            temporary = row.get("temporary_bytes_per_parameter")
            print(
                f"{name:15s} {row['ns_per_parameter']:9.2f} "
                f"{row['times_small_fc']:7.2f} "
                f"{'' if temporary is None else f'{temporary:7.1f}'}"
            )
    record["load_after"] = os.getloadavg()[0]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
