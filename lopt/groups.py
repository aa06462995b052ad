"""Particles in groups of one size, whatever the number of devices.

An antithetic difference cancels most digits of two losses, so what is left depends on
how a compiler rounds, and that depends on the shapes it sees. A program that advances
one group on every device sees the same shapes on any number of them; a device with more
particles calls it more often. (A single device may still round otherwise than several,
for which XLA partitions, and then simplifies, in a pipeline of its own.)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from lopt import parallel
from lopt.parallel import AXIS

Tree = Any


@partial(jax.jit, static_argnames=("num_groups", "mesh"))
def split(tree: Tree, num_groups: int, mesh: Mesh) -> list[Tree]:
    """Groups of the particles of each device, leaves (devices · size, ...).

    Args:
      tree: leaves (particles, ...), sharded over the mesh.
      num_groups: groups on a device; divides the number of its particles.
      mesh: the devices.
    """

    def local(tree):
        return [
            jax.tree.map(lambda x: jnp.split(x, num_groups)[i], tree)  # noqa: B023
            for i in range(num_groups)
        ]

    return parallel.over_particles(local, mesh, in_specs=P(AXIS), out_specs=P(AXIS))(
        tree
    )


@partial(jax.jit, static_argnames="mesh")
def join(groups: list[Tree], mesh: Mesh) -> Tree:
    """The inverse of `split`."""

    def local(groups):
        return jax.tree.map(lambda *x: jnp.concatenate(x), *groups)

    return parallel.over_particles(local, mesh, in_specs=P(AXIS), out_specs=P(AXIS))(
        groups
    )
