"""Errors of trees that a learned optimizer is given: the leaf, and what is allowed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lopt.checks import check_positive


def given(params: Any) -> None:
    """Raises `ValueError` for no parameters."""
    if params is None:
        raise ValueError(
            "params=None, but a learned optimizer reads the parameters: call "
            "update(grads, state, params)."
        )


def real(tree: Any) -> None:
    """Raises `ValueError` if a leaf is complex."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                f"Complex parameters are not supported, but leaf {_name(path)} is "
                f"{jnp.result_type(leaf)}: wrap the optimizer in "
                "optax.contrib.split_real_and_imaginary."
            )


def same_shapes(name: str, tree: Any, expected: Any, whose: str) -> None:
    """Raises `ValueError` unless two trees have the same leaves of the same shapes."""

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {_name(path): jnp.shape(leaf) for path, leaf in leaves}

    found, wanted = shapes(tree), shapes(expected)
    if found == wanted:
        return
    wrong = [
        f"{leaf} is {found.get(leaf, 'missing')}, not {wanted.get(leaf, 'expected')}"
        for leaf in sorted({*found, *wanted})
        if found.get(leaf) != wanted.get(leaf)
    ]
    raise ValueError(f"{name} does not belong to {whose}: {'; '.join(wrong)}.")


def multipliers(tree: Any) -> None:
    """Raises `ValueError` unless all numbers in `width_multipliers` are above 0."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, jax.Array | np.ndarray):
            check_positive(**{f"width_multipliers{_name(path)}": leaf})


def multipliers_of(params: Any, tree: Any) -> list[Any]:
    """The width multiplier of every leaf of `params`, looked up by path.

    So it does not matter if a mask has taken leaves away from `params`.

    Raises:
      ValueError: if `tree` has none for a leaf.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if tree is None:
        return [1.0] * len(paths)
    by_path = dict(jax.tree_util.tree_leaves_with_path(tree))

    def find(path):
        for end in range(len(path), -1, -1):
            if path[:end] in by_path:
                return by_path[path[:end]]
        raise ValueError(
            f"width_multipliers has nothing for the parameter {_name(path)}; it has "
            f"{', '.join(map(_name, by_path)) or 'nothing at all'}."
        )

    return [find(path) for path in paths]


def _name(path) -> str:
    return jax.tree_util.keystr(path)
