"""Flax NNX modules as pure functions on plain nested dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Params = dict[str, Any]
ModelState = Any
Init = Callable[[jax.Array], tuple[Params, ModelState]]
Apply = Callable[..., tuple[Any, ModelState]]
Build = Callable[[nnx.Rngs], nnx.Module]


def functional(build: Build) -> tuple[Init, Apply]:
    """Turns a module constructor into a pure `init` and a pure `apply`.

    Both functions can be jitted, vmapped (over keys, over parameters) and scanned.

    Args:
      build: `rngs -> module`. It is called abstractly once here, and once per `init`.

    Returns:
      `init: key -> (params, model_state)`: `params` holds every `nnx.Param` in a nested
      dict with string keys, `model_state` everything else (batch statistics, random
      streams of dropout), or `()` when there is nothing else.

      `apply: (params, model_state, *inputs, **options) -> (outputs, model_state)` calls
      the module, or with `method="preactivations"` that method of it. It changes
      nothing in place: what the call did to the module's state is in the `model_state`
      that it returns.

    Example:
      >>> import jax
      >>> init, apply = functional(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
      >>> params, model_state = init(jax.random.key(0))
      >>> jax.tree.map(lambda p: p.shape, params), model_state
      ({'bias': (2,), 'kernel': (3, 2)}, ())
      >>> outputs, _ = apply(params, model_state, jax.numpy.ones((5, 3)))
      >>> outputs.shape
      (5, 2)
    """
    graph, *_ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param, ...)

    def dismantle(module: nnx.Module) -> tuple[Params, ModelState]:
        _, params, model_state = nnx.split(module, nnx.Param, ...)
        return _to_dict(params), _to_dict(model_state) or ()

    def init(key: jax.Array) -> tuple[Params, ModelState]:
        return dismantle(build(nnx.Rngs(key)))

    def apply(
        params: Params,
        model_state: ModelState,
        *inputs: Any,
        method: str = "__call__",
        **options: Any,
    ) -> tuple[Any, ModelState]:
        state = _from_dict(params), _from_dict(dict(model_state))
        module = nnx.merge(graph, *state)
        outputs = getattr(module, method)(*inputs, **options)
        return outputs, dismantle(module)[1]

    return init, apply


def count_parameters(init: Init) -> int:
    """Number of parameters that `init` makes, found without making them.

    Example:
      >>> init, _ = functional(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
      >>> count_parameters(init)
      8
    """
    params, _ = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def parameter_shapes(build: Build) -> Params:
    """The parameters of a module as `jax.ShapeDtypeStruct`s.

    Example:
      >>> shapes = parameter_shapes(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
      >>> shapes["kernel"].shape
      (3, 2)
    """
    init, _ = functional(build)
    return jax.eval_shape(init, jax.random.key(0))[0]


def _to_dict(state: nnx.State) -> dict[str, Any]:
    return _rename(nnx.to_pure_dict(state), str)


def _from_dict(tree: dict[str, Any]) -> dict[Any, Any]:
    return _rename(tree, lambda key: int(key) if key.isdecimal() else key)


def _rename(tree: Any, rename: Callable[[Any], Any]) -> Any:
    """Renames dict keys: `nnx.List` counts in integers, which serializers refuse."""
    if not isinstance(tree, dict):
        return tree
    return {rename(key): _rename(value, rename) for key, value in tree.items()}
