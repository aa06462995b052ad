"""Which leaf belongs to which group, from key paths and shapes alone."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Labels = Any | Callable[[Any], Any]

_BY_PATH = (
    ("embedding", ("embed",)),
    ("attention", ("attn", "attention")),
    ("ffn", ("ffn", "mlp", "feed_forward")),
    ("layernorm", ("norm",)),
)
_BUCKETS = ("shallow", "middle", "deep")
_MATRICES = ("kernel", "weight", "w")
_BIASES = ("bias", "b")


def path_name(path: tuple[Any, ...]) -> str:
    """A key path with dots between its keys, without NNX's `.value` at its end."""
    last = path[-1:]
    if last and getattr(last[0], "name", None) in ("value", "raw_value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator=".")


def leaf_names(tree: Any) -> list[str]:
    """The names of all leaves, in their order."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def layer_index(name: str, *, from_suffix: bool) -> int | None:
    """The number of the layer that the name of a leaf tells, if any.

    It is the first whole component that is a number, between the first component and
    the last, or else the last. With `from_suffix` a name without one may tell it by
    the number at the end of its outermost component that has one (`Block_3`).
    """
    parts = name.split(".")
    numbers = [part for part in parts[1:-1] if part.isdigit()]
    if not numbers and len(parts) > 1 and parts[-1].isdigit():
        numbers = parts[-1:]
    if not numbers and from_suffix:
        found = (re.search(r"\d+$", part) for part in parts)
        numbers = [match.group() for match in found if match]
    return int(numbers[0]) if numbers else None


def _bucket(index: int | None, deepest: int) -> str:
    if index is None or deepest <= 1:
        return "middle"
    return _BUCKETS[(3 * index >= deepest) + (3 * index > 2 * deepest)]


def is_bias_like(name: str, leaf: Any) -> bool:
    """Whether a leaf has one axis, or a name that ends in "bias"."""
    return np.ndim(leaf) == 1 or name.endswith("bias")


def _type_by_name(name: str, axes: dict[str, int]) -> str:
    """The type that the name of a leaf and those of its siblings suggest."""
    module, _, last = name.rpartition(".")
    prefix = f"{module}." if module else ""
    if last in _MATRICES:
        return "linear" if axes[name] == 2 else "other"
    if last == "scale":
        return "layernorm"
    if last in _BIASES:
        if f"{prefix}scale" in axes:
            return "layernorm"
        if any(axes.get(prefix + matrix) == 2 for matrix in _MATRICES):
            return "linear"
    return "other"


def _type(name: str, axes: dict[str, int]) -> str:
    for kind, words in _BY_PATH:
        if any(word in name.lower() for word in words):
            return kind
    return _type_by_name(name, axes)


def _depths(names: list[str], from_suffix: bool) -> tuple[list[int | None], int]:
    indices = [layer_index(name, from_suffix=from_suffix) for name in names]
    return indices, max((i for i in indices if i is not None), default=0)


def fine_grained(params: Any, *, depth_from_suffix: bool = True) -> Any:
    """Labels every leaf by its type, the third of the network it is in, and its kind.

    Args:
      params: a tree with names: nested dicts, an NNX state, named tuples.
      depth_from_suffix: whether `Block_3` tells a layer's number as `blocks.3` does.

    Returns:
      A tree like `params` of labels such as "attention_deep_weight". Types are
      embedding, attention, ffn, layernorm (from the path), linear (a matrix called
      kernel, weight or w, and its bias) and other. A network of at most two layers,
      and what is in no layer, is "middle". "bias" is whatever has one axis or is
      called so.

    Examples:
      >>> import jax.numpy as jnp
      >>> layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> fine_grained({"head": layer})
      {'head': {'bias': 'linear_middle_bias', 'kernel': 'linear_middle_weight'}}
    """
    leaves, treedef = jax.tree.flatten(params)
    names = leaf_names(params)
    axes = dict(zip(names, map(np.ndim, leaves), strict=True))
    indices, deepest = _depths(names, depth_from_suffix)
    return treedef.unflatten(
        f"{_type(name, axes)}_{_bucket(index, deepest)}_"
        f"{'bias' if is_bias_like(name, leaf) else 'weight'}"
        for name, index, leaf in zip(names, indices, leaves, strict=True)
    )


def of_leaves(labels: Labels, params: Any) -> list[str]:
    """The label of every leaf, from a tree of labels, a prefix of one, or a function.

    Raises:
      ValueError: the labels do not fit the parameters.
    """
    tree = labels(params) if callable(labels) else labels
    try:
        full = jax.tree.map(
            lambda label, sub: jax.tree.map(lambda _: label, sub), tree, params
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            "Labels must be a tree of strings like the parameters, a prefix of one, or "
            f"a function that makes one from the parameters: {error}"
        ) from error
    return [str(label) for label in jax.tree.leaves(full)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The groups of a tree of parameters; nothing here is traced.

    Attributes:
      names: labels of the groups, sorted: the rows of everything per group.
      rows: the group of every leaf.
      sizes: the number of entries of every leaf.
      bias_like: whether a leaf has one axis or is called a bias.
      depth: layer number of every leaf over the largest one, 0 without a number.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    sizes: tuple[int, ...]
    bias_like: tuple[bool, ...]
    depth: tuple[float, ...]

    @functools.cached_property
    def average(self) -> np.ndarray:
        """(G, N): takes one number per leaf to its mean in every group."""
        members = np.equal(*np.ix_(range(len(self.names)), self.rows))
        return members / np.maximum(members.sum(1, keepdims=True), 1)


def layout(params: Any, labels: Labels, *, depth_from_suffix: bool) -> Layout:
    """The groups that `labels` make of a tree of arrays or their shapes."""
    of_leaf = of_leaves(labels, params)
    groups = sorted(set(of_leaf))
    leaves, names = jax.tree.leaves(params), leaf_names(params)
    indices, deepest = _depths(names, depth_from_suffix)
    return Layout(
        names=tuple(groups),
        rows=tuple(map(groups.index, of_leaf)),
        sizes=tuple(int(np.prod(np.shape(leaf))) for leaf in leaves),
        bias_like=tuple(map(is_bias_like, names, leaves)),
        depth=tuple((i or 0) / max(deepest, 1) for i in indices),
    )
