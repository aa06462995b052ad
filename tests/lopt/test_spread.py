"""One device, eight, and two processes of four meta-train the same theta."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from spread_run import STEPS, run

import lopt

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def on_one_device():
    return run(lopt.particle_mesh(jax.devices()[:1])).hyperparams


def same(theta, other):
    assert theta.keys() == other.keys()
    for name in theta:
        np.testing.assert_allclose(theta[name], other[name], rtol=1e-6, atol=0)


def test_meta_training_moves_theta(on_one_device):
    assert abs(on_one_device["learning_rate"] - 0.03) > 0.001
    assert abs(on_one_device["b1"] - 0.8) > 0.001


def test_devices(on_one_device):
    two, eight = (
        run(lopt.particle_mesh(jax.devices()[:size])).hyperparams for size in (2, 8)
    )
    same(two, on_one_device)
    for name in two:  # Several devices agree to the last bit; see `lopt.groups`.
        np.testing.assert_array_equal(two[name], eight[name])


def test_two_processes_even_when_one_of_them_is_interrupted(on_one_device, tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, ROOT / "tests/lopt/spread_run.py", tmp_path, str(port)]
    processes = [
        subprocess.Popen(
            [*command, str(i)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        output = [p.communicate(timeout=150)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(output)
    for i in range(2):
        with np.load(tmp_path / f"theta_{i}.npz") as theta:
            same(dict(theta), on_one_device)
    metrics = (tmp_path / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in metrics]
    assert [x["step"] for x in lines if "meta_loss" in x] == list(range(1, STEPS + 1))
    assert [x["step"] for x in lines if "meta_loss" not in x] == [0, 10, 20]
