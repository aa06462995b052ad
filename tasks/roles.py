"""Which parameters grow with the width of a model, found by comparing two widths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax

from tasks.checks import check_known

Role = Literal["input", "hidden", "output"]
Tree = Any


def roles(
    shapes: Tree,
    twin: Tree,
    *,
    fan_in_axes: Mapping[str, tuple[int, ...]] | None = None,
    overrides: Mapping[str, Role] | None = None,
) -> Tree:
    """Tells input, hidden and output parameters apart by what grows with the width.

    An axis grows if it differs between two models of different widths. A parameter is
    `"hidden"` if its fan-in and its fan-out grow, `"output"` if only its fan-in does,
    and else `"input"`, as embeddings, biases and the gains of normalizations are.

    Args:
      shapes: the model's parameters or their `jax.eval_shape`.
      twin: those of the same model at another width.
      fan_in_axes: which axes count as fan-in, by a regular expression that is searched
        for in paths like `"blocks/0/attention/query/kernel"`. By default all but the
        last do, which fits matrices (in, out), convolutions (height, width, in, out)
        and merging heads (heads, head_size, out), but not splitting into heads
        (in, heads, head_size), which needs `(0,)`.
      overrides: the role itself, by regular expression.

    Returns:
      A pytree like `shapes` of roles.

    Raises:
      ValueError: the trees differ by more than sizes, three axes or more grow, a role
        is not one, or an expression matches no parameter.

    Example:
      >>> from jax.numpy import zeros
      >>> def mlp(width):
      ...     return {"in": zeros((3, width)), "out": zeros((width, 2))}
      >>> roles(mlp(4), mlp(8))
      {'in': 'input', 'out': 'output'}
    """
    fan_in_axes, overrides = fan_in_axes or {}, overrides or {}
    _check_twins(shapes, twin)
    _check_patterns(shapes, "fan_in_axes", fan_in_axes)
    _check_patterns(shapes, "overrides", overrides)
    for role in overrides.values():
        check_known("role", role, ("input", "hidden", "output"))

    def role(path: str, leaf: Any, other: Any) -> Role:
        chosen = _find(overrides, path)
        if chosen is not None:
            return chosen
        grow = {i for i in range(len(leaf.shape)) if leaf.shape[i] != other.shape[i]}
        if len(grow) >= 3:
            raise ValueError(
                f"{path}: {len(grow)} axes of {leaf.shape} grow with the width, at "
                "most 2 may; name its role in overrides"
            )
        inputs = grow & set(_axes(path, leaf, fan_in_axes))
        if not inputs:
            return "input"
        return "hidden" if grow - inputs else "output"

    return _map_with_path(role, shapes, twin)


def width_multipliers(
    shapes: Tree,
    twin: Tree,
    base: Tree | None = None,
    *,
    exponent: float = 1.0,
    hidden_learning_rate_multiplier: float = 1.0,
    fan_in_axes: Mapping[str, tuple[int, ...]] | None = None,
    overrides: Mapping[str, Role] | None = None,
) -> Tree:
    """What muP divides entrywise-normalised updates by.

    Args:
      shapes: the model's parameters or their `jax.eval_shape`.
      twin: those of the same model at another width, see `roles`.
      base: those at the base width; without it the base fan-in is 1.
      exponent: the power of the fan-in; 1 in muP.
      hidden_learning_rate_multiplier: divides the result for hidden matrices.
      fan_in_axes: see `roles`.
      overrides: see `roles`.

    Returns:
      A pytree like `shapes` of Python floats: (fan_in / base_fan_in) ** exponent over
      hidden_learning_rate_multiplier for hidden parameters and 1.0 for all others.

    Raises:
      ValueError: as `roles`.

    Example:
      >>> from jax.numpy import zeros
      >>> def mlp(width):
      ...     return {"in": zeros((3, width)), "hidden": zeros((width, width))}
      >>> width_multipliers(mlp(64), mlp(128))
      {'hidden': 64.0, 'in': 1.0}
      >>> width_multipliers(mlp(64), mlp(128), base=mlp(16))
      {'hidden': 4.0, 'in': 1.0}
    """
    if base is not None:
        _check_twins(shapes, base)

    def multiplier(path: str, leaf: Any, role: Role, base_leaf: Any = None) -> float:
        if role != "hidden":
            return 1.0
        axes = _axes(path, leaf, fan_in_axes or {})
        base_sizes = [base_leaf.shape[i] for i in axes] if base is not None else [1]
        ratio = math.prod(leaf.shape[i] for i in axes) / math.prod(base_sizes)
        return ratio**exponent / hidden_learning_rate_multiplier

    found = roles(shapes, twin, fan_in_axes=fan_in_axes, overrides=overrides)
    bases = () if base is None else (base,)
    return _map_with_path(multiplier, shapes, found, *bases)


def _axes(path: str, leaf: Any, fan_in_axes: Mapping[str, tuple[int, ...]]):
    declared, rank = _find(fan_in_axes, path), len(leaf.shape)
    if declared is None:
        return tuple(range(rank - 1))
    if not all(-rank <= axis < rank for axis in declared):
        raise ValueError(
            f"fan_in_axes gives {path!r} the axes {declared}, but its shape is "
            f"{tuple(leaf.shape)}"
        )
    return tuple(axis % rank for axis in declared)


def _find(by_pattern: Mapping[str, Any], path: str) -> Any:
    matches = (v for pattern, v in by_pattern.items() if re.search(pattern, path))
    return next(matches, None)


def _map_with_path(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(_name(path), *leaves), tree, *rest
    )


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check_twins(shapes: Tree, twin: Tree) -> None:
    ranks = [jax.tree.map(lambda x: len(x.shape), tree) for tree in (shapes, twin)]
    if ranks[0] != ranks[1]:
        raise ValueError(
            "models of two widths may differ by the sizes of their parameters only; "
            f"their ranks are {ranks[0]} and {ranks[1]}"
        )


def _check_patterns(shapes: Tree, argument: str, by_pattern: Mapping[str, Any]) -> None:
    paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    for pattern in by_pattern:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(
                f"{argument}: {pattern!r} matches no parameter of {', '.join(paths)}"
            )
