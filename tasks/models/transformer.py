"""The decoder-only transformer language model."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.blocks import Block, check_heads
from tasks.parametrization import STANDARD, Parametrization

_SMALL, _ZEROS = nnx.initializers.normal(0.02), nnx.initializers.zeros


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
        as the embedding does, also where the parametrization says zero: in muP, logits
        at the start shrink as 1/sqrt(width), and change alike at every width.
      exact_gelu: whether GELU is computed by the error function, not approximated.
      kernel_std: standard deviation of the blocks' matrices at the start, in standard
        parametrization: that of those which write to the residual stream is divided by
        sqrt(2 depth). By default it is 1/sqrt(fan_in) for all.
      dropout: the probability of dropping an attention weight, or a unit of an
        embedding or of what is added to the residual stream.
      pad_token: a token that is not attended to.
      epsilon: added to the variance in normalizations.
      remat: whether the backward pass computes blocks again instead of keeping what
        they computed: a block's input is all that is kept of it. They then run in one
        loop, which is also compiled sooner.
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
        if not self.remat:
            return self.preactivations(tokens, key=key)["logits"]
        x, mask, keys = self._embed(tokens, key)
        graph, _ = nnx.split(self.blocks[0])
        states = [nnx.split(block)[1] for block in self.blocks]

        # In a loop, because compilers undo it where blocks stand one after another.
        @partial(jax.checkpoint, prevent_cse=False)
        def run(x: jax.Array, of_block: Any) -> tuple[jax.Array, None]:
            state, key = of_block
            block = nnx.merge(graph, state)
            return block(x, is_causal=True, mask=mask, key=key)[0], None

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        x, _ = jax.lax.scan(run, x, (stacked, None if key is None else keys[1:]))
        return self._read(x)

    def preactivations(
        self, tokens: jax.Array, *, key: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """What each layer computes before its nonlinearity, by name, the logits last.

        Attention logits are of shape (batch, num_heads, time, time) and before any
        mask, all others of shape (batch, time, features).
        """
        x, mask, keys = self._embed(tokens, key)
        found = {"embedding": x}
        for i, block in enumerate(self.blocks):
            x, of_block = block(x, is_causal=True, mask=mask, key=keys[1 + i])
            found |= {f"blocks/{i}/{name}": z for name, z in of_block.items()}
        return {**found, "logits": self._read(x)}

    def _embed(
        self, tokens: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None, Any]:
        """What the blocks read: embeddings, the mask, keys from the second one on."""
        time, count = tokens.shape[1], 1 + len(self.blocks)
        if time > self.context:
            raise ValueError(f"{time} tokens do not fit into context={self.context}")
        keys = [None] * count if key is None else jax.random.split(key, count)
        x = self.token_embedding(tokens)
        if hasattr(self, "position_embedding"):
            x = x + self.position_embedding(jnp.arange(time))[None]
        x = self.dropout(x * self.input_scale, deterministic=key is None, rngs=keys[0])
        mask = None
        if self.pad_token is not None:
            mask = (tokens != self.pad_token)[:, None, None]
        return x, mask, keys

    def _read(self, x: jax.Array) -> jax.Array:
        """The logits from what the last block gives."""
        x = self.norm(x)
        if hasattr(self, "readout"):
            logits = self.readout(x)
        else:
            table = self.token_embedding.embedding[...].astype(x.dtype)
            logits = jnp.einsum(
                "btd,vd->btv", x, table, preferred_element_type=jnp.float32
            )
        return (logits * self.output_scale).astype(jnp.float32)
