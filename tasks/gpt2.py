"""GPT-2 in the layout of nanoGPT, on the texts that MADA was measured on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from tasks.base import Task
from tasks.data import Dataset, load_text, load_token_files
from tasks.parametrization import Parametrization
from tasks.registry import register
from tasks.transformers import decoder

# 50257 tokens of GPT-2, and more up to a multiple of 64, which matrix units like.
TOKENS, VOCAB_SIZE = 50_257, 50_304
_OF_CHARACTERS = "tiny_shakespeare"
_SPLITS = {"train", "valid", "meta"}
MODEL = {
    "tie_embeddings": True,
    "exact_gelu": True,
    "kernel_std": 0.02,
    "epsilon": 1e-5,
}


def gpt2(
    dataset_name: str,
    /,
    *,
    width: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    context: int = 1024,
    dropout: float = 0.0,
    use_bias: bool = False,
    vocab_size: int | None = None,
    batch_size: int = 480,
    microbatches: int = 1,
    max_valid_windows: int | None = None,
    texts: Sequence[str] = (),
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    data_dir: str | None = None,
) -> Task:
    """Makes a task of modelling a text with GPT-2.

    Pre-norm blocks with exact GELU, learned positions, one matrix for embedding and
    readout; N(0, 0.02²) at the start, and over sqrt(2 depth) where a matrix writes to
    the residual stream. The default size is that of 124 million parameters, position
    embeddings not counted.

    Args:
      dataset_name: `tiny_shakespeare`, of which a character is a token, or the name of
        token files with the vocabulary of GPT-2, see `load_token_files`.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      context: number of tokens that the model reads.
      dropout: probability of dropping a unit, in training; see `TransformerLM`.
      use_bias: whether matrices and normalizations have a bias.
      vocab_size: that of the model, by default 50304 for token files, and that of the
        data for characters.
      batch_size: windows in a training batch.
      microbatches: how many parts of a batch are differentiated one after the other,
        which saves memory; a divisor of `batch_size`.
      max_valid_windows: evaluate on at most as many windows of a text, evenly spaced.
      texts: names of further token files, such as `wikitext` and `lambada`, on whose
        `val.bin` the model is evaluated too.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      dtype: in which activations are computed; parameters are float32.
      remat: whether the backward pass computes blocks again, which saves memory.
      data_dir: the folder of data sets.

    Raises:
      ValueError: for a value that is not allowed, and for files of another tokenizer.
      FileNotFoundError: the text, or one of `texts`, is not there.

    Source: Radford et al., "Language models are unsupervised multitask learners"
    (2019).
    """
    _check_texts(texts, dataset_name)
    if dataset_name == _OF_CHARACTERS:
        dataset = load_text(dataset_name, "character", data_dir)
    else:
        dataset = load_token_files(dataset_name, data_dir, vocab_size=TOKENS)
        vocab_size = VOCAB_SIZE if vocab_size is None else vocab_size
    task = gpt2_on(
        _with_texts(dataset, texts, data_dir),
        width=width,
        depth=depth,
        num_heads=num_heads,
        context=context,
        dropout=dropout,
        use_bias=use_bias,
        vocab_size=vocab_size,
        batch_size=batch_size,
        microbatches=microbatches,
        max_valid_windows=max_valid_windows,
        parametrization=parametrization,
        base_width=base_width,
        dtype=dtype,
        remat=remat,
    )
    return dataclasses.replace(task, also_evaluated=tuple(texts))


def _check_texts(texts: Sequence[str], dataset_name: str) -> None:
    if isinstance(texts, str) or {*texts} & _SPLITS:
        raise ValueError(
            f"texts are {texts!r}; allowed are several names of token files, such as "
            "('wikitext', 'lambada'), but none of a split"
        )
    if texts and dataset_name == _OF_CHARACTERS:
        raise ValueError(
            f"texts are {texts!r}, whose tokens are those of GPT-2, while those of "
            f"{dataset_name} are characters; leave texts out"
        )


def _with_texts(
    dataset: Dataset, texts: Sequence[str], data_dir: str | None
) -> Dataset:
    """The data set and the validation splits of others, by their names."""
    found = {
        name: load_token_files(name, data_dir, vocab_size=TOKENS, splits=("valid",))
        for name in texts
    }
    splits = {name: of.splits["valid"] for name, of in found.items()}
    sha256 = {name: of.sha256["valid"] for name, of in found.items()}
    return dataclasses.replace(
        dataset,
        splits={**dataset.splits, **splits},
        sha256={**dataset.sha256, **sha256},
    )


def gpt2_on(
    dataset: Dataset, *, use_bias: bool, dropout: float, **options: Any
) -> Task:
    """The same on data that are loaded already; `options` are those of `decoder`."""
    model = {**MODEL, "use_bias": use_bias, "norm_bias": use_bias, "dropout": dropout}
    return decoder(dataset, metadata={"model": "GPT-2", **model}, **options, **model)


MEDIUM = {"width": 1024, "depth": 24, "num_heads": 16}
CHARACTERS = {
    "width": 384,
    "depth": 6,
    "num_heads": 6,
    "context": 256,
    "dropout": 0.2,
    "batch_size": 64,
}
SMALL = {
    "width": 64,
    "depth": 3,
    "num_heads": 4,
    "context": 64,
    "batch_size": 16,
    "max_valid_windows": 512,
}
# What fits into 16 GiB, see benchmarks/memory.py; a multiple of 8 for several devices.
LARGE = {"remat": True, "microbatches": 60, "max_valid_windows": 1024}
register("openwebtext-gpt2", partial(gpt2, "openwebtext", **LARGE))
register(
    "openwebtext-gpt2-medium",
    partial(gpt2, "openwebtext", **MEDIUM, **LARGE),
)
register("shakespeare-gpt2", partial(gpt2, "tiny_shakespeare", **CHARACTERS))
register("shakespeare-gpt2-small", partial(gpt2, "tiny_shakespeare", **SMALL))
