"""The sums of hypergradients are the same whichever way they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mada_optax import blocks


def products(x, y):
    return {"xy": x * y, "root": jnp.sqrt(jnp.abs(x)) / (1 + y * y)}


@pytest.mark.parametrize(
    "shape", [(), (0,), (3,), (7, 5), (1, 40), (23,), (23, 2), (5, 3, 2)]
)
def test_sums_are_those_of_numpy(shape, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8)
    x, y = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)

    got = jax.jit(lambda x, y: blocks.sums(products, [x, y]))(x, y)

    np.testing.assert_allclose(got["xy"], np.sum(x * y), atol=1e-5)
    expected = np.sum(np.sqrt(np.abs(x)) / (1 + y * y))
    np.testing.assert_allclose(got["root"], expected, atol=1e-5)


def test_only_a_large_leaf_is_summed_in_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8)

    def loops(size):
        x = jnp.ones((size, 2))
        text = jax.jit(lambda x: blocks.sums(products, [x, x])).lower(x).as_text()
        return text.count("stablehlo.while")

    assert loops(4) == 0
    assert loops(23) == 1


def test_sums_in_blocks_can_be_differentiated_and_batched(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8)
    x = jnp.linspace(0.1, 2.0, 46).reshape(23, 2)

    def total(x):
        return blocks.sums(products, [x, x])["xy"]

    np.testing.assert_allclose(jax.grad(total)(x), 2 * x, rtol=1e-6)
    batch = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(
        jax.vmap(total)(batch), jnp.sum(batch * batch, axis=(1, 2)), rtol=1e-6
    )
