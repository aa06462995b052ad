"""Groups come from names and shapes alone."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from mada_optax import meta_adamw
from mada_optax.meta_adamw.grouping import fine_grained, layer_index, layout


def shapes(**leaves):
    return {name: jnp.zeros(shape) for name, shape in leaves.items()}


@pytest.mark.parametrize(
    ("path", "shape", "label"),
    [
        ("tok_Embed.weight", (5, 2), "embedding_middle_weight"),
        ("pos_embedding", (5, 2), "embedding_middle_weight"),
        ("attn.norm.weight", (4,), "attention_middle_bias"),
        ("SelfAttention.q.kernel", (4, 4), "attention_middle_weight"),
        ("feed_forward.fc1.kernel", (4, 4), "ffn_middle_weight"),
        ("mlp.norm.scale", (4,), "ffn_middle_bias"),
        ("final_norm.scale", (4,), "layernorm_middle_bias"),
        ("ln.scale", (4,), "layernorm_middle_bias"),
        ("head.weight", (4, 4), "linear_middle_weight"),
        ("conv.kernel", (3, 3, 4, 4), "other_middle_weight"),
        ("pos", (5, 2), "other_middle_weight"),
        ("", (2, 2), "other_middle_weight"),
    ],
)
def test_type_by_path(path, shape, label):
    tree = {path: jnp.zeros(shape)} if path else jnp.zeros(shape)
    assert jax.tree.leaves(fine_grained(tree)) == [label]


def test_a_bias_is_of_the_type_of_its_sibling():
    tree = {
        "fc": shapes(kernel=(2, 3), bias=(3,)),
        "conv": shapes(kernel=(3, 3, 2, 3), bias=(3,)),
        "ln": shapes(scale=(3,), bias=(3,)),
        "many": shapes(kernel=(2, 3), bias=(1, 3)),
    }
    labels = fine_grained(tree)
    assert labels["fc"]["bias"] == labels["many"]["bias"] == "linear_middle_bias"
    assert labels["conv"]["bias"] == "other_middle_bias"
    assert labels["ln"]["bias"] == "layernorm_middle_bias"


@pytest.mark.parametrize(
    ("name", "digits", "suffix"),
    [
        ("layers.3.weight", 3, 3),
        ("encoder.2.attn.5.weight", 2, 2),
        ("3.weight", None, 3),
        ("weights.4", 4, 4),
        ("7", None, 7),
        ("Block_3.Dense_1.kernel", None, 3),
        ("blocks.2.fc1.kernel", 2, 2),
        ("head.kernel", None, None),
    ],
)
def test_layer_of_a_name(name, digits, suffix):
    assert layer_index(name, from_suffix=False) == digits
    assert layer_index(name, from_suffix=True) == suffix


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["middle"]),
        (2, ["middle", "middle"]),
        (3, ["shallow", "middle", "deep"]),
        (4, ["shallow", "middle", "middle", "deep"]),
        (7, ["shallow"] * 2 + ["middle"] * 3 + ["deep"] * 2),
    ],
)
def test_thirds_of_the_depth(count, expected):
    tree = {"blocks": [{"a": {"w": jnp.zeros(())}} for _ in range(count)]}
    labels = fine_grained(tree)["blocks"]
    assert [b["a"]["w"].split("_")[1] for b in labels] == expected


def test_layers_by_suffix():
    tree = {f"block_{i}": shapes(kernel=(2, 2)) for i in range(3)}
    assert len(set(jax.tree.leaves(fine_grained(tree)))) == 3
    assert len(set(jax.tree.leaves(fine_grained(tree, depth_from_suffix=False)))) == 1


class Model(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(3)])
        self.norm = nnx.LayerNorm(4, rngs=rngs)


def test_an_nnx_state_and_its_dict_have_the_same_groups():
    state = nnx.state(Model(nnx.Rngs(0)), nnx.Param)
    tx = meta_adamw(0.1)
    groups = tx.groups(state)
    assert groups == tx.groups(nnx.to_pure_dict(state))
    assert groups["linear_deep_weight"] == ["layers.2.kernel"]
    assert groups["layernorm_middle_bias"] == ["norm.bias", "norm.scale"]
    updates, after = tx.update(state, tx.init(state), state)
    assert jax.tree.structure(updates) == jax.tree.structure(state)
    assert after.alpha.shape == (len(groups),)


@pytest.mark.parametrize(
    "labels",
    [
        {"a": {"x": "one", "y": "two"}, "b": "one"},
        lambda params: {"a": {"x": "one", "y": "two"}, "b": "one"},
    ],
)
def test_labels_of_ones_own(labels):
    params = {"a": shapes(x=(2,), y=(3, 2)), "b": shapes(z=(1,))}
    tx = meta_adamw(0.1, groups=labels)
    assert tx.groups(params) == {"one": ["a.x", "b.z"], "two": ["a.y"]}
    found = layout(params, labels, depth_from_suffix=True)
    assert found.average.tolist() == [[0.5, 0, 0.5], [0, 1, 0]]
    assert found.sizes == (2, 6, 1) and found.bias_like == (True, False, True)


def test_labels_that_do_not_fit():
    tx = meta_adamw(0.1, groups={"c": "x"})
    with pytest.raises(ValueError, match="prefix of one"):
        tx.init({"a": jnp.ones(2)})


def test_what_is_masked_is_in_no_group():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
    tx = optax.masked(meta_adamw(0.1), {"a": True, "b": False})
    assert tx.init(params).inner_state.alpha.shape == (1,)
    assert len(meta_adamw(0.1).groups(params)) == 2
