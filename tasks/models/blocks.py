"""Pre-norm transformer blocks, in any parametrization."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.parametrization import Parametrization

_LECUN, _ZEROS = nnx.initializers.lecun_normal(), nnx.initializers.zeros
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
        standard: nnx.Initializer = _LECUN,
        out_init: nnx.Initializer = _LECUN,
        **options,
    ):
        self.num_heads, self.dropout = num_heads, nnx.Dropout(dropout)
        self.scale = options["parametrization"].attention_scale(width // num_heads)
        project = partial(linear, width, width, **options)
        self.query = project(standard=standard)
        self.key = project(standard=standard)
        self.value = project(standard=standard)
        self.out = project(standard=out_init)

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
