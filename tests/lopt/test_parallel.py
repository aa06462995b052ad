"""Particles on a mesh: the same numbers wherever they are, for one reduction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from meta_toys import ToyES, quadratic, sgd

from lopt import groups, parallel
from lopt.meta_optimizer import WarmupCosineAdamW
from lopt.meta_step import MetaStep
from lopt.truncation import Constant
from lopt.unroll import Unroll

AXIS = parallel.AXIS


def mesh(size):
    return parallel.particle_mesh(jax.devices()[:size])


def collectives(text):
    names = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    starts = [f"{name}{suffix}(" for name in names for suffix in ("", "-start")]
    return sum(text.count(f" {start}") for start in starts)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_groups_are_neighbours_on_their_device(size):
    indices = parallel.shard(np.arange(16, dtype=np.int32), mesh(size))
    parts = groups.split(indices, 16 // size // 2, mesh(size))
    assert [part.shape for part in parts] == [(2 * size,)] * (16 // size // 2)
    assert parts[0].addressable_shards[-1].data.tolist()[0] == 16 - 16 // size
    np.testing.assert_array_equal(groups.join(parts, mesh(size)), np.arange(16))


def test_sums_travel_in_one_reduction():
    shares = {
        "gradient": [jnp.arange(24.0).reshape(8, 3), jnp.ones((8,))],
        "count": jnp.full((8, 2), 3, jnp.int32),
    }
    total = jax.jit(lambda x: parallel.sum_over_particles(x, mesh(8)))
    assert collectives(total.lower(shares).compile().as_text()) == 1
    summed = total(shares)
    expected = jax.tree.map(lambda x: x.sum(0), shares)
    assert jax.tree.map(jnp.array_equal, summed, expected) == {
        "gradient": [True, True],
        "count": True,
    }
    assert summed["count"].dtype == jnp.int32


@pytest.mark.parametrize("round_robin", [False, True])
def test_a_meta_step_communicates_once(round_robin):
    step = meta_step(8, round_robin=round_robin)
    step._meeting = step._mesh  # As on accelerators and in several processes.
    start = step.start({"learning_rate": np.float32(0.1)}, jax.random.key(0))
    step.compile(step.split(start))
    of_tasks = [program.as_text() for program in step._advance_programs]
    assert [collectives(text) for text in of_tasks] == [0, 0]
    assert collectives(step._reduce_program.as_text()) == 1
    assert collectives(step._move_program.as_text()) == 0


def test_devices_of_one_cpu_process_meet_without_waiting_for_each_other():
    """With two cores and two devices, XLA was seen to wait for ever, and to abort."""
    step = meta_step(2)
    start = step.start({"learning_rate": np.float32(0.1)}, jax.random.key(0))
    step.compile(step.split(start))
    assert "replica_groups={{0}}" in step._reduce_program.as_text()


def meta_step(size, **options):
    unrolls = [Unroll(quadratic(dim=dim), sgd(), Constant(20)) for dim in (4, 8)]
    return MetaStep(
        unrolls, ToyES(), WarmupCosineAdamW().build(20), mesh(size), **options
    )


def test_replicating_places_shared_arrays_once():
    shared, key = jnp.arange(4), jax.random.key(3)
    placed = parallel.replicate([{"a": shared}, {"a": shared}, key], mesh(8))
    assert placed[0]["a"] is placed[1]["a"]
    assert placed[0]["a"].sharding == NamedSharding(mesh(8), P())
    assert (jax.random.key_data(placed[2]) == jax.random.key_data(key)).all()
    assert len(placed[2].sharding.device_set) == 8


def test_the_state_of_particles_is_sharded():
    state, particles = meta_step(8).start(
        {"learning_rate": np.float32(0.1)}, jax.random.key(0)
    )
    for leaf in jax.tree.leaves(particles):
        assert leaf.sharding.is_equivalent_to(
            NamedSharding(mesh(8), P(AXIS)), leaf.ndim
        )
        assert leaf.addressable_shards[0].data.shape[0] == 1
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


def test_the_caller_keeps_its_theta():
    theta = {"learning_rate": jnp.float32(0.1)}
    step = meta_step(2)
    carry = step.split(step.start(theta, jax.random.key(0)))
    step.compile(carry)
    step(0, carry)
    assert float(theta["learning_rate"]) == np.float32(0.1)


@pytest.mark.parametrize(
    ("made", "num_particles", "message"),
    [
        (
            lambda: mesh(8),
            12,
            "num_particles=12 is not a multiple of the 8 devices of the mesh; "
            "take 8 or 16 particles",
        ),
        (lambda: mesh(8), 4, "take 8 particles, or fewer devices"),
        (lambda: jax.make_mesh((8,), ("data",)), 8, "has the axes ('data',)"),
    ],
)
def test_a_mesh_that_cannot_hold_the_particles(made, num_particles, message):
    with pytest.raises(ValueError) as e:
        parallel.check_mesh(made(), num_particles)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "localhost:1"}, "belong together; got coordinator="),
        ({"process_id": 0}, "belong together"),
        (
            {"coordinator": "localhost:1", "num_processes": 2, "process_id": 2},
            "process_id=2 must be at least 0 and less than num_processes=2",
        ),
        ({"devices": 0}, "devices must be at least 1, got 0"),
    ],
)
def test_processes_that_cannot_start(arguments, message):
    with pytest.raises(ValueError) as e:
        parallel.start_processes(**arguments)
    assert message in str(e.value)
