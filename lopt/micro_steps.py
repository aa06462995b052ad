"""One update from the mean gradient and the mean loss of several calls."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from lopt import loss_features, tree_checks


def accumulate(
    inner: optax.GradientTransformationExtraArgs, calls: int, whose: str
) -> optax.GradientTransformationExtraArgs:
    """`optax.MultiSteps`, with the loss as a leaf beside the gradients.

    Args:
      inner: its `update` takes `value`.
      calls: how many share an update.
      whose: who needs `value`, for an error.
    """

    def init(params: Any):
        return inner.init(params[0])

    def update(updates: Any, state: Any, params: Any = None):
        grads, loss = updates
        steps, state = inner.update(grads, state, params[0], value=loss)
        return (steps, jnp.zeros_like(loss)), state

    steps: Any = optax.MultiSteps(optax.GradientTransformation(init, update), calls)

    def with_loss(tree, loss=0.0):
        return tree, jnp.asarray(loss, jnp.float32)

    def outer_update(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        tree_checks.given(params)
        loss_features.check(value, whose)
        pair, state = steps.update(with_loss(updates, value), state, with_loss(params))
        return pair[0], state

    return optax.GradientTransformationExtraArgs(
        lambda params: steps.init(with_loss(params)), outer_update
    )
