"""The network of a learned optimizer on one leaf, number by number.

Its features, each divided by its root mean square over the leaf, are never formed as
such: where the mean is over the whole leaf, it scales rows of the first layer, and
large leaves are taken in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lopt.blocks import map_blocks, sharers, sum_blocks

# Units up to which a layer is written as sums of products: compilers fuse them with the
# features, and then nothing is stored between the statistics and the result.
FEW = 4


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
    features: Callable[..., list[jax.Array]],
    arrays: Sequence[jax.Array],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    eps: jax.typing.ArrayLike,
    axes: tuple[int, ...] | None = None,
) -> jax.Array:
    """What the network makes of every number of a leaf.

    Args:
      network: in the dtype of the leaf.
      features: of `arrays`, as `Features.of` gives them.
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
        return _sums_of_squares(features(*arrays), arrays[0], axes)

    size = math.prod(shape[axis] for axis in axes)
    scale = jax.lax.rsqrt(sum_blocks(squares, arrays, shape, axes) / size + eps)
    if len(axes) == len(shape):
        folded = network._replace(first=network.first * scale.reshape(-1, 1))
        return map_blocks(
            lambda *x: combine(*_outputs(folded, features(*x), x[0])), arrays, shape
        )

    def scaled(scale, *arrays):
        scaled = [x * s for x, s in zip(features(*arrays), scale, strict=True)]
        return combine(*_outputs(network, scaled, arrays[0]))

    return map_blocks(scaled, [scale, *arrays], shape)


def dense(weight: jax.Array, inputs: jax.Array) -> jax.Array:
    """(in, out), (in, ...) -> (out, ...)."""
    contracted = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(weight, inputs, contracted, precision="highest")


def _sums_of_squares(features: list[jax.Array], like: jax.Array, axes) -> jax.Array:
    """Over axes of a leaf, which are kept; features on a new first axis.

    One by one, they are summed as they are formed, and what is the same along an axis
    is summed there once.
    """
    kept = jnp.sum(jnp.zeros_like(like), axes, keepdims=True)
    sums = []
    for x in features:
        times = math.prod(like.shape[i] // x.shape[i] for i in axes)
        sums.append(times * jnp.sum(x**2, axes, keepdims=True) + kept)
    return jnp.stack(sums)


def _outputs(
    network: Perceptron, features: list[jax.Array], like: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The first two, each of the shape of the leaf."""
    if len(network.bias) <= FEW:
        return _few_outputs(network, features)
    # Adding zero broadcasts with the sharding of the leaf. Concatenation needs no
    # transposition under vmap; `jnp.stack` does.
    zero = jnp.zeros_like(like)
    stacked = jax.lax.concatenate([(x + zero)[None] for x in features], 0)
    return _many_outputs(network, stacked)


def _few_outputs(network, features):
    def layer(weight, bias, inputs, units):
        return [
            sum((weight[i, j] * x for i, x in enumerate(inputs)), bias[j])
            for j in range(units)
        ]

    units = len(network.bias)
    w1, b1, w2, b2 = network.rest
    hidden = [
        jax.nn.relu(x) for x in layer(network.first, network.bias, features, units)
    ]
    hidden = [jax.nn.relu(x) for x in layer(w1, b1, hidden, units)]
    direction, magnitude = layer(w2, b2, hidden, 2)
    return direction, magnitude


def _many_outputs(network, features):
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
