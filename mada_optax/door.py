"""Taking the one `hyperparams` out of any optimizer state, and putting it back."""

from collections.abc import Mapping
from typing import Any


def _has_door(node: Any) -> bool:
    return isinstance(node, tuple) and "hyperparams" in getattr(node, "_fields", ())


def _map_children(function: Any, node: Any, *others: Any) -> Any:
    """`node`, a container, with its children replaced."""
    if isinstance(node, Mapping):
        return {key: function(node[key], *[o[key] for o in others]) for key in node}
    if not isinstance(node, (tuple, list)):
        return node
    children = [function(*row) for row in zip(node, *others, strict=True)]
    return type(node)(*children) if hasattr(node, "_fields") else type(node)(children)


def take(state: Any) -> tuple[Any, Any]:
    """The one `hyperparams` of a state, and the state without it.

    What had the field becomes a dict of its other fields, so that the name does not
    occur a second time in a state that holds both.

    Raises:
      ValueError: the state has no field `hyperparams`, or several.
    """
    found = []

    def walk(node):
        if not _has_door(node):
            return _map_children(walk, node)
        fields = node._asdict()
        found.append(fields.pop("hyperparams"))
        return fields

    rest = walk(state)
    if len(found) != 1:
        raise ValueError(
            "The state of the inner transformation must have one field `hyperparams`, "
            f"got {len(found)}: wrap an Optax optimizer in optax.inject_hyperparams, "
            "or choose an optimizer that has it."
        )
    return found[0], rest


def put(rest: Any, hyperparams: Any, like: Any) -> Any:
    """The inverse of `take`; `like` is a state, or its shapes, to be rebuilt."""

    def walk(like, rest):
        if _has_door(like):
            return type(like)(**rest, hyperparams=hyperparams)
        if isinstance(like, (Mapping, tuple, list)):
            return _map_children(walk, like, rest)
        return rest

    return walk(like, rest)
