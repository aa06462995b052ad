"""Names and shapes of every optimizer's arrays, here and in published files.

An axis is a number or a size that the file decides, such as "H", "2H" or "K". Names of
the canonical arrays are the paths of theta, joined by "/".
"""

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int | str, ...]
Sizes = dict[str, int]

# The first layer over the 30 features of VeLO is stored in one block per group.
BLOCKS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
_FIRST = "ff_mod_stack/w0"
SIZE_NAMES = {"H": "hidden_size", "K": "bank_size"}


def _network(leading: Shape, hidden: int) -> dict[str, Shape]:
    blocks = {f"{_FIRST}__{i}": (*leading, n, hidden) for i, n in enumerate(BLOCKS)}
    return {
        **blocks,
        "ff_mod_stack/b0": (*leading, hidden),
        "ff_mod_stack/w1": (*leading, hidden, hidden),
        "ff_mod_stack/b1": (*leading, hidden),
        "ff_mod_stack/w2": (*leading, hidden, 3),
        "ff_mod_stack/b2": (*leading, 3),
    }


def _recurrent(inputs: int, controls: int | str | None) -> dict[str, Shape]:
    layers: dict[str, tuple[int | str, int | str]] = {
        "linear": (inputs, "H"),
        "linear_1": (inputs, "H"),
        "linear_2": (inputs, "H"),
        "rnn/linear": ("2H", "4H"),
        "step_size": ("H", 1),
    }
    if controls is not None:
        layers["rnn_to_controls"] = ("H", controls)
    shapes: dict[str, Shape] = {
        "lstm_init_state/hidden": (1, "H"),
        "lstm_init_state/cell": (1, "H"),
    }
    for name, (fan_in, fan_out) in layers.items():
        shapes[f"rnn_params/{name}/w"] = (fan_in, fan_out)
        shapes[f"rnn_params/{name}/b"] = (fan_out,)
    return shapes


SHAPES: dict[str, dict[str, Shape]] = {
    "small_fc": {
        "nn/w0": (39, "H"),
        "nn/b0": ("H",),
        "nn/w1": ("H", "H"),
        "nn/b1": ("H",),
        "nn/w2": ("H", 2),
        "nn/b2": (2,),
        "momentum_decays": (3,),
        "rms_decays": (1,),
        "adafactor_decays": (3,),
    },
    "velo": {**_recurrent(30, "K"), **_network(("K",), 4)},
    "celo": {**_recurrent(18, 1), **_network((1,), 4)},
    "learned_schedule": _recurrent(18, None),
    "celo2": _network((), 8),
}


class Layout(NamedTuple):
    """How one kind of file calls and shapes its arrays.

    Attributes:
      title: for people.
      kind: of the optimizer.
      file: its published name, from the folder of all files of the optimizer.
      names: the canonical name of each array in the file.
      shapes: of the arrays in the file.
      transposed: whether matrices are (outputs, inputs), as in PyTorch.
      ignored: shapes of arrays that may be there, and repeat what others say.
    """

    title: str
    kind: str
    file: str
    names: dict[str, str]
    shapes: dict[str, Shape]
    transposed: bool = False
    ignored: Mapping[str, Shape] = {}

    @property
    def covers(self) -> set[str]:
        """Canonical names of what is in the file."""
        names = set(self.names.values())
        if _FIRST in names:
            names |= {f"{_FIRST}__{i}" for i in range(len(BLOCKS))}
        return names


def google(kind: str) -> Layout:
    """The layout of google's trees, which is also that of theta here."""
    names = {name: name for name in SHAPES[kind]}
    return Layout(f"{kind} in flax msgpack", kind, "theta.state", names, SHAPES[kind])


def _pytorch(kind, names, file="model.safetensors", *, transposed=True, ignored=None):
    canonical = {**SHAPES[kind], _FIRST: ("K", sum(BLOCKS), 4)}
    shapes = {}
    for published, name in names.items():
        shape = canonical[name]
        matrix = transposed and _is_weight(name)
        shapes[published] = (*shape[:-2], *shape[:-3:-1]) if matrix else shape
    title = f"{kind} in the PyTorch layout ({file})"
    return Layout(title, kind, file, names, shapes, transposed, ignored or {})


def _is_weight(name: str) -> bool:
    return name.rpartition("/")[2].startswith("w")


def _linear(layers: Mapping[str, str]) -> dict[str, str]:
    parts = (("weight", "w"), ("bias", "b"))
    return {
        f"{theirs}.{part}": f"rnn_params/{ours}/{short}"
        for theirs, ours in layers.items()
        for part, short in parts
    }


