"""Optimizers under muP: transformations that take the width multipliers of a task."""

from __future__ import annotations

from typing import Any

import jax
import optax

Tree = Any


def scale_by_width(
    width_multipliers: Tree | None,
) -> optax.GradientTransformation:
    """Divides updates by the width multipliers: the last link of a chain.

    It turns an optimizer whose updates do not depend on the scale of the gradient
    (Adam, Lion, Adagrad, a learned one) into its muP form. Weight decay that is to be
    independent of the width comes after it.

    Args:
      width_multipliers: those of the task, or `None` for standard parametrization.

    Raises:
      ValueError: at `init`, if they are of another model.

    Example:
      >>> transform = scale_by_width({"hidden": 4.0, "bias": 1.0})
      >>> updates = {"hidden": jax.numpy.ones(2), "bias": jax.numpy.ones(1)}
      >>> transform.update(updates, transform.init(updates))[0]
      {'bias': Array([1.], dtype=float32), 'hidden': Array([0.25, 0.25], dtype=float32)}
    """
    if width_multipliers is None:
        return optax.identity()

    def init(params: optax.Params) -> optax.EmptyState:
        if jax.tree.structure(params) != jax.tree.structure(width_multipliers):
            raise ValueError(
                "width_multipliers have another structure than the parameters: "
                f"{jax.tree.structure(width_multipliers)} and "
                f"{jax.tree.structure(params)}"
            )
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda m, u: u / m, width_multipliers, updates), state

    return optax.GradientTransformation(init, update)


def mup_adam(
    learning_rate: optax.ScalarOrSchedule,
    width_multipliers: Tree | None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam under muP: the learning rate of hidden matrices is over their fan-in.

    Args:
      learning_rate: that of the base width; a number or a schedule.
      width_multipliers: those of the task; an evaluation fills them in. `None` gives
        plain Adam.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment; not scaled with the width.

    Example:
      >>> optimizer = mup_adam(1e-2, {"w": 64.0})
      >>> state = optimizer.init({"w": jax.numpy.ones(1)})
      >>> optimizer.update({"w": jax.numpy.ones(1)}, state)[0]
      {'w': Array([-0.00015625], dtype=float32)}
    """
    return optax.chain(
        optax.adam(learning_rate, b1, b2, eps), scale_by_width(width_multipliers)
    )


def mup_sgd(
    learning_rate: optax.ScalarOrSchedule,
    width_multipliers: Tree | None,
    width_ratio: float = 1.0,
    momentum: float | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Stochastic gradient descent under muP.

    With r the width over the base width, the logits are x @ W / r, so that their
    gradient reaches everything below them with a factor 1 / r. How far a step of size
    s moves a pre-activation:

    * hidden: each entry of the gradient is of order 1 / r and a unit sums r aligned
      products with its inputs, so that s * (1 / r) * r is right for s of order 1;
    * input-like (fan-in does not grow): of order s / r, which takes s of order r;
    * readout: its gradient is of order 1 / r and the logits are a mean over r products
      with inputs of order 1, again s / r. (Its bias is left behind by one more factor
      of 1 / r, as it is by Adam.)

    So the learning rate is multiplied by 1 for hidden matrices and by r for all
    others: by r everywhere, and over the width multipliers, which are r where hidden.
    (With base width 1 these are the fan-in, that is r up to a constant such as the 4 of
    a transformer's MLP.)

    Args:
      learning_rate: that of the base width; a number or a schedule.
      width_multipliers: those of the task; an evaluation fills them in.
      width_ratio: that of the task; an evaluation fills it in.
      momentum: decay of the trace of gradients, or `None`.
      nesterov: whether the trace looks ahead.

    Example:
      >>> optimizer = mup_sgd(0.1, {"hidden": 4.0, "bias": 1.0}, width_ratio=4.0)
      >>> grads = {"hidden": jax.numpy.ones(1), "bias": jax.numpy.ones(1)}
      >>> optimizer.update(grads, optimizer.init(grads))[0]
      {'bias': Array([-0.4], dtype=float32), 'hidden': Array([-0.1], dtype=float32)}
    """
    return optax.chain(
        optax.sgd(learning_rate, momentum, nesterov),
        optax.scale(width_ratio),
        scale_by_width(width_multipliers),
    )
