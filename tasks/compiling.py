"""How hard the compiler tries."""

from __future__ import annotations

from typing import Any

import jax


def for_few_calls() -> dict[str, Any]:
    """`compiler_options` of `jax.jit` for a program that is called once or twice.

    On CPUs the first of XLA's levels of optimization, which compiles up to three times
    as fast as the last, to a program that draws the same parameters as fast; without
    any (level 0) they differ in the last bit, and large models take five times as long.
    Nothing where JAX was told to optimize little anyway.

    Example:
      >>> double = jax.jit(lambda x: 2 * x, compiler_options=for_few_calls())
      >>> int(double(1))
      2
    """
    levels = jax.default_backend() == "cpu"
    if not levels or jax.config.read("jax_disable_most_optimizations"):
        return {}
    return {"xla_backend_optimization_level": 1}
