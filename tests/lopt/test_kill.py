"""A run that was killed at any moment ends, resumed, bit for bit as if it had not."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from kill_me import EVERY, MOMENTS, STEPS, run

from lopt.meta_step import MetaStep

ROOT = pathlib.Path(__file__).parents[2]

LAST_WHOLE = {
    "before the first checkpoint": 0,
    "in a meta-step": 8,
    "while Orbax writes": 8,
    "before the manifest": 8,
    "while old ones are deleted": 16,
    "after the last checkpoint": STEPS,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_resumes_bit_for_bit(whole, moment, tmp_path, monkeypatch):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    killed = subprocess.run(
        [sys.executable, ROOT / "tests/lopt/kill_me.py", tmp_path, moment],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -9, killed.stderr
    steps = [int(p.stem) for p in (tmp_path / "checkpoints").glob("*.json")]
    assert max(steps, default=0) == LAST_WHOLE[moment]
    assert all(step % EVERY == 0 for step in steps)
    made = []
    call = MetaStep.__call__
    monkeypatch.setattr(
        MetaStep, "__call__", lambda *args: made.append(args[1]) or call(*args)
    )
    resumed = run(tmp_path, resume=True)
    assert made == list(range(LAST_WHOLE[moment], STEPS))
    for name, value in whole.hyperparams.items():
        assert resumed.hyperparams[name].tobytes() == value.tobytes()
    for name in ("step", "meta_loss", "grad_norm", "learning_rate"):
        np.testing.assert_array_equal(resumed.history[name], whole.history[name])
    assert [p.name for p in tmp_path.glob("checkpoints/*tmp*")] == []
