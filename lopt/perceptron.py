"""The network of a learned optimizer on one leaf, number by number.

Its features, each divided by its root mean square over the leaf, are never formed as
such: where the mean is over the whole leaf, it scales rows of the first layer, and
large leaves are taken in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.blocks import map_blocks, sharers, sum_blocks


class Perceptron(NamedTuple):
    """Two hidden layers with rectifiers.

    Attributes:
      first: shape (features, H).
      bias: shape (H,).
      rest: weight (H, H), bias (H,), weight (H, outputs) and bias (outputs,).
    """

    first: jax.Array
    bias: jax.Array
    rest: tuple[jax.Array, ...]


def apply(
    network: Perceptron,
    features: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    eps: jax.typing.ArrayLike,
    axes: tuple[int, ...] | None = None,
) -> jax.Array:
    """What the network makes of every number of a leaf.

    Args:
      network: in the dtype of the leaf.
      features: of `arrays`, on a new first axis, as `Features.of` gives them.
      arrays: the first one has the shape of the leaf, others broadcast against it.
      combine: of the first two outputs, each of the shape of the leaf: a direction and
        a log-magnitude.
      eps: added to the mean of the squares of a feature.
      axes: the last axes, as negative numbers, over which that mean is taken; `None`
        for all.

    Returns:
      The shape of the leaf.
    """
    shape = arrays[0].shape
    axes = tuple(range(-len(shape), 0)) if axes is None else axes

    def squares(*arrays):
        return jnp.sum(features(*arrays) ** 2, axes, keepdims=True)

    size = 1
    for axis in axes:
        size *= shape[axis]
    scale = jax.lax.rsqrt(sum_blocks(squares, arrays, shape, axes) / size + eps)
    if len(axes) == len(shape):
        folded = network._replace(first=network.first * scale.reshape(-1, 1))
        return map_blocks(
            lambda *x: combine(*_outputs(folded, features(*x))), arrays, shape
        )
    return map_blocks(
        lambda scale, *x: combine(*_outputs(network, features(*x) * scale)),
        [scale, *arrays],
        shape,
    )


def dense(weight: jax.Array, inputs: jax.Array) -> jax.Array:
    """(in, out), (in, ...) -> (out, ...)."""
    contracted = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(weight, inputs, contracted, precision="highest")


def _outputs(network: Perceptron, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first two, each of the shape of the leaf."""
    shape = features.shape[1:]
    if sharers() == 1:
        # Simpler loops on a CPU; but an axis that is sharded could not be merged.
        features = features.reshape(len(features), -1)

    def column(bias):
        return bias.reshape(-1, *[1] * (features.ndim - 1))

    w1, b1, w2, b2 = network.rest
    hidden = jax.nn.relu(dense(network.first, features) + column(network.bias))
    hidden = jax.nn.relu(dense(w1, hidden) + column(b1))
    out = dense(w2[:, :2], hidden) + column(b2[:2])
    return out[0].reshape(shape), out[1].reshape(shape)
