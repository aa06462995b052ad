"""A small decoder-only language model with dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.blocks import check_heads
from tasks.models.encoder_decoder import causal_mask, layers


class MiniGPT(nnx.Module):
    """Token and position embeddings, pre-norm layers, a normalization and a readout.

    The readout is not tied to the embedding. All matrices start as N(0, 0.02²) and all
    biases at 0.

    Args:
      vocab_size: number of tokens.
      context: the longest sequence it can read.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of layers.
      num_heads: attention heads per layer.
      hidden: units of each layer's network.
      dropout: the probability with which a unit is dropped.
      rngs: random streams of the initialization.

    Raises:
      ValueError: `width` is not a multiple of `num_heads`.

    Example:
      >>> gpt = MiniGPT(
      ...     9, context=8, width=16, depth=1, num_heads=2, hidden=32, dropout=0.2,
      ...     rngs=nnx.Rngs(0),
      ... )
      >>> gpt(jnp.zeros((5, 8), int)).shape
      (5, 8, 9)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        context: int,
        width: int,
        depth: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        normal = nnx.initializers.normal(0.02)
        options = {"embedding_init": normal, "rngs": rngs}
        self.token_embedding = nnx.Embed(vocab_size, width, **options)
        self.position_embedding = nnx.Embed(context, width, **options)
        self.dropout = nnx.Dropout(dropout)
        self.layers = layers(
            depth,
            width,
            num_heads=num_heads,
            hidden=hidden,
            dropout=dropout,
            norm_first=True,
            kernel_init=normal,
            rngs=rngs,
        )
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.readout = nnx.Linear(width, vocab_size, kernel_init=normal, rngs=rngs)

    def __call__(self, tokens: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps tokens of shape (batch, time) to the logits of the token after each.

        Args:
          tokens: integers of shape (batch, time), time at most `context`.
          key: drives dropout; without one there is none.

        Returns:
          float32 logits of shape (batch, time, vocab_size). Those at time t depend on
          tokens 0 to t only.
        """
        rngs = None if key is None else nnx.Rngs(dropout=key)
        time = tokens.shape[1]
        positions = self.position_embedding(jnp.arange(time))[None]
        x = self.token_embedding(tokens) + positions
        x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        for layer in self.layers:
            x = layer(x, mask=causal_mask(time), rngs=rngs)
        return self.readout(self.norm(x))
