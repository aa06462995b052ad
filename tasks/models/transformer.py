"""A decoder-only transformer language model with pre-normalization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Attention(nnx.Module):
    """Causal multi-head self-attention with one square matrix for each projection."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        def projection() -> nnx.Linear:
            return nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)

        self.num_heads = num_heads
        self.query = projection()
        self.key = projection()
        self.value = projection()
        self.out = projection()

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, time, width) to (batch, time, width)."""

        def heads(projected: jax.Array) -> jax.Array:
            return projected.reshape(*x.shape[:-1], self.num_heads, -1)

        attended = jax.nn.dot_product_attention(
            heads(self.query(x)), heads(self.key(x)), heads(self.value(x)),
            is_causal=True,
        )  # fmt: skip
        return self.out(attended.reshape(x.shape))


class Block(nnx.Module):
    """Attention and a GELU MLP, each on a normalized copy of the residual stream."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: int,
        *,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.attention_norm = nnx.LayerNorm(width, **options)
        self.attention = Attention(width, num_heads, **options)
        self.mlp_norm = nnx.LayerNorm(width, **options)
        self.mlp_in = nnx.Linear(width, mlp_ratio * width, use_bias=False, **options)
        self.mlp_out = nnx.Linear(mlp_ratio * width, width, use_bias=False, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, time, width) to (batch, time, width)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp_out(nnx.gelu(self.mlp_in(self.mlp_norm(x))))


class TransformerLM(nnx.Module):
    """Token and position embeddings, `depth` blocks, a normalization and a readout.

    Matrices have no bias, the readout is not tied to the embedding.

    Args:
      vocab_size: number of tokens.
      context: the longest sequence it can read.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      mlp_ratio: width of the MLP's hidden layer over `width`.
      dtype: in which activations are computed; parameters are float32.
      rngs: random streams of the initialization.

    Raises:
      ValueError: `width` is not a multiple of `num_heads`.

    Example:
      >>> lm = TransformerLM(
      ...     256, context=8, width=16, depth=1, num_heads=2, rngs=nnx.Rngs(0)
      ... )
      >>> lm(jnp.zeros((5, 8), int)).shape
      (5, 8, 256)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        context: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int = 4,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if width % num_heads:
            raise ValueError(
                f"width={width} must be a multiple of num_heads={num_heads}"
            )
        options = {"dtype": dtype, "rngs": rngs}
        small = {"embedding_init": nnx.initializers.normal(0.02)}
        self.token_embedding = nnx.Embed(vocab_size, width, **small, **options)
        self.position_embedding = nnx.Embed(context, width, **small, **options)
        self.blocks = nnx.List(
            Block(width, num_heads, mlp_ratio, **options) for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(width, **options)
        self.readout = nnx.Linear(
            width,
            vocab_size,
            use_bias=False,
            kernel_init=nnx.initializers.normal(0.02),
            **options,
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens of shape (batch, time) to the logits of the token after each.

        Args:
          tokens: integers of shape (batch, time), time at most `context`.

        Returns:
          Logits of shape (batch, time, vocab_size), float32 whatever the dtype of the
          computation. Those at time t depend on tokens 0 to t only.
        """
        time = tokens.shape[1]
        context = self.position_embedding.num_embeddings
        if time > context:
            raise ValueError(f"{time} tokens do not fit into context={context}")
        x = (
            self.token_embedding(tokens)
            + self.position_embedding(jnp.arange(time))[None]
        )
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x)).astype(jnp.float32)
