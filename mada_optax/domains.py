"""Where the coefficients of an optimizer may lie, and the errors that say so."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNIT = (0.0, 1.0)

# Values for which the update is defined: [lower, upper), or [0, 1] for the weights.
_DECAYS = ("b1", "b2", "b3")

# The box of the released MADA code, spec/mada.md section 3.5.
BOX: Mapping[str, tuple[float, float]] = {
    "b1": (0.01, 0.99),
    "b2": (0.501, 0.99),
    "b3": (0.0, 0.99),
    "c": UNIT,
    "rho": UNIT,
    "gamma": UNIT,
    "learning_rate": (-math.inf, math.inf),
}


NO_PARAMS = (
    "Weight decay needs the parameters: call update(grads, state, params), got "
    "params=None."
)


def is_static(value: Any) -> bool:
    """Whether a hyper-parameter is a plain number, known before tracing."""
    return isinstance(value, (bool, int, float, np.number))


def concrete(value: Any) -> float | None:
    """The number behind a plain number or a concrete scalar array, else `None`."""
    if is_static(value):
        return float(value)
    if isinstance(value, jax.core.Tracer) or not isinstance(
        value, (jax.Array, np.ndarray)
    ):
        return None
    return float(value) if np.ndim(value) == 0 else None


def check_coefficient(name: str, value: Any) -> None:
    """Raises `ValueError` if a known value is outside the domain of `name`."""
    number = concrete(value)
    if number is None:
        return
    inside = 0 <= number < 1 if name in _DECAYS else 0 <= number <= 1
    if not inside:
        allowed = "[0, 1)" if name in _DECAYS else "[0, 1]"
        raise ValueError(f"{name} must be in {allowed}, got {number}.")


def check_number(
    name: str, value: Any, minimum: float = 0.0, *, strict: bool = False
) -> None:
    """Raises `ValueError` unless a known value is finite and above `minimum`."""
    number = concrete(value)
    if number is None:
        return
    if not math.isfinite(number) or number < minimum or (strict and number == minimum):
        relation = ">" if strict else ">="
        raise ValueError(
            f"{name} must be a finite number {relation} {minimum:g}, got {number}."
        )


def weight_decay_or_none(weight_decay: Any) -> Any:
    """`None` for a plain 0, so that no decay costs nothing; else the checked value."""
    if weight_decay is None or (is_static(weight_decay) and weight_decay == 0):
        return None
    check_number("weight_decay", weight_decay)
    return weight_decay


def check_option(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Raises `ValueError` unless `value` is one of `allowed`."""
    if value not in allowed:
        choices = ", ".join(repr(option) for option in allowed)
        raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


def check_names(argument: str, names: Collection[str], allowed: Collection[str]):
    """Raises `ValueError` for names that are not coefficients."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(
            f"{argument} names {', '.join(map(repr, unknown))}; allowed are "
            f"{', '.join(map(repr, allowed))}."
        )


def check_start(
    name: str, value: Any, bounds: tuple[float, float], *, interior: bool
) -> None:
    """Raises `ValueError` if a learned coefficient does not start inside its box."""
    number = concrete(value)
    if number is None:
        return
    lower, upper = bounds
    if not lower <= number <= upper:
        raise ValueError(
            f"{name} is learned within [{lower:g}, {upper:g}] but starts at {number}: "
            f"choose another start, pass bounds={{{name!r}: (lower, upper)}}, or take "
            f"{name!r} out of `learn`."
        )
    if interior and name != "learning_rate" and not 0 < number < 1:
        raise ValueError(
            f'reparam="tanh" cannot move {name} away from {number}: start strictly '
            f"between 0 and 1, or take {name!r} out of `learn`."
        )


def check_learning_rate(learning_rate: Any) -> None:
    """Raises `ValueError` for a learning rate, or a schedule's first value, of NaN."""
    value = learning_rate
    if callable(learning_rate):
        with jax.ensure_compile_time_eval():
            value = learning_rate(jnp.zeros((), jnp.int32))
    number = concrete(value)
    if number is not None and not math.isfinite(number):
        what = "the schedule's value at step 0" if callable(learning_rate) else "value"
        raise ValueError(f"learning_rate must be finite, {what} is {number}.")


def resolve_bounds(
    bounds: Mapping[str, tuple[float, float]] | None,
    defaults: Mapping[str, tuple[float, float]] = BOX,
) -> dict[str, tuple[float, float]]:
    """Fills user bounds with the default box.

    Raises:
      ValueError: an unknown name, a pair that is not ordered, or a bound outside the
        domain of its coefficient.
    """
    bounds = dict(bounds or {})
    check_names("bounds", bounds, defaults)
    for name, pair in bounds.items():
        if len(pair) != 2 or not pair[0] <= pair[1]:
            raise ValueError(
                f"bounds[{name!r}] must be (lower, upper) with lower <= upper, "
                f"got {pair!r}."
            )
        if name != "learning_rate":
            for bound in pair:
                check_coefficient(f"{name}", bound)
    return {**defaults, **bounds}
