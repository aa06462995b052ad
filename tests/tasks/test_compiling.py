"""Programs that are called once compile faster and draw the same parameters."""

import jax
import numpy as np
import optax
import pytest

import tasks
from tasks import training
from tasks.compiling import for_few_calls
from tasks.placement import Placement


@pytest.fixture(autouse=True)
def as_users_compile():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def test_only_cpus_have_levels(monkeypatch):
    assert for_few_calls() == {"xla_backend_optimization_level": 1}
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        assert for_few_calls() == {}
    jax.config.update("jax_disable_most_optimizations", True)
    assert for_few_calls() == {}


@pytest.mark.parametrize(
    "placement", [Placement(), Placement(8, shard_params=True)], ids=["one", "eight"]
)
def test_what_is_drawn_is_the_same(placement, monkeypatch):
    monkeypatch.setattr("tasks.placement._SMALLEST_SHARD", 1)
    task, seeds = tasks.get("digits-mlp", width=16), (3, 4)
    begin = jax.vmap(training.initial_carry(task, optax.adamw(1e-3)))
    plain = jax.jit(begin)(training._keys(seeds))
    program = training.Program(task, optax.adamw(1e-3), seeds, 1, placement)
    jax.tree.map(np.testing.assert_array_equal, program._carry.params, plain.params)
