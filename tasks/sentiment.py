"""Sentiment of reviews: texts that are positive or negative become a `Task`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from tasks.base import Batch, Task
from tasks.checks import check_counts, check_fractions
from tasks.classification import clipped
from tasks.data import hold_out, load_imdb, revalidate
from tasks.models import LSTMClassifier
from tasks.registry import register
from tasks.supervised import supervised


def lstm_classifier(
    *,
    embedding_size: int = 32,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.2,
    length: int = 256,
    max_words: int = 25_000,
    min_count: int = 5,
    validate_on: str = "held_out",
    meta_fraction: float = 0.0,
    batch_size: int = 64,
    data_dir: str | None = None,
) -> Task:
    """Makes a task of telling positive from negative movie reviews with an LSTM.

    The sizes are those of the paper of MetaAdamW. As there, reviews are padded at their
    end and the LSTM reads the padding too; other than there, validation is on reviews
    that are held out from the training set, unless `validate_on="test"`.

    Args:
      embedding_size: size of the embedding of a word.
      width: units of each direction of each LSTM layer.
      depth: number of LSTM layers.
      dropout: probability of dropping an output of an LSTM layer, in training.
      length: words that a review is cut to or padded to.
      max_words: size of the vocabulary at most, at least 3.
      min_count: how often a word of the vocabulary occurs in the training set.
      validate_on: `"held_out"`, a tenth of the training set, or `"test"`:
        train on the whole training set and validate on the test set.
      meta_fraction: share of the training reviews that becomes the split `"meta"`.
      batch_size: reviews in a training batch, drawn with replacement.
      data_dir: the folder of data sets.
    """
    check_counts(embedding_size=embedding_size, width=width, depth=depth)
    check_counts(length=length, min_count=min_count, batch_size=batch_size)
    check_counts(minimum=3, max_words=max_words)
    check_fractions(dropout=dropout, meta_fraction=meta_fraction)
    dataset, words = load_imdb(
        data_dir, max_words=max_words, min_count=min_count, length=length
    )
    dataset = hold_out(revalidate(dataset, validate_on), meta_fraction)
    size = {"embedding_size": embedding_size, "width": width, "depth": depth}

    def tokens(batch: Batch) -> jax.Array:
        return batch["tokens"].astype(jnp.int32)

    return supervised(
        dataset.name,
        dataset.splits,
        lambda rngs: LSTMClassifier(
            len(words), dataset.num_classes, **size, dropout=dropout, rngs=rngs
        ),
        inputs=tokens,
        batch_size=batch_size,
        normalize=partial(clipped, num_classes=dataset.num_classes),
        metadata={
            **dataset.metadata,
            "model": "LSTMClassifier",
            **size,
            "dropout": dropout,
            "length": length,
            "vocab_size": len(words),
            "validate_on": validate_on,
        },
    )


register("imdb", lstm_classifier)
register(
    "imdb-small",
    partial(
        lstm_classifier,
        embedding_size=16,
        width=16,
        depth=1,
        length=64,
        max_words=2000,
    ),
)
