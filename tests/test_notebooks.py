"""Notebooks run from top to bottom, as scripts, and are shown as they run."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".jax_cache")
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_executed_copy_has_the_same_cells(path):
    marked = re.split(r"^# %%(.*)$", path.read_text(), flags=re.MULTILINE)[1:]
    cells = zip(marked[::2], marked[1::2], strict=True)
    code = [
        re.sub("^# %", "%", text.strip())  # A magic is a comment in the script.
        for kind, text in cells
        if "markdown" not in kind
    ]
    executed = json.loads(path.with_suffix(".ipynb").read_text())["cells"]
    executed = [cell for cell in executed if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]).strip() for cell in executed] == code
    assert all(cell["execution_count"] for cell in executed)
    assert any(cell["outputs"] for cell in executed)
