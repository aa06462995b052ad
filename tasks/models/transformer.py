"""Transformer blocks, and the decoder-only language model that is made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.parametrization import STANDARD, Parametrization

_SMALL, _ZEROS = nnx.initializers.normal(0.02), nnx.initializers.zeros
_LECUN = nnx.initializers.lecun_normal()


def linear(
    fan_in: int, fan_out: int, *, parametrization: Parametrization, **options
) -> nnx.Linear:
    """An `nnx.Linear` that starts as the parametrization says."""
    return nnx.Linear(
        fan_in,
        fan_out,
        kernel_init=parametrization.initializer(fan_in, standard=_LECUN),
        bias_init=parametrization.bias_initializer(standard=_ZEROS),
        **options,
    )


class Attention(nnx.Module):
    """Multi-head self-attention with one square matrix for each projection."""

    def __init__(self, width: int, num_heads: int, **options):
        self.num_heads = num_heads
        self.scale = options["parametrization"].attention_scale(width // num_heads)
        self.query = linear(width, width, **options)
        self.key = linear(width, width, **options)
        self.value = linear(width, width, **options)
        self.out = linear(width, width, **options)

    def __call__(
        self, x: jax.Array, is_causal: bool, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps (batch, time, width) to the same shape, and gives the attention logits.

        Args:
          x: the inputs.
          is_causal: whether position t sees positions 0 to t only.
          mask: which positions may be seen, of shape (batch, 1, 1, time).

        Returns:
          The outputs, and what the softmax reads before any mask: (batch, num_heads,
          time, time), which costs nothing where a compiled program does not use it.
        """

        def heads(projected: jax.Array) -> jax.Array:
            return projected.reshape(*x.shape[:-1], self.num_heads, -1)

        query, key = heads(self.query(x)), heads(self.key(x))
        attended = jax.nn.dot_product_attention(
            query, key, heads(self.value(x)),
            mask=mask, scale=self.scale, is_causal=is_causal,
        )  # fmt: skip
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * self.scale
        return self.out(attended.reshape(x.shape)), logits


class Block(nnx.Module):
    """Attention and a GELU MLP, each on a normalized copy of the residual stream."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: int,
        *,
        parametrization: Parametrization,
        use_bias: bool,
        epsilon: float,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        norm_options = {"epsilon": epsilon, "dtype": dtype, "rngs": rngs}
        options = {
            "parametrization": parametrization,
            "use_bias": use_bias,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.attention_norm = nnx.LayerNorm(width, **norm_options)
        self.attention = Attention(width, num_heads, **options)
        self.mlp_norm = nnx.LayerNorm(width, **norm_options)
        self.mlp_in = linear(width, mlp_ratio * width, **options)
        self.mlp_out = linear(mlp_ratio * width, width, **options)

    def __call__(
        self, x: jax.Array, *, is_causal: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps (batch, time, width) to the same shape, and names what it computes."""
        attended, logits = self.attention(self.attention_norm(x), is_causal, mask)
        x = x + attended
        hidden = self.mlp_in(self.mlp_norm(x))
        out = self.mlp_out(nnx.gelu(hidden))
        return x + out, {
            "attention_logits": logits,
            "attention": attended,
            "mlp_in": hidden,
            "mlp_out": out,
        }


def check_heads(width: int, num_heads: int) -> None:
    """Raises `ValueError` unless the heads divide the width."""
    if width % num_heads:
        raise ValueError(f"width={width} must be a multiple of num_heads={num_heads}")


class TransformerLM(nnx.Module):
    """Token and position embeddings, `depth` blocks, a normalization and a readout.

    The readout is not tied to the embedding.

    Args:
      vocab_size: number of tokens.
      context: the longest sequence it can read.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      mlp_ratio: width of the MLP's hidden layer over `width`.
      use_bias: whether matrices have a bias.
      use_positions: whether positions are embedded; without it only the causal mask
        tells them apart.
      pad_token: a token that is not attended to.
      epsilon: added to the variance in normalizations.
      parametrization: how initialisation and multipliers depend on the width.
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
        use_bias: bool = False,
        use_positions: bool = True,
        pad_token: int | None = None,
        epsilon: float = 1e-6,
        parametrization: Parametrization = STANDARD,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)

        def embedding(size: int) -> nnx.Embed:
            init = parametrization.initializer(size, standard=_SMALL)
            return nnx.Embed(size, width, embedding_init=init, dtype=dtype, rngs=rngs)

        self.context, self.pad_token = context, pad_token
        self.token_embedding = embedding(vocab_size)
        if use_positions:
            self.position_embedding = embedding(context)
        self.blocks = nnx.List(
            Block(
                width,
                num_heads,
                mlp_ratio,
                parametrization=parametrization,
                use_bias=use_bias,
                epsilon=epsilon,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.readout = nnx.Linear(
            width,
            vocab_size,
            use_bias=use_bias,
            kernel_init=parametrization.readout_initializer(width, standard=_SMALL),
            bias_init=parametrization.bias_initializer(standard=_ZEROS),
            dtype=dtype,
            rngs=rngs,
        )
        self.input_scale = parametrization.input_multiplier
        self.output_scale = parametrization.output_scale(width)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens of shape (batch, time) to the logits of the token after each.

        Args:
          tokens: integers of shape (batch, time), time at most `context`.

        Returns:
          Logits of shape (batch, time, vocab_size), float32 whatever the dtype of the
          computation. Those at time t depend on tokens 0 to t only.
        """
        return self.preactivations(tokens)["logits"]

    def preactivations(self, tokens: jax.Array) -> dict[str, jax.Array]:
        """What each layer computes before its nonlinearity, by name, the logits last.

        Attention logits are of shape (batch, num_heads, time, time) and before any
        mask, all others of shape (batch, time, features).
        """
        time = tokens.shape[1]
        if time > self.context:
            raise ValueError(f"{time} tokens do not fit into context={self.context}")
        x = self.token_embedding(tokens)
        if hasattr(self, "position_embedding"):
            x = x + self.position_embedding(jnp.arange(time))[None]
        x = x * self.input_scale
        mask = None
        if self.pad_token is not None:
            mask = (tokens != self.pad_token)[:, None, None]
        found = {"embedding": x}
        for i, block in enumerate(self.blocks):
            x, of_block = block(x, is_causal=True, mask=mask)
            found |= {f"blocks/{i}/{name}": z for name, z in of_block.items()}
        logits = self.readout(self.norm(x)) * self.output_scale
        return {**found, "logits": logits.astype(jnp.float32)}
