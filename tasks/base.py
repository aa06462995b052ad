"""What an optimizer is measured on and meta-trained on.

A `Task` is a bundle of pure functions and the arrays they read. Nothing in it knows
about Flax, files or optimizers, so that anything with parameters and a loss can be one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

Params = Any
ModelState = Any
Data = Any
Batch = Any


def _identity(loss: jax.Array) -> jax.Array:
    return loss


@dataclasses.dataclass(frozen=True)
class Task:
    """An optimizee: how to start it, what its loss is, and where its batches come from.

    Every function is pure and can be jitted, vmapped over keys and scanned. Arrays of
    `data` are handed to compiled functions as arguments, never closed over.

    Attributes:
      name: the name under which results are recorded.
      init: `key -> (params, model_state)`. `params` is what the optimizer sees, a
        nested dict of floating-point arrays; `model_state` is what else the model
        carries from step to step (batch-norm statistics), `()` when there is none.
      loss: `(params, model_state, batch, key) -> (loss, model_state)`, the training
        loss, a float32 scalar; `key` drives dropout and other noise.
      sample: `(data["train"], key) -> batch`, a random training batch.
      evaluate: `(params, model_state, data[split]) -> {"loss": ..., ...}`, float32
        scalars in evaluation mode over the whole split.
      data: the arrays of each split; `"train"` and `"valid"` at least. A split `"meta"`
        is for optimizers that learn from held-out data while they train, see
        `tasks.training`; nothing else uses it.
      normalize: maps a loss to the range that meta-training works with.
      width_multipliers: a pytree like `params` of Python floats: the factor by which
        the fan-in of a hidden matrix exceeds that of the base model, 1.0 for every
        other leaf. In the maximal-update parametrization (muP) the update of a leaf by
        an entrywise-normalised optimizer (Adam, a learned one) is divided by it. With
        the default base width of 1 it is the fan-in itself. `None` for a task in
        standard parametrization.
      width_ratio: width of the model over that of the base model, which the muP rule
        of SGD needs; 1.0 in standard parametrization.
      labels: a pytree like `params` of group names, or `None`.
      preactivations: `(params, model_state, batch) -> {name: array}`, what every layer
        computes before its nonlinearity, from the input to the logits, which come
        last; arrays of shape (batch, ..., features). `None` for a task that cannot
        tell.
      also_evaluated: names of further sets in `data`, such as texts of another kind,
        on which `evaluate` runs as it does on `"valid"`; their metrics are recorded as
        `METRIC/NAME`.
      metadata: what identifies the task in a record: sizes, data hashes, sources.
      stream: `(seed, start, stop) -> batches`, for training data that is larger than a
        device: the training batches of the steps from `start` up to `stop`, gathered on
        the host, NumPy arrays with a leading axis of `stop - start`. The batch of a
        step depends on the seed and the step alone. `None` where `sample` draws batches
        on the device; a task with a stream still has a small `data["train"]` to sample.
    """

    name: str
    init: Callable[[jax.Array], tuple[Params, ModelState]]
    loss: Callable[[Params, ModelState, Batch, jax.Array], tuple[jax.Array, ModelState]]
    sample: Callable[[Data, jax.Array], Batch]
    evaluate: Callable[[Params, ModelState, Data], dict[str, jax.Array]]
    data: Mapping[str, Data]
    normalize: Callable[[jax.Array], jax.Array] = _identity
    width_multipliers: Params | None = None
    width_ratio: float = 1.0
    labels: Params | None = None
    preactivations: (
        Callable[[Params, ModelState, Batch], dict[str, jax.Array]] | None
    ) = None
    also_evaluated: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stream: Callable[[int, int, int], Data] | None = None


@dataclasses.dataclass(frozen=True)
class TaskFamily:
    """Tasks that are trained on together, such as several widths of one model.

    Attributes:
      name: the name under which results are recorded.
      tasks: the members; members of one shape can share a compiled function.
    """

    name: str
    tasks: tuple[Task, ...]
