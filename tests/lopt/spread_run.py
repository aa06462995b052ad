"""A meta-training run by PES: `spread_run.py DIRECTORY PORT PROCESS` is one of two."""

import pathlib
import signal
import sys

import numpy as np
import optax
from meta_toys import quadratic

import lopt
import tasks
from lopt import parallel
from lopt.estimators.pes import PES
from lopt.meta_step import MetaStep
from lopt.truncation import LogUniform

STEPS = 20


def run(mesh, **options):
    """Runs restart within truncations."""
    return lopt.meta_train(
        optax.inject_hyperparams(optax.adam)(learning_rate=0.03, b1=0.9),
        {"learning_rate": 0.03, "b1": 0.8},
        tasks.get("digits-mlp", width=16, depth=2, batch_size=16),
        PES(8, 0.01, 6),
        steps=STEPS,
        schedule=LogUniform(4, 20, 5),
        mesh=mesh,
        progress=False,
        **options,
    )


def interrupt_the_second_process(step):
    call = MetaStep.__call__

    def interrupted(self, at, *carry):
        if at == step and not parallel.is_first_process():
            signal.raise_signal(signal.SIGINT)
        return call(self, at, *carry)

    MetaStep.__call__ = interrupted


def main(directory, port, process_id):
    parallel.start_processes(
        devices=4,
        coordinator=f"localhost:{port}",
        num_processes=2,
        process_id=process_id,
    )
    kept = {
        "checkpoint_dir": directory / "checkpoints",
        "metrics_file": directory / "metrics.jsonl",
        "evaluation": lopt.HeldOut(quadratic(), 10, 2, 1),
    }
    interrupt_the_second_process(3)
    try:
        run(parallel.particle_mesh(), **kept)
        raise AssertionError("the run was not interrupted")
    except lopt.Interrupted as e:
        assert e.result.steps == 16, e.result.steps
    result = run(parallel.particle_mesh(), resume=True, **kept)
    np.savez(directory / f"theta_{process_id}.npz", **result.hyperparams)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
