"""The network of small_fc on one leaf, from its statistics to its direction.

Its 39 features, each divided by its root mean square over the tensor, are never formed
as such: time is a bias of the step, root mean squares scale rows of the first layer,
and large leaves are taken in blocks.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lopt import accumulators
from lopt.accumulators import Accumulators
from lopt.blocks import map_blocks, sharers, sum_blocks

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)


class Network(NamedTuple):
    """The network of one step.

    Attributes:
      matrix: (28, H), the first layer of a leaf of rank 2 or more.
      vector: (22, H), that of any other, whose rows and columns are the same.
      bias: (H,), what the features of time add up to, and b0.
      rest: w1, b1, w2 and b2.
    """

    matrix: jax.Array
    vector: jax.Array
    bias: jax.Array
    rest: tuple[jax.Array, ...]


def network_at(theta: Any, count: jax.Array) -> Network:
    """The network of the step after `count` others."""
    nn = theta["nn"]
    w0 = nn["w0"]
    row, col, row_root, col_root = (w0[i : i + 3] for i in (13, 16, 19, 22))
    time = jnp.tanh(count / jnp.asarray(TIME_SCALES, w0.dtype) - 1)
    return Network(
        matrix=w0[:28],
        vector=jnp.concatenate([w0[:13], row + col, row_root + col_root, w0[25:28]]),
        bias=nn["b0"] + _dense(w0[28:], time),
        rest=(nn["w1"], nn["b1"], nn["w2"], nn["b2"]),
    )


def _dense(weight: jax.Array, inputs: jax.Array) -> jax.Array:
    """(in, out), (in, ...) -> (out, ...)."""
    contracted = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(weight, inputs, contracted, precision="highest")


def _perceptron(
    network: Network, first: jax.Array, features: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Direction and log-magnitude, each of the shape of the leaf."""
    shape = features.shape[1:]
    if sharers() == 1:
        # Simpler loops on a CPU; but an axis that is sharded could not be merged.
        features = features.reshape(len(features), -1)

    def column(bias):
        return bias.reshape(-1, *[1] * (features.ndim - 1))

    w1, b1, w2, b2 = network.rest
    hidden = jax.nn.relu(_dense(first, features) + column(network.bias))
    hidden = jax.nn.relu(_dense(w1, hidden) + column(b1))
    out = _dense(w2, hidden) + column(b2)
    return out[0].reshape(shape), out[1].reshape(shape)


def _features(grad, param, momenta, second, by_grad, by_momentum, averages, eps):
    """Features 0 to 27, or 22 where rows and columns are the same, on the first axis.

    `by_grad` and `by_momentum` precondition; `averages` are rows, or rows and columns.
    """
    root = jax.lax.rsqrt(second + eps * 1e-6)
    features = [
        grad,
        param,
        *momenta,
        second,
        *[m * root for m in momenta],
        root,
        *[grad * factor for factor in by_grad],
        *averages,
        *[jax.lax.rsqrt(x + eps * 1e-8) for x in averages],
        *[m * factor for m, factor in zip(momenta, by_momentum, strict=True)],
    ]
    # Adding zero broadcasts with the sharding of the leaf. Concatenation needs no
    # transposition under vmap; `jnp.stack` does.
    zero = jnp.zeros_like(grad)
    return jax.lax.concatenate([(x + zero)[None] for x in features], 0)


def _matrix_features(eps, grad, param, m1, m2, m3, second, *rest):
    averages, factors = rest[:6], rest[6:]
    by_both = [row * col for row, col in zip(factors[:3], factors[3:], strict=True)]
    momenta = (m1, m2, m3)
    return _features(grad, param, momenta, second, by_both, by_both, averages, eps)


def _vector_features(eps, grad, param, m1, m2, m3, second, *rows):
    floor = eps * 1e-9
    by_grad = [jax.lax.rsqrt(jnp.maximum(row + floor, floor)) for row in rows]
    by_momentum = [jax.lax.rsqrt(row + eps * 1e-6) for row in rows]
    momenta = (m1, m2, m3)
    return _features(grad, param, momenta, second, by_grad, by_momentum, rows, eps)


def _squares(features: jax.Array) -> jax.Array:
    return jnp.sum(features**2, range(1, features.ndim))


def unit_step(
    network: Network,
    grad: jax.Array,
    param: jax.Array,
    new: Accumulators,
    exp_multiplier: float,
    eps: float,
) -> jax.Array:
    """Gives d exp(l2 h) for every number of a leaf; `eps` scales every epsilon."""
    arrays = [grad, param, *new.momenta, *new.second_moments, *new.rows]
    axes = accumulators.factored_axes(grad.shape)
    if axes is None:
        first, of_leaf = network.vector, _vector_features
    else:
        first, of_leaf = network.matrix, _matrix_features
        pairs = zip(new.rows, new.cols, strict=True)
        factors = [accumulators.factors(*pair, axes[0], eps * 1e-9) for pair in pairs]
        arrays += [*new.cols, *itertools.chain(*zip(*factors, strict=True))]
    features = functools.partial(of_leaf, eps)

    squares = sum_blocks(lambda *x: _squares(features(*x)), arrays, grad.shape)
    first *= jax.lax.rsqrt(squares / grad.size + eps * 1e-5)[:, None]

    def step(*arrays):
        direction, magnitude = _perceptron(network, first, features(*arrays))
        return direction * jnp.exp(exp_multiplier * magnitude)

    return map_blocks(step, arrays, grad.shape)
