"""Language modelling: a text and a model become a `Task`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from optax import softmax_cross_entropy_with_integer_labels

from tasks.accumulation import mean_loss
from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.batching import sample_rows, sample_windows, sum_over
from tasks.checks import check_counts
from tasks.data import Dataset
from tasks.functional import Build, count_parameters, functional

# At a time: on a CPU 2 MiB, so that what is computed from them stays in its caches.
_EVALUATION_LOGITS = 2**19
_EVALUATION_LOGITS_OF_ACCELERATORS = 2**27


def language_model(
    dataset: Dataset,
    build: Build,
    *,
    context: int,
    batch_size: int,
    metadata: dict[str, Any],
    pad_token: int | None = None,
    microbatches: int = 1,
    stream: Callable[[int, int, int], Data] | None = None,
) -> Task:
    """Makes a task of predicting each next token of a text, or of many.

    From one text, a training batch is `batch_size` windows of `context + 1` tokens at
    random places, and evaluation cuts the split into consecutive windows, so that every
    token but the first is predicted exactly once, from at most `context` tokens. Where
    the data have rows of `context + 1` tokens, these are the windows.

    Args:
      dataset: tokens, of shape (length,) or (rows, context + 1); see `load_text`.
      build: `rngs -> module`, which maps tokens (batch, time) to logits (batch, time,
        vocabulary); called as `module(tokens, key=key)` in training mode, where `key`
        drives dropout, and as `module(tokens)` in evaluation mode. It has no state.
      context: number of tokens that the model reads.
      batch_size: windows in a training batch.
      metadata: what the model is; joins that of the data in the task's metadata.
      pad_token: a token after which nothing is predicted; the loss is the mean over all
        others.
      microbatches: how many parts of a batch are differentiated one after the other,
        see `mean_loss`; a divisor of `batch_size`.
      stream: see `Task`; its batches are tokens (steps, batch_size, context + 1).

    Returns:
      A task whose loss is in nats per token and whose `evaluate` gives `loss`, its
      exponential `perplexity` and, where the data know `bytes_per_token`,
      `bits_per_byte`, which compares between tokenizations. Its `preactivations` are
      those of the module, which then needs that method.

    Raises:
      ValueError: the text is not longer than `context`, rows are of another length, or
        `microbatches` does not divide `batch_size`.

    Example:
      >>> from tasks.data import load_text
      >>> from tasks.models import TransformerLM
      >>> task = language_model(
      ...     load_text("python_docs"),
      ...     lambda rngs: TransformerLM(
      ...         256, context=16, width=8, depth=1, num_heads=1, rngs=rngs
      ...     ),
      ...     context=16,
      ...     batch_size=4,
      ...     metadata={"model": "TransformerLM"},
      ... )
      >>> task.sample(task.data["train"], jax.random.key(0)).shape
      (4, 17)
    """
    check_counts(context=context, batch_size=batch_size, microbatches=microbatches)
    if batch_size % microbatches:
        raise ValueError(
            f"microbatches={microbatches} does not divide batch_size={batch_size}"
        )
    _check_lengths(dataset, context)
    init, apply = functional(build)

    def counts(window: jax.Array) -> jax.Array:
        """Whether what comes after each token of the input is predicted."""
        inputs = window[:, :-1]
        if pad_token is None:
            return jnp.ones_like(inputs, bool)
        return inputs != pad_token

    def cross_entropy(
        params: Params, window: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        logits, _ = apply(params, (), window[:, :-1], key=key)
        return softmax_cross_entropy_with_integer_labels(logits, window[:, 1:])

    def sums(
        params: Params, window: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        counted = counts(window)
        losses = cross_entropy(params, window, key)
        return jnp.sum(losses, where=counted), counted.sum(dtype=jnp.float32)

    mean = mean_loss(sums, microbatches)

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        return mean(params, batch.astype(jnp.int32), key), model_state

    def preactivations(
        params: Params, model_state: ModelState, batch: Batch
    ) -> dict[str, jax.Array]:
        tokens = batch[:, :-1].astype(jnp.int32)
        return apply(params, model_state, tokens, method="preactivations")[0]

    def sample(data: Data, key: jax.Array) -> Batch:
        tokens = data["tokens"]
        if tokens.ndim == 1:
            return sample_windows(tokens, key, batch_size, context + 1)
        return sample_rows({"row": tokens}, key, batch_size)["row"].astype(jnp.int32)

    def evaluate(
        params: Params, model_state: ModelState, data: Data
    ) -> dict[str, jax.Array]:
        del model_state
        tokens = data["tokens"]

        def per_window(windows: jax.Array) -> dict[str, jax.Array]:
            window, exists = _windows(tokens, windows, context)
            losses, counted = cross_entropy(params, window), exists & counts(window)
            return {
                "loss": jnp.sum(losses, axis=1, where=counted),
                "count": jnp.sum(counted, axis=1),
            }

        cpu = jax.default_backend() == "cpu"
        logits = _EVALUATION_LOGITS if cpu else _EVALUATION_LOGITS_OF_ACCELERATORS
        at_a_time = max(1, logits // (context * dataset.num_classes))
        sums = sum_over(per_window, _num_windows(tokens, context), at_a_time)
        mean = sums["loss"] / sums["count"]
        metrics = {"loss": mean, "perplexity": jnp.exp(mean)}
        if "bytes_per_token" in data:
            bytes_per_token = data["bytes_per_token"]
            metrics["bits_per_byte"] = mean / (math.log(2) * bytes_per_token)
        return metrics

    return Task(
        name=dataset.name,
        init=init,
        loss=loss,
        sample=sample,
        evaluate=evaluate,
        data=jax.tree.map(jnp.asarray, dict(dataset.splits)),
        preactivations=preactivations,
        metadata={
            **dataset.metadata,
            **metadata,
            "num_parameters": count_parameters(init),
            "context": context,
            "batch_size": batch_size,
        },
        stream=stream,
    )


def _check_lengths(dataset: Dataset, context: int) -> None:
    for split, arrays in dataset.splits.items():
        shape = arrays["tokens"].shape
        if len(shape) == 1 and context >= shape[0]:
            raise ValueError(
                f"context must be less than the {shape[0]} tokens of {dataset.name} "
                f"({split}), got {context}"
            )
        if len(shape) == 2 and shape[1] != context + 1:
            raise ValueError(
                f"context must be {shape[1] - 1}, as the rows of {dataset.name} have "
                f"{shape[1]} tokens, got {context}"
            )


def _num_windows(tokens: jax.Array, context: int) -> int:
    return -(-(len(tokens) - 1) // context) if tokens.ndim == 1 else len(tokens)


def _windows(
    tokens: jax.Array, windows: jax.Array, context: int
) -> tuple[jax.Array, jax.Array]:
    """Windows by number, and which of their targets the text has."""
    if tokens.ndim == 2:
        rows = tokens[windows].astype(jnp.int32)
        return rows, jnp.ones_like(rows[:, 1:], bool)
    last = len(tokens) - 1
    place = windows[:, None] * context + jnp.arange(context + 1)[None]
    window = tokens[jnp.minimum(place, last)].astype(jnp.int32)
    return window, place[:, 1:] <= last
