"""Translation: pairs of sentences and an encoder-decoder model become a `Task`."""

from __future__ import annotations

from functools import partial

from tasks.base import Task
from tasks.checks import check_counts, check_fractions
from tasks.data.multi30k import PAD_TOKEN, load_multi30k
from tasks.models.translator import Translator
from tasks.registry import register
from tasks.sequences import token_predictor


def translator(
    *,
    width: int = 256,
    depth: int = 4,
    num_heads: int = 8,
    hidden: int = 1024,
    dropout: float = 0.2,
    vocabulary: str = "both",
    max_words: int = 10_000,
    max_length: int = 64,
    padding_mask: bool = True,
    max_pairs: int | None = None,
    meta_fraction: float = 0.0,
    batch_size: int = 64,
    data_dir: str | None = None,
) -> Task:
    """Makes a task of translating German descriptions of images into English.

    Each English word is predicted from the German sentence and the English words before
    it. The sizes are those of the paper of MetaAdamW, but two of its choices are not
    the defaults: it numbers the words of both languages by a German vocabulary, which
    makes half of the English words one unknown word and perplexities near 2
    (`vocabulary="german"`), and it attends to padding (`padding_mask=False`).

    Args:
      width: size of the residual stream, even and a multiple of `num_heads`.
      depth: layers of the encoder, and of the decoder.
      num_heads: attention heads per layer.
      hidden: units of each layer's network.
      dropout: probability of dropping a unit, in training.
      vocabulary: where words come from: `"both"` languages, or `"german"` alone; see
        `load_multi30k`.
      max_words: number of tokens of both languages together, at most.
      max_length: tokens of a sentence; pairs with a longer one are left out.
      padding_mask: whether attention leaves out padding. The loss always does.
      max_pairs: train on this many pairs at most, the first ones, and validate on an
        eighth as many.
      meta_fraction: share of the training pairs that becomes the split `"meta"`.
      batch_size: pairs in a training batch, drawn with replacement.
      data_dir: the folder of data sets.
    """
    size = {"width": width, "depth": depth, "num_heads": num_heads, "hidden": hidden}
    check_counts(**size, batch_size=batch_size)
    check_fractions(dropout=dropout, meta_fraction=meta_fraction)
    dataset = load_multi30k(
        data_dir, vocabulary=vocabulary, max_words=max_words, max_length=max_length
    )
    return token_predictor(
        dataset,
        lambda rngs: Translator(
            dataset.num_classes,
            **size,
            dropout=dropout,
            pad_token=PAD_TOKEN if padding_mask else None,
            rngs=rngs,
        ),
        inputs=lambda batch: (batch["source"], batch["target"][:, :-1]),
        targets=lambda batch: batch["target"][:, 1:],
        pad_token=PAD_TOKEN,
        batch_size=batch_size,
        max_rows=max_pairs,
        meta_fraction=meta_fraction,
        metadata={
            "model": "Translator",
            **size,
            "dropout": dropout,
            "vocabulary": vocabulary,
            "max_length": max_length,
            "padding_mask": padding_mask,
        },
    )


register("multi30k", translator)
register(
    "multi30k-small",
    partial(
        translator,
        width=64,
        depth=2,
        num_heads=4,
        hidden=256,
        max_words=2000,
        max_length=14,
        max_pairs=8000,
        batch_size=32,
    ),
)
