"""A state that was written and read goes on as if nothing had happened."""

import chex
import jax
import pytest
from flax import serialization

pytest.importorskip("orbax.checkpoint")
from orbax.checkpoint import v1 as checkpoint


def goes_on(tx, train, saved, restored):
    chex.assert_trees_all_equal_shapes_and_dtypes(saved, restored)
    chex.assert_trees_all_equal(saved, restored)
    chex.assert_trees_all_equal(
        train(tx, *saved, start=3, steps=2), train(tx, *restored, start=3, steps=2)
    )


def test_orbax(tx, params, train, tmp_path):
    saved = train(tx, params, steps=3)
    checkpoint.save(tmp_path / "checkpoint", saved)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), saved
    )
    restored = checkpoint.load(tmp_path / "checkpoint", like)
    goes_on(tx, train, saved, restored)


def test_msgpack_of_flax(tx, params, train):
    saved = train(tx, params, steps=3)
    blob = serialization.to_bytes(saved)
    restored = serialization.from_bytes((params, tx.init(params)), blob)
    goes_on(tx, train, saved, jax.device_put(restored))
