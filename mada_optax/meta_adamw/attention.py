r"""The encoder over groups: a pre-norm Transformer without positions, and its head.

.. math::

    X &\leftarrow X + \operatorname{Attention}(\operatorname{LN}(X)), \qquad
    X \leftarrow X + W_2 \operatorname{relu}(W_1 \operatorname{LN}(X) + b_1) + b_2, \\
    \alpha_g &= 1 + r_\alpha (\sigma(h_{g0}) - 1/2), \quad
    \beta_g = 1 + r_\beta (\sigma(h_{g1}) - 1/2), \quad
    \lambda_{1g} = \sigma(h_{g2}), \quad \lambda_{2g} = \sigma(h_{g3}),
    \qquad h = X W_h + b_h.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mada_optax.meta_adamw.options import Options


class Factors(NamedTuple):
    """What the attention says of every group, (G,) each.

    Attributes:
      alpha: factor on the learning rate.
      beta: factor on the weight decay.
      lambda1: weight of the squared gradient norm in the meta-objective.
      lambda2: weight of the gradient alignment there.
    """

    alpha: jax.Array
    beta: jax.Array
    lambda1: jax.Array
    lambda2: jax.Array


def _glorot(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform matrices (..., in, out); the leading axis is that of the layers."""
    bound = (6 / (shape[-2] + shape[-1])) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _uniform_bias(key: jax.Array, layers: int, size: int, fan: int, dtype: Any):
    """One draw for all layers, which in the released code are copies of one."""
    bias = jax.random.uniform(key, (1, size), dtype, -(fan**-0.5), fan**-0.5)
    return jnp.tile(bias, (layers, 1))


def init(key: jax.Array, options: Options, dtype: Any) -> dict[str, Any]:
    """Encoder, with the layers along the first axis of every array, and head."""
    layers, dim, hidden = options.attn_layers, options.dim, options.attn_hidden_dim
    keys = jax.random.split(key, 7)

    def norm(*shape):
        return {"scale": jnp.ones(shape, dtype), "bias": jnp.zeros(shape, dtype)}

    def matrix(key, inputs, outputs, bias):
        return {"kernel": _glorot(key, (layers, inputs, outputs), dtype), "bias": bias}

    encoder: dict[str, Any] = {
        "attention_norm": norm(layers, dim),
        "qkv": matrix(keys[0], dim, 3 * dim, jnp.zeros((layers, 3 * dim), dtype)),
        "out": matrix(keys[1], dim, dim, jnp.zeros((layers, dim), dtype)),
        "hidden_norm": norm(layers, dim),
        "up": matrix(
            keys[2], dim, hidden, _uniform_bias(keys[3], layers, hidden, dim, dtype)
        ),
        "down": matrix(
            keys[4], hidden, dim, _uniform_bias(keys[5], layers, dim, hidden, dtype)
        ),
    }
    if options.final_norm:
        encoder["final_norm"] = norm(1, dim)
    kernel = _glorot(keys[6], (dim, 4), dtype)
    kernel = jnp.zeros_like(kernel) if options.head_init == "zero" else kernel
    return {
        "encoder": encoder,
        "head": {"kernel": kernel, "bias": jnp.zeros(4, dtype)},
    }


def _affine(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    return x @ weights["kernel"] + weights["bias"][None]


def _layer_norm(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    x = x - x.mean(1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(1, keepdims=True) + 1e-5)
    return x * weights["scale"][None] + weights["bias"][None]


def _attention(x: jax.Array, weights: dict[str, Any], heads: int) -> jax.Array:
    groups, dim = x.shape
    qkv = _affine(x, weights["qkv"]).reshape(groups, 3, heads, dim // heads)
    q, k, v = (qkv[:, i] for i in range(3))
    logits = jnp.einsum("ghd,khd->hgk", q, k) * (dim // heads) ** -0.5
    mixed = jnp.einsum("hgk,khd->ghd", jax.nn.softmax(logits), v)
    return _affine(mixed.reshape(groups, dim), weights["out"])


def _layer(x: jax.Array, weights: dict[str, Any], heads: int) -> jax.Array:
    x += _attention(_layer_norm(x, weights["attention_norm"]), weights, heads)
    hidden = _affine(_layer_norm(x, weights["hidden_norm"]), weights["up"])
    return x + _affine(jax.nn.relu(hidden), weights["down"])


def factors(x: jax.Array, hyperparams: dict[str, Any], options: Options) -> Factors:
    """The factors of every group from the encoder's input, (G, D)."""
    layers = dict(hyperparams["encoder"])
    final = layers.pop("final_norm", None)

    def layer(x, weights):
        return _layer(x, weights, options.attn_heads), None

    # The matrices are tiny, and their products decide about the whole step.
    with jax.default_matmul_precision("highest"):
        if len(x):
            x, _ = jax.lax.scan(layer, x, layers)
        if final is not None:
            x = _layer_norm(x, jax.tree.map(lambda w: w[0], final))
        share = jax.nn.sigmoid(_affine(x, hyperparams["head"]))
    lambdas = share[:, 2], share[:, 3]
    if options.lambda_mode == "fixed":
        lambdas = (jnp.full_like(share[:, 0], value) for value in options.lambda_values)
    ranges = (options.alpha_range, options.beta_range)
    alpha, beta = (
        1 + jnp.asarray(r, share.dtype) * (share[:, i] - 0.5)
        for i, r in enumerate(ranges)
    )
    return Factors(alpha, beta, *lambdas)
