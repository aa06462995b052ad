"""The field `hyperparams` of an optimizer's state: reading it, setting it, watching it.

Whatever can be learned about an optimizer is in that field, wherever in a chain the
field is, so that what meta-trains one optimizer meta-trains any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Literal

Hyperparams = Any


def get(state: optax.OptState) -> Hyperparams:
    """The one `hyperparams` in the state of an optimizer.

    Raises:
      ValueError: the state has no such field, or several.

    Example:
      >>> tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.5))
      >>> get(tx.init(jnp.zeros(3)))
      {'learning_rate': Array(0.5, dtype=float32)}
    """
    found = optax.tree.get_all_with_path(state, "hyperparams")
    if len(found) != 1:
        raise ValueError(
            "the state of the transformation must have exactly one field "
            f"`hyperparams`, got {len(found)}: take an optimizer of this suite, or "
            "wrap one of Optax's in optax.inject_hyperparams"
        )
    return found[0][1]


def put(state: optax.OptState, hyperparams: Hyperparams) -> optax.OptState:
    """The state with other `hyperparams`, which have the structure of the present ones.

    Example:
      >>> tx = optax.inject_hyperparams(optax.sgd)(0.5)
      >>> state = put(tx.init(jnp.zeros(3)), {"learning_rate": jnp.float32(2.0)})
      >>> tx.update(jnp.ones(3), state, jnp.zeros(3))[0]
      Array([-2., -2., -2.], dtype=float32)
    """
    return optax.tree.set(state, hyperparams=hyperparams)


def fill(hyperparams: Hyperparams, values: Any) -> Hyperparams:
    """`hyperparams` with new values for all of it, or for some of its names.

    Args:
      hyperparams: what is filled; arrays, or their shapes and dtypes.
      values: a pytree of the same structure, or a mapping from some of the top-level
        names of `hyperparams` (fields of a named tuple, keys of a dict). Values take
        the dtypes of what they replace.

    Raises:
      ValueError: there is no such name, or a structure or a shape is another one.

    Example:
      >>> decays = {"b1": jnp.float32(0.9), "b2": jnp.float32(0.99)}
      >>> fill(decays, {"b1": jnp.float32(0)})
      {'b1': Array(0., dtype=float32), 'b2': Array(0.99, dtype=float32)}
    """
    if isinstance(values, Mapping):
        values = _merge(hyperparams, values)
    here, there = jax.tree.structure(hyperparams), jax.tree.structure(values)
    if here != there:
        raise ValueError(
            f"theta does not fit the transformation: its `hyperparams` are {here}, but "
            f"theta gives {there}"
        )
    return jax.tree_util.tree_map_with_path(_cast, hyperparams, values)


def _merge(hyperparams: Hyperparams, values: Mapping[str, Any]) -> Hyperparams:
    """The top level of `hyperparams` with some of its values replaced."""
    is_tuple = hasattr(hyperparams, "_asdict")
    named = hyperparams._asdict() if is_tuple else hyperparams
    names = list(named) if isinstance(named, Mapping) else []
    unknown = [name for name in values if name not in names]
    if unknown or not values:
        raise ValueError(
            f"theta has the names {sorted(values)}, but the `hyperparams` of the "
            f"transformation have {sorted(names)}"
        )
    merged = {**named, **values}
    return type(hyperparams)(**merged) if is_tuple else merged


def _cast(path: tuple[Any, ...], old: Any, new: Any) -> jax.Array:
    if jnp.shape(new) != old.shape:
        raise ValueError(
            f"theta does not fit the transformation: hyperparams"
            f"{jax.tree_util.keystr(path)} has shape {old.shape}, but theta gives "
            f"{jnp.shape(new)}"
        )
    return jnp.asarray(new, old.dtype)


def moved(
    transformation: optax.GradientTransformationExtraArgs, params: optax.Params
) -> Any:
    """Which of the `hyperparams` `update` changes: a pytree of bools like them.

    A leaf stays when what `update` returns is its very input, which the jaxpr shows;
    the hyper-parameters of an optimizer that learns online move.

    Args:
      transformation: an optimizer whose state has the field.
      params: parameters, or their shapes and dtypes.

    Example:
      >>> tx = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1, 0, 9), 0.9)
      >>> moved(tx, jnp.zeros(3))
      {'learning_rate': True, 'momentum': False}
    """
    state = jax.eval_shape(transformation.init, params)
    leaves, structure = jax.tree.flatten(get(state))
    update_with_loss = optax.with_extra_args_support(transformation).update

    def update(leaves, state, params, loss):
        state = put(state, jax.tree.unflatten(structure, leaves))
        _, state = update_with_loss(params, state, params, value=loss)
        return jax.tree.leaves(get(state))

    loss = jax.ShapeDtypeStruct((), jnp.float32)
    jaxpr = jax.make_jaxpr(update)(leaves, state, params, loss).jaxpr
    origins = _origins(jaxpr, list(range(len(jaxpr.invars))))
    return jax.tree.unflatten(structure, [i != o for i, o in enumerate(origins)])


def _origins(jaxpr: Any, origins: list[int | None]) -> list[int | None]:
    """Of which input each output is a mere copy, given that of the jaxpr's inputs."""
    known = dict(zip(jaxpr.invars, origins, strict=True))

    def origin(var):
        return None if isinstance(var, Literal) else known.get(var)

    for eqn in jaxpr.eqns:
        outputs = _equation_origins(eqn, [origin(var) for var in eqn.invars])
        known.update(zip(eqn.outvars, outputs, strict=False))
    return [origin(var) for var in jaxpr.outvars]


def _equation_origins(eqn: Any, origins: list[int | None]) -> list[int | None]:
    match eqn.primitive.name:
        case "jit" | "pjit" | "remat" | "checkpoint" | "closed_call":
            inner = eqn.params["jaxpr"]
            return _origins(getattr(inner, "jaxpr", inner), origins)
        case "cond":
            branches = eqn.params["branches"]
            results = [_origins(branch.jaxpr, origins[1:]) for branch in branches]
            return [_common(row) for row in zip(*results, strict=True)]
        case "select_n":
            return [_common(origins[1:])]
        case "copy" | "optimization_barrier" | "sharding_constraint":
            return origins
    return []


def _common(origins: Sequence[int | None]) -> int | None:
    return origins[0] if len(set(origins)) == 1 else None
