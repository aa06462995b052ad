"""Celo2's learned rule: only the direction of an update, never its size."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt import accumulators, perceptron, tree_checks
from lopt.accumulators import Accumulators, Rates
from lopt.checks import check_option
from lopt.features import Features
from lopt.matrix_views import Reshape, check_reshape, view_shape
from lopt.orthogonalization import orthogonalize as orthogonalized
from lopt.perceptron import Perceptron

Theta = dict[str, Any]

RATES = ((0.1, 0.01, 0.001), (0.05,), (0.1, 0.01, 0.001))
FEATURES = Features(averages_of_vectors=False, root_eps=1e-8)
# How many features there are of each of w0__0, w0__1 and so on.
GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
HIDDEN, OUTPUTS = 8, 3
MEAN_EPS = 1e-9
LARGEST_GRADIENT = 1000.0
RULES = {"muon": 3, "adam": 7}


class Celo2State(NamedTuple):
    """State of `scale_by_celo2`.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: theta, see `Celo2.init`.
      accumulators: statistics of the gradient: 7 floats per parameter of a leaf of rank
        0 or 1; of any other 4 per parameter, and 3 per row and per column.
    """

    count: jax.Array
    hyperparams: Theta
    accumulators: Accumulators


def random_theta(key: jax.Array) -> Theta:
    """See `Celo2.init`."""
    first_key, *keys = jax.random.split(key, 3)

    def normal(key, fan_in, fan_out):
        z = jax.random.truncated_normal(key, -2, 2, (fan_in, fan_out), jnp.float32)
        return z / fan_in**0.5

    first = normal(first_key, sum(GROUPS), HIDDEN)
    blocks = jnp.split(first, list(itertools.accumulate(GROUPS))[:-1])
    stack = {f"w0__{i}": block for i, block in enumerate(blocks)}
    for i, size in enumerate((HIDDEN, OUTPUTS)):
        stack[f"w{i + 1}"] = normal(keys[i], HIDDEN, size)
    for i, size in enumerate((HIDDEN, HIDDEN, OUTPUTS)):
        stack[f"b{i}"] = jnp.zeros(size, jnp.float32)
    return {"ff_mod_stack": stack}


def pass_through_theta(rule: str | int) -> Theta:
    """See `Celo2.pass_through`."""
    check_option("rule", rule, (*RULES, *range(sum(GROUPS))))
    feature = RULES[rule] if isinstance(rule, str) else rule
    theta = jax.eval_shape(random_theta, jax.random.key(0))
    theta = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), theta)
    stack = theta["ff_mod_stack"]
    owners = [(i, j) for i, length in enumerate(GROUPS) for j in range(length)]
    group, row = owners[feature]
    # relu(x) - relu(-x) = x
    stack[f"w0__{group}"][row, :2] = [1, -1]
    stack["w1"][:2, :2] = np.eye(2)
    stack["w2"][:2, 0] = [1, -1]
    return jax.tree.map(jnp.asarray, theta)


def scale_by_celo2(
    theta: Theta, *, orthogonalize: bool = True, reshape: Reshape | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces gradients by the direction d of Celo2, of root mean square 1.

    A network maps 30 features of a parameter, each divided by its root mean square over
    the matrix, to d; with :math:`O` for orthogonalization, or nothing,

    .. math::

        u = O(d) / \sqrt{\text{mean}(O(d)^2) + 10^{-9}}

    where the mean is over the last two axes: matrices along others are independent.
    Multiplying parameters, or gradients below 0.1, by a number leaves u as it is. A
    schedule, decay and what is to happen to vectors are up to a chain, see `Celo2`.

    Args:
      theta: meta-parameters, see `Celo2.init`.
      orthogonalize: whether to, by five Newton-Schulz steps, which in a leaf with less
        than 2 axes is an error. Without it such a leaf is one vector, and its network
        sees the first 15 features only.
      reshape: which matrices a leaf is. `None`: its last two axes, as in the kernels of
        dense layers (in, out) and convolutions (height, width, in, out), but for three
        axes there must be a choice. "merge": joins the last two of three, as suits the
        kernels (features, heads, size of a head). Or a function of the path of a leaf
        of at least 2 axes, such as "attention/out/kernel", and its shape, that gives
        the shape, in which one length may be -1, or `None` for the leaf as it is. The
        whole rule, factored statistics as well, sees the leaf in this shape.

    Returns:
      A gradient transformation with state `Celo2State` that needs the parameters.
      Updates have their dtype.

    Raises:
      ValueError: `theta` is not that of Celo2, or `reshape` is no choice; at `init` for
        a vector to orthogonalize, three axes without a choice, or complex parameters.

    Example:
      >>> import lopt
      >>> theta = lopt.celo2().init(jax.random.key(0))
      >>> tx = lopt.scale_by_celo2(theta)
      >>> params = {"w": jnp.ones((3, 2))}
      >>> grads = {"w": jnp.arange(6.0).reshape(3, 2)}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> print(f"{jnp.sqrt((updates['w'] ** 2).mean()):.4f}")
      1.0000

    References:
      `Celo2 <https://arxiv.org/abs/2602.19142>`_, 2026.
    """
    expected = jax.eval_shape(random_theta, jax.random.key(0))
    tree_checks.same_shapes("theta", theta, expected, "Celo2")
    check_reshape(reshape)

    def shape_of(path, leaf):
        shape = view_shape(reshape, path, leaf.shape)
        if orthogonalize and len(shape) < 2:
            raise ValueError(
                f"the parameter {jax.tree_util.keystr(path)} of shape {leaf.shape} "
                "cannot be orthogonalized, which takes at least 2 axes: leave it to "
                "another rule, as lopt.Celo2 does, or give orthogonalize=False."
            )
        return shape

    def seen(path, leaf):
        shape = shape_of(path, leaf)
        return leaf if shape == leaf.shape else jnp.zeros_like(leaf).reshape(shape)

    def init(params):
        tree_checks.real(params)
        views = accumulators.init(jax.tree_util.tree_map_with_path(seen, params))
        own = accumulators.init(params)
        dtype = accumulators.widest_dtype(params)
        return Celo2State(
            count=jnp.zeros((), jnp.int32),
            hyperparams=jax.tree.map(lambda x: jnp.array(x, dtype), theta),
            accumulators=own._replace(rows=views.rows, cols=views.cols),
        )

    def update(updates, state, params=None, **extra_args):
        del extra_args
        tree_checks.given(params)
        tree_checks.real(updates)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
        targets = treedef.flatten_up_to(params)
        old = accumulators.leaves(state.accumulators, treedef)
        pairs = [
            _leaf_update(
                state.hyperparams, grad, p, leaf, shape_of(path, p), orthogonalize
            )
            for (path, grad), p, leaf in zip(leaves, targets, old, strict=True)
        ]
        new = accumulators.unflatten(
            [leaf for _, leaf in pairs], state.accumulators, treedef
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        state = Celo2State(count, state.hyperparams, new)
        return treedef.unflatten([step for step, _ in pairs]), state

    return optax.GradientTransformationExtraArgs(init, update)


def _leaf_update(theta, grad, param, old: Accumulators, shape, orthogonalize):
    """The update of a leaf and its new statistics, seen in another shape meanwhile."""

    def view(arrays):
        return tuple(x.reshape(shape) for x in arrays)

    def unview(arrays):
        return tuple(x.reshape(param.shape) for x in arrays)

    dtype = old.momenta[0].dtype
    theta = jax.tree.map(lambda x: x.astype(dtype), theta)
    grad = jnp.clip(grad.astype(dtype), -LARGEST_GRADIENT, LARGEST_GRADIENT)
    old = old._replace(
        momenta=view(old.momenta), second_moments=view(old.second_moments)
    )
    rates = Rates(*[jnp.asarray(kind, dtype) for kind in RATES])
    (grad, seen) = view((grad, param.astype(dtype)))
    new = accumulators.advance(old, grad, rates)
    if grad.size:
        step = _direction(theta, grad, seen, new, orthogonalize)
    else:
        step = jnp.zeros_like(grad)
    new = new._replace(
        momenta=unview(new.momenta), second_moments=unview(new.second_moments)
    )
    return step.reshape(param.shape).astype(param.dtype), new


def _direction(theta, grad, param, new: Accumulators, orthogonalize) -> jax.Array:
    """u, for a leaf that is not empty."""
    nn = theta["ff_mod_stack"]
    first = jnp.concatenate([nn[f"w0__{i}"] for i in range(len(GROUPS))])
    network = Perceptron(
        FEATURES.first_layer(first, grad.ndim),
        nn["b0"],
        (nn["w1"], nn["b1"], nn["w2"], nn["b2"]),
    )
    axes = tuple(range(-min(grad.ndim, 2), 0))
    arrays, features = FEATURES.of(grad, param, new)
    direction = perceptron.apply(
        network, features, arrays, lambda d, _: d, eps=MEAN_EPS, axes=axes
    )
    if orthogonalize:
        direction = orthogonalized(direction)
    squares = jnp.mean(direction**2, axes, keepdims=True)
    return direction * jax.lax.rsqrt(squares + MEAN_EPS)
