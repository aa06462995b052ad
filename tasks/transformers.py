"""Decoder-only transformers on texts."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from tasks.base import Task
from tasks.checks import check_counts, check_dtype, check_fractions, check_numbers
from tasks.data import Dataset, check_vocabulary, load_lm1b, load_text
from tasks.functional import Build, parameter_shapes
from tasks.language import language_model
from tasks.models import TransformerLM
from tasks.models.blocks import check_heads
from tasks.parametrization import Parametrization, resolve_parametrization
from tasks.registry import register
from tasks.streaming import token_splits

# What metadata say only where it is otherwise, as it had no name in earlier records.
_DEFAULTS = {
    "use_bias": False,
    "use_positions": True,
    "pad_token": None,
    "epsilon": 1e-6,
    "dropout": 0.0,
}
_OF_MULO = {
    "use_bias": True,
    "use_positions": False,
    "pad_token": 0,
    "epsilon": 1e-5,
}
_LM1B_VOCAB_SIZE = 32_100


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
    microbatches: int = 1,
    vocab_size: int | None = None,
    max_valid_windows: int | None = None,
    **options: Any,
) -> Task:
    """Makes a task of a `TransformerLM` on data that are loaded already.

    Args:
      dataset: see `language_model`; what is too large for a device is streamed.
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
      microbatches: see `language_model`.
      vocab_size: that of the model, at least that of the data, which is the default.
      max_valid_windows: evaluate on at most as many windows, evenly spaced.
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
    given = {"vocab_size": vocab_size, "max_valid_windows": max_valid_windows}
    vocab_size = dataset.num_classes if vocab_size is None else vocab_size
    check_counts(vocab_size=vocab_size)
    check_vocabulary(dataset, vocab_size)
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

    splits, stream = token_splits(
        dataset.splits,
        batch_size,
        context=context,
        vocab_size=vocab_size,
        max_valid_windows=max_valid_windows,
    )
    task = language_model(
        dataclasses.replace(dataset, splits=splits, num_classes=vocab_size),
        build_at(width),
        context=context,
        batch_size=batch_size,
        metadata={
            **dataset.metadata,
            "width": width,
            **shape,
            "dtype": dtype,
            **{k: v for k, v in given.items() if v is not None},
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


def lm1b_transformer(
    *,
    width: int = 192,
    depth: int = 3,
    num_heads: int = 3,
    context: int = 64,
    batch_size: int = 128,
    dropout: float = 0.1,
    tokenizer: str = "sentencepiece",
    vocab_size: int | None = None,
    max_valid_windows: int | None = 8192,
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    microbatches: int = 1,
    data_dir: str | None = None,
) -> Task:
    """Makes a task of modelling the sentences of the One Billion Word benchmark.

    Each is cropped or padded to `context + 1` tokens. The model and the defaults are
    those of Thérien et al. (arXiv 2406.00153): no positions, no attention to padding,
    nothing predicted after it, and a vocabulary of 32 000 with 100 tokens that do not
    occur.

    Args:
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      context: number of tokens that the model reads.
      batch_size: sentences in a training batch, drawn with replacement.
      dropout: probability of dropping a unit, in training; see `TransformerLM`.
      tokenizer: see `load_lm1b`; `sentencepiece` needs prepared token files.
      vocab_size: that of the model, by default that of the data, and for
        `sentencepiece` at least 32 100.
      max_valid_windows: evaluate on at most as many sentences, evenly spaced.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      dtype: in which activations are computed; parameters are float32.
      remat: see `transformer_lm`.
      microbatches: see `transformer_lm`.
      data_dir: the folder of data sets.
    """
    check_counts(context=context)
    dataset = load_lm1b(data_dir, tokenizer=tokenizer, length=context + 1)
    if vocab_size is None and tokenizer == "sentencepiece":
        vocab_size = max(_LM1B_VOCAB_SIZE, dataset.num_classes)
    return decoder(
        dataset,
        width=width,
        depth=depth,
        num_heads=num_heads,
        context=context,
        batch_size=batch_size,
        vocab_size=vocab_size,
        max_valid_windows=max_valid_windows,
        parametrization=parametrization,
        base_width=base_width,
        dtype=dtype,
        remat=remat,
        microbatches=microbatches,
        metadata={
            "model": "TransformerLM",
            "tokenizer": tokenizer,
            "dropout": dropout,
            **_OF_MULO,
        },
        dropout=dropout,
        **_OF_MULO,
    )


register("lm1b-transformer", lm1b_transformer)
register(
    "python-docs-lm",
    partial(transformer_lm, "python_docs", width=64, depth=2, context=64, batch_size=8),
)
register(
    "tiny-shakespeare-lm",
    partial(transformer_lm, "tiny_shakespeare", level="character"),
)
register("wikitext2-lm", partial(transformer_lm, "wikitext2"))
