"""The recorded runs in the terms of `mada_optax.meta_adamw`."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mada_optax

FOLDER = pathlib.Path(__file__).parents[2] / "golden" / "meta_adamw"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

# The names of the recorded options, where they are others here.
ARGUMENTS = {
    "feature_version": "features",
    "group_strategy": "groups",
    "total_steps": "num_steps",
    "aux_loss_fixed_weights": "objective_weights",
    "task_types": "huw_task_types",
    "lr": "learning_rate",
    "meta_lr": "meta_learning_rate",
}
# Recorded tensors of a layer, and whether they are transposed here.
LAYER = {
    "attention_norm": ("norm1.weight", "norm1.bias"),
    "qkv": ("self_attn.in_proj_weight", "self_attn.in_proj_bias"),
    "out": ("self_attn.out_proj.weight", "self_attn.out_proj.bias"),
    "hidden_norm": ("norm2.weight", "norm2.bias"),
    "up": ("linear1.weight", "linear1.bias"),
    "down": ("linear2.weight", "linear2.bias"),
}


class Trace:
    """One run: its configuration, and its arrays by their recorded keys."""

    def __init__(self, name):
        self.config = json.loads((FOLDER / f"{name}.json").read_text())
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)
        self.dtype = np.dtype(self.config["dtype"])
        self.steps = len(self.arrays["steps/loss"])
        self.metas = [m for m in self.config["meta_after_steps"] if m <= self.steps]

    def tree(self, prefix, i=None):
        found = {
            key.removeprefix(prefix + "/"): x
            for key, x in self.arrays.items()
            if key.startswith(prefix + "/")
        }
        return {key: x if i is None else x[i] for key, x in found.items()}

    def batch(self, prefix, i=None):
        tree = self.tree(prefix, i)
        return (tree["x"], tree["y"]) if "x" in tree else None

    @property
    def params(self):
        return self.tree("init/param")

    def transformation(self, **more):
        options = dict(self.config["opt"])
        betas = options.pop("betas", (0.9, 0.999))
        if options.get("feature_dim", 8) is None:
            options["feature_dim"] = "auto"
        if self.config.get("plus_dispatch") == "corrected":
            options["plus_features"] = "documented"
        arguments = {ARGUMENTS.get(k, k): x for k, x in options.items()}
        groups = self.config.get("param_groups", ())
        labels = {p: str(i) for i, group in enumerate(groups) for p in group["names"]}
        if groups:
            arguments["base_labels"] = labels
            arguments["base_groups"] = {
                str(i): {
                    "learning_rate": group["lr"],
                    "weight_decay": group["weight_decay"],
                    **dict(zip(("b1", "b2"), group.get("betas", betas), strict=True)),
                }
                for i, group in enumerate(groups)
            }
        arguments |= {"b1": betas[0], "b2": betas[1], **more}
        return mada_optax.meta_adamw(**arguments, preset="released")

    def order(self, tx):
        """The recorded position of every group of ours."""
        ours = tx.groups(self.params)
        recorded = [set(group) for group in self.config["groups"]]
        return ours, [recorded.index(set(leaves)) for leaves in ours.values()]

    def hyperparams(self, prefix, tx):
        """Recorded attention tensors as `hyperparams`."""
        recorded = self.tree(prefix)
        layers = range(1 + max(int(k.split(".")[2]) for k in recorded if "layers" in k))

        def stacked(name):
            return np.stack([recorded[f"encoder.layers.{i}.{name}"] for i in layers])

        encoder = {}
        for ours, (weight, bias) in LAYER.items():
            norm = "norm" in ours
            matrix = stacked(weight)
            encoder[ours] = {
                "scale" if norm else "kernel": matrix if norm else matrix.mT,
                "bias": stacked(bias),
            }
        head = {"kernel": recorded["head.weight"].T, "bias": recorded["head.bias"]}
        out = {"encoder": encoder, "head": head}
        if "gates" in recorded:
            out["gates"] = recorded["gates"]
        if "huw.log_vars" in recorded:
            out["log_vars"] = recorded["huw.log_vars"]
        if "group_embed" in recorded:
            ours, order = self.order(tx)
            rows = (recorded["group_embed"][i] for i in order)
            out["group_embeddings"] = dict(zip(ours, rows, strict=True))
        return jax.tree.map(jnp.asarray, out)

    def start(self, tx):
        """Parameters and state before the first step."""
        params = jax.tree.map(jnp.asarray, self.params)
        hyperparams = self.hyperparams("init/attn", tx)
        state = tx.init(params)
        assert jax.tree.map(jnp.shape, state.hyperparams) == jax.tree.map(
            jnp.shape, hyperparams
        )
        return params, state._replace(hyperparams=hyperparams)

    def loss(self, params, batch):
        logits = MODELS[self.config["model"]](params, batch[0], self.config)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return losses.mean()


def affine(params, name, x):
    y = x @ params[f"{name}.weight"].T
    bias = params.get(f"{name}.bias")
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def layer_norm(params, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    shape = (1,) * (x.ndim - 1) + (-1,)
    scale = params[f"{name}.weight"].reshape(shape)
    return x * scale + params[f"{name}.bias"].reshape(shape)


def mlp(params, x, config):
    del config
    x = jnp.tanh(affine(params, "layers.0", x))
    x = jnp.tanh(affine(params, "layers.1", x))
    return affine(params, "layers.2", layer_norm(params, "norm", x))


def sequence(params, x, config):
    h = params["embed.weight"][x] + params["pos"][None]
    size, dim = params["pos"].shape
    future = jnp.triu(jnp.ones((size, size), bool), 1)[None]
    for i in range(config["model_cfg"]["n_blocks"]):
        z = layer_norm(params, f"blocks.{i}.norm1", h)
        q, k, v = (affine(params, f"blocks.{i}.attn.{s}", z) for s in "qkv")
        logits = jnp.where(future, -1e9, q @ k.mT / dim**0.5)
        h += affine(params, f"blocks.{i}.attn.o", jax.nn.softmax(logits) @ v)
        z = layer_norm(params, f"blocks.{i}.norm2", h)
        z = jnp.tanh(affine(params, f"blocks.{i}.ffn.fc1", z))
        h += affine(params, f"blocks.{i}.ffn.fc2", z)
    return affine(params, "head", h)


MODELS = {"mlp": mlp, "seq": sequence}
