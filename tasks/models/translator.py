"""The encoder-decoder transformer that translates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tasks.models.blocks import check_heads
from tasks.models.encoder_decoder import causal_mask, layers


class Translator(nnx.Module):
    """One embedding for both languages, post-norm encoder and decoder, a readout.

    Positions are sinusoidal and added to embeddings that start as N(0, 1/width) and are
    multiplied by the root of the width; a last normalization follows either stack.

    Args:
      vocab_size: number of tokens, of both languages together.
      width: size of the residual stream, even and a multiple of `num_heads`.
      depth: layers of the encoder, and of the decoder.
      num_heads: attention heads per layer.
      hidden: units of each layer's network.
      dropout: the probability with which a unit is dropped.
      pad_token: a token that is not attended to; by default all are.
      rngs: random streams of the initialization.

    Raises:
      ValueError: `width` is odd or not a multiple of `num_heads`.

    Source: Vaswani et al., "Attention is all you need" (2017).

    Example:
      >>> translator = Translator(
      ...     9, width=16, depth=1, num_heads=2, hidden=32, dropout=0.2,
      ...     rngs=nnx.Rngs(0),
      ... )
      >>> translator(jnp.zeros((5, 8), int), jnp.zeros((5, 7), int)).shape
      (5, 7, 9)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        width: int,
        depth: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        pad_token: int | None = None,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        check_heads(width, 2)
        options = {
            "num_heads": num_heads,
            "hidden": hidden,
            "dropout": dropout,
            "norm_first": False,
            "rngs": rngs,
        }
        self.width, self.pad_token = width, pad_token
        self.embedding = nnx.Embed(vocab_size, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.encoder = layers(depth, width, **options)
        self.decoder = layers(depth, width, is_decoder=True, **options)
        self.encoder_norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.decoder_norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.readout = nnx.Linear(width, vocab_size, rngs=rngs)

    def __call__(
        self, source: jax.Array, target: jax.Array, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Gives the logits of the target token after each, knowing the source.

        Args:
          source: tokens of the sentence to translate, of shape (batch, source time).
          target: tokens of its translation so far, of shape (batch, time).
          key: drives dropout; without one there is none.

        Returns:
          float32 logits of shape (batch, time, vocab_size). Those at time t depend on
          the whole source, and on the target's tokens 0 to t only.
        """
        rngs = None if key is None else nnx.Rngs(dropout=key)
        source_mask, target_mask = self._visible(source), causal_mask(target.shape[1])
        visible = self._visible(target)
        if visible is not None:
            target_mask = target_mask & visible
        memory = self._embedded(source, rngs)
        for layer in self.encoder:
            memory = layer(memory, mask=source_mask, rngs=rngs)
        memory, x = self.encoder_norm(memory), self._embedded(target, rngs)
        for layer in self.decoder:
            x = layer(
                x, mask=target_mask, memory=memory, memory_mask=source_mask, rngs=rngs
            )
        return self.readout(self.decoder_norm(x))

    def _embedded(self, tokens: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        positions = jnp.asarray(sinusoids(tokens.shape[1], self.width))[None]
        x = self.embedding(tokens) * self.width**0.5 + positions
        return self.dropout(x, deterministic=rngs is None, rngs=rngs)

    def _visible(self, tokens: jax.Array) -> jax.Array | None:
        if self.pad_token is None:
            return None
        return (tokens != self.pad_token)[:, None, None]


def sinusoids(time: int, width: int) -> np.ndarray:
    """Sines, then cosines, of positions at wavelengths from 2π to 10000 · 2π.

    Returns:
      float32 of shape (time, width).

    Example:
      >>> print(sinusoids(2, 4)[1].round(2))
      [0.84 0.01 0.54 1.  ]
    """
    rates = 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    angles = np.arange(time)[:, None] * rates[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
