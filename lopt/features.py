"""What a learned optimizer sees of a parameter: its gradient's statistics, as features.

With momenta m, the second moment v, rows r, columns c, q = 1/sqrt(v + eps) and the
factor F that preconditions as Adafactor does, they are, in this order,

    g | clip(g) | p | m | v | m q | q | g F | g q | r | c | 1/sqrt(r) | 1/sqrt(c) | m F

of which small_fc leaves out clip(g), to [-0.1, 0.1], and g q. Rows and columns of a
leaf of rank 0 or 1 are the same: such a leaf has them once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lopt import accumulators
from lopt.accumulators import Accumulators

# The least value under a root of what 1e-30 has entered; float32 is exact down to here.
TINY = 1e-37
# Below, the derivative of a root would overflow.
FLAT = 1e-24


@dataclasses.dataclass(frozen=True)
class Features:
    """Which features, and their epsilons, for 3 momenta and 3 rows and columns.

    Attributes:
      clipped: whether clip(g) and g q are among them: 30 features, or 28.
      averages_of_vectors: whether a leaf of rank 0 or 1 has the features after g q.
      root_eps: of q.
      average_eps: of 1/sqrt(r) and 1/sqrt(c).
      factor_eps: of F, but for that of m F in a leaf of rank 0 or 1,
      momentum_eps: which has this one.
    """

    clipped: bool = True
    averages_of_vectors: bool = True
    root_eps: Any = 1e-6
    average_eps: Any = 1e-8
    factor_eps: Any = 1e-9
    momentum_eps: Any = 0.0

    def scaled(self, factor: Any) -> Features:
        """With every epsilon times `factor`."""
        epsilons = ("root_eps", "average_eps", "factor_eps", "momentum_eps")
        scaled = {name: getattr(self, name) * factor for name in epsilons}
        return dataclasses.replace(self, **scaled)

    def first_layer(self, weight: jax.Array, rank: int) -> jax.Array:
        """The first layer of a leaf of some rank, from that of all features.

        Args:
          weight: shape (features, H).
          rank: of the leaf.
        """
        if rank >= 2:
            return weight
        averages = 15 if self.clipped else 13
        alone, pairs, last = jnp.split(weight, [averages, averages + 12])
        if not self.averages_of_vectors:
            return alone
        row, col, row_root, col_root = jnp.split(pairs, 4)
        return jnp.concatenate([alone, row + col, row_root + col_root, last])

    def of(
        self, grad: jax.Array, param: jax.Array, new: Accumulators
    ) -> tuple[list[jax.Array], Callable[..., list[jax.Array]]]:
        """Arrays that broadcast against the leaf, and the features from them.

        Args:
          grad: of any rank.
          param: of the shape and dtype of `grad`.
          new: after this gradient.

        Returns:
          What `blocks.map_blocks` takes: the arrays, and a function of them, or of
          the same part of each, to the features, which broadcast against the leaf.
        """
        arrays = [grad, param, *new.momenta, *new.second_moments, *new.rows]
        axes = accumulators.factored_axes(grad.shape)
        if axes is None:
            return arrays, self._of_vector
        pairs = zip(new.rows, new.cols, strict=True)
        factors = [
            accumulators.factors(row, col, axes[0], self.factor_eps)
            for row, col in pairs
        ]
        factors = itertools.chain(*zip(*factors, strict=True))
        return [*arrays, *new.cols, *factors], self._of_matrix

    def _of_matrix(self, grad, param, m1, m2, m3, second, *rest):
        averages, by_row, by_col = rest[:6], rest[6:9], rest[9:]
        factors = [row * col for row, col in zip(by_row, by_col, strict=True)]
        momenta = (m1, m2, m3)
        return self._list(grad, param, momenta, second, factors, factors, averages)

    def _of_vector(self, grad, param, m1, m2, m3, second, *rows):
        floor = self.factor_eps
        by_grad = [jax.lax.rsqrt(jnp.maximum(row + floor, floor)) for row in rows]
        by_momentum = [_safe_rsqrt(row + self.momentum_eps) for row in rows]
        momenta = (m1, m2, m3)
        return self._list(grad, param, momenta, second, by_grad, by_momentum, rows)

    def _list(self, grad, param, momenta, second, by_grad, by_momentum, averages):
        root = jax.lax.rsqrt(second + self.root_eps)
        features = [
            grad,
            *([jnp.clip(grad, -0.1, 0.1)] if self.clipped else []),
            param,
            *momenta,
            second,
            *[m * root for m in momenta],
            root,
            *[grad * factor for factor in by_grad],
            *([grad * root] if self.clipped else []),
        ]
        if self.averages_of_vectors or len(averages) == 6:
            features += [
                *averages,
                *[jax.lax.rsqrt(x + self.average_eps) for x in averages],
                *[m * factor for m, factor in zip(momenta, by_momentum, strict=True)],
            ]
        return features


def _safe_rsqrt(x: jax.Array) -> jax.Array:
    """1/sqrt(x), a constant where there was hardly any gradient."""
    is_flat = x < FLAT
    constant = jax.lax.rsqrt(jnp.maximum(jax.lax.stop_gradient(x), TINY))
    return jnp.where(is_flat, constant, jax.lax.rsqrt(jnp.where(is_flat, 1, x)))
