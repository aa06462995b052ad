r"""One-variable problems on which Adam converges to the worst point, as `Task`s.

The loss of step t is a slope times x in [-1, 1], once in a period large and positive,
else small and negative; on average x = -1 is best. What counts is the mean regret

.. math:: R_t = \frac{1}{t} \sum_{s \le t} f_s(x_s) - f_s(-1).

The problems are those of Reddi et al., `On the Convergence of Adam and Beyond
<https://arxiv.org/abs/1904.09237>`_. Optimizers have to project x themselves:
`tasks.recipes.projected`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.checks import check_counts, check_numbers
from tasks.registry import register


def periodic(*, period: int, large: float, small: float) -> Task:
    """Slope `large` in the first step of each period, `-small` in the others.

    The validation loss is the mean regret so far, `x` is recorded beside it.

    Args:
      period: number of steps.
      large: slope of the first step.
      small: minus the slope of the others.

    Example:
      >>> task = periodic(period=3, large=4.0, small=1.0)
      >>> params, state = task.init(jax.random.key(0))
      >>> float(params["x"])
      0.0
    """
    check_counts(minimum=2, period=period)
    check_numbers(above=0, large=large, small=small)

    def init(key: jax.Array) -> tuple[Params, ModelState]:
        del key
        zero = jnp.zeros(())
        return {"x": zero}, {"step": jnp.zeros((), jnp.int32), "regret": zero}

    def loss(
        params: Params, state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        del batch, key
        slope = jnp.where(state["step"] % period == 0, large, -small)
        step, x = state["step"] + 1, params["x"]
        # A mean that is kept, where a sum of a million steps would lose digits.
        regret = state["regret"] + (slope * (x + 1) - state["regret"]) / step
        return slope * x, {"step": step, "regret": jax.lax.stop_gradient(regret)}

    def evaluate(params: Params, state: ModelState, data: Data) -> dict[str, Any]:
        del data
        return {"loss": state["regret"], "x": params["x"]}

    nothing = jnp.zeros(1)
    return Task(
        name=f"periodic-{period}",
        init=init,
        loss=loss,
        sample=lambda data, key: data,
        evaluate=evaluate,
        data={"train": nothing, "valid": nothing},
        metadata={"period": period, "large": large, "small": small},
    )


def problem_1010(
    *, period: int = 101, large: float = 1010.0, small: float = 10.0
) -> Task:
    """`periodic` with slopes 1010 and -10."""
    return periodic(period=period, large=large, small=small)


def problem_classic(*, period: int = 3, large: float = 3.0, small: float = 1.0) -> Task:
    """`periodic` with slopes 3 and -1."""
    return periodic(period=period, large=large, small=small)


register("counterexample-1010", problem_1010)
register("counterexample-classic", problem_classic)
