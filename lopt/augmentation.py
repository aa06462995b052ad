"""Variants of a task that train one function under another conditioning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lopt.checks import check_option, check_positive
from tasks.base import ModelState, Params, Task


class Rescaled(NamedTuple):
    """The model state of a task with rescaled weights.

    Attributes:
      scale: like the parameters, float32: by what each is multiplied, of a shape that
        broadcasts against it.
      model_state: that of the task itself.
    """

    scale: Params
    model_state: ModelState


def rescale_weights(
    task: Task,
    low: float = 1e-3,
    high: float = 1e3,
    per: Literal["task", "tensor", "parameter"] = "task",
) -> Task:
    """Makes a task whose optimizer sees weights of another scale, a new one per run.

    Initial weights are divided by a scale, and multiplied by it before the model sees
    them: the function stays, its gradients and its conditioning change. The scale
    is drawn by `init` and is part of the model state, so that runs side by side have
    different ones.

    Args:
      task: what is augmented.
      low: smallest scale.
      high: largest scale; scales are log-uniform in between.
      per: what shares a scale: all weights of a run, those of a tensor, or none.

    Returns:
      A task with the same data, `-rescaled` after its name and `augmentation` in its
      metadata.

    Raises:
      ValueError: a bound is not positive, `high` < `low`, or `per` is unknown.

    Example:
      >>> task = rescale_weights(task, 1e-2, 1e2, per="tensor")  # doctest: +SKIP
      >>> params, (scale, model_state) = task.init(key)  # doctest: +SKIP
    """
    check_positive(low=low, high=high)
    if high < low:
        raise ValueError(f"high must be at least low={low}, got {high}")
    check_option("per", per, ("task", "tensor", "parameter"))

    def draw(params: Params, key: jax.Array) -> Params:
        leaves, structure = jax.tree.flatten(params)
        if per == "task":
            keys = [key] * len(leaves)
        else:
            keys = list(jax.random.split(key, len(leaves)))
        shapes = [leaf.shape if per == "parameter" else () for leaf in leaves]
        bounds = {"minval": math.log(low), "maxval": math.log(high)}
        scales = [
            jnp.exp(jax.random.uniform(key, shape, **bounds))
            for key, shape in zip(keys, shapes, strict=True)
        ]
        return jax.tree.unflatten(structure, scales)

    def init(key: jax.Array) -> tuple[Params, Rescaled]:
        init_key, scale_key = jax.random.split(key)
        params, model_state = task.init(init_key)
        scale = draw(params, scale_key)
        shrunk = jax.tree.map(lambda p, s: (p / s).astype(p.dtype), params, scale)
        return shrunk, Rescaled(scale, model_state)

    def unscaled(function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` of the weights that the model is to see, and of its own state."""

        def call(params, model_state, *inputs):
            scale, model_state = model_state
            params = jax.tree.map(lambda p, s: (p * s).astype(p.dtype), params, scale)
            return function(params, model_state, *inputs)

        return call

    def loss(params, model_state, batch, key):
        value, inner = unscaled(task.loss)(params, model_state, batch, key)
        return value, Rescaled(model_state.scale, inner)

    preactivations = task.preactivations and unscaled(task.preactivations)
    return dataclasses.replace(
        task,
        name=f"{task.name}-rescaled",
        init=init,
        loss=loss,
        evaluate=unscaled(task.evaluate),
        preactivations=preactivations,
        metadata={
            **task.metadata,
            "augmentation": {"rescale_weights": [low, high], "per": per},
        },
    )
