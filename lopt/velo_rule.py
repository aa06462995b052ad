"""The rule of VeLO and Celo: a small network on each parameter, and the leaf's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lopt import accumulators, perceptron
from lopt.accumulators import Accumulators, Rates
from lopt.checks import check_option
from lopt.controller import truncated_normal
from lopt.features import Features
from lopt.perceptron import Perceptron

RATES = Rates(
    momenta=np.array([0.1, 0.01, 0.001]),
    second_moments=np.array([0.001]),
    factored=np.array([0.1, 0.01, 0.001]),
)
FEATURES = Features()
# Features come in 14 blocks, and the first layer with them.
BLOCKS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
HIDDEN = 4
OUTPUTS = 3
MEAN_EPS = 1e-5
CLIP = 1000.0


class LeafRule(NamedTuple):
    """What was decided about a leaf.

    Attributes:
      network: 30 features to direction d, log-magnitude h, and an output without use.
      length: what d exp(l2 h) is multiplied with, a scalar.
    """

    network: Perceptron
    length: jax.Array


def init_theta(key: jax.Array, bank_size: int, scale: float = 1.0) -> dict[str, Any]:
    """Random networks, K of them.

    Args:
      key: a typed PRNG key.
      bank_size: K.
      scale: of the weights; they are truncated normal, of standard deviation 0.88
        scale/sqrt(fan-in).

    Returns:
      The first layer in blocks of features, w0__0 to w0__13 (K, 1 or 3, 4), b0 (K, 4),
      w1 (K, 4, 4), b1 (K, 4), w2 (K, 4, 3) and b2 (K, 3). Biases are 0.
    """
    shapes = {f"w0__{i}": (size, HIDDEN) for i, size in enumerate(BLOCKS)}
    shapes |= {"w1": (HIDDEN, HIDDEN), "w2": (HIDDEN, OUTPUTS)}
    bank = {}
    for i, (name, shape) in enumerate(shapes.items()):
        fan_in = sum(BLOCKS) if name.startswith("w0") else HIDDEN
        layer_key = jax.random.fold_in(key, i)
        shape = (bank_size, *shape)
        bank[name] = truncated_normal(layer_key, shape, scale / fan_in**0.5)
    for name, size in {"b0": HIDDEN, "b1": HIDDEN, "b2": OUTPUTS}.items():
        bank[name] = jnp.zeros((bank_size, size), jnp.float32)
    return bank


def networks(bank: dict[str, Any]) -> Perceptron:
    """The networks of a bank, with a leading axis K."""
    first = jnp.concatenate([bank[f"w0__{i}"] for i in range(len(BLOCKS))], 1)
    rest = (bank["w1"], bank["b1"], bank["w2"], bank["b2"])
    return Perceptron(first, bank["b0"], rest)


def pass_through(feature: int, bank_size: int) -> dict[str, Any]:
    """A bank of K equal networks, with which d is one normalised feature.

    Raises:
      ValueError: no such feature.
    """
    check_option("feature", feature, tuple(range(sum(BLOCKS))))
    # relu(x) - relu(-x) = x
    first = np.zeros((sum(BLOCKS), HIDDEN), np.float32)
    first[feature, :2] = [1, -1]
    second = np.diag(np.array([1, 1, 0, 0], np.float32))
    last = np.zeros((HIDDEN, OUTPUTS), np.float32)
    last[:2, 0] = [1, -1]
    blocks = np.split(first, np.cumsum(BLOCKS)[:-1])
    network = {f"w0__{i}": block for i, block in enumerate(blocks)}
    network |= {"b0": np.zeros(HIDDEN, np.float32), "w1": second, "w2": last}
    network |= {"b1": network["b0"], "b2": np.zeros(OUTPUTS, np.float32)}
    return {name: jnp.stack([x] * bank_size) for name, x in network.items()}


def update(
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
    old: Sequence[Accumulators],
    rules: Sequence[LeafRule | None],
    *,
    exp_multiplier: float = 1e-3,
    by_size: bool = True,
    weight_decay: float = 0.0,
) -> tuple[list[jax.Array], list[Accumulators]]:
    """What to add to all leaves, and the statistics after their gradients.

    Args:
      grads: one for every leaf.
      params: likewise, and updates have their dtypes.
      old: statistics before.
      rules: not read for an empty leaf.
      exp_multiplier: l2.
      by_size: whether the step of a leaf is proportional to its root mean square.
      weight_decay: the part of a leaf that is taken away.
    """
    steps, new = [], []
    for grad, param, leaf, rule in zip(grads, params, old, rules, strict=True):
        dtype = leaf.momenta[0].dtype
        grad = jnp.clip(jnp.asarray(grad, dtype), -CLIP, CLIP)
        new.append(accumulators.advance(leaf, grad, RATES))
        wide = jnp.asarray(param, dtype)
        step = jnp.zeros_like(wide)
        if rule is not None and grad.size:
            rule = jax.tree.map(lambda x: jnp.asarray(x, dtype), rule)  # noqa: B023
            length = rule.length * _size(wide) if by_size else rule.length
            step = _step(rule.network, grad, wide, new[-1], length, exp_multiplier)
        if weight_decay:
            step -= weight_decay * wide
        steps.append(step.astype(jnp.result_type(param)))
    return steps, new


def _size(param: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(param**2) + 1e-9)


def _step(network, grad, param, new, length, exp_multiplier):
    arrays, features = FEATURES.of(grad, param, new)
    first = FEATURES.first_layer(network.first, grad.ndim)
    return perceptron.apply(
        network._replace(first=first),
        features,
        arrays,
        lambda direction, h: -length * direction * jnp.exp(exp_multiplier * h),
        eps=MEAN_EPS,
    )
