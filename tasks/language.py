"""Language modelling: a text and a model become a `Task`."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from optax import softmax_cross_entropy_with_integer_labels

from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.batching import sample_windows, sum_over
from tasks.checks import check_counts, check_dtype, check_numbers
from tasks.data import Dataset, load_text
from tasks.functional import Build, count_parameters, functional, parameter_shapes
from tasks.models import TransformerLM
from tasks.parametrization import Parametrization, resolve_parametrization
from tasks.registry import register

# At a time: 2 MiB, so that a CPU keeps what it computes from them in its caches.
_EVALUATION_LOGITS = 2**19
_DEFAULTS = {
    "use_bias": False,
    "use_positions": True,
    "pad_token": None,
    "epsilon": 1e-6,
}


def language_model(
    dataset: Dataset,
    build: Build,
    *,
    context: int,
    batch_size: int,
    metadata: dict[str, Any],
    pad_token: int | None = None,
) -> Task:
    """Makes a task of predicting each next token of a text.

    A training batch is `batch_size` windows of `context + 1` tokens at random places.
    Evaluation cuts the split into consecutive windows, so that every token but the
    first is predicted exactly once, from at most `context` tokens.

    Args:
      dataset: tokens; see `load_text`.
      build: `rngs -> module`, which maps tokens (batch, time) to logits (batch, time,
        vocabulary).
      context: number of tokens that the model reads.
      batch_size: windows in a training batch.
      metadata: what the model is; joins that of the data in the task's metadata.
      pad_token: a token after which nothing is predicted; the loss is the mean over all
        others.

    Returns:
      A task whose loss is in nats per token and whose `evaluate` gives `loss` and
      `bits_per_byte`, which compares between tokenizations. Its `preactivations` are
      those of the module, which then needs that method.

    Raises:
      ValueError: the text is not longer than `context`.

    Example:
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
    length = len(dataset.splits["train"]["tokens"])
    if context >= length:
        raise ValueError(
            f"context must be less than the {length} tokens of {dataset.name}, "
            f"got {context}"
        )
    init, apply = functional(build)

    def counts(window: jax.Array) -> jax.Array:
        """Whether what comes after each token of the input is predicted."""
        inputs = window[:, :-1]
        if pad_token is None:
            return jnp.ones_like(inputs, bool)
        return inputs != pad_token

    def cross_entropy(
        params: Params, model_state: ModelState, window: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        logits, model_state = apply(params, model_state, window[:, :-1])
        losses = softmax_cross_entropy_with_integer_labels(logits, window[:, 1:])
        return losses, model_state

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        del key
        losses, model_state = cross_entropy(params, model_state, batch)
        if pad_token is None:
            return losses.mean(), model_state
        counted = counts(batch)
        total = jnp.sum(losses, where=counted)
        return total / jnp.maximum(1, counted.sum()), model_state

    def preactivations(
        params: Params, model_state: ModelState, batch: Batch
    ) -> dict[str, jax.Array]:
        tokens = batch[:, :-1]
        return apply(params, model_state, tokens, method="preactivations")[0]

    def sample(data: Data, key: jax.Array) -> Batch:
        return sample_windows(data["tokens"], key, batch_size, context + 1)

    def evaluate(
        params: Params, model_state: ModelState, data: Data
    ) -> dict[str, jax.Array]:
        tokens = data["tokens"]
        num_targets = len(tokens) - 1

        def per_window(windows: jax.Array) -> dict[str, jax.Array]:
            place = windows[:, None] * context + jnp.arange(context + 1)[None]
            window = tokens[jnp.minimum(place, num_targets)].astype(jnp.int32)
            losses, _ = cross_entropy(params, model_state, window)
            counted = (place[:, 1:] <= num_targets) & counts(window)
            return {
                "loss": jnp.sum(losses, axis=1, where=counted),
                "count": jnp.sum(counted, axis=1),
            }

        windows = -(-num_targets // context)
        at_a_time = max(1, _EVALUATION_LOGITS // (context * dataset.num_classes))
        sums = sum_over(per_window, windows, at_a_time)
        mean = sums["loss"] / sums["count"]
        bits_per_byte = mean / (math.log(2) * data["bytes_per_token"])
        return {"loss": mean, "bits_per_byte": bits_per_byte}

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
    )


def transformer_lm(
    dataset_name: str,
    /,
    *,
    width: int = 128,
    depth: int = 4,
    num_heads: int = 4,
    context: int = 128,
    batch_size: int = 32,
    level: str = "byte",
    use_bias: bool = False,
    use_positions: bool = True,
    pad_token: int | None = None,
    epsilon: float = 1e-6,
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    dtype: str = "float32",
    data_dir: str | None = None,
) -> Task:
    """Makes a task of modelling a text with a decoder-only transformer.

    Args:
      dataset_name: a text that `load_text` knows.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      context: number of tokens that the model reads.
      batch_size: windows in a training batch.
      level: what a token is: `byte`, `character` or `word`.
      use_bias: whether matrices have a bias.
      use_positions: whether positions are embedded.
      pad_token: a token that is not attended to, and after which nothing is predicted.
      epsilon: added to the variance in normalizations.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      dtype: in which activations are computed; parameters are float32.
      data_dir: the folder of data sets.

    The model of Thérien et al. (arXiv 2406.00153) has `use_bias=True`,
    `use_positions=False`, `pad_token=0` and `epsilon=1e-5`.

    Example:
      >>> task = transformer_lm("python_docs", width=16, depth=1, context=32)
      >>> task.sample(task.data["train"], jax.random.key(0)).shape
      (32, 33)
    """
    check_counts(width=width, depth=depth, num_heads=num_heads)
    check_counts(context=context, batch_size=batch_size)
    check_numbers(above=0, epsilon=epsilon)
    rules = resolve_parametrization(parametrization, base_width)
    compute_dtype = check_dtype(dtype)
    dataset = load_text(dataset_name, level, data_dir)
    if pad_token is not None:
        check_counts(minimum=0, pad_token=pad_token)
        if pad_token >= dataset.num_classes:
            raise ValueError(
                f"pad_token must be less than the {dataset.num_classes} tokens that "
                f"there are, got {pad_token}"
            )
    shape = {"depth": depth, "num_heads": num_heads}
    options = {
        "use_bias": use_bias,
        "use_positions": use_positions,
        "pad_token": pad_token,
        "epsilon": epsilon,
    }

    def build_at(width: int) -> Build:
        return lambda rngs: TransformerLM(
            dataset.num_classes,
            context=context,
            width=width,
            **shape,
            **options,
            parametrization=rules,
            dtype=compute_dtype,
            rngs=rngs,
        )

    task = language_model(
        dataset,
        build_at(width),
        context=context,
        batch_size=batch_size,
        metadata={
            "model": "TransformerLM",
            "width": width,
            **shape,
            "level": level,
            "dtype": dtype,
            **{k: v for k, v in options.items() if v != _DEFAULTS[k]},
            **rules.metadata,
        },
        pad_token=pad_token,
    )
    scaling = rules.scaling(lambda width: parameter_shapes(build_at(width)), width)
    return dataclasses.replace(task, **scaling)


register(
    "python-docs-lm",
    partial(transformer_lm, "python_docs", width=64, depth=2, context=64, batch_size=8),
)
register(
    "tiny-shakespeare-lm",
    partial(transformer_lm, "tiny_shakespeare", level="character"),
)
register("wikitext2-lm", partial(transformer_lm, "wikitext2"))
