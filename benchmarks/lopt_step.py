"""Times one update of each learned optimizer, `optax.adamw`, and google's small_fc.

    python -m benchmarks.lopt_step [--peer-python PYTHON --peer-script SCRIPT]

A step is `update` and `apply_updates` in one jitted function whose parameters and state
are donated. "mlp x 16" is what meta-training does: 16 particles with their own theta,
parameters and state, of the layers of a small MLP, in a scan.

The floor of an optimizer is what this machine needs at least: for reading and writing
what an update must (28 bytes per parameter for Adam, 72 for all others) at the speed of
scaling an array in place, or for the multiplications and additions of its network, and
of Newton-Schulz steps, at the speed of a product of matrices; the longer of the two.

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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


NUM_STEPS = 1000


def learned(architecture: Any) -> optax.GradientTransformation:
    return architecture.transform(architecture.init(jax.random.key(0)))


class Optimizer(NamedTuple):
    """What is timed.

    Attributes:
      make: gives the transformation.
      bytes: that must move, per parameter.
      multiplications: with an addition each, per parameter.
      by_side: of these, further ones per row of a square matrix.
    """

    make: Callable[[], optax.GradientTransformation]
    bytes: int = 72
    multiplications: int = 8
    by_side: int = 0


OPTIMIZERS = {
    "optax.adamw": Optimizer(lambda: optax.adamw(1e-3), bytes=28),
    "small_fc": Optimizer(lambda: learned(lopt.small_fc()), multiplications=1984),
    "velo": Optimizer(lambda: learned(lopt.velo(NUM_STEPS)), multiplications=148),
    "celo": Optimizer(lambda: learned(lopt.celo(NUM_STEPS)), multiplications=148),
    "celo2-base": Optimizer(
        lambda: learned(lopt.celo2(orthogonalize=False)), multiplications=328
    ),
    "celo2": Optimizer(lambda: learned(lopt.celo2()), multiplications=328, by_side=15),
}
# VeLO's LSTM is larger than all that a small MLP would have.
FOR_PARTICLES = ("optax.adamw", "small_fc", "celo2-base", "celo2")


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
        # The meta-parameters are one for the whole model, however large it is.
        theta = jax.tree.leaves(optax.tree.get(state, "hyperparams", ()))
        of_state = sum(x.nbytes for x in jax.tree.leaves(state))
        of_state -= sum(x.nbytes for x in theta)
        self.state_bytes = of_state / self.parameters
        self.updates_per_call = updates_per_call
        self.seconds: list[float] = []

    def run(self) -> None:
        """Takes a step, or a scan of them, and waits for it."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.program(*self.carry, self.grads))
        self.seconds.append((time.perf_counter() - start) / self.updates_per_call)


def one_step(tx, params, state, grads):
    # The loss is some number that changes.
    loss = jnp.asarray(jax.tree.leaves(params)[0].ravel()[0], jnp.float32)
    updates, state = tx.update(grads, state, params, value=loss)
    return optax.apply_updates(params, updates), state


def on_matrices(name: str, which: str) -> Timed:
    number, side = TREES[which]
    tx, params = transformation(name), tree([(side, side)] * number)
    grads = [0.1 * p + 0.001 for p in params]
    state = tx.init(params)
    return Timed(lambda *args: one_step(tx, *args), params, state, grads, 1)


def transformation(name: str) -> optax.GradientTransformationExtraArgs:
    return optax.with_extra_args_support(OPTIMIZERS[name].make())


def on_particles(name: str) -> Timed:
    tx = transformation(name)

    def several(x: jax.Array) -> jax.Array:
        return jnp.stack([x * (1 + 0.01 * i) for i in range(PARTICLES)])

    params = [several(x) for x in tree(MLP)]
    state: Any = jax.vmap(tx.init)(params)
    theta = optax.tree.get(state, "hyperparams")
    if theta is not None:
        theta = jax.tree.map(lambda x: several(x[0]), theta)
        state = optax.tree.set(state, hyperparams=theta)

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


class Machine:
    """How fast it moves bytes, and multiplies and adds."""

    def __init__(self):
        x, matrix = jnp.ones(1 << 26), jnp.ones((2048, 2048))
        scale = jax.jit(lambda x: 1.0001 * x, donate_argnums=0)
        product = jax.jit(lambda x: x @ x)
        self.x, self.scale = scale(x), scale
        self.product = lambda: jax.block_until_ready(product(matrix))
        self.product()
        self.per_byte: list[float] = []
        self.per_multiplication: list[float] = []

    def run(self) -> None:
        """Scales an array, then multiplies matrices."""
        start = time.perf_counter()
        self.x = jax.block_until_ready(self.scale(self.x))
        middle = time.perf_counter()
        self.product()
        self.per_byte.append((middle - start) / (2 * self.x.nbytes))
        self.per_multiplication.append((time.perf_counter() - middle) / 2048**3)

    def floor(self, name: str, side: int) -> float:
        """Seconds per parameter that an update needs at least."""
        optimizer = OPTIMIZERS[name]
        counted = optimizer.multiplications + optimizer.by_side * side
        return max(
            float(np.median(self.per_byte)) * optimizer.bytes,
            float(np.median(self.per_multiplication)) * counted,
        )


def measure(
    which: str, rounds: int, repeats: int, peer_command: Sequence[Any]
) -> dict[str, Any]:
    """A row per optimizer; everything takes turns in every round."""
    on_trees = which in TREES
    steps = {
        name: on_matrices(name, which) if on_trees else on_particles(name)
        for name in (OPTIMIZERS if on_trees else FOR_PARTICLES)
    }
    machine = Machine()
    peers: dict[str, list[float]] = {}
    for step in steps.values():
        step.run()
        step.seconds.clear()
    for _ in range(rounds):
        for _ in range(repeats):
            for step in (*steps.values(), machine):
                step.run()
        if peer_command[0] and on_trees:
            for name, seconds in peer(peer_command, which).items():
                peers.setdefault(name, []).append(seconds)
    count = steps["small_fc"].parameters
    rows: dict[str, Any] = {}
    for name, step in steps.items():
        rows[name] = {
            "ns_per_parameter": float(np.median(step.seconds)) / count * 1e9,
            "temporary_bytes_per_parameter": step.temporary_bytes,
            "state_bytes_per_parameter": step.state_bytes,
            "compile_s": step.compile_s,
        }
        if on_trees:
            floor = machine.floor(name, TREES[which][1]) * 1e9
            rows[name]["times_floor"] = rows[name]["ns_per_parameter"] / floor
    for name, seconds in peers.items():
        rows[name] = {"ns_per_parameter": float(np.median(seconds)) / count * 1e9}
    adamw = rows["optax.adamw"]["ns_per_parameter"]
    for row in rows.values():
        row["times_adamw"] = row["ns_per_parameter"] / adamw
    return rows


COLUMNS = {
    "ns_per_parameter": "ns/param",
    "times_adamw": "x adamw",
    "times_floor": "x floor",
    "temporary_bytes_per_parameter": "temp B",
    "state_bytes_per_parameter": "state B",
    "compile_s": "compile s",
}


def show(which: str, rows: dict[str, Any]) -> None:
    """Prints a table."""
    print(f"\n{which:15s} " + " ".join(f"{title:>9s}" for title in COLUMNS.values()))
    for name, row in rows.items():
        cells = [f"{row[key]:9.2f}" if key in row else " " * 9 for key in COLUMNS]
        print(f"{name:15s} " + " ".join(cells))


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
        show(which, rows)
    record["load_after"] = os.getloadavg()[0]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
