"""Transformer blocks, and the decoder-only language model that is made of them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.parametrization import STANDARD, Parametrization

_SMALL, _ZEROS = nnx.initializers.normal(0.02), nnx.initializers.zeros
_LECUN = nnx.initializers.lecun_normal()
_MASKED = -1e30


def linear(
    fan_in: int,
    fan_out: int,
    *,
    parametrization: Parametrization,
    standard: nnx.Initializer = _LECUN,
    **options,
) -> nnx.Linear:
    """An `nnx.Linear` that starts as the parametrization says."""
    return nnx.Linear(
        fan_in,
        fan_out,
        kernel_init=parametrization.initializer(fan_in, standard=standard),
        bias_init=parametrization.bias_initializer(standard=_ZEROS),
        **options,
    )


class Attention(nnx.Module):
    """Multi-head self-attention with one square matrix for each projection."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        out_init: nnx.Initializer = _LECUN,
        **options,
    ):
        self.num_heads, self.dropout = num_heads, nnx.Dropout(dropout)
        self.scale = options["parametrization"].attention_scale(width // num_heads)
        self.query = linear(width, width, **options)
        self.key = linear(width, width, **options)
        self.value = linear(width, width, **options)
        self.out = linear(width, width, **{**options, "standard": out_init})

    def __call__(
        self,
        x: jax.Array,
        is_causal: bool,
        mask: jax.Array | None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Maps (batch, time, width) to the same shape, and gives the attention logits.

        Args:
          x: the inputs.
          is_causal: whether position t sees positions 0 to t only.
          mask: which positions may be seen, of shape (batch, 1, 1, time).
          key: drives dropout of attention weights; without one there is none.

        Returns:
          The outputs, and what the softmax reads before any mask: (batch, num_heads,
          time, time), which costs nothing where a compiled program does not use it.
        """

        def heads(projected: jax.Array) -> jax.Array:
            return projected.reshape(*x.shape[:-1], self.num_heads, -1)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * self.scale
        if key is None or self.dropout.rate == 0:
            attended = jax.nn.dot_product_attention(
                q, k, v, mask=mask, scale=self.scale, is_causal=is_causal
            )
        else:
            seen = logits.astype(jnp.float32)
            if is_causal:
                past = jnp.tri(x.shape[1], dtype=bool)[None, None]
                mask = past if mask is None else mask & past
            if mask is not None:
                seen = jnp.where(mask, seen, _MASKED)
            weights = jax.nn.softmax(seen).astype(v.dtype)
            weights = self.dropout(weights, deterministic=False, rngs=key)
            attended = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
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
        norm_bias: bool = True,
        exact_gelu: bool = False,
        dropout: float = 0.0,
        standard: nnx.Initializer = _LECUN,
        out_init: nnx.Initializer = _LECUN,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        norm = partial(
            nnx.LayerNorm,
            width,
            epsilon=epsilon,
            use_bias=norm_bias,
            dtype=dtype,
            rngs=rngs,
        )
        options = {
            "parametrization": parametrization,
            "use_bias": use_bias,
            "dtype": dtype,
            "rngs": rngs,
        }
        self.attention_norm = norm()
        self.attention = Attention(
            width,
            num_heads,
            dropout=dropout,
            standard=standard,
            out_init=out_init,
            **options,
        )
        self.mlp_norm, hidden = norm(), mlp_ratio * width
        self.mlp_in = linear(width, hidden, standard=standard, **options)
        self.mlp_out = linear(hidden, width, standard=out_init, **options)
        self.exact_gelu, self.dropout = exact_gelu, nnx.Dropout(dropout)

    def __call__(
        self,
        x: jax.Array,
        *,
        is_causal: bool = False,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps (batch, time, width) to the same shape, and names what it computes.

        `key` drives dropout; without one there is none.
        """
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))

        def dropped(x: jax.Array, key: jax.Array | None) -> jax.Array:
            return self.dropout(x, deterministic=key is None, rngs=key)

        normalized = self.attention_norm(x)
        attended, logits = self.attention(normalized, is_causal, mask, keys[0])
        x = x + dropped(attended, keys[1])
        hidden = self.mlp_in(self.mlp_norm(x))
        out = self.mlp_out(nnx.gelu(hidden, approximate=not self.exact_gelu))
        return x + dropped(out, keys[2]), {
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

    Args:
      vocab_size: number of tokens.
      context: the longest sequence it can read.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      mlp_ratio: width of the MLP's hidden layer over `width`.
      use_bias: whether matrices have a bias.
      norm_bias: whether normalizations have one.
      use_positions: whether positions are embedded; without it only the causal mask
        tells them apart.
      tie_embeddings: whether the token embedding is the readout too, which then starts
        as the embedding does, also where the parametrization says zero.
      exact_gelu: whether GELU is computed by the error function, not approximated.
      kernel_std: standard deviation of the blocks' matrices at the start, in standard
        parametrization: that of those which write to the residual stream is divided by
        sqrt(2 depth). By default it is 1/sqrt(fan_in) for all.
      dropout: the probability of dropping an attention weight, or a unit of an
        embedding or of what is added to the residual stream.
      pad_token: a token that is not attended to.
      epsilon: added to the variance in normalizations.
      remat: whether the backward pass computes blocks again instead of keeping what
        they computed: a block's input is all that is kept of it.
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
        norm_bias: bool = True,
        use_positions: bool = True,
        tie_embeddings: bool = False,
        exact_gelu: bool = False,
        kernel_std: float | None = None,
        dropout: float = 0.0,
        pad_token: int | None = None,
        epsilon: float = 1e-6,
        remat: bool = False,
        parametrization: Parametrization = STANDARD,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        options = {"dtype": dtype, "rngs": rngs}
        norm_options = {"epsilon": epsilon, **options}
        starts = {}
        if kernel_std is not None:
            starts["standard"] = nnx.initializers.normal(kernel_std)
            starts["out_init"] = nnx.initializers.normal(
                kernel_std / (2 * depth) ** 0.5
            )

        def embedding(size: int) -> nnx.Embed:
            init = parametrization.initializer(size, standard=_SMALL)
            return nnx.Embed(size, width, embedding_init=init, **options)

        self.context, self.pad_token, self.remat = context, pad_token, remat
        self.token_embedding = embedding(vocab_size)
        if use_positions:
            self.position_embedding = embedding(context)
        self.dropout = nnx.Dropout(dropout)
        self.blocks = nnx.List(
            Block(
                width,
                num_heads,
                mlp_ratio,
                parametrization=parametrization,
                use_bias=use_bias,
                norm_bias=norm_bias,
                exact_gelu=exact_gelu,
                dropout=dropout,
                **starts,
                **norm_options,
            )
            for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(width, use_bias=norm_bias, **norm_options)
        if not tie_embeddings:
            self.readout = nnx.Linear(
                width,
                vocab_size,
                use_bias=use_bias,
                kernel_init=parametrization.readout_initializer(width, standard=_SMALL),
                bias_init=parametrization.bias_initializer(standard=_ZEROS),
                preferred_element_type=jnp.float32,
                **options,
            )
        self.input_scale = parametrization.input_multiplier
        self.output_scale = parametrization.output_scale(width)

    def __call__(self, tokens: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps tokens of shape (batch, time) to the logits of the token after each.

        Args:
          tokens: integers of shape (batch, time), time at most `context`.
          key: drives dropout; without one there is none.

        Returns:
          Logits of shape (batch, time, vocab_size), float32 whatever the dtype of the
          computation. Those at time t depend on tokens 0 to t only.
        """
        return self.preactivations(tokens, key=key)["logits"]

    def preactivations(
        self, tokens: jax.Array, *, key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """What each layer computes before its nonlinearity, by name, the logits last.

        Attention logits are of shape (batch, num_heads, time, time) and before any
        mask, all others of shape (batch, time, features).
        """
        time = tokens.shape[1]
        if time > self.context:
            raise ValueError(f"{time} tokens do not fit into context={self.context}")
        count = 1 + len(self.blocks)
        keys = [None] * count if key is None else list(jax.random.split(key, count))
        x = self.token_embedding(tokens)
        if hasattr(self, "position_embedding"):
            x = x + self.position_embedding(jnp.arange(time))[None]
        x = x * self.input_scale
        found = {"embedding": x}
        x = self.dropout(x, deterministic=key is None, rngs=keys[0])
        mask = None
        if self.pad_token is not None:
            mask = (tokens != self.pad_token)[:, None, None]
        for i, block in enumerate(self.blocks):
            run = partial(block, is_causal=True, mask=mask)
            x, of_block = (jax.checkpoint(run) if self.remat else run)(
                x, key=keys[1 + i]
            )
            found |= {f"blocks/{i}/{name}": z for name, z in of_block.items()}
        logits = self._read(self.norm(x)) * self.output_scale
        return {**found, "logits": logits.astype(jnp.float32)}

    def _read(self, x: jax.Array) -> jax.Array:
        if hasattr(self, "readout"):
            return self.readout(x)
        table = self.token_embedding.embedding[...].astype(x.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
