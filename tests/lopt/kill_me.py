"""A meta-training run that kills itself: `kill_me.py DIRECTORY MOMENT`."""

import os
import pathlib
import shutil
import signal
import sys
import threading
import time

import jax
import numpy as np
import optax
from meta_toys import quadratic

import lopt
from lopt import checkpoint
from lopt.meta_step import MetaStep
from lopt.truncation import LogUniform

STEPS, EVERY = 20, 4


def run(directory, **options):
    """Particles carry Adam's moments and perturbations, and restart at random times."""
    return lopt.meta_train(
        optax.inject_hyperparams(optax.adam)(learning_rate=0.03, b1=0.9),
        {"learning_rate": 0.03, "b1": 0.8},
        quadratic(),
        lopt.PES(num_particles=4, std=0.01, truncation_length=5),
        steps=STEPS,
        schedule=LogUniform(4, 20, stagger=5),
        mesh=lopt.particle_mesh(jax.devices()[:1]),
        progress=False,
        checkpoint_dir=directory / "checkpoints",
        checkpoint_every=EVERY,
        metrics_file=directory / "metrics.jsonl",
        **options,
    )


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, when):
    """Kills the process when it calls `owner.name` with arguments that `when` wants."""
    function = getattr(owner, name)

    def dying(*args, **kwargs):
        if when(*args):
            kill()
        return function(*args, **kwargs)

    setattr(owner, name, dying)


def while_orbax_writes(directory):
    """Kills the process once the third checkpoint is partly there."""

    def watch():
        while True:
            if list(directory.glob("checkpoints/00000012.*tmp*/**/*")):
                kill()
            time.sleep(1e-4)

    threading.Thread(target=watch, daemon=True).start()


MOMENTS = {
    "before the first checkpoint": lambda _: before(
        MetaStep, "__call__", lambda self, step, *_: step == 2
    ),
    "in a meta-step": lambda _: before(
        MetaStep, "__call__", lambda self, step, *_: step == 10
    ),
    "while Orbax writes": while_orbax_writes,
    "before the manifest": lambda _: before(
        checkpoint, "_write", lambda path, text: path.name == "00000012.json"
    ),
    "while old ones are deleted": lambda _: before(
        shutil, "rmtree", lambda path, *_: path.name == "00000004"
    ),
    "after the last checkpoint": lambda _: before(
        jax, "device_get", lambda x: isinstance(x, dict)
    ),
}


if __name__ == "__main__":
    where, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
    MOMENTS[moment](where)
    run(where)
    np.testing.assert_(False, "it was to be killed")
