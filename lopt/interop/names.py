"""Meta-parameters under our names and under those of `learned_optimization`.

Theirs are nested dicts, or mappings like them, and named tuples, with names such as
"rnn/linear" and levels named "~". Ours are nested dicts in which a slash is a level and
"~" is left out. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from lopt import tree_checks
from lopt.base import Theta

Path = tuple[str, ...]


def ours(theirs: Any) -> Theta:
    """Meta-parameters under our names, as float32 arrays; ours stay as they are.

    Examples:
      >>> ours({"nn": {"~": {"b0": jnp.zeros(2)}}})
      {'nn': {'b0': Array([0., 0.], dtype=float32)}}
    """
    as_float32 = {path: jnp.float32(leaf) for path, leaf in _leaves(theirs)}
    return unflatten_dict(as_float32)


def theirs(ours: Theta, like: Any) -> Any:
    """Meta-parameters under their names.

    Args:
      ours: a nested dict of arrays.
      like: what the result is to be like, of arrays or their shapes.

    Raises:
      ValueError: `ours` has other names or shapes than `like`.

    Examples:
      >>> theirs({"nn": {"b0": jnp.zeros(2)}}, {"nn": {"~": {"b0": jnp.ones(2)}}})
      {'nn': {'~': {'b0': Array([0., 0.], dtype=float32)}}}
    """
    leaves, treedef = jax.tree.flatten(like)
    # Whatever their mappings are, they tell in which order they flatten.
    order = {i: path for path, i in _leaves(treedef.unflatten(range(len(leaves))))}
    expected = {order[i]: leaf for i, leaf in enumerate(leaves)}
    tree_checks.same_shapes("theta", ours, unflatten_dict(expected), "this optimizer")
    found = flatten_dict(ours)
    return treedef.unflatten([found[order[i]] for i in range(len(leaves))])


def _leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Leaves of a tree of theirs, with their paths in ours."""
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if not isinstance(tree, Mapping):
        yield from [] if tree is None else [(path, tree)]
        return
    for name, value in tree.items():
        levels = (level for level in name.split("/") if level != "~")
        yield from _leaves(value, (*path, *levels))
