"""The network of small_fc: 28 features of a parameter, and 11 of time as a bias."""

from typing import Any

import jax
import jax.numpy as jnp

from lopt import perceptron
from lopt.accumulators import Accumulators
from lopt.features import Features
from lopt.perceptron import Perceptron

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
FEATURES = Features(clipped=False, momentum_eps=1e-6)
MEAN_EPS = 1e-5


def network_at(theta: Any, count: jax.Array) -> Perceptron:
    """The network of the step after `count` others."""
    nn = theta["nn"]
    of_leaf, of_time = jnp.split(nn["w0"], [28])
    time = jnp.tanh(count / jnp.asarray(TIME_SCALES, of_time.dtype) - 1)
    bias = nn["b0"] + perceptron.dense(of_time, time)
    return Perceptron(of_leaf, bias, (nn["w1"], nn["b1"], nn["w2"], nn["b2"]))


def unit_step(
    network: Perceptron,
    grad: jax.Array,
    param: jax.Array,
    new: Accumulators,
    exp_multiplier: float,
    eps: float,
) -> jax.Array:
    """Gives d exp(l2 h) for every number of a leaf; `eps` scales every epsilon."""
    of_leaf = FEATURES.scaled(eps)
    arrays, features = of_leaf.of(grad, param, new)
    first = of_leaf.first_layer(network.first, grad.ndim)
    return perceptron.apply(
        network._replace(first=first),
        features,
        arrays,
        lambda direction, magnitude: direction * jnp.exp(exp_multiplier * magnitude),
        eps=eps * MEAN_EPS,
    )
