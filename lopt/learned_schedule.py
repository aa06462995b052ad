"""A learned schedule: an LSTM that sees time and the loss, and scales any update."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt import accumulators, controller, loss_features, tree_checks
from lopt.checks import check_counts
from lopt.controller import LSTMState
from lopt.loss_features import LossBuffer

Theta = dict[str, Any]

INPUTS = 18
FACTOR = 0.1


class LearnedScheduleState(NamedTuple):
    """State of `scale_by_learned_schedule`.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: theta, see `LearnedSchedule.init`.
      lstm: one row.
      loss: averages of the loss.
    """

    count: jax.Array
    hyperparams: Theta
    lstm: LSTMState
    loss: LossBuffer


@dataclasses.dataclass(frozen=True)
class LearnedSchedule:
    r"""The schedule of Celo, for any optimizer.

    An LSTM sees how far the run is and how the loss has moved. Updates of all tensors
    are multiplied with one factor, of its state h:

    .. math::

        \Delta \leftarrow 0.1 \, e^{w \cdot h + b} \, \Delta

    As a learned optimizer it is meta-trained behind another one: give
    `lopt.meta_train` a function that returns a chain with its transformation in it.

    Attributes:
      num_steps: N, how often `update` will be called. No schedule knows when to slow
        down without it.
      hidden_size: H, units of the LSTM; 64 in the published weights.

    Raises:
      ValueError: for a value that is not allowed.

    References:
      Moudgil et al., `Celo <https://arxiv.org/abs/2501.12670>`_, 2025.
    """

    num_steps: int
    _: dataclasses.KW_ONLY
    hidden_size: int = 64

    def __post_init__(self):
        check_counts(num_steps=self.num_steps, hidden_size=self.hidden_size)

    def init(self, key: jax.Array) -> Theta:
        """Random meta-parameters, with which factors start near 1.

        Args:
          key: a typed PRNG key.

        Returns:
          Float32 arrays "lstm_init_state" and "rnn_params", see
          `controller.init_theta`, for 18 inputs and without controls.
        """
        theta = controller.init_theta(key, INPUTS, self.hidden_size)
        start_at_one(theta)
        return theta

    def transform(
        self, theta: Theta, *, width_multipliers: Any = None
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation whose state starts with `theta`.

        Args:
          theta: meta-parameters with the names and shapes that `init` gives.
          width_multipliers: a tree like the parameters, or a prefix of one, of positive
            numbers that updates are divided by; `None` for 1 throughout.

        Returns:
          A gradient transformation with state `LearnedScheduleState`;
          `update(updates, state, params, value=loss)` needs the loss. Updates have the
          dtypes of the parameters, or their own without them.

        Raises:
          ValueError: `theta` belongs to another architecture; at `init` or `update`,
            for complex parameters, parameters that `width_multipliers` does not cover,
            or a loss that is not a scalar.
          TypeError: at `update`, without `value`.
        """
        expected = jax.eval_shape(self.init, jax.random.key(0))
        tree_checks.same_shapes("theta", theta, expected, f"{self}")
        tree_checks.multipliers(width_multipliers)

        def init(params):
            tree_checks.real(params)
            tree_checks.multipliers_of(params, width_multipliers)
            zero = accumulators.zero_of(params)
            return LearnedScheduleState(
                count=jnp.zeros((), jnp.int32),
                hyperparams=jax.tree.map(lambda x: jnp.array(x, zero.dtype), theta),
                lstm=controller.init(1, self.hidden_size, zero),
                loss=loss_features.init(zero),
            )

        def update(updates, state, params=None, *, value=None, **extra_args):
            del extra_args
            loss_features.check(value, "A learned schedule")
            scale, state = advance(state, value, self.num_steps)
            leaves, treedef = jax.tree.flatten(updates)
            like = leaves if params is None else treedef.flatten_up_to(params)
            widths = tree_checks.multipliers_of(updates, width_multipliers)
            scaled = [
                (x * (scale / width)).astype(jnp.result_type(p))
                for x, p, width in zip(leaves, like, widths, strict=True)
            ]
            return treedef.unflatten(scaled), state

        return optax.GradientTransformationExtraArgs(init, update)


