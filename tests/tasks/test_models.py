import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks.functional import count_parameters, functional
from tasks.models import MLP, TransformerLM, ViT


def compiled(build):
    return tuple(map(jax.jit, functional(build)))


def mlp(**options):
    return compiled(lambda rngs: MLP(12, 5, **options, rngs=rngs))


def transformer(**options):
    options = {"context": 7, "width": 8, "depth": 2, "num_heads": 2, **options}
    return compiled(lambda rngs: TransformerLM(11, **options, rngs=rngs))


def vit(**options):
    options = {"patch_size": 2, "num_heads": 2, **options}
    return compiled(lambda rngs: ViT((6, 4, 3), 5, **options, rngs=rngs))


@pytest.mark.parametrize(("width", "depth"), [(8, 1), (3, 4), (16, 2)])
def test_mlp_size(width, depth):
    init, _ = mlp(width=width, depth=depth)
    hidden = 13 * width + (depth - 1) * (width + 1) * width
    assert count_parameters(init) == hidden + (width + 1) * 5


def test_mlp_without_hidden_layers_is_linear():
    init, apply = mlp(width=99, depth=0)
    params, _ = init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 3, 4))
    expected = np.reshape(x, (4, 12)) @ np.asarray(params["readout"]["kernel"])
    np.testing.assert_allclose(apply(params, (), x)[0], expected, rtol=1e-5, atol=1e-6)


def test_mlp_is_relu_layers_and_a_readout():
    init, apply = mlp(width=6, depth=2)
    params, _ = init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1, params)
    x = jax.random.normal(jax.random.key(1), (4, 12))
    h = np.asarray(x)
    for layer in params["layers"]["0"], params["layers"]["1"]:
        h = np.maximum(h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    readout = params["readout"]
    expected = h @ np.asarray(readout["kernel"]) + np.asarray(readout["bias"])
    np.testing.assert_allclose(apply(params, (), x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("width", "depth", "ratio"), [(8, 1, 4), (12, 3, 2)])
def test_transformer_size(width, depth, ratio):
    init, _ = transformer(width=width, depth=depth, mlp_ratio=ratio)
    block = (4 + 2 * ratio) * width**2 + 4 * width
    embeddings_and_readout = (11 + 7 + 11) * width
    expected = depth * block + embeddings_and_readout + 2 * width
    assert count_parameters(init) == expected


def test_every_parameter_of_the_transformer_has_rank_one_or_two():
    params, _ = jax.eval_shape(transformer()[0], jax.random.key(0))
    assert {leaf.ndim for leaf in jax.tree.leaves(params)} == {1, 2}


def test_later_tokens_do_not_change_earlier_logits():
    init, apply = transformer()
    params, _ = init(jax.random.key(0))
    tokens = jnp.array([[3, 1, 4, 1, 5, 9, 2]])
    logits = apply(params, (), tokens)[0]
    for changed in range(7):
        other = apply(params, (), tokens.at[0, changed].set(10))[0]
        np.testing.assert_array_equal(other[:, :changed], logits[:, :changed])
        for position in range(changed, 7):
            assert jnp.abs(other - logits)[0, position].max() > 1e-6


def test_the_transformer_knows_the_order_of_tokens():
    init, apply = transformer(depth=1)
    params, _ = init(jax.random.key(0))
    one = apply(params, (), jnp.array([[1, 2, 3]]))[0][0, -1]
    other = apply(params, (), jnp.array([[2, 1, 3]]))[0][0, -1]
    assert jnp.abs(one - other).max() > 1e-6


def test_too_long_a_sequence_is_an_error():
    init, apply = transformer()
    params, _ = init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"8 tokens do not fit into context=7"):
        apply(params, (), jnp.zeros((1, 8), jnp.int32))


def test_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match=r"width=9 .* num_heads=2"):
        transformer(width=9)


def test_vit_size():
    block = 12 * 8**2 + 9 * 8 + 4 * 8
    tokens = (1 + 3 * 2) * 8 + 8
    patches_and_readout = (12 + 1) * 8 + (8 + 1) * 5
    expected = 2 * block + tokens + patches_and_readout + 2 * 8
    assert count_parameters(vit(width=8, depth=2)[0]) == expected


def test_vit_knows_where_patches_are():
    init, apply = vit(width=8, depth=1)
    params, _ = init(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (1, 6, 4, 3))
    turned = jnp.roll(image, 2, axis=1)
    assert (
        jnp.abs(apply(params, (), image)[0] - apply(params, (), turned)[0]).max() > 0.01
    )
    nowhere = {**params, "position_embedding": jnp.zeros((7, 8))}
    one, other = (apply(nowhere, (), x)[0] for x in (image, turned))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_patches_must_fill_the_image():
    with pytest.raises(ValueError, match="patch_size=4 does not divide images of 6"):
        vit(width=8, depth=1, patch_size=4)


@pytest.mark.parametrize("make", [mlp, transformer, vit])
def test_bfloat16_computes_coarsely_and_returns_float32(make):
    inputs = {
        mlp: jax.random.normal(jax.random.key(1), (4, 12)),
        transformer: jax.random.randint(jax.random.key(1), (4, 7), 0, 11),
        vit: jax.random.normal(jax.random.key(1), (4, 6, 4, 3)),
    }[make]
    options = {"width": 8, "depth": 2}
    params, _ = make(**options)[0](jax.random.key(0))
    fine = make(**options)[1](params, (), inputs)[0]
    coarse = make(**options, dtype=jnp.bfloat16)[1](params, (), inputs)[0]
    assert coarse.dtype == jnp.float32
    error = jnp.abs(coarse - fine).max() / jnp.abs(fine).max()
    assert 1e-5 < error < 5e-2
