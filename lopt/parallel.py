"""Particles spread over devices and processes: the mesh, and the one reduction.

A particle's numbers depend on its global index and not on where it runs, so one
device, eight devices and two processes of four give the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "particles"


def particle_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The one-dimensional mesh over which particles are spread.

    Args:
      devices: by default all devices, of all processes.

    Example:
      >>> particle_mesh(jax.devices()[:1]).axis_names
      ('particles',)
    """
    chosen = np.asarray(jax.devices() if devices is None else list(devices))
    return Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,))


def check_mesh(mesh: Mesh, num_particles: int) -> None:
    """Refuses a mesh that cannot hold the particles.

    Raises:
      ValueError: the mesh has other axes than "particles", or its size does not divide
        the number of particles.
    """
    if mesh.axis_names != (AXIS,):
        raise ValueError(
            f"mesh has the axes {mesh.axis_names}; it must have the one axis {AXIS!r}, "
            "as lopt.particle_mesh() makes it"
        )
    if num_particles % mesh.size:
        below = num_particles - num_particles % mesh.size
        near = " or ".join(str(n) for n in (below, below + mesh.size) if n)
        raise ValueError(
            f"num_particles={num_particles} is not a multiple of the {mesh.size} "
            f"devices of the mesh; take {near} particles, or fewer devices"
        )


def over_particles(
    function: Callable[..., Any], mesh: Mesh, *, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """`function` on every device's share; `P(AXIS)` marks what is a share."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def sum_over_particles(shares: Any, mesh: Mesh) -> Any:
    """Sums what particles contribute: the one communication of a meta-step.

    Neighbours are added in pairs, then neighbouring pairs and so on, as far as a device
    can on its own; the reduction brings together what is left, each device adding it to
    zeros of the others, and the same tree of sums goes on. So the order of additions,
    and with it the last bit, does not depend on the number of devices. All leaves are
    sent as one array, integers as float32, which is exact below 2**24.

    Args:
      shares: a pytree of arrays whose leading axis, of particles or groups of them, is
        sharded over the mesh.
      mesh: the devices that hold them.

    Returns:
      The sums over that axis, in the dtypes given, on every device.
    """

    def reduce(share):
        leaves, structure = jax.tree.flatten(share)
        rows = [leaf.astype(jnp.float32).reshape(len(leaf), -1) for leaf in leaves]
        local = _sum_pairs(jnp.concatenate(rows, axis=1))
        slots = jnp.zeros((mesh.size, *local.shape), local.dtype)
        slots = jax.lax.psum(slots.at[jax.lax.axis_index(AXIS)].set(local), AXIS)
        total = _sum_pairs(slots.reshape(-1, local.shape[1])).sum(0)
        ends = np.cumsum([row.shape[1] for row in rows])[:-1]
        sums = [
            part.reshape(leaf.shape[1:]).astype(leaf.dtype)
            for part, leaf in zip(jnp.split(total, ends), leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, sums)

    return over_particles(reduce, mesh, in_specs=P(AXIS), out_specs=P())(shares)


def _sum_pairs(rows: jax.Array) -> jax.Array:
    """Halves the number of rows as long as it is even."""
    while len(rows) % 2 == 0:
        rows = rows[::2] + rows[1::2]
    return rows


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process holds, as global arrays on every device.

    An array that occurs several times, such as data that tasks share, is placed once.

    Args:
      tree: arrays that are equal in all processes; typed keys are welcome.
      mesh: the devices that get them.
    """
    sharding = NamedSharding(mesh, P())
    placed: dict[int, jax.Array] = {}

    def place(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        if id(leaf) not in placed:
            host = np.asarray(leaf)
            placed[id(leaf)] = jax.make_array_from_process_local_data(sharding, host)
        return placed[id(leaf)]

    return jax.tree.map(place, tree)


def shard(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """A global array from what every process holds, its leading axis over the mesh."""
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])


def start_processes(
    *,
    devices: int | None = None,
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run; comes before anything that touches a device.

    Args:
      devices: number of virtual devices that a CPU is to show.
      distributed: find the other processes from the environment, as JAX does on TPU
        pods, under SLURM, Open MPI and Kubernetes.
      coordinator: `host:port` of process 0, where the environment does not tell; the
        three arguments belong together.
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Raises:
      ValueError: an argument is missing or out of range.
      RuntimeError: JAX has been used already, or finds no other process.
    """
    explicit = (coordinator, num_processes, process_id)
    if any(x is not None for x in explicit) and None in explicit:
        raise ValueError(
            "coordinator, num_processes and process_id belong together; got "
            f"coordinator={coordinator!r}, num_processes={num_processes}, "
            f"process_id={process_id}"
        )
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise ValueError(
            f"process_id={process_id} must be at least 0 and less than "
            f"num_processes={num_processes}"
        )
    if devices is not None:
        if devices < 1:
            raise ValueError(f"devices must be at least 1, got {devices}")
        jax.config.update("jax_num_cpu_devices", devices)
    if coordinator is not None or distributed:
        jax.distributed.initialize(coordinator, num_processes, process_id)


def is_first_process() -> bool:
    """Whether this process is the one that writes files and talks."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """Whether the flag is set in any process; all processes must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def wait_for_processes(name: str) -> None:
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
