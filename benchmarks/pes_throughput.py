"""Times meta-training by PES, in inner steps per second.

    python -m benchmarks.pes_throughput [--peer-python PYTHON --peer-script SCRIPT]

The work is what google's TruncatedPES is timed on: images of 8 x 8, an MLP 64-32-10
with batches of 64, small_fc with 32 hidden units, 8 antithetic pairs, truncations of 50
steps. One meta-step is 800 inner steps, with the meta-optimizer and what the host does.

The peer runs in an interpreter of its own. `SCRIPT --steps_per_jit N` must print a line
of JSON with an entry "inner_steps_per_s". Ours and the peer's settings take turns in
every round; the ratio is that of medians over rounds, to the peer's fastest setting.

"Matmuls alone" is the rate at which this machine does nothing but the matrix products
of an inner step: those of the MLP, forward and backward, and of small_fc with all
parameters in one matrix; each batched over the 16 runs, on one device or on all, at its
best time.
"""

import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import lopt
import tasks
from lopt import parallel
from lopt.meta_step import MetaStep

PAIRS, TRUNCATION = 8, 50
RUNS = 2 * PAIRS
BATCH, LAYERS, HIDDEN, FEATURES = 64, (64, 32, 10), 32, 39
PEER_SETTINGS = (10, 50)


class Ours:
    """Meta-training as `lopt.meta_train` does it, without its records."""

    def __init__(self, devices: int, particles_at_once: int | None = None):
        task = tasks.get("digits-mlp", width=32, depth=1, batch_size=BATCH)
        architecture = lopt.small_fc("sp", hidden_size=HIDDEN)
        theta = architecture.init(jax.random.key(0))
        unroll = lopt.Unroll(
            task, architecture.transform(theta), lopt.LogUniform(100, 1000, 50)
        )
        estimator = lopt.PES(PAIRS, 0.01, TRUNCATION)
        mesh = lopt.particle_mesh(jax.devices()[:devices])
        self.meta_step = MetaStep(
            [unroll],
            estimator,
            optax.adam(1e-3),
            mesh,
            particles_at_once=particles_at_once,
        )
        start = self.meta_step.start(theta, jax.random.key(1))
        self.carry = self.meta_step.split(start)
        self.meta_step.compile(self.carry)
        self.step = 0

    def rate(self, meta_steps: int) -> float:
        """Inner steps per second."""
        jax.block_until_ready(self.carry)
        start = time.perf_counter()
        for _ in range(meta_steps):
            self.carry, _ = self.meta_step(self.step, self.carry)
            self.step += 1
        jax.block_until_ready(self.carry)
        return meta_steps * RUNS * TRUNCATION / (time.perf_counter() - start)


def products() -> list[tuple[int, int, int]]:
    """(m, k, n) of each matrix multiplication in an inner step."""
    pairs = list(itertools.pairwise(LAYERS))
    count = sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairs)
    network = [(HIDDEN, FEATURES, count), (HIDDEN, HIDDEN, count), (2, HIDDEN, count)]
    forward = [(BATCH, fan_in, fan_out) for fan_in, fan_out in pairs]
    of_weights = [(fan_in, BATCH, fan_out) for fan_in, fan_out in pairs]
    of_inputs = [(BATCH, fan_out, fan_in) for fan_in, fan_out in pairs[1:]]
    return network + forward + of_weights + of_inputs


class Matmul:
    """One multiplication for all runs, which are spread over devices."""

    def __init__(self, m: int, k: int, n: int, devices: int):
        mesh = lopt.particle_mesh(jax.devices()[:devices])
        sharding = jax.NamedSharding(mesh, jax.P(parallel.AXIS))
        a, b = np.ones((RUNS, m, k), np.float32), np.ones((RUNS, k, n), np.float32)
        self.operands = jax.device_put((a, b), sharding)
        program = jax.jit(jnp.matmul, out_shardings=sharding)
        self.program = program.lower(*self.operands).compile()
        self.best = np.inf

    def run(self, calls: int = 20) -> None:
        """Takes the time of some calls."""
        for _ in range(calls):
            start = time.perf_counter()
            jax.block_until_ready(self.program(*self.operands))
            self.best = min(self.best, time.perf_counter() - start)


def peer(python: pathlib.Path, script: pathlib.Path, steps_per_jit: int) -> float:
    """The peer's inner steps per second."""
    command = [python, script, "--steps_per_jit", steps_per_jit]
    done = subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])["inner_steps_per_s"]


def main(
    devices: int = os.cpu_count() or 1,
    rounds: int = 3,
    meta_steps: int = 10,
    peer_python: pathlib.Path | None = None,
    peer_script: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Prints the rates and writes them to `out` as JSON.

    Args:
        devices: Virtual devices of the CPU; ours is also timed on one.
        rounds: How often everything takes its turn.
        meta_steps: Meta-steps of ours in a round.
        peer_python: Interpreter of the peer.
        peer_script: Script that times the peer.
        out: Where to write the record.
    """
    if (peer_python is None) != (peer_script is None):
        raise SystemExit("give --peer-python and --peer-script, or neither")
    parallel.start_processes(devices=devices)
    record: dict[str, Any] = {
        "command": "python -m benchmarks.pes_throughput",
        "device": jax.devices()[0].device_kind,
        "platform": jax.devices()[0].platform,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load_before": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            **{x: importlib.metadata.version(x) for x in ("jax", "jaxlib", "optax")},
        },
    }
    ours = {n: Ours(n) for n in sorted({1, devices})}
    matmuls = {n: [Matmul(*shape, n) for shape in products()] for n in ours}
    rates: dict[str, list[float]] = {}
    for each in ours.values():
        each.rate(2)
    for _ in range(rounds):
        for n, each in ours.items():
            rate = each.rate(meta_steps)
            rates.setdefault(f"ours, {n} device{'s' * (n > 1)}", []).append(rate)
        for matmul in itertools.chain(*matmuls.values()):
            matmul.run()
        for setting in PEER_SETTINGS:
            if peer_python is None or peer_script is None:
                continue
            rate = peer(peer_python, peer_script, setting)
            rates.setdefault(f"peer, {setting} steps per jit", []).append(rate)
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    best = [
        min(pair, key=lambda m: m.best).best
        for pair in zip(*matmuls.values(), strict=True)
    ]
    medians["matmuls alone"] = RUNS / sum(best)
    fastest = max(rate for name, rate in medians.items() if name.startswith("ours"))
    peers = [rate for name, rate in medians.items() if name.startswith("peer")]
    record |= {
        "inner_steps_per_second": medians,
        "compile_s": {str(n): x.meta_step.compile_seconds for n, x in ours.items()},
        "fraction_of_matmul_rate": fastest / medians["matmuls alone"],
        "ratio_to_peer": fastest / max(peers) if peers else None,
        "load_after": os.getloadavg()[0],
    }
    for name, rate in medians.items():
        print(f"{name:26s} {rate:10,.0f} inner steps/s")
    print(f"fraction of the matmul rate: {record['fraction_of_matmul_rate']:.2f}")
    if peers:
        print(f"ratio to the peer: {record['ratio_to_peer']:.2f}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
