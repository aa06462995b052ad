"""Language modelling with MiniGPT, on blocks of words."""

from __future__ import annotations

from functools import partial

from tasks.base import Task
from tasks.checks import check_counts, check_fractions
from tasks.data.blocks import load_blocks
from tasks.models.minigpt import MiniGPT
from tasks.registry import register
from tasks.sequences import token_predictor


def minigpt(
    dataset_name: str,
    /,
    *,
    width: int = 128,
    depth: int = 2,
    num_heads: int = 4,
    hidden: int = 512,
    dropout: float = 0.2,
    length: int = 128,
    vocab_size: int = 10_000,
    max_blocks: int | None = None,
    meta_fraction: float = 0.0,
    batch_size: int = 64,
    data_dir: str | None = None,
) -> Task:
    """Makes a task of predicting each next word of a block of a text.

    The defaults are those of the paper of MetaAdamW: 2.98 million parameters. The model
    reads all but the last of a block's words and predicts all but the first. Validation
    is on the official split; perplexities compare with those of the same blocks and the
    same vocabulary only.

    Args:
      dataset_name: a text that `load_blocks` knows.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of layers.
      num_heads: attention heads per layer.
      hidden: units of each layer's network.
      dropout: probability of dropping a unit, in training.
      length: words in a block.
      vocab_size: number of tokens.
      max_blocks: train on this many blocks at most, the first ones, and validate on an
        eighth as many.
      meta_fraction: share of the training blocks that becomes the split `"meta"`.
      batch_size: blocks in a training batch, drawn with replacement.
      data_dir: the folder of data sets.
    """
    size = {"width": width, "depth": depth, "num_heads": num_heads, "hidden": hidden}
    check_counts(**size, batch_size=batch_size)
    check_fractions(dropout=dropout, meta_fraction=meta_fraction)
    dataset = load_blocks(dataset_name, data_dir, length=length, vocab_size=vocab_size)
    return token_predictor(
        dataset,
        lambda rngs: MiniGPT(
            dataset.num_classes, context=length, **size, dropout=dropout, rngs=rngs
        ),
        inputs=lambda batch: (batch["tokens"][:, :-1],),
        targets=lambda batch: batch["tokens"][:, 1:],
        pad_token=0,
        batch_size=batch_size,
        max_rows=max_blocks,
        meta_fraction=meta_fraction,
        metadata={"model": "MiniGPT", **size, "dropout": dropout, "length": length},
    )


register("wikitext2-minigpt", partial(minigpt, "wikitext2"))
register(
    "wikitext2-minigpt-small",
    partial(
        minigpt,
        "wikitext2",
        width=64,
        hidden=256,
        length=32,
        vocab_size=2000,
        max_blocks=8192,
        batch_size=16,
    ),
)
