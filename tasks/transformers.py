"""Decoder-only transformers on texts."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from tasks.base import Task
from tasks.checks import check_counts, check_dtype, check_fractions, check_numbers
from tasks.data import Dataset, load_text
from tasks.functional import Build, parameter_shapes
from tasks.language import language_model
from tasks.models import TransformerLM
from tasks.models.transformer import check_heads
from tasks.parametrization import Parametrization, resolve_parametrization
from tasks.registry import register

# What metadata say only where it is otherwise, as it had no name in earlier records.
_DEFAULTS = {
    "use_bias": False,
    "use_positions": True,
    "pad_token": None,
    "epsilon": 1e-6,
    "dropout": 0.0,
}


def decoder(
    dataset: Dataset,
    *,
    width: int,
    depth: int,
    num_heads: int,
    context: int,
    batch_size: int,
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    metadata: dict[str, Any],
    stream: Any = None,
    microbatches: int = 1,
    vocab_size: int | None = None,
    **options: Any,
) -> Task:
    """Makes a task of a `TransformerLM` on data that are loaded already.

    Args:
      dataset: see `language_model`.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      context: number of tokens that the model reads.
      batch_size: windows in a training batch.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      dtype: in which activations are computed; parameters are float32.
      remat: see `TransformerLM`.
      metadata: what else identifies the model.
      stream: see `Task`.
      microbatches: see `language_model`.
      vocab_size: that of the model, at least that of the data, which is the default.
      **options: others of `TransformerLM`.

    Raises:
      ValueError: for a value that is not allowed.
    """
    shape = {"depth": depth, "num_heads": num_heads}
    check_counts(width=width, **shape, context=context, batch_size=batch_size)
    check_heads(width, num_heads)
    check_fractions(dropout=options.get("dropout", 0.0))
    rules = resolve_parametrization(parametrization, base_width)
    compute_dtype = check_dtype(dtype)
    vocab_size = dataset.num_classes if vocab_size is None else vocab_size
    check_counts(minimum=dataset.num_classes, vocab_size=vocab_size)
    pad_token = options.get("pad_token")
    if pad_token is not None:
        check_counts(minimum=0, pad_token=pad_token)
        if pad_token >= vocab_size:
            raise ValueError(
                f"pad_token must be less than the {vocab_size} tokens that there are, "
                f"got {pad_token}"
            )

    def build_at(width: int) -> Build:
        return lambda rngs: TransformerLM(
            vocab_size,
            context=context,
            width=width,
            **shape,
            **options,
            remat=remat,
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
            "width": width,
            **shape,
            "dtype": dtype,
            **metadata,
            **rules.metadata,
        },
        pad_token=pad_token,
        microbatches=microbatches,
        stream=stream,
    )
    scaling = rules.scaling(lambda width: parameter_shapes(build_at(width)), width)
    return dataclasses.replace(task, **scaling)


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
    dropout: float = 0.0,
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    microbatches: int = 1,
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
      dropout: probability of dropping a unit, in training; see `TransformerLM`.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      dtype: in which activations are computed; parameters are float32.
      remat: whether the backward pass computes blocks again, which saves memory.
      microbatches: how many parts of a batch are differentiated one after the other,
        which saves memory; a divisor of `batch_size`.
      data_dir: the folder of data sets.

    The model of Thérien et al. (arXiv 2406.00153) has `use_bias=True`,
    `use_positions=False`, `pad_token=0` and `epsilon=1e-5`.

    Example:
      >>> import jax
      >>> task = transformer_lm("python_docs", width=16, depth=1, context=32)
      >>> task.sample(task.data["train"], jax.random.key(0)).shape
      (32, 33)
    """
    check_numbers(above=0, epsilon=epsilon)
    options = {
        "use_bias": use_bias,
        "use_positions": use_positions,
        "pad_token": pad_token,
        "epsilon": epsilon,
        "dropout": dropout,
    }
    return decoder(
        load_text(dataset_name, level, data_dir),
        width=width,
        depth=depth,
        num_heads=num_heads,
        context=context,
        batch_size=batch_size,
        parametrization=parametrization,
        base_width=base_width,
        dtype=dtype,
        remat=remat,
        microbatches=microbatches,
        metadata={
            "model": "TransformerLM",
            "level": level,
            **{k: v for k, v in options.items() if v != _DEFAULTS[k]},
        },
        **options,
    )


register(
    "python-docs-lm",
    partial(transformer_lm, "python_docs", width=64, depth=2, context=64, batch_size=8),
)
register(
    "tiny-shakespeare-lm",
    partial(transformer_lm, "tiny_shakespeare", level="character"),
)
register("wikitext2-lm", partial(transformer_lm, "wikitext2"))