def start_at_one(theta: Theta) -> None:
    """Makes the factor 1 where the LSTM says 0."""
    bias = jnp.full(1, -math.log(FACTOR), jnp.float32)
    theta["rnn_params"]["step_size"]["b"] = bias


def advance(state: Any, value: Any, num_steps: int) -> tuple[jax.Array, Any]:
    """The factor of an update, and the state after it.

    Args:
      state: has the fields of `LearnedScheduleState`, and maybe others.
      value: the loss.
      num_steps: length of the run.
    """
    loss, seen = loss_features.advance(state.loss, value, num_steps)
    inputs = controller.global_inputs(state.count, num_steps, seen)[None]
    theta = state.hyperparams
    lstm = controller.advance(theta, state.lstm, inputs, state.count)
    scale = FACTOR * jnp.exp(controller.multipliers(theta, lstm)[0])
    count = jnp.asarray(optax.safe_increment(state.count))
    return scale, state._replace(count=count, lstm=lstm, loss=loss)


def scale_by_learned_schedule(
    theta: Theta,
    num_steps: int,
    *,
    hidden_size: int = 64,
    width_multipliers: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates of any optimizer with a learned schedule.

    Args:
      theta: meta-parameters, see `LearnedSchedule.init`.
      num_steps: how often `update` will be called.
      hidden_size: units of the LSTM.
      width_multipliers: see `LearnedSchedule.transform`.

    Raises:
      ValueError: for a value that is not allowed, or another architecture's `theta`.

    Examples:
      >>> import jax, jax.numpy as jnp, lopt, optax
      >>> theta = lopt.LearnedSchedule(100).init(jax.random.key(0))
      >>> tx = optax.chain(
      ...     optax.scale_by_adam(),
      ...     optax.scale(-1e-3),
      ...     lopt.scale_by_learned_schedule(theta, 100),
      ... )
      >>> params = jnp.ones(3)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=jnp.float32(1.5))
    """
    schedule = LearnedSchedule(num_steps, hidden_size=hidden_size)
    return schedule.transform(theta, width_multipliers=width_multipliers)


def celo_adam(
    theta: Theta,
    num_steps: int,
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    hidden_size: int = 64,
    width_multipliers: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Celo-Adam: Adam with a learned schedule, as it was meta-trained.

    Args:
      theta: meta-parameters, see `LearnedSchedule.init`.
      num_steps: how often `update` will be called.
      learning_rate: of Adam, whose updates are multiplied with the schedule.
      hidden_size: units of the LSTM.
      width_multipliers: see `LearnedSchedule.transform`.

    Raises:
      ValueError: for a value that is not allowed, or another architecture's `theta`.

    Examples:
      >>> import jax, lopt
      >>> theta = lopt.LearnedSchedule(100).init(jax.random.key(0))
      >>> tx = lopt.celo_adam(theta, 100)

    References:
      Moudgil et al., `Celo <https://arxiv.org/abs/2501.12670>`_, 2025.
    """
    schedule = scale_by_learned_schedule(
        theta, num_steps, hidden_size=hidden_size, width_multipliers=width_multipliers
    )
    adam = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, eps_root=1e-10)
    return optax.chain(
        optax.clip(1000.0),
        _in_float32(adam),
        optax.scale_by_learning_rate(learning_rate),
        schedule,
    )


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Moments of low-precision parameters are not in low precision."""

    def init(params):
        return inner.init(
            jax.tree.map(
                lambda p: jnp.zeros_like(p, dtype=accumulators.wide_dtype(p)), params
            )
        )

    def update(updates, state, params=None):
        del params
        wide = jax.tree.map(lambda u: u.astype(accumulators.wide_dtype(u)), updates)
        return inner.update(wide, state)

    return optax.GradientTransformation(init, update)
