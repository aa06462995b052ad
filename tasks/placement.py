"""Where the arrays of a run live: on one device, or one run's batch over several.

Only the placement of arrays is said here; what is computed, and the sums over a batch
that cross devices, follow from it (jit partitions the program).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tasks.checks import check_counts

_AXIS = "data"
# Below it, communication would cost more than the memory that is won.
_SMALLEST_SHARD = 1024


class Placement:
    """One run on a number of devices, whose batches are spread over them.

    Args:
      devices: how many of this process's devices, the first ones.
      shard_params: whether parameters and the optimizer's state are spread too, along
        the longest axis that the devices divide, rather than copied to each of them.

    Raises:
      ValueError: there are not so many devices.

    Example:
      >>> Placement().is_spread
      False
    """

    def __init__(self, devices: int = 1, *, shard_params: bool = False):
        check_counts(devices=devices)
        found = jax.local_devices()
        if devices > len(found):
            raise ValueError(
                f"devices={devices}, but this process has {len(found)} of kind "
                f"{found[0].device_kind!r}"
            )
        if shard_params and devices == 1:
            raise ValueError("shard_params=True needs devices > 1, got devices=1")
        self._shard_params = shard_params
        self._mesh = jax.sharding.Mesh(np.array(found[:devices]), (_AXIS,))
        self._devices = devices

    @property
    def is_spread(self) -> bool:
        """Whether there is more than one device."""
        return self._devices > 1

    def check_batch(self, batch: Any) -> None:
        """Raises ValueError if a batch cannot be spread evenly over the devices."""
        for leaf in jax.tree.leaves(batch):
            if leaf.ndim and leaf.shape[0] % self._devices:
                raise ValueError(
                    f"a batch of {leaf.shape[0]} cannot be spread evenly over "
                    f"devices={self._devices}: choose a batch_size that they divide"
                )

    def replicate(self, tree: Any) -> Any:
        """Puts arrays on every device."""
        return jax.device_put(tree, jax.NamedSharding(self._mesh, jax.P()))

    def spread_batch(self, batch: Any) -> Any:
        """Inside of jit: the batch, its first axis over the devices."""
        if not self.is_spread:
            return batch
        spread = jax.NamedSharding(self._mesh, jax.P(_AXIS))
        whole = jax.NamedSharding(self._mesh, jax.P())
        return jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(x, spread if x.ndim else whole),
            batch,
        )

    def put_batches(self, batches: Any) -> Any:
        """Puts batches (seeds, steps, batch, ...) there, the third axis spread."""
        spread = jax.NamedSharding(self._mesh, jax.P(None, None, _AXIS))
        return jax.device_put(batches, spread)

    def of_carry(self, shapes: Any) -> Any:
        """Shardings of what steps carry, arrays with a leading axis of seeds."""
        return jax.tree.map(self._of_leaf, shapes)

    def _of_leaf(self, leaf: jax.ShapeDtypeStruct) -> jax.NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        lengths = [n if n % self._devices == 0 else 0 for n in leaf.shape[1:]]
        large = leaf.size >= _SMALLEST_SHARD * self._devices
        if self._shard_params and large and max(lengths, default=0):
            axes[1 + int(np.argmax(lengths))] = _AXIS
        return jax.NamedSharding(self._mesh, jax.P(*axes))