GOOGLE = tuple(map(google, SHAPES))
PYTORCH = (
    _pytorch(
        "small_fc",
        {
            f"network.{layer}.{part}": f"nn/{short}{i}"
            for i, layer in enumerate(("input", "linear_0", "output"))
            for part, short in (("weight", "w"), ("bias", "b"))
        },
    ),
    _pytorch(
        "celo2",
        {
            **{f"w0.{i}": f"{_FIRST}__{i}" for i in range(len(BLOCKS))},
            "b0": "ff_mod_stack/b0",
            "dense_w.0": "ff_mod_stack/w1",
            "dense_b.0": "ff_mod_stack/b1",
            "dense_w.1": "ff_mod_stack/w2",
            "dense_b.1": "ff_mod_stack/b2",
        },
        transposed=False,
    ),
    _pytorch(
        "velo",
        {
            "lstm_init_state.0": "lstm_init_state/hidden",
            "lstm_init_state.1": "lstm_init_state/cell",
            **_linear(
                {
                    "mix_layer1": "linear",
                    "mix_layer2": "linear_1",
                    "final_mix_layer": "linear_2",
                    "lstm.linear": "rnn/linear",
                    "rnn_to_controls": "rnn_to_controls",
                    "step_size": "step_size",
                }
            ),
        },
        "VeLO_RNN/model.safetensors",
    ),
    _pytorch(
        "velo",
        {
            "input_weights_": _FIRST,
            "input_bias_": "ff_mod_stack/b0",
            "hidden_weights_.0": "ff_mod_stack/w1",
            "hidden_bias_.0": "ff_mod_stack/b1",
            "output_weights_": "ff_mod_stack/w2",
            "output_bias_": "ff_mod_stack/b2",
        },
        "VeLO_MLP/model.safetensors",
        # The network of the tensor that was processed last.
        ignored={
            "input_weights": (4, sum(BLOCKS)),
            "input_bias": (4,),
            "hidden_weights.0": (4, 4),
            "hidden_bias.0": (4,),
            "output_weights": (3, 4),
            "output_bias": (3,),
        },
    ),
)


def recognise(
    arrays: Arrays, layouts: Sequence[Layout]
) -> tuple[Layout, Sizes, list[str]]:
    """The layout that is most like the arrays, its sizes, and what is wrong.

    Raises:
      ValueError: no layout shares a name with the arrays.
    """

    def rank(layout):
        names = {*layout.shapes, *(layout.ignored.keys() & arrays.keys())}
        common = len(names & arrays.keys())
        return common / len(names | arrays.keys()), -len(problems(arrays, layout)[1])

    best = max(layouts, key=rank)
    if not rank(best)[0]:
        raise ValueError(
            "it holds no learned optimizer that lopt knows: its arrays are "
            f"{first(list(map(repr, sorted(arrays)))) or 'none at all'}"
        )
    return best, *problems(arrays, best)


def problems(arrays: Arrays, layout: Layout) -> tuple[Sizes, list[str]]:
    """The sizes of a layout in these arrays, and all that is wrong with them."""
    expected = {**layout.shapes, **layout.ignored}
    sizes = _sizes(arrays, layout.shapes)
    wrong = []
    for name, shape in layout.shapes.items():
        if name not in arrays:
            wrong.append(f"{name!r} is missing, expected {_show(shape, sizes)}")
    for name, array in sorted(arrays.items()):
        if name not in expected:
            wrong.append(f"{name!r}, found {array.shape}, is unknown")
        elif array.shape != (shape := _resolve(expected[name], sizes)):
            wanted = _show(shape, sizes)
            wrong.append(f"{name!r} has shape {array.shape}, expected {wanted}")
        elif array.dtype != np.float32:
            wrong.append(f"{name!r} has dtype {array.dtype}, expected float32")
        elif not np.isfinite(array).all() and name in layout.shapes:
            bad = array.size - int(np.isfinite(array).sum())
            wrong.append(f"{name!r} has {bad} entries that are not finite")
    wrong += [f"the size {size} is 0" for size, value in sizes.items() if not value]
    return sizes, wrong


def first(words: Sequence[str], number: int = 3) -> str:
    """The first few of many, on one line."""
    more = [f"and {len(words) - number} more"] if len(words) > number else []
    return "; ".join([*words[:number], *more])


def to_canonical(arrays: Arrays, layout: Layout) -> dict[str, np.ndarray]:
    """The arrays of a file under canonical names, as copies of their own."""
    found = {}
    for published, name in layout.names.items():
        array = arrays[published]
        if layout.transposed and _is_weight(name):
            array = array.swapaxes(-1, -2)
        found[name] = array
    if _FIRST in found:
        ends = itertools.accumulate(BLOCKS[:-1])
        blocks = np.split(found.pop(_FIRST), list(ends), axis=-2)
        found |= {f"{_FIRST}__{i}": block for i, block in enumerate(blocks)}
    return {name: np.array(array, order="C") for name, array in found.items()}


def to_published(arrays: Arrays, layout: Layout) -> dict[str, np.ndarray]:
    """The inverse of `to_canonical`."""
    if _FIRST in layout.names.values():
        blocks = [arrays[f"{_FIRST}__{i}"] for i in range(len(BLOCKS))]
        arrays = {**arrays, _FIRST: np.concatenate(blocks, axis=-2)}
    published = {}
    for theirs, name in layout.names.items():
        transposed = layout.transposed and _is_weight(name)
        published[theirs] = (
            arrays[name].swapaxes(-1, -2) if transposed else arrays[name]
        )
    return published


def _sizes(arrays: Arrays, shapes: Mapping[str, Shape]) -> Sizes:
    """For each size the value that most arrays have, so that the odd one is blamed."""
    votes: dict[str, collections.Counter[int]] = {}
    for name, shape in shapes.items():
        found = np.shape(arrays[name]) if name in arrays else ()
        if len(found) == len(shape):
            for axis, length in zip(shape, found, strict=True):
                if axis in SIZE_NAMES:
                    votes.setdefault(str(axis), collections.Counter())[length] += 1
    return {size: count.most_common(1)[0][0] for size, count in votes.items()}


def _resolve(shape: Shape, sizes: Sizes) -> Shape:
    def length(axis):
        if isinstance(axis, int) or axis[-1] not in sizes:
            return axis
        return int(axis[:-1] or 1) * sizes[axis[-1]]

    return tuple(map(length, shape))


def _show(shape: Shape, sizes: Sizes) -> str:
    axes = ", ".join(map(str, _resolve(shape, sizes)))
    return f"({axes},)" if len(shape) == 1 else f"({axes})"
