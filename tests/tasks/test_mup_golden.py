"""Models in muP against recorded losses, gradients and width multipliers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from tasks import mup_adam
from tasks.functional import functional, parameter_shapes
from tasks.models import MLP, TransformerLM, ViT
from tasks.parametrization import MAXIMAL_UPDATE
from tasks.roles import width_multipliers

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "mulo"


def load(name):
    """Everything in a file, with what belongs to a parameter in dicts by its path."""
    data, groups = dict(np.load(FOLDER / f"{name}.npz")), {}
    for key, value in data.items():
        group, _, path = key.partition("/")
        groups.setdefault(group, {})[path] = value
    return groups


def nested(leaves):
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    tree = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = jnp.asarray(leaf)
    return tree


WEIGHT = {"w": "kernel", "b": "bias", "offset": "bias", "scale": "scale"}


def mlp_path(path):
    module, leaf = path.removeprefix("mu_mlp/~/linear_").split("::")
    layer = "readout" if module == "3" else f"layers/{module}"
    return f"{layer}/{WEIGHT[leaf]}"


def transformer_path(path):
    module, leaf = path.removeprefix("mu_transformer/").split("::")
    if module == "embed_in":
        return "token_embedding/embedding"
    if module in ("h_f", "linear_out"):
        return f"{'norm' if module == 'h_f' else 'readout'}/{WEIGHT[leaf]}"
    block, part = module.removeprefix("h").split("_", 1)
    parts = {
        "ln_1": "attention_norm",
        "ln_2": "mlp_norm",
        "attn/linear": "attention/out",
        "mlp/linear": "mlp_in",
        "mlp/linear_1": "mlp_out",
    }
    part = parts.get(part, part.replace("attn/", "attention/"))
    return f"blocks/{block}/{part}/{WEIGHT[leaf]}"


def vit_path(path):
    path = path.removeprefix("params::").replace("::", "/")
    for theirs, ours in {
        "Transformer/encoderblock_": "blocks/",
        "Transformer/encoder_norm": "norm",
        "Transformer/posembed_input/pos_embedding": "position_embedding",
        "MultiHeadDotProductAttention_0": "attention",
        "LayerNorm_0": "attention_norm",
        "LayerNorm_1": "mlp_norm",
        "MlpBlock_0/Dense_0": "mlp_in",
        "MlpBlock_0/Dense_1": "mlp_out",
        "cls": "class_token",
        "embedding/": "patch_embedding/",
        "head/": "readout/",
    }.items():
        path = path.replace(theirs, ours)
    return path


def mlp(width, rngs):
    return MLP(48, 7, width=width, depth=3, parametrization=MAXIMAL_UPDATE, rngs=rngs)


def transformer(width, rngs):
    return TransformerLM(
        11,
        context=5,
        width=width,
        depth=2,
        num_heads=2,
        use_bias=True,
        use_positions=False,
        pad_token=0,
        epsilon=1e-5,
        parametrization=MAXIMAL_UPDATE,
        rngs=rngs,
    )


def vit(width, rngs):
    return ViT(
        (8, 8, 3),
        7,
        patch_size=4,
        width=width,
        depth=2,
        num_heads=2,
        parametrization=MAXIMAL_UPDATE,
        rngs=rngs,
    )


MODELS = {
    "mu_mlp": (mlp, 12, mlp_path),
    "mu_transformer": (transformer, 8, transformer_path),
    "mu_vit": (vit, 8, vit_path),
}


def shapes(name, width):
    return parameter_shapes(lambda rngs: MODELS[name][0](width, rngs))


def ours(name, leaves):
    """Recorded leaves in the structure and the shapes of our model."""
    _, width, rename = MODELS[name]
    tree = nested({rename(path): leaf for path, leaf in leaves.items()})
    return jax.tree.map(
        lambda like, x: x.reshape(like.shape), shapes(name, width), tree
    )


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients(name):
    recorded = load(name)
    build, width, _ = MODELS[name]
    _, apply = functional(lambda rngs: build(width, rngs))
    inputs, labels = (jnp.asarray(recorded["data"][k]) for k in ("image", "label"))

    def loss(params):
        losses = cross_entropy(apply(params, (), inputs)[0], labels)
        counts = inputs != 0 if name == "mu_transformer" else jnp.ones(losses.shape)
        return jnp.sum(losses * counts) / jnp.sum(counts)

    value, grads = jax.jit(jax.value_and_grad(loss))(ours(name, recorded["params"]))
    np.testing.assert_allclose(value, recorded["loss"][""], rtol=1e-6)
    largest = max(np.abs(g).max() for g in recorded["grads"].values())

    def close(path, got, expected):
        # A key's bias moves all logits of a query alike: its gradient is rounding.
        bias_of_key = "key" in str(path) and "bias" in str(path)
        scale = largest if bias_of_key else np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * scale)

    jax.tree_util.tree_map_with_path(close, grads, ours(name, recorded["grads"]))


@pytest.mark.parametrize("name", ["mu_mlp", "mu_transformer"])
def test_width_multipliers_of_our_models(name):
    _, width, rename = MODELS[name]
    found = width_multipliers(shapes(name, width), shapes(name, 2 * width))
    recorded = load(name)["lr_mult"]
    expected = nested({rename(path): 1 / c for path, c in recorded.items()})
    jax.tree.map(np.testing.assert_allclose, found, expected)


GROW = {
    "mu_mlp": lambda path: {12: 24},
    "mu_transformer": lambda path: {8: 16, 32: 64},
    "mu_vit": lambda path: {8: 16, 32: 64, **({4: 8} if "Attention" in path else {})},
}


@pytest.mark.parametrize("name", GROW)
def test_width_multipliers_of_the_recorded_trees(name):
    recorded = load(name)
    tree = {path: jax.typeof(x) for path, x in recorded["params"].items()}
    twin = {
        path: jax.ShapeDtypeStruct(
            [GROW[name](path).get(size, size) for size in x.shape], x.dtype
        )
        for path, x in tree.items()
    }
    # Of the output projection (heads, head size, width) the research code of muLO
    # takes the head size for the fan-in.
    split = {"(query|key|value)::kernel": (0,), "out::kernel": (1,)}
    axes = split if name == "mu_vit" else None
    found = width_multipliers(tree, twin, fan_in_axes=axes)
    expected = {path: 1 / float(c) for path, c in recorded["lr_mult"].items()}
    assert found == pytest.approx(expected, rel=1e-6)


def test_mup_adam():
    recorded = load("mu_adam")
    multipliers = {k: 1 / float(c) for k, c in recorded["lr_mult"].items()}
    optimizer = mup_adam(float(recorded["lr"][""]), multipliers)
    params = {k: jnp.asarray(p[0]) for k, p in recorded["params"].items()}
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    for t in range(8):
        grads = {k: jnp.asarray(g[t]) for k, g in recorded["grads"].items()}
        updates, state = step(grads, state)
        params = optax.apply_updates(params, updates)
        for k, p in recorded["params"].items():
            np.testing.assert_allclose(params[k], p[t + 1], rtol=0, atol=1e-6)


def test_readouts_start_at_zero_and_hidden_matrices_within_two_deviations():
    recorded = load("mu_mlp")["init_stats"]
    params, _ = functional(lambda rngs: mlp(12, rngs))[0](jax.random.key(0))
    started = jax.tree.leaves_with_path(params)
    for path, leaf in started:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        (stats,) = [s for k, s in recorded.items() if mlp_path(k) == name]
        assert (jnp.std(leaf) == 0) == (stats[1] == 0)
        if "kernel" in name:
            assert jnp.abs(leaf).max() <= 2 / np.sqrt(leaf.shape[0])
            np.testing.assert_allclose(jnp.std(leaf), stats[1], rtol=0.25)
