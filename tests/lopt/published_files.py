"""Files as others publish them, written here without the code that reads them."""

import numpy as np
import safetensors.numpy
from flax import serialization

BLOCKS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)


def numbered(*shapes):
    """Leaf j = 1, 2, ... is 0.3 sin(0.11 j + 0.7 k), of the flat index k."""
    leaves = []
    for j, shape in enumerate(shapes, 1):
        k = np.arange(np.prod(shape))
        leaves.append((0.3 * np.sin(0.11 * j + 0.7 * k)).reshape(shape))
    return [leaf.astype(np.float32) for leaf in leaves]


def small_fc(hidden=32):
    names = ("w0", "b0", "w1", "b1", "w2", "b2")
    shapes = ((39, hidden), (hidden,), (hidden, hidden), (hidden,), (hidden, 2), (2,))
    return dict(zip(names, numbered(*shapes), strict=True))


def perceptron(*leading, hidden):
    names = [f"w0__{i}" for i in range(14)] + ["b0", "w1", "b1", "w2", "b2"]
    shapes = [(n, hidden) for n in BLOCKS]
    shapes += [(hidden,), (hidden, hidden), (hidden,), (hidden, 3), (3,)]
    leaves = numbered(*[(*leading, *shape) for shape in shapes])
    return dict(zip(names, leaves, strict=True))


def recurrent(inputs, hidden, controls):
    """In the order of the test vectors, after the 19 leaves of the perceptron."""
    layers = {
        "linear": (inputs, hidden),
        "linear_1": (inputs, hidden),
        "linear_2": (inputs, hidden),
        "rnn/linear": (2 * hidden, 4 * hidden),
        **({"rnn_to_controls": (hidden, controls)} if controls else {}),
        "step_size": (hidden, 1),
    }
    shapes = [(1, hidden), (1, hidden)]
    for shape in layers.values():
        shapes += [shape, shape[1:]]
    leaves = iter(numbered(*[(0,)] * 19, *shapes)[19:])
    state = {"hidden": next(leaves), "cell": next(leaves)}
    rnn = {name: {"w": next(leaves), "b": next(leaves)} for name in layers}
    return {"lstm_init_state": state, "rnn_params": rnn}


def velo(hidden=8, bank=4):
    stack = {"ff_mod_stack": perceptron(bank, hidden=4)}
    return {**recurrent(30, hidden, bank), **stack}


def celo(hidden=64):
    return {**recurrent(18, hidden, 1), "ff_mod_stack": perceptron(1, hidden=4)}


def celo_adam(hidden=64):
    return recurrent(18, hidden, None)


def celo2():
    return {"ff_mod_stack": perceptron(hidden=8)}


def mulo_tensors(nn):
    layers = ("input", "linear_0", "output")
    return {
        **{f"network.{name}.weight": nn[f"w{i}"].T for i, name in enumerate(layers)},
        **{f"network.{name}.bias": nn[f"b{i}"] for i, name in enumerate(layers)},
    }


def celo2_tensors(tree):
    nn = tree["ff_mod_stack"]
    names = {"b0": "b0", "dense_w.0": "w1", "dense_b.0": "b1"}
    names |= {"dense_w.1": "w2", "dense_b.1": "b2"}
    names |= {f"w0.{i}": f"w0__{i}" for i in range(14)}
    return {theirs: nn[ours] for theirs, ours in names.items()}


def velo_rnn_tensors(tree):
    names = {
        "mix_layer1": "linear",
        "mix_layer2": "linear_1",
        "final_mix_layer": "linear_2",
        "lstm.linear": "rnn/linear",
        "rnn_to_controls": "rnn_to_controls",
        "step_size": "step_size",
    }
    tensors = {
        "lstm_init_state.0": tree["lstm_init_state"]["hidden"],
        "lstm_init_state.1": tree["lstm_init_state"]["cell"],
    }
    for theirs, ours in names.items():
        tensors[f"{theirs}.weight"] = tree["rnn_params"][ours]["w"].T
        tensors[f"{theirs}.bias"] = tree["rnn_params"][ours]["b"]
    return tensors


def velo_mlp_tensors(tree, *, active=True):
    nn = tree["ff_mod_stack"]
    first = np.concatenate([nn[f"w0__{i}"] for i in range(14)], 1)
    tensors = {
        "input_weights_": first.transpose(0, 2, 1),
        "input_bias_": nn["b0"],
        "hidden_weights_.0": nn["w1"].transpose(0, 2, 1),
        "hidden_bias_.0": nn["b1"],
        "output_weights_": nn["w2"].transpose(0, 2, 1),
        "output_bias_": nn["b2"],
    }
    if active:
        names = ("input_weights", "input_bias", "hidden_weights.0", "hidden_bias.0")
        for name in (*names, "output_weights"):
            whole = tensors[name.replace(".0", "_.0") if "." in name else f"{name}_"]
            tensors[name] = np.full(whole.shape[1:], np.nan, np.float32)
    return tensors


def write(path, content):
    """A file of tensors, or of a tree."""
    if path.suffix == ".safetensors":
        tensors = {k: np.ascontiguousarray(v) for k, v in content.items()}
        data = safetensors.numpy.save(tensors)
    else:
        data = serialization.msgpack_serialize(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def with_tilde(tree):
    """The tree with the level that google's have around networks."""
    levels = {key: {"~": tree[key]} for key in ("ff_mod_stack", "nn") if key in tree}
    return {**tree, **levels}
