"""JSON that tells configurations apart, the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Data = bool | int | float | str | None


def describe(value: Any) -> Any:
    """JSON that differs where two configurations do.

    Containers, dataclasses and partial functions are described by their contents, and
    arrays by a hash; functions by name, defaults, what they close over, and constants
    and names in their code, with the numbers and strings among the globals that these
    name; any other object by its type alone. NaN is a string, which equals itself.
    Another version of a library may be another configuration.

    Example:
      >>> base = 3.0
      >>> describe({"map": lambda theta: base**theta})
      {'map': {'function': '<lambda>', 'names': ['base'], 'globals': {'base': 3.0}}}
    """
    return _describe(value, ())


def _describe(value: Any, above: tuple[Any, ...]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Data):
        return value
    if any(value is outer for outer in above):
        return "..."
    inner = functools.partial(_describe, above=(*above, value))
    if isinstance(value, Mapping):
        return {str(k): inner(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(inner, value), key=json.dumps)
    parts = _parts(value)
    if parts is not None:
        return {k: inner(v) for k, v in parts.items()}
    if isinstance(value, list | tuple):
        return [inner(v) for v in value]
    return getattr(value, "__qualname__", type(value).__name__)


def _parts(value: Any) -> Mapping[str, Any] | None:
    """What an object consists of, by name, or `None` if its name says all."""
    if isinstance(value, types.FunctionType):
        return _function(value)
    if isinstance(value, types.MethodType):
        return {"method": value.__func__, "self": value.__self__}
    if isinstance(value, functools.partial):
        return {"partial": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, jax.Array | np.ndarray):
        return _array(value)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if hasattr(value, "_asdict"):
        return {"type": type(value).__name__, **value._asdict()}
    # Such as what `jax.jit` makes.
    return {"wraps": value.__wrapped__} if hasattr(value, "__wrapped__") else None


def _array(array: Any) -> dict[str, Any]:
    kind = str(array.dtype)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": kind, "sha256": digest}


def _function(function: types.FunctionType) -> dict[str, Any]:
    codes = list(_codes(function.__code__))
    names = sorted({name for code in codes for name in code.co_names})
    parts = {
        "defaults": function.__defaults__,
        "keyword_defaults": function.__kwdefaults__,
        "closes_over": dict(_closure(function)),
        "constants": [c for code in codes for c in code.co_consts if _tells(c)],
        "names": names,
        "globals": {
            name: function.__globals__[name]
            for name in names
            if isinstance(function.__globals__.get(name), Data)
            and name in function.__globals__
        },
    }
    named = {"function": function.__qualname__}
    return {**named, **{key: part for key, part in parts.items() if part}}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _tells(constant: Any) -> bool:
    return constant is not None and not isinstance(constant, types.CodeType)


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # It is empty.
            yield name, None
