"""Where the coefficients of an optimizer may lie, and the errors that say so."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNIT = (0.0, 1.0)

FREE = (-math.inf, math.inf)

_DECAYS = ("b1", "b2", "b3")
_WEIGHTS = ("c", "rho", "gamma")

# The box of the released MADA code, spec/mada.md section 3.5.
BOX: Mapping[str, tuple[float, float]] = {
    "b1": (0.01, 0.99),
    "b2": (0.501, 0.99),
    "b3": (0.0, 0.99),
    "c": UNIT,
    "rho": UNIT,
    "gamma": UNIT,
    "learning_rate": FREE,
}

# Where hyper-parameters with a usual name make sense.
DOMAIN: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys((*_DECAYS, "decay", "momentum"), (0.0, 1 - 1e-6)),
    **dict.fromkeys(_WEIGHTS, UNIT),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "eps", "eps_root"), (0.0, math.inf)
    ),
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


def check_decay(name: str, value: Any) -> None:
    """Raises `ValueError` if a known value is outside [0, 1)."""
    number = concrete(value)
    if number is not None and not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {number}.")


def check_coefficient(name: str, value: Any) -> None:
    """Raises `ValueError` for a coefficient, or a schedule's start, out of domain."""
    if callable(value):
        value = _first_value(value)
    else:
        check_numeric(name, value)
    if name in _DECAYS:
        check_decay(name, value)
    number = concrete(value)
    if name in _WEIGHTS and number is not None and not 0 <= number <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {number}.")


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


def _first_value(schedule: Any) -> Any:
    with jax.ensure_compile_time_eval():
        return schedule(jnp.zeros((), jnp.int32))


def check_numeric(name: str, value: Any) -> None:
    """Raises `TypeError` unless `value` is a number or an array."""
    if not is_static(value) and not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(
            f"{name} must be a number or an array, got {value!r} of type "
            f"{type(value).__name__}."
        )


def check_learning_rate(learning_rate: Any) -> None:
    """Raises for what is no learning rate.

    Raises:
      TypeError: neither a number, nor an array, nor a schedule.
      ValueError: a value, or a schedule's first value, that is not finite.
    """
    what, value = "value", learning_rate
    if callable(learning_rate):
        what, value = "the schedule's value at step 0", _first_value(learning_rate)
    else:
        check_numeric("learning_rate", value)
    number = concrete(value)
    if number is not None and not math.isfinite(number):
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
        lowest, highest, domain = -math.inf, math.inf, "the reals"
        if name in _WEIGHTS:
            lowest, highest, domain = 0.0, 1.0, "[0, 1]"
        if name in _DECAYS:
            lowest, highest, domain = 0.0, math.nextafter(1.0, 0.0), "[0, 1)"
        ordered = isinstance(pair, Sequence) and len(pair) == 2
        if not ordered or not lowest <= pair[0] <= pair[1] <= highest:
            raise ValueError(
                f"bounds[{name!r}] must be (lower, upper) with lower <= upper in "
                f"{domain}, got {pair!r}."
            )
    return {**defaults, **bounds}
